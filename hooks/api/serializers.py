"""Serializers of hooks. The first keys are those of the original, in its order."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from hooks.builtins import BUILTINS
from hooks.models import HookConfig
from streamweave.lib.rest.configured import ConfiguredSerializer, Reference

INSTRUMENTS: Any = HookConfig._meta.get_field("instrument").remote_field.model._default_manager
"""Those of harvest, which this app does not import."""


@extend_schema_field({"type": "object", "additionalProperties": {}, "nullable": True})
class ConfigField(serializers.JSONField):
    """A JSON object; what it may hold depends on the hook, whose `clean` says it."""


class HookSerializer(ConfiguredSerializer):
    builtin_name = serializers.ChoiceField(list(BUILTINS), allow_null=True, required=False)
    config = ConfigField(allow_null=True, required=False)
    instrument_id = Reference(
        source="instrument",
        queryset=INSTRUMENTS.alive(),
        allow_null=True,
        required=False,
        help_text="Only for this instrument's files; null for all.",
    )
    webhook_secret = serializers.CharField(
        write_only=True,
        allow_null=True,
        required=False,
        help_text=HookConfig._meta.get_field("webhook_secret").help_text,
    )

    class Meta(ConfiguredSerializer.Meta):
        model = HookConfig
        fields = (
            *("id", "name", "description", "trigger", "implementation", "builtin_name", "script_path"),
            *("webhook_url", "config", "instrument_id", "priority", "enabled", "deleted_at"),
            *("created_at", "updated_at", "last_run_at", "last_failed_at", "last_error", "webhook_secret"),
        )


class BuiltinSerializer(serializers.Serializer[Any]):
    """A hook that comes with the product, and what its config may hold (JSON schema, Draft 2020-12)."""

    name = serializers.CharField()
    trigger = serializers.CharField()
    config_schema = serializers.DictField()
