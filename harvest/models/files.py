"""The files of an instrument: a record per file, a version per content."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from access.sight import visible_files
from harvest.models.equipment import Instrument
from harvest.models.searching import BeginsWith, HasFact
from streamweave.lib import ark
from streamweave.lib.models import TimestampedModel, TimestampedQuerySet


def path_key(path: str) -> uuid.UUID:
    """A path of any length as 128 bits (the start of its SHA-256), for unique indexes and comparing in sets."""
    return uuid.UUID(bytes=hashlib.sha256(path.encode()).digest()[:16])


def mint_ark() -> str:
    return mint_arks(1)[0]


def mint_arks(count: int) -> list[str]:
    return ark.mint_many(settings.ARK_NAAN, settings.ARK_SHOULDER, count)


class Origin(models.TextChoices):
    HARVESTED = "harvested"


class FileRecordQuerySet(TimestampedQuerySet):
    def visible_to(self, user: Any) -> Self:
        """The files that `user` may see: the only way to a file from any view, serializer or download."""
        return self.filter(visible_files(user))

    def current(self) -> Self:
        """The newest generation at each path."""
        return self.filter(is_current=True)

    def below(self, start: str) -> Self:
        """Those whose source path begins with `start`, in exactly these letters."""
        return self.filter(BeginsWith(F("source_path"), start))

    def with_fact(self, key: str, value: str) -> Self:
        """Those whose metadata say `value` of `key`: this text, or the number or constant that it spells."""
        return self.filter(HasFact(F("metadata"), (key, value)))


class FileRecord(TimestampedModel):
    """A file of an instrument: one per instrument, source path and generation.

    It carries the identifier, the owner, the metadata and the grants, and mirrors its newest version. A file that was
    replaced at its path starts a new generation; one that changed, a new version.
    """

    persistent_id = models.CharField(max_length=100, default=mint_ark, editable=False)
    persistent_id_type = models.CharField(max_length=20, default="ark", editable=False)
    # db_index=False here and below: another index begins with the column, and a second one only costs
    instrument = models.ForeignKey(Instrument, on_delete=models.PROTECT, related_name="files", db_index=False)
    source_path = models.TextField(help_text="As the share names it, below the instrument's folder.")
    source_path_key = models.UUIDField(editable=False)
    generation = models.PositiveIntegerField(default=1)
    is_current = models.BooleanField(default=True)
    filename = models.TextField()
    origin = models.CharField(max_length=20, choices=Origin, default=Origin.HARVESTED)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="owned_files"
    )
    metadata = models.JSONField(default=dict, blank=True)
    first_discovered_at = models.DateTimeField(default=timezone.now)

    # mirrored from the newest version
    version_number = models.PositiveIntegerField(default=1)
    size_bytes = models.BigIntegerField()
    source_mtime = models.DateTimeField()
    xxhash = models.CharField(max_length=16, null=True, blank=True)
    sha256 = models.CharField(max_length=64, null=True, blank=True)

    objects: ClassVar[Any] = FileRecordQuerySet.as_manager()

    class Meta:
        ordering = ("-first_discovered_at", "-id")
        constraints = [
            # unique=True would make a second index, for patterns, that nobody asks
            models.UniqueConstraint(fields=["persistent_id"], name="file_persistent_id_unique"),
            models.UniqueConstraint(
                fields=["instrument", "source_path_key", "generation"], name="file_one_per_generation"
            ),
            models.UniqueConstraint(
                fields=["instrument", "source_path_key"], condition=Q(is_current=True), name="file_one_current"
            ),
            models.CheckConstraint(condition=Q(size_bytes__gte=0), name="file_size"),
        ]
        indexes = [
            models.Index(fields=["-first_discovered_at", "-id"], name="file_newest"),
            models.Index(fields=["instrument", "-first_discovered_at", "-id"], name="file_instrument_newest"),
            models.Index(fields=["source_mtime", "id"], name="file_by_mtime"),
            models.Index(fields=["size_bytes", "id"], name="file_by_size"),
            models.Index(fields=["filename", "id"], name="file_by_name"),
            models.Index(fields=["xxhash"], condition=Q(xxhash__isnull=False), name="file_by_xxhash"),
            models.Index(fields=["sha256"], condition=Q(sha256__isnull=False), name="file_by_sha256"),
        ]

    def __str__(self) -> str:
        return self.source_path


class FileVersion(TimestampedModel):
    """One content of a file. It may change until its first verified copy and is frozen then."""

    record = models.ForeignKey(FileRecord, on_delete=models.CASCADE, related_name="versions", db_index=False)
    number = models.PositiveIntegerField(default=1)
    size_bytes = models.BigIntegerField()
    source_mtime = models.DateTimeField()
    source_file_id = models.CharField(max_length=64, null=True, blank=True)
    source_created_at = models.DateTimeField(null=True, blank=True)
    xxhash = models.CharField(max_length=16, null=True, blank=True)
    xxhash_algorithm = models.CharField(max_length=20, default="xxh64", editable=False)
    sha256 = models.CharField(max_length=64, null=True, blank=True)
    frozen_at = models.DateTimeField(null=True, blank=True, help_text="When its first copy was verified.")
    enriched_at = models.DateTimeField(null=True, blank=True)
    proposed_grants = models.JSONField(
        default=list, blank=True, editable=False, help_text="What scripts and webhooks asked for, until it is granted."
    )

    objects: ClassVar[Any] = TimestampedQuerySet.as_manager()

    class Meta:
        ordering = ("record", "number")
        constraints = [
            models.UniqueConstraint(fields=["record", "number"], name="version_one_per_number"),
            models.CheckConstraint(condition=Q(size_bytes__gte=0), name="version_size"),
            models.CheckConstraint(
                condition=Q(frozen_at=None) | Q(xxhash__isnull=False, sha256__isnull=False),
                name="version_frozen_has_checksums",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.record.source_path}, version {self.number}"
