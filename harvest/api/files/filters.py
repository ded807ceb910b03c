"""What `?…` may ask of the lists of files and of transfers.

Every condition only narrows what the user may see anyway. One that names something he may not know of (another's
project) answers as if there were none, with an empty list.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from django.db.models import Exists, OuterRef, Q
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from access import policy
from access.models import FileGroupObjectPermission, User
from access.models.grants import unexpired
from harvest.models import FileRecord, FileTransfer, Status
from harvest.models.searching import MAX_VALUE_LENGTH, mentioning, named
from streamweave.lib.rest.pagination import OF_THE_PAGE
from streamweave.lib.rest.query import said_once
from streamweave.lib.rest.serializers import StrictSerializer

FACT = "metadata."
MAX_KEY_LENGTH = 200
MAX_WORDS = 10

METADATA = OpenApiParameter(
    f"{FACT}key",
    OpenApiTypes.STR,
    description="For any name in place of `key`: the metadata say this of it, as in `metadata.compound=glucose`.",
)


class ChecksumField(serializers.RegexField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(r"^(?:[0-9a-fA-F]{16}|[0-9a-fA-F]{64})$", **kwargs)
        self.error_messages["invalid"] = "Give an xxh64 (16 hexadecimal digits) or a SHA-256 (64 of them)."

    def to_internal_value(self, data: Any) -> str:
        return str(super().to_internal_value(data)).lower()


class Conditions(StrictSerializer):
    """The parameters of a list. Unknown, empty and repeated ones are refused by name."""

    ranges: ClassVar[Mapping[str, str]] = {}
    """Parameter → the lookup that it stands for."""

    @classmethod
    def read(cls, query: Any, *, besides: frozenset[str] = OF_THE_PAGE) -> Self:
        """The conditions in `query`, checked; the parameters `besides` are somebody else's. Raises ValidationError."""
        asked = said_once(query, besides=besides)
        conditions = cls(data={name: value for name, value in asked.items() if not name.startswith(FACT)})
        conditions.facts = cls._facts({name: value for name, value in asked.items() if name.startswith(FACT)})
        conditions.is_valid(raise_exception=True)
        return conditions

    facts: Mapping[str, str] = {}

    @classmethod
    def _facts(cls, asked: Mapping[str, str]) -> dict[str, str]:
        problems = {}
        for name, value in asked.items():
            if len(name) == len(FACT) or len(name) > MAX_KEY_LENGTH or len(value) > MAX_VALUE_LENGTH:
                problems[name] = ["Give it as metadata.name=value; at most 200 and 1000 characters."]
            elif "\0" in name + value:
                problems[name] = ["Null characters are not allowed."]
        if problems:
            raise ValidationError(problems)
        return {name.removeprefix(FACT): value for name, value in asked.items()}

    @property
    def are_any(self) -> bool:
        """Whether anything is asked for at all."""
        return bool(self.validated_data or self.facts)

    def _within_ranges(self) -> Q:
        said = self.validated_data
        return Q(**{lookup: said[name] for name, lookup in self.ranges.items() if name in said})


class FileConditions(Conditions):
    instrument_id = serializers.UUIDField(required=False)
    storage_location_id = serializers.UUIDField(required=False, help_text="With a transfer to this storage.")
    status = serializers.ChoiceField(Status.choices, required=False, help_text="With a transfer of this status.")
    run_id = serializers.UUIDField(required=False, help_text="With a transfer that this run worked on last.")
    path = serializers.CharField(
        required=False, trim_whitespace=False, help_text="The source path begins so, e.g. `20260115_glucose_1H/`."
    )
    name = serializers.CharField(
        required=False,
        trim_whitespace=False,
        max_length=255,
        help_text="The file name: `*` is any run of characters, `?` one. Letter case does not count.",
    )
    q = serializers.CharField(
        required=False, max_length=500, help_text="Words, all of which the path holds; or an ARK. Letter case aside."
    )
    min_size_bytes = serializers.IntegerField(required=False, min_value=0, max_value=2**63 - 1)
    max_size_bytes = serializers.IntegerField(required=False, min_value=0, max_value=2**63 - 1)
    modified_from = serializers.DateTimeField(required=False, help_text="Last changed on the instrument then or later.")
    modified_until = serializers.DateTimeField(required=False, help_text="Last changed there before.")
    discovered_from = serializers.DateTimeField(required=False, help_text="First discovered then or later.")
    discovered_until = serializers.DateTimeField(required=False, help_text="First discovered before.")
    group_id = serializers.UUIDField(required=False, help_text="Granted to this group.")
    project_id = serializers.UUIDField(required=False, help_text="Granted to this project.")
    owner_id = serializers.UUIDField(required=False)
    persistent_id = serializers.CharField(required=False, max_length=100, help_text="The ARK, with or without slash.")
    ark = serializers.CharField(required=False, max_length=100, help_text="The same as persistent_id.")
    checksum = ChecksumField(required=False, help_text="xxh64 or SHA-256 of the newest version.")
    is_current = serializers.BooleanField(required=False, help_text="Whether it is the newest file at its path.")

    ranges: ClassVar[Mapping[str, str]] = {
        "min_size_bytes": "size_bytes__gte",
        "max_size_bytes": "size_bytes__lte",
        "modified_from": "source_mtime__gte",
        "modified_until": "source_mtime__lt",
        "discovered_from": "first_discovered_at__gte",
        "discovered_until": "first_discovered_at__lt",
        "instrument_id": "instrument",
        "owner_id": "owner",
        "is_current": "is_current",
    }

    def validate_q(self, text: str) -> str:
        if len(text.split()) > MAX_WORDS:
            raise ValidationError(f"Give at most {MAX_WORDS} words.")
        return text

    @property
    def are_loose(self) -> bool:
        """Whether nothing is asked for but what many files may have in common: then `loose` says it all."""
        said = self.validated_data
        if self.facts or self._arks or said.get("status", Status.COMPLETED) != Status.COMPLETED:
            return False
        return not said.keys() - self.ranges.keys() - {"name", "q", "status", "storage_location_id"}

    @property
    def are_common(self) -> bool:
        """Whether nothing is asked for but what nearly all files have in common."""
        return self.are_loose and not self.validated_data.keys() - {"status", "storage_location_id", "is_current"}

    @property
    def loose(self) -> Q:
        """Those of the conditions that many files may meet, and often do."""
        said, found = self.validated_data, self._within_ranges()
        if "name" in said:
            found &= named(said["name"])
        if "q" in said and not _is_ark(said["q"]):
            found &= mentioning(said["q"].split())
        return found & self._with_transfers()

    @property
    def _arks(self) -> list[str]:
        said = self.validated_data
        asked = [said[name] for name in ("persistent_id", "ark") if name in said]
        return [*asked, said["q"]] if _is_ark(said.get("q", "")) else asked

    def narrow(self, files: Any, user: Any) -> Any:
        """The ones of `files` that meet all of the conditions; `user` is who asks."""
        said = self.validated_data
        files = files.filter(self.loose)
        if "path" in said:
            files = files.below(said["path"])
        for ark in self._arks:
            files = files.filter(persistent_id=_with_slash(ark))
        if "checksum" in said:
            files = files.filter(**{"xxhash" if len(said["checksum"]) == 16 else "sha256": said["checksum"]})
        for key, value in self.facts.items():
            files = files.with_fact(key, value)
        for kind in ("group", "project"):
            if f"{kind}_id" in said:
                files = files.filter(pk__in=granted_to(kind, said[f"{kind}_id"], user))
        return files

    def _with_transfers(self) -> Q:
        """All that is asked about transfers must be true of one and the same transfer."""
        said, transfers = self.validated_data, FileTransfer.objects.order_by()
        asked = {field: said[f"{field}_id"] for field in ("storage_location", "run") if f"{field}_id" in said}
        if not asked and "status" not in said:
            return Q()
        transfers = transfers.filter(**asked, record=OuterRef("pk"))
        return Q(Exists(transfers.with_status(said["status"]) if "status" in said else transfers))


class TransferConditions(Conditions):
    file_id = serializers.UUIDField(required=False)
    instrument_id = serializers.UUIDField(required=False)
    storage_location_id = serializers.UUIDField(required=False)
    run_id = serializers.UUIDField(required=False)
    status = serializers.ChoiceField(Status.choices, required=False)
    checksum = ChecksumField(required=False, help_text="xxh64 or SHA-256 of the version.")
    created_from = serializers.DateTimeField(required=False, help_text="Begun then or later.")
    created_until = serializers.DateTimeField(required=False, help_text="Begun before.")
    completed_from = serializers.DateTimeField(required=False, help_text="Completed then or later.")
    completed_until = serializers.DateTimeField(required=False, help_text="Completed before.")

    ranges: ClassVar[Mapping[str, str]] = {
        "file_id": "record",
        "instrument_id": "record__instrument",
        "storage_location_id": "storage_location",
        "run_id": "run",
        "created_from": "created_at__gte",
        "created_until": "created_at__lt",
        "completed_from": "completed_at__gte",
        "completed_until": "completed_at__lt",
    }

    def narrow(self, transfers: Any) -> Any:
        """The ones of `transfers` that meet all of the conditions."""
        if self.facts:
            raise ValidationError({f"{FACT}{key}": ["There is no such field."] for key in self.facts})
        said, transfers = self.validated_data, transfers.filter(self._within_ranges())
        if "status" in said:
            transfers = transfers.with_status(said["status"])
        if "checksum" in said:
            field = "version__xxhash" if len(said["checksum"]) == 16 else "version__sha256"
            transfers = transfers.filter(**{field: said["checksum"]})
        return transfers


def granted_to(kind: str, pk: uuid.UUID, user: Any) -> Any:
    """The ids of the files that a grant in force shows to this group or project; to a `user` none unless it is one of
    his own."""
    grants = FileGroupObjectPermission.rows.filter(unexpired(), **{f"group__access_{kind}": pk}).order_by()
    if not policy.is_admin(user):
        grants = grants.filter(group__in=User.groups.through.objects.filter(user=user.pk).values("group_id"))
    single = grants.exclude(content_object=None).values("content_object_id")
    instruments = grants.exclude(instrument=None).values("instrument")
    return single.union(FileRecord.objects.filter(instrument__in=instruments).order_by().values("pk"), all=True)


def _is_ark(text: str) -> bool:
    return text.startswith("ark:")


def _with_slash(ark: str) -> str:
    """As it is kept: "ark:/", the older form, is the same name as "ark:"."""
    return f"ark:/{ark.removeprefix('ark:').lstrip('/')}"
