"""Admin pages of runs."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from access.admin.base import acting, say_how_many
from access.audit import record
from harvest import reports, runs, tasks
from harvest.admin.base import BoundedReadOnlyAdmin, short
from harvest.models import HarvestRun

ERRORS_SHOWN = 50


@admin.register(HarvestRun)
class HarvestRunAdmin(BoundedReadOnlyAdmin):
    list_display = (
        "created_at",
        "instrument",
        "storage_location",
        "status",
        "trigger",
        "files_discovered",
        "files_completed",
        "files_skipped",
        "files_failed",
        "size",
        "seconds",
        "error",
    )
    list_filter = ("status", "trigger", "instrument", "storage_location")
    list_select_related = ("instrument", "storage_location")
    search_fields = ("=id", "instrument__name", "storage_location__name", "error_message")
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    readonly_fields = ("size", "seconds", "files_waiting", "problems", "other_ends", "unreadable")
    fieldsets = (
        (
            None,
            {"fields": ("instrument", "storage_location", "schedule", "status", "error_code", "error_message")},
        ),
        (
            "Begun",
            {"fields": ("trigger", "started_by", "scheduled_for", "missed_slots")},
        ),
        (
            "Times",
            {"fields": ("created_at", "started_at", "walked_at", "ended_at", "seconds")},
        ),
        (
            "The instrument",
            {"fields": ("source_connection", "clock_offset_seconds")},
        ),
        (
            "Files",
            {
                "fields": (
                    "files_seen",
                    "files_discovered",
                    "files_completed",
                    "files_skipped",
                    "files_failed",
                    "files_waiting",
                    "size",
                )
            },
        ),
        ("What went wrong", {"fields": ("problems", "walk_errors", "unreadable")}),
        ("What waits or was left out", {"fields": ("other_ends",)}),
    )
    actions = ("cancel", "retry")

    @admin.display(description="bytes", ordering="bytes_transferred")
    def size(self, run: HarvestRun) -> str:
        return filesizeformat(run.bytes_transferred)

    @admin.display(description="seconds")
    def seconds(self, run: HarvestRun) -> str:
        return reports.seconds_of(run)

    @admin.display(description="error")
    def error(self, run: HarvestRun) -> str:
        return short(run.error_message)

    @admin.display(description="by cause")
    def problems(self, run: HarvestRun) -> SafeString | str:
        return _lines(reports.problems(run)) or "nothing"

    @admin.display(description="by reason")
    def other_ends(self, run: HarvestRun) -> SafeString | str:
        return _lines(reports.other_ends(run)) or "nothing"

    @admin.display(description=f"not readable (the first {ERRORS_SHOWN})")
    def unreadable(self, run: HarvestRun) -> SafeString | str:
        rows = run.errors.all()[:ERRORS_SHOWN].values_list("path", "code", "message")
        cells = format_html_join("", "<tr><td>{}</td><td>{}</td><td>{}</td></tr>", rows)
        return format_html("<table>{}</table>", cells) if cells else "none"

    @admin.action(description="Cancel the chosen runs")
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        say_how_many(self, request, sum(runs.cancel(run, by=acting(request)) for run in queryset), "cancelled")

    @admin.action(description="Retry their failed, waiting and cancelled files")
    def retry(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        count = 0
        for run in queryset:
            with transaction.atomic():
                files = tasks.retry(run.transfers.all())
                record("harvestrun.retried", by=acting(request), on=run, detail={"files": files})
            count += files
        self.message_user(request, f"Files that go on their way again: {count:,}.", "success" if count else "warning")


def _lines(causes: list[reports.Cause]) -> SafeString:
    return format_html_join("", "{}<br>", ((str(cause),) for cause in causes))
