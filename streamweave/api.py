"""The REST API: the routes of all apps, in one list."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [
    path("", include("access.api.urls")),
    path("", include("hooks.api.urls")),
    path("", include("harvest.api.urls")),
]
