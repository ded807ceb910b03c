"""Which address leads where."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.views.decorators.cache import cache_page
from django.views.decorators.http import require_safe
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView


@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """Says that the web server answers; anyone may ask, and nothing else is looked at."""
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("health", health, name="health"),
    path("admin/", admin.site.urls),
    path("docs", SpectacularSwaggerSplitView.as_view(url_name="openapi"), name="docs"),
    # it is worked out from all the views, and the same for everybody until the next start
    path("openapi.json", cache_page(3600)(SpectacularJSONAPIView.as_view()), name="openapi"),
    path("", include("streamweave.api")),
]
