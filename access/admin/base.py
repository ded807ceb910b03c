"""What admin pages have in common: rows are locked while they are changed, changes are audited, and what is deleted can
be restored."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.db.models import QuerySet
from django.http import HttpRequest

from access.audit import changing, record_change, snapshot
from access.models import User

if TYPE_CHECKING:
    Page = admin.ModelAdmin[Any]
    Inline = admin.TabularInline[Any, Any]
else:  # Django's classes take type parameters in its stubs only
    Page, Inline = admin.ModelAdmin, admin.TabularInline


def acting(request: HttpRequest) -> User:
    """The administrator who asks; the admin pages answer nobody else."""
    return cast(User, request.user)


def say_how_many(page: Page, request: HttpRequest, count: int, done: str) -> None:
    names = page.opts.verbose_name if count == 1 else page.opts.verbose_name_plural
    page.message_user(request, f"{count} {names} {done}.", messages.SUCCESS if count else messages.WARNING)


class LockingAdmin(Page):
    """Whoever saves a page holds its row from reading to writing it, so that of two the second sees the first."""

    show_full_result_count = False

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        found = super().get_object(request, object_id, from_field)
        if found is None or request.method != "POST" or not connection.in_atomic_block:
            return found
        self.model._base_manager.select_for_update().values_list("pk").get(pk=found.pk)
        return super().get_object(request, object_id, from_field)


class AuditedAdmin(LockingAdmin):
    """What is changed on its pages is written to the audit log as it was before and after, in the same transaction.

    Rows are never removed for good.
    """

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        found = super().get_object(request, object_id, from_field)
        if found is not None and request.method == "POST":
            _states_before(request)[found.pk] = snapshot(found)
        return found

    def log_addition(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        record_change(_action(obj, "created"), by=acting(request), on=obj, before=None, after=snapshot(obj))
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        before = _states_before(request)[obj.pk]
        record_change(_action(obj, "changed"), by=acting(request), on=obj, before=before, after=snapshot(obj))
        return super().log_change(request, obj, message)

    def change_each(self, request: HttpRequest, rows: QuerySet[Any], done: str, change: Callable[[Any], None]) -> None:
        """Does it to one after the other, each with its event: one that cannot be changed does not hold up the rest.

        `done`: the participle that ends the event's action and the message, such as `deleted`. `change` may raise
        ValidationError.
        """
        count = 0
        for row in rows:
            try:
                with changing(_action(row, done), by=acting(request), on=row):
                    change(row)
            except ValidationError as error:
                self.message_user(request, f"{row}: {' '.join(error.messages)}", messages.ERROR)
            else:
                count += 1
        say_how_many(self, request, count, done)


class ReadOnlyAdmin(Page):
    """Rows that the product writes and people read."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class DeletedFilter(admin.SimpleListFilter):
    """Shows what is not deleted, unless asked for the rest."""

    title = "deleted"
    parameter_name = "deleted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Deleted"), ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        first, *others = super().choices(changelist)
        return [{**first, "display": "Not deleted"}, *others]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "yes":
                return queryset.exclude(deleted_at=None)
            case "all":
                return queryset
            case _:
                return queryset.filter(deleted_at=None)


class SoftDeletedAdmin(AuditedAdmin):
    """Rows are marked as deleted and restored."""

    list_filter: ClassVar[Any] = (DeletedFilter,)
    actions: Any = ("soft_delete", "restore")

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """What is deleted is not proposed to other pages' fields."""
        if request.resolver_match and request.resolver_match.url_name == "autocomplete":
            queryset = queryset.filter(deleted_at=None)
        return super().get_search_results(request, queryset, search_term)

    @admin.action(description="Delete the chosen %(verbose_name_plural)s (can be restored)")
    def soft_delete(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.change_each(request, queryset.filter(deleted_at=None), "deleted", lambda row: row.soft_delete())

    @admin.action(description="Restore the chosen %(verbose_name_plural)s")
    def restore(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.change_each(request, queryset.exclude(deleted_at=None), "restored", lambda row: row.restore())


def _action(row: models.Model, done: str) -> str:
    return f"{row._meta.model_name}.{done}"


def _states_before(request: HttpRequest) -> dict[uuid.UUID, dict[str, Any]]:
    """How the rows were that this request has read to change them."""
    states: dict[uuid.UUID, dict[str, Any]] = vars(request).setdefault("states_before", {})
    return states
