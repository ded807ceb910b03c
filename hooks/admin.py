"""Administration of hooks."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminTextareaWidget
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from hooks.builtins import BUILTINS
from hooks.models import HookConfig, Implementation


class HookConfigForm(forms.ModelForm):  # type: ignore[type-arg]  # it takes none at run time
    description = forms.CharField(required=False, empty_value=None, widget=AdminTextareaWidget)
    builtin_name = forms.TypedChoiceField(
        label="Builtin",
        required=False,
        empty_value=None,
        choices=[("", "---------"), *((name, name) for name in BUILTINS)],
    )
    webhook_secret = forms.CharField(
        label="Webhook secret",
        required=False,
        strip=True,
        empty_value=None,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=HookConfig._meta.get_field("webhook_secret").help_text + " Leave it empty to keep the old one.",
    )

    class Meta:
        model = HookConfig
        fields = (
            "name",
            "description",
            "enabled",
            "trigger",
            "instrument",
            "priority",
            "implementation",
            "builtin_name",
            "script_path",
            "webhook_url",
            "config",
        )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        secret = cleaned.get("webhook_secret")
        if secret or cleaned.get("implementation") != Implementation.HTTP_WEBHOOK:
            self.instance.webhook_secret = secret
        return cleaned


class DeletedFilter(admin.SimpleListFilter):
    title = "deleted"
    parameter_name = "deleted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Deleted"), ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        first, *others = super().choices(changelist)
        return [{**first, "display": "Not deleted"}, *others]

    def queryset(self, request: HttpRequest, queryset: QuerySet[HookConfig]) -> QuerySet[HookConfig]:
        if self.value() == "all":
            return queryset
        return queryset.filter(deleted_at__isnull=self.value() != "yes")


@admin.register(HookConfig)
class HookConfigAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # it takes none at run time
    form = HookConfigForm
    list_display = (
        "name",
        "trigger",
        "implementation",
        "called",
        "scope",
        "priority",
        "enabled",
        "last_run_at",
        "health",
    )
    list_filter = ("trigger", "implementation", "enabled", "instrument", DeletedFilter)
    list_select_related = ("instrument",)
    list_per_page = 50
    search_fields = ("name", "description", "builtin_name", "script_path", "webhook_url")
    ordering = ("trigger", "priority", "created_at")
    readonly_fields = ("config_help", "last_run_at", "last_failed_at", "last_error", "created_at", "updated_at")
    fieldsets = (
        (None, {"fields": ("name", "description", "enabled", "trigger", "instrument", "priority")}),
        (
            "What is called",
            {"fields": ("implementation", "builtin_name", "script_path", "webhook_url", "webhook_secret")},
        ),
        ("Config", {"fields": ("config", "config_help")}),
        ("So far", {"fields": ("last_run_at", "last_failed_at", "last_error", "created_at", "updated_at")}),
    )
    actions = ("enable", "disable", "restore")

    @admin.display(description="Calls")
    def called(self, hook: HookConfig) -> str:
        return Truncator(hook.target).chars(60)

    @admin.display(description="Instrument", ordering="instrument__name")
    def scope(self, hook: HookConfig) -> str:
        return hook.instrument.name if hook.instrument else "all"

    @admin.display(description="Last run")
    def health(self, hook: HookConfig) -> str:
        if not hook.last_run_at:
            return "never ran"
        return f"failed: {Truncator(hook.last_error).chars(80)}" if hook.last_error else "went well"

    @admin.display(description="What a config may hold")
    def config_help(self, hook: HookConfig) -> SafeString:
        return format_html(
            "{}<p>Scripts and webhooks are handed any JSON object as it is.</p>",
            format_html_join(
                "",
                "<details><summary>{}: {}</summary><p>{}</p><pre>{}</pre></details>",
                (
                    (name, builtin.trigger, builtin.config_schema["description"], _schema_text(builtin.config_schema))
                    for name, builtin in BUILTINS.items()
                ),
            ),
        )

    def get_form(self, request: HttpRequest, obj: HookConfig | None = None, change: bool = False, **kwargs: Any) -> Any:
        """Without the secret among the model's fields: the form takes it, and never has the old one."""
        return super().get_form(request, obj, change, **{**kwargs, "fields": HookConfigForm.Meta.fields})

    def get_readonly_fields(self, request: HttpRequest, obj: HookConfig | None = None) -> tuple[str, ...]:
        """A script is a program on this machine: only superusers say which."""
        fields = tuple(super().get_readonly_fields(request, obj))
        return fields if request.user.is_superuser else (*fields, "script_path")

    def delete_model(self, request: HttpRequest, obj: HookConfig) -> None:
        obj.soft_delete()

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        queryset.soft_delete()

    @admin.action(description="Enable selected hooks", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: Any) -> None:
        self.message_user(request, f"{queryset.update(enabled=True)} enabled.")

    @admin.action(description="Disable selected hooks", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: Any) -> None:
        self.message_user(request, f"{queryset.update(enabled=False)} disabled.")

    @admin.action(description="Restore selected deleted hooks", permissions=["change"])
    def restore(self, request: HttpRequest, queryset: Any) -> None:
        self.message_user(request, f"{queryset.restore()} restored.")


def _schema_text(schema: Any) -> str:
    return json.dumps(schema["properties"], indent=2, ensure_ascii=False)
