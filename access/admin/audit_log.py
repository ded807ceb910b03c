"""The admin page of the audit log."""

from __future__ import annotations

from django.contrib import admin

from access.admin.base import ReadOnlyAdmin
from access.models import AuditEvent


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor", "action", "object_type", "object_id")
    list_filter = ("object_type",)
    list_select_related = ("actor",)
    search_fields = ("=action", "=object_id", "actor__email")
