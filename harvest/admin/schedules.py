"""Admin pages of schedules."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from access.admin.base import DeletedFilter
from harvest.admin.actions import dry_run_page, harvest_now
from harvest.admin.base import BoundedAdmin
from harvest.models import HarvestRun, HarvestSchedule, RunStatus
from streamweave.lib import cron

SHOWN = "%a %d %b %Y, %H:%M %Z"


@admin.register(HarvestSchedule)
class HarvestScheduleAdmin(BoundedAdmin):
    list_display = (
        "instrument",
        "default_storage_location",
        "cron_expression",
        "timezone",
        "in_words",
        "next_run",
        "enabled",
        "last_run",
    )
    list_filter = ("enabled", "default_storage_location", DeletedFilter)
    list_select_related = ("instrument", "default_storage_location")
    search_fields = ("instrument__name", "default_storage_location__name")
    ordering = ("instrument__name", "created_at")
    autocomplete_fields = ("instrument", "default_storage_location")
    readonly_fields = ("in_words", "next_runs", "created_at", "updated_at", "deleted_at")
    fields = (
        "instrument",
        "default_storage_location",
        "cron_expression",
        "timezone",
        "in_words",
        "next_runs",
        "missed_run",
        "enabled",
        "created_at",
        "updated_at",
        "deleted_at",
    )
    actions = ("harvest_now", "dry_run", "soft_delete", "restore")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        last = HarvestRun.objects.filter(schedule=OuterRef("pk")).order_by("-created_at")
        return super().get_queryset(request).annotate(last_run_status=Subquery(last.values("status")[:1]))

    @admin.display(description="in words")
    def in_words(self, schedule: HarvestSchedule) -> str:
        return cron.explain(schedule.cron_expression) if _is_valid(schedule) else "–"

    @admin.display(description="next")
    def next_run(self, schedule: HarvestSchedule) -> str:
        return next(iter(_next(schedule, 1)), "–")

    @admin.display(description="next five times")
    def next_runs(self, schedule: HarvestSchedule) -> SafeString | str:
        times = format_html_join("", "{}<br>", ((time,) for time in _next(schedule, 5)))
        return times or "none while it is not enabled"

    @admin.display(description="last run")
    def last_run(self, schedule: Any) -> str:
        return RunStatus(schedule.last_run_status).label if schedule.last_run_status else "–"

    @admin.action(description="Harvest now")
    def harvest_now(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        harvest_now(self, request, queryset.select_related("instrument", "default_storage_location"))

    @admin.action(description="Dry run: what would a harvest do?")
    def dry_run(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        chosen = queryset.select_related("instrument__service_account", "default_storage_location")
        return dry_run_page(self, request, chosen)


def _is_valid(schedule: HarvestSchedule) -> bool:
    """A form that is refused shows what was typed into it."""
    try:
        cron.validate(schedule.cron_expression, schedule.timezone)
    except cron.CronError:
        return False
    return True


def _next(schedule: HarvestSchedule, count: int) -> list[str]:
    if not _is_valid(schedule):
        return []
    zone = ZoneInfo(schedule.timezone)
    return [slot.astimezone(zone).strftime(SHOWN) for slot in schedule.next_slots(count)]
