"""Which address leads where."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.views.decorators.http import require_safe
from django.views.generic import RedirectView


@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """Says that the web server answers; anyone may ask, and nothing else is looked at."""
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("health", health, name="health"),
    path("admin/", admin.site.urls),
    path("", include("streamweave.api")),
]
