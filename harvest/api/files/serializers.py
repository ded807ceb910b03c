"""Files, versions and transfers as JSON. The first keys are those of the original, in its order."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from harvest.models import FileTransfer, FileVersion, Origin, State, Status
from streamweave.lib.rest.serializers import BigCountField, BoundedModelSerializer, CountField, StrictSerializer


@extend_schema_field({"type": "object", "additionalProperties": {}})
class MetadataField(serializers.JSONField):
    """Facts about a file, by their names."""


class FileSerializer(StrictSerializer):
    """A file. Only its owner can be set, and by administrators only."""

    id = serializers.UUIDField(read_only=True)
    persistent_id = serializers.CharField(read_only=True)
    persistent_id_type = serializers.CharField(read_only=True)
    instrument_id = serializers.UUIDField(read_only=True)
    source_path = serializers.CharField(read_only=True, help_text="Below the instrument's folder on its share.")
    filename = serializers.CharField(read_only=True)
    size_bytes = BigCountField(read_only=True)
    source_mtime = serializers.DateTimeField(read_only=True, help_text="When it was last changed on the instrument.")
    xxhash = serializers.CharField(read_only=True, allow_null=True, help_text="xxh64, 16 hexadecimal digits.")
    sha256 = serializers.CharField(read_only=True, allow_null=True)
    first_discovered_at = serializers.DateTimeField(read_only=True)
    metadata_ = MetadataField(source="metadata", read_only=True)
    owner_id = serializers.UUIDField(allow_null=True, help_text="The user who owns it; null: nobody.")
    version_number = CountField(read_only=True, help_text="Of its newest version.")
    generation = CountField(read_only=True, help_text="How often a file at this path was replaced.")
    is_current = serializers.BooleanField(read_only=True, help_text="False: another file has taken its path.")
    origin = serializers.ChoiceField(Origin.choices, read_only=True)
    updated_at = serializers.DateTimeField(read_only=True)


class FileVersionSerializer(BoundedModelSerializer):
    size_bytes = BigCountField(read_only=True)
    is_downloadable = serializers.BooleanField(read_only=True, help_text="There is a verified copy of it.")

    class Meta:
        model = FileVersion
        fields = (
            "id",
            "number",
            "size_bytes",
            "source_mtime",
            "xxhash",
            "sha256",
            "frozen_at",
            "is_downloadable",
            "created_at",
        )
        read_only_fields = fields


class TransferSerializer(serializers.Serializer[FileTransfer]):
    """The way of one version of a file to one storage."""

    id = serializers.UUIDField()
    file_id = serializers.UUIDField(source="record_id")
    storage_location_id = serializers.UUIDField()
    destination_path = serializers.CharField(allow_null=True, help_text="Where it lies or will lie.")
    transfer_adapter = serializers.CharField(source="record.instrument.transfer_adapter")
    status = serializers.ChoiceField(Status.choices)
    bytes_transferred = BigCountField(allow_null=True)
    source_checksum = serializers.CharField(allow_null=True, help_text="xxh64 of what was read.")
    dest_checksum = serializers.CharField(allow_null=True, help_text="xxh64 of what is stored.")
    checksum_verified = serializers.BooleanField()
    started_at = serializers.DateTimeField(allow_null=True)
    completed_at = serializers.DateTimeField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)
    prefect_flow_run_id = serializers.UUIDField(source="run_id", allow_null=True, help_text="The run's id.")
    version_id = serializers.UUIDField()
    state = serializers.ChoiceField(State.choices, help_text="How far on its way it is.")
    reason = serializers.CharField(allow_null=True, help_text="Why it was skipped, or ended otherwise.")
    waiting_reason = serializers.CharField(allow_null=True, help_text="What it waits for.")
    attempts = CountField(help_text="Failed attempts.")
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


def told(file: Any) -> dict[str, Any]:
    """One file as JSON has it."""
    return dict(FileSerializer(file).data)
