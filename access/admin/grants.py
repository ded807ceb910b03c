"""Admin pages of the grants."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from access.admin.base import Page, acting
from access.grants import revoke_grants
from access.models import FileGroupObjectPermission, FileUserObjectPermission


class GrantAdmin(Page):
    """Shows the grants and takes them back. Granting is done where the file is."""

    list_filter = ("source",)
    search_fields: ClassVar[Any] = ("=content_object__persistent_id",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="file or instrument")
    def covers(self, row: Any) -> str:
        return str(row.content_object or f"all files of {row.instrument}")

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        revoke_grants([obj.pk], by=acting(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        revoke_grants(queryset.values_list("pk", flat=True), by=acting(request))


@admin.register(FileUserObjectPermission)
class UserGrantAdmin(GrantAdmin):
    list_display = ("covers", "user", "source", "granted_at", "granted_by", "expires_at")
    list_select_related = ("content_object", "instrument", "user", "granted_by")
    search_fields = (*GrantAdmin.search_fields, "user__email")


@admin.register(FileGroupObjectPermission)
class GroupGrantAdmin(GrantAdmin):
    list_display = ("covers", "holder", "source", "granted_at", "granted_by", "expires_at")
    list_select_related = ("content_object", "instrument", "group__access_group", "group__access_project", "granted_by")
    search_fields = (*GrantAdmin.search_fields, "group__access_group__name", "group__access_project__name")

    @admin.display(description="group or project")
    def holder(self, row: Any) -> str:
        circle = getattr(row.group, "access_group", None) or getattr(row.group, "access_project", None)
        return f"{circle._meta.verbose_name} {circle}" if circle else str(row.group)
