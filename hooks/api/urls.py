"""The routes of this app's REST API. Those about single hooks are in harvest, which knows the files and the users."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from hooks.api.builtins import BuiltinsView

urlpatterns: list[URLPattern | URLResolver] = [path("api/hooks/builtins", BuiltinsView.as_view())]
