"""Admin pages of service accounts, instruments and storage locations."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from access.admin.base import DeletedFilter
from harvest.admin.actions import dry_run_page, harvest_now
from harvest.admin.base import EquipmentAdmin, EquipmentForm, say_checks, short
from harvest.models import HarvestRun, HarvestSchedule, Instrument, RunStatus, ServiceAccount, StorageLocation
from harvest.models.equipment import storage_kinds
from harvest.probes import probe_instrument, probe_storage
from harvest.storage import storage_class

TIMES = ("created_at", "updated_at", "deleted_at")


class ServiceAccountForm(EquipmentForm):
    password = forms.CharField(
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),  # it never renders what it is given
        help_text="Kept encrypted and never shown again. Leave it empty to keep the old one.",
    )

    class Meta:
        model = ServiceAccount
        fields = ("name", "domain", "username", "password")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if not cleaned.get("password"):
            cleaned.pop("password", None)  # what is not there is not written
            if self.instance._state.adding:
                self.add_error("password", "Give the password with which the account logs in.")
        return cleaned


@admin.register(ServiceAccount)
class ServiceAccountAdmin(EquipmentAdmin):
    form = ServiceAccountForm
    list_display = ("name", "domain", "username", "updated_at", "deleted_at")
    search_fields = ("name", "domain", "username")
    ordering = ("name",)
    readonly_fields = TIMES
    fields = ("name", "domain", "username", "password", *TIMES)


@admin.register(Instrument)
class InstrumentAdmin(EquipmentAdmin):
    list_display = ("name", "location", "address", "service_account", "enabled", "last_harvested_at", "health")
    list_filter = ("enabled", ("paused_at", admin.EmptyFieldListFilter), DeletedFilter)
    list_select_related = ("service_account",)
    search_fields = ("name", "description", "location", "pid", "cifs_host", "cifs_share")
    ordering = ("name",)
    autocomplete_fields = ("service_account",)
    readonly_fields = ("storage_folder", "health", "last_harvested_at", *TIMES)
    fieldsets = (
        (None, {"fields": ("name", "description", "location", "pid", "enabled", "health")}),
        ("Share", {"fields": ("cifs_host", "cifs_share", "cifs_base_path", "service_account")}),
        (
            "When is a file complete?",
            {
                "fields": (
                    "min_age_seconds",
                    "unchanged_looks",
                    "look_interval_seconds",
                    "marker_name",
                    "lock_pattern",
                    "quiet_folder_seconds",
                    "acquisition_depth",
                    "replaced_file",
                )
            },
        ),
        (
            "How gently is it treated?",
            {
                "fields": (
                    "max_connections",
                    "max_requests_in_flight",
                    "max_bytes_per_second",
                    ("quiet_from", "quiet_until", "quiet_timezone"),
                )
            },
        ),
        ("More", {"fields": ("storage_folder", "transfer_adapter", "transfer_config", "last_harvested_at", *TIMES)}),
    )
    actions = ("harvest_now", "dry_run", "test_connection", "resume", "soft_delete", "restore")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        last = HarvestRun.objects.filter(instrument=OuterRef("pk")).order_by("-created_at")
        return (
            super()
            .get_queryset(request)
            .annotate(
                last_run_status=Subquery(last.values("status")[:1]),
                last_run_error=Subquery(last.values("error_message")[:1]),
            )
        )

    @admin.display(description="address", ordering="cifs_host")
    def address(self, instrument: Instrument) -> str:
        return f"\\\\{instrument.cifs_host}\\{instrument.cifs_share}"

    @admin.display(description="health")
    def health(self, instrument: Any) -> str:
        if instrument.pk is None or instrument._state.adding:
            return "–"
        if instrument.paused_at is not None:
            return f"paused, because a log-in was refused: {instrument.paused_reason}"
        if instrument.last_run_status is None:
            return "not harvested yet"
        error = f": {short(instrument.last_run_error)}" if instrument.last_run_error else ""
        return f"last run {RunStatus(instrument.last_run_status).label.lower()}{error}"

    @admin.action(description="Harvest now, by each enabled schedule")
    def harvest_now(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        schedules = _schedules_of(queryset)
        harvest_now(self, request, schedules)
        with_schedule = {schedule.instrument_id for schedule in schedules}
        for instrument in queryset:
            if instrument.pk not in with_schedule:
                self.message_user(request, f"{instrument} has no enabled schedule; make one first.", "warning")

    @admin.action(description="Dry run: what would a harvest do?")
    def dry_run(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        schedules = _schedules_of(queryset)
        if not schedules:
            self.message_user(request, "None of them has an enabled schedule; make one first.", "warning")
            return None
        return dry_run_page(self, request, schedules)

    @admin.action(description="Test the connection")
    def test_connection(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for instrument in queryset:
            say_checks(self, request, instrument, probe_instrument(instrument))

    @admin.action(description="Resume after a refused log-in")
    def resume(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.change_each(request, queryset.exclude(paused_at=None), "resumed", Instrument.resume)


def _schedules_of(instruments: QuerySet[Any]) -> list[HarvestSchedule]:
    chosen = HarvestSchedule.objects.alive().filter(enabled=True, instrument__in=instruments.values("pk"))
    return list(chosen.select_related("instrument__service_account", "default_storage_location"))


class StorageLocationForm(EquipmentForm):
    type = forms.ChoiceField()

    class Meta:
        model = StorageLocation
        fields = ("name", "type", "base_path", "connection_config", "enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kind: Any = self.fields["type"]
        kind.choices = [(name, name) for name in storage_kinds()]
        kind.help_text = StorageLocation._meta.get_field("type").help_text


@admin.register(StorageLocation)
class StorageLocationAdmin(EquipmentAdmin):
    form = StorageLocationForm
    list_display = ("name", "type", "base_path", "enabled", "created_at", "deleted_at")
    list_filter = ("type", "enabled", DeletedFilter)
    search_fields = ("name", "base_path")
    ordering = ("name",)
    readonly_fields = ("config_help", *TIMES)
    fields = ("name", "type", "base_path", "connection_config", "config_help", "enabled", *TIMES)
    actions = ("test_connection", "soft_delete", "restore")

    @admin.display(description="what a connection config holds")
    def config_help(self, location: StorageLocation) -> SafeString:
        schemas = ((kind, storage_class(kind, kinds=storage_kinds()).config_schema) for kind in storage_kinds())
        return format_html_join(
            "",
            "<details><summary>{}</summary>{}<pre>{}</pre></details>",
            (
                (kind, _required(schema), json.dumps(schema.get("properties", {}), indent=2, ensure_ascii=False))
                for kind, schema in schemas
            ),
        )

    @admin.action(description="Test the connection")
    def test_connection(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for location in queryset:
            say_checks(self, request, location, probe_storage(location))


def _required(schema: Any) -> SafeString:
    names = ", ".join(schema.get("required", ())) or "nothing"
    return format_html("<p>It needs {}.</p>", names)
