"""Admin pages of files and their transfers, to read; transfers can be retried."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from access.admin.base import Inline, acting
from access.audit import record
from harvest import tasks
from harvest.admin.base import BoundedReadOnlyAdmin, short
from harvest.models import FileRecord, FileTransfer, FileVersion, Status


class ReadOnlyInline(Inline):
    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class FileVersionInline(ReadOnlyInline):
    model = FileVersion
    fields = ("number", "size_bytes", "source_mtime", "xxhash", "sha256", "frozen_at", "enriched_at")
    show_change_link = False


class FileTransferInline(ReadOnlyInline):
    model = FileTransfer
    fields = ("version", "storage_location", "state", "status", "message", "stored_path", "completed_at")
    readonly_fields = ("status", "message")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("record", "version__record", "storage_location")

    def message(self, transfer: FileTransfer) -> str:
        return told(transfer)


@admin.register(FileRecord)
class FileRecordAdmin(BoundedReadOnlyAdmin):
    list_display = (
        "source_path",
        "instrument",
        "size_bytes",
        "source_mtime",
        "version_number",
        "generation",
        "persistent_id",
        "owner",
        "first_discovered_at",
    )
    list_filter = ("instrument", "origin", "is_current")
    list_select_related = ("instrument", "owner")
    search_fields = ("=persistent_id", "source_path")
    search_help_text = "ARK, or a part of the path"
    inlines = (FileVersionInline, FileTransferInline)
    fields = (
        "instrument",
        "source_path",
        "generation",
        "is_current",
        "persistent_id",
        "origin",
        "owner",
        "metadata",
        "first_discovered_at",
        "version_number",
        "size_bytes",
        "source_mtime",
        "xxhash",
        "sha256",
        "created_at",
        "updated_at",
    )


class StatusFilter(admin.SimpleListFilter):
    """By the public word."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word.value, word.label) for word in Status]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.with_status(self.value()) if self.value() in Status.values else queryset


@admin.register(FileTransfer)
class FileTransferAdmin(BoundedReadOnlyAdmin):
    list_display = (
        "source_path",
        "storage_location",
        "status",
        "state",
        "attempts",
        "next_attempt_at",
        "message",
        "bytes_transferred",
        "created_at",
        "completed_at",
    )
    list_filter = (StatusFilter, "state", "storage_location", "record__instrument")
    list_select_related = ("record", "storage_location")
    search_fields = ("=record__persistent_id", "record__source_path")
    search_help_text = "ARK, or a part of the path"
    readonly_fields = ("status", "destination_path")
    fieldsets = (
        (None, {"fields": ("record", "version", "scheduled_storage", "storage_location", "run")}),
        ("How far it is", {"fields": ("status", "state", "reason", "waiting_reason", "started_at", "completed_at")}),
        (
            "What went wrong",
            {
                "fields": (
                    "given_up",
                    "attempts",
                    "losses",
                    "next_attempt_at",
                    "error_phase",
                    "error_code",
                    "error_message",
                )
            },
        ),
        (
            "The copy",
            {
                "fields": (
                    "destination_path",
                    "bytes_transferred",
                    "source_checksum",
                    "dest_checksum",
                    "checksum_verified",
                    "verified_by",
                )
            },
        ),
        ("Times", {"fields": ("created_at", "updated_at")}),
    )
    actions = ("retry",)

    @admin.display(description="file")
    def source_path(self, transfer: FileTransfer) -> str:
        return transfer.record.source_path

    @admin.display(description="why")
    def message(self, transfer: FileTransfer) -> str:
        return told(transfer)

    @admin.action(description="Retry the chosen transfers")
    def retry(self, request: HttpRequest, queryset: Any) -> None:
        with transaction.atomic():
            count = tasks.retry(queryset)
            record("filetransfer.retried", by=acting(request), on=FileTransfer, detail={"files": count})
        going = f"Files that go on their way again: {count:,}."
        done = going if count else "None of them has failed, waits or was cancelled."
        self.message_user(request, done, "success" if count else "warning")


def told(transfer: FileTransfer) -> str:
    """Why it has not gone further, or why it ended as it did."""
    return short(transfer.error_message or transfer.waiting_reason or transfer.reason)
