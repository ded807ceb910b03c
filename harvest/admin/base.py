"""What the admin pages of the harvest have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from access.admin.base import Page, ReadOnlyAdmin, SoftDeletedAdmin
from harvest.storage.base import Check
from streamweave.lib.models import refuse_taken_name

if TYPE_CHECKING:
    Form = forms.ModelForm[Any]
    AnyPaginator = Paginator[Any]
else:  # Django's classes take type parameters in its stubs only
    Form, AnyPaginator = forms.ModelForm, Paginator

MAX_COUNTED = 10_000


class BoundedPaginator(AnyPaginator):
    """Counts no further than MAX_COUNTED + 1, however many rows there are; what lies behind is found by filters."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return rows.order_by()[: MAX_COUNTED + 1].count()


class EquipmentForm(Form):
    """What is left empty is null; names are unique among what is not deleted."""

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if self.instance.deleted_at is None:
            refuse_taken_name(self.instance, name)
        return name

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        for field in self._meta.model._meta.concrete_fields:
            if isinstance(field, models.CharField | models.TextField) and field.null and cleaned.get(field.name) == "":
                cleaned[field.name] = None
        return cleaned


class BoundedAdmin(SoftDeletedAdmin):
    """Rows that administrators set up; none is ever removed."""

    paginator = BoundedPaginator
    list_per_page = 50


class EquipmentAdmin(BoundedAdmin):
    """The same for rows with names: restored unless another has the name by now."""

    form = EquipmentForm

    @admin.action(description="Restore the chosen %(verbose_name_plural)s")
    def restore(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.change_each(request, queryset.exclude(deleted_at=None), "restored", _restore)


def _restore(row: Any) -> None:
    refuse_taken_name(row, row.name)
    row.restore()


class BoundedReadOnlyAdmin(ReadOnlyAdmin):
    """Rows that the harvest writes and people read."""

    paginator = BoundedPaginator
    list_per_page = 50


def link(row: models.Model, text: str | None = None) -> SafeString:
    """A link to the row's own page."""
    url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    return format_html('<a href="{}">{}</a>', url, text or str(row))


def short(text: str | None) -> str:
    return Truncator(text or "").chars(120)


def say_checks(page: Page, request: HttpRequest, row: Any, checks: list[Check]) -> None:
    """A message of how the steps went; the details of all, for the one that failed says what to do."""
    well = all(check.ok for check in checks)
    steps = format_html_join(
        "", "<br>{} {}: {}", (("✓" if check.ok else "✗", check.name, check.detail) for check in checks)
    )
    verdict = "it works" if well else "it does not work"
    page.message_user(
        request, format_html("{}: {}.{}", row, verdict, steps), messages.SUCCESS if well else messages.ERROR
    )
