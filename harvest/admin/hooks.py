"""The admin page of hooks. It stands here because hooks know neither users nor the audit log."""

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

from access.admin.base import DeletedFilter
from harvest.admin.base import BoundedAdmin, Form
from hooks.builtins import BUILTINS
from hooks.models import HookConfig, Implementation


class HookConfigForm(Form):
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


@admin.register(HookConfig)
class HookConfigAdmin(BoundedAdmin):
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
    actions = ("enable", "disable", "soft_delete", "restore")

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

    @admin.action(description="Enable the chosen hooks")
    def enable(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.change_each(request, queryset.filter(enabled=False), "enabled", lambda hook: _switch(hook, on=True))

    @admin.action(description="Disable the chosen hooks")
    def disable(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.change_each(request, queryset.filter(enabled=True), "disabled", lambda hook: _switch(hook, on=False))


def _switch(hook: HookConfig, *, on: bool) -> None:
    hook.enabled = on
    hook.save(update_fields=["enabled"])


def _schema_text(schema: Any) -> str:
    return json.dumps(schema["properties"], indent=2, ensure_ascii=False)
