"""The admin page of requests for instruments: an administrator reads them, and answers each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from access import instrument_requests
from access.admin.base import LockingAdmin, acting
from access.instrument_requests import AnsweredAlreadyError
from access.models import InstrumentRequest

if TYPE_CHECKING:
    Form = forms.ModelForm[InstrumentRequest]
else:  # Django's class takes type parameters in its stubs only
    Form = forms.ModelForm

Status = InstrumentRequest.Status


class AnswerForm(Form):
    status = forms.ChoiceField(
        label="answer", choices=[(Status.APPROVED.value, "approve"), (Status.REJECTED.value, "decline")]
    )

    class Meta:
        model = InstrumentRequest
        fields = ("status", "answer")
        labels = {"answer": "reason"}
        help_texts = {"answer": "The user reads it beside the answer."}

    def clean(self) -> dict[str, Any]:
        """The page holds the row, so that what it says of itself is still true when the answer is written."""
        if self.initial.get("status") != Status.PENDING:
            raise forms.ValidationError(str(AnsweredAlreadyError()))
        return super().clean() or {}


@admin.register(InstrumentRequest)
class InstrumentRequestAdmin(LockingAdmin):
    form = AnswerForm
    list_display = ("name", "location", "user", "created_at", "status", "answered_by", "answered_at")
    list_filter = ("status",)
    search_fields = ("name", "location", "justification", "user__email")
    ordering = ("-created_at", "-id")
    readonly_fields = ("name", "location", "justification", "user", "created_at", "answered_by", "answered_at")
    fieldsets = (
        (None, {"fields": ("name", "location", "justification", "user", "created_at")}),
        ("Answer", {"fields": ("status", "answer", "answered_by", "answered_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("user", "answered_by")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What is answered is shown to read only; who answers it a moment too late is told so by the form."""
        return obj is None or obj.status == Status.PENDING or request.method == "POST"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """As the API does it, with the same event."""
        said = form.cleaned_data
        instrument_requests.answer(obj, by=acting(request), status=said["status"], answer=said["answer"])
