"""Serializers of equipment, schedules and runs. The first keys of each are those of the original, in its order."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from harvest.api.compat import DeploymentIdField
from harvest.models import (
    MASK,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    RunError,
    ServiceAccount,
    Status,
    StorageLocation,
)
from harvest.models.equipment import storage_kinds
from harvest.storage import storage_class
from harvest.storage.base import StorageError
from harvest.storage.names import INSTRUMENT_FOLDER, encode_name
from hooks.text import why_not_json
from streamweave.lib.rest.configured import ConfiguredSerializer, NamedSerializer, Reference
from streamweave.lib.rest.serializers import BigCountField, BoundedModelSerializer, CountField

MAX_CONFIG_BYTES = 65536
TIMES = ("created_at", "updated_at", "deleted_at")


@extend_schema_field({"type": "object", "additionalProperties": {}, "nullable": True})
class ObjectField(serializers.JSONField):
    """A JSON object."""

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        if not isinstance(value, dict):
            raise serializers.ValidationError("Give a JSON object, or null.")
        if why := why_not_json(value, MAX_CONFIG_BYTES):
            raise serializers.ValidationError(f"It cannot be kept: {why}.")
        return value


class ServiceAccountSerializer(NamedSerializer):
    class Meta(NamedSerializer.Meta):
        model = ServiceAccount
        fields = ("id", "name", "domain", "username", "password", *TIMES)
        extra_kwargs = {
            "password": {
                "write_only": True,
                "trim_whitespace": False,
                "style": {"input_type": "password"},
                "help_text": f"Never told again; {MASK} keeps it as it is.",
            }
        }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("password") == MASK:
            if self.instance is None:
                raise serializers.ValidationError(
                    {"password": [f"{MASK} keeps a password, but there is none yet; give the password itself."]}
                )
            del attrs["password"]
        return super().validate(attrs)


class InstrumentSerializer(NamedSerializer):
    service_account_id = Reference(
        source="service_account", queryset=ServiceAccount.objects.alive(), allow_null=True, required=False
    )
    transfer_config = ObjectField(allow_null=True, required=False)

    class Meta(NamedSerializer.Meta):
        model = Instrument
        fields = (
            *("id", "name", "description", "location", "pid", "cifs_host", "cifs_share", "cifs_base_path"),
            *("service_account_id", "transfer_adapter", "transfer_config", "enabled", *TIMES),
            *("storage_folder", "last_harvested_at", "paused_at", "paused_reason"),
            *("min_age_seconds", "unchanged_looks", "look_interval_seconds", "marker_name", "lock_pattern"),
            *("quiet_folder_seconds", "acquisition_depth", "replaced_file"),
            *("max_connections", "max_requests_in_flight", "max_bytes_per_second"),
            *("quiet_from", "quiet_until", "quiet_timezone"),
        )

    def validate_name(self, name: str) -> str:
        try:
            encode_name(name, INSTRUMENT_FOLDER)
        except StorageError as error:
            raise serializers.ValidationError(f"No folder on a storage can have this name. {error}") from None
        return super().validate_name(name)


class StorageLocationSerializer(NamedSerializer):
    connection_config = ObjectField(
        allow_null=True,
        required=False,
        help_text=f"What the type needs to connect. Secrets are told as {MASK}, which keeps them when sent back.",
    )

    class Meta(NamedSerializer.Meta):
        model = StorageLocation
        fields = ("id", "name", "type", "connection_config", "base_path", "enabled", *TIMES)

    def to_representation(self, location: Any) -> dict[str, Any]:
        """Secrets are masked here too, whatever the row holds."""
        told = super().to_representation(location)
        config = told["connection_config"]
        if config and location.type in storage_kinds():
            secret = storage_class(location.type, kinds=storage_kinds()).secret_fields
            told["connection_config"] = {
                key: MASK if key in secret and value is not None else value for key, value in config.items()
            }
        return told


class HarvestScheduleSerializer(ConfiguredSerializer):
    instrument_id = Reference(source="instrument", queryset=Instrument.objects.alive())
    default_storage_location_id = Reference(source="default_storage_location", queryset=StorageLocation.objects.alive())
    prefect_deployment_id = DeploymentIdField()

    class Meta(ConfiguredSerializer.Meta):
        model = HarvestSchedule
        fields = (
            *("id", "instrument_id", "default_storage_location_id", "cron_expression", "prefect_deployment_id"),
            *("enabled", *TIMES, "timezone", "missed_run"),
        )

    def validate_instrument_id(self, instrument: Instrument) -> Instrument:
        if self.instance is not None and instrument.pk != cast(HarvestSchedule, self.instance).instrument_id:
            raise serializers.ValidationError("A schedule keeps its instrument; make another schedule instead.")
        return instrument


class RunSerializer(BoundedModelSerializer):
    """A run as lists tell of it."""

    schedule_id = serializers.UUIDField(read_only=True, allow_null=True)
    instrument_id = serializers.UUIDField(read_only=True)
    storage_location_id = serializers.UUIDField(read_only=True)
    started_by_id = serializers.UUIDField(read_only=True, allow_null=True)
    files_waiting = BigCountField(read_only=True)

    class Meta:
        model = HarvestRun
        fields: tuple[str, ...] = (
            *("id", "schedule_id", "instrument_id", "storage_location_id", "status", "trigger", "started_by_id"),
            *("scheduled_for", "missed_slots", "created_at", "updated_at", "started_at", "walked_at", "ended_at"),
            *("attempts", "next_attempt_at", "files_seen", "files_discovered", "files_completed", "files_skipped"),
            *("files_failed", "files_waiting", "bytes_transferred", "walk_errors", "clock_offset_seconds"),
            "source_connection",
            *("error_code", "error_message"),
        )
        read_only_fields = fields


class CauseSerializer(serializers.Serializer[Any]):
    """Why some files of a run, or the run itself, have not come to the end as hoped; one of them as an example."""

    kind = serializers.CharField(help_text="failed, waiting, left out, could not be read, …")
    files = BigCountField(help_text="How many; 0 for the run itself.")
    what = serializers.CharField(help_text="The phase and the code of the error, or the state.")
    message = serializers.CharField()
    path = serializers.CharField(help_text="Of one of the files; empty for the run itself.")


class RunFileSerializer(serializers.Serializer[Any]):
    """What became of one file in a run."""

    file_id = serializers.UUIDField(source="record_id")
    transfer_id = serializers.UUIDField(source="pk")
    persistent_id = serializers.CharField(source="record.persistent_id")
    source_path = serializers.CharField(source="record.source_path")
    size_bytes = BigCountField(source="version.size_bytes")
    storage_location_id = serializers.UUIDField()
    status = serializers.ChoiceField(Status.choices)
    state = serializers.CharField()
    reason = serializers.CharField(allow_null=True)
    waiting_reason = serializers.CharField(allow_null=True)
    attempts = CountField()
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    error_phase = serializers.CharField(allow_null=True)
    error_code = serializers.CharField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)
    bytes_transferred = BigCountField(allow_null=True)
    completed_at = serializers.DateTimeField(allow_null=True)


class RunErrorSerializer(serializers.ModelSerializer[RunError]):
    class Meta:
        model = RunError
        fields = ("path", "code", "message", "at")


class CheckSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    ok = serializers.BooleanField()
    detail = serializers.CharField()


class ProbeSerializer(serializers.Serializer[Any]):
    """How trying it out went, step by step, up to the first step that failed."""

    ok = serializers.BooleanField()
    checks = CheckSerializer(many=True)
