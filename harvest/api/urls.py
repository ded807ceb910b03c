"""The routes of this app's REST API."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path
from django.views.generic import RedirectView

from access.api.resources import ALL, ONE, ConfiguredViewSet
from harvest.api import file_urls
from harvest.api.compat import FlowRunView
from harvest.api.equipment import InstrumentViewSet, ServiceAccountViewSet, StorageLocationViewSet
from harvest.api.health import HealthView
from harvest.api.hooks import HookViewSet
from harvest.api.runs import RunViewSet
from harvest.api.schedules import ScheduleViewSet

RUN_PAGE = RedirectView.as_view(pattern_name="admin:harvest_harvestrun_change")


def configured(prefix: str, views: type[ConfiguredViewSet], **actions: str) -> list[URLPattern]:
    """The routes of a ConfiguredViewSet; `actions` are its own ones on one row, with their methods."""
    return [
        path(prefix, views.as_view(ALL)),
        path(f"{prefix}/<str:pk>", views.as_view(ONE)),
        *(
            path(f"{prefix}/<str:pk>/{action}", views.as_view({method: action}, pagination_class=None))
            for action, method in {"restore": "post", **actions}.items()
        ),
    ]


urlpatterns: list[URLPattern | URLResolver] = [
    *file_urls.urlpatterns,
    *configured("api/service-accounts", ServiceAccountViewSet),
    *configured("api/instruments", InstrumentViewSet, harvest="post", test="post", resume="post"),
    *configured("api/storage-locations", StorageLocationViewSet, test="post"),
    *configured("api/schedules", ScheduleViewSet, trigger="post", preview="get"),
    *configured("api/hooks", HookViewSet),
    path("api/hooks/<str:pk>/try", HookViewSet.as_view({"post": "try_out"}, pagination_class=None)),
    path("api/runs", RunViewSet.as_view({"get": "list"})),
    path("api/runs/<str:pk>", RunViewSet.as_view({"get": "retrieve"})),
    path("api/runs/<str:pk>/cancel", RunViewSet.as_view({"post": "cancel"})),
    path("api/runs/<str:pk>/retry", RunViewSet.as_view({"post": "retry"})),
    path("api/runs/<str:pk>/files", RunViewSet.as_view({"get": "files"})),
    path("api/runs/<str:pk>/errors", RunViewSet.as_view({"get": "errors"})),
    path("api/health", HealthView.as_view()),
    path("prefect/api/flow_runs/<str:pk>", FlowRunView.as_view()),
    path("prefect/runs/flow-run/<uuid:object_id>", RUN_PAGE),
]
