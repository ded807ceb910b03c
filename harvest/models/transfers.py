"""The way of one version to one storage."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from access.sight import visible_files
from harvest.models.equipment import StorageLocation
from harvest.models.files import FileRecord, FileVersion
from harvest.models.runs import HarvestRun
from harvest.models.states import ENDS, STORED, UNFINISHED, State, Status, status
from harvest.storage.base import Proof, Staged
from streamweave.lib.models import TimestampedModel, TimestampedQuerySet


class LeaseLostError(Exception):
    """Somebody else has taken over the work; what is not written yet must not be written."""


_TIMES = ("created_at", "updated_at")
_OF_NO_USE_TO_A_WORKER = (
    *(f"{prefix}{field}" for prefix in ("", "record__", "version__") for field in _TIMES),
    *("started_at", "completed_at", "manifested_at", "lease_expires_at", "next_attempt_at"),
    *("record__first_discovered_at", "record__source_mtime"),
)
"""Times above all, each of which costs as much to read as several other fields."""


class FileTransferQuerySet(TimestampedQuerySet):
    def visible_to(self, user: Any) -> Self:
        """The transfers of the files that `user` may see."""
        return self.filter(visible_files(user, file="record", instrument="record__instrument"))

    def unfinished(self) -> Self:
        """Still on their way by themselves: neither at an end nor given up."""
        return self.filter(state__in=UNFINISHED, given_up=False)

    def waiting(self) -> Self:
        """Unfinished, and what they wait for is not ours to hurry; a run does not stay open for them."""
        return self.unfinished().filter(waiting_reason__isnull=False)

    def retriable(self) -> Self:
        """What a person may send on its way again: failed or given up, waiting, cancelled."""
        stopped = Q(given_up=True) | Q(error_code__isnull=False) | Q(waiting_reason__isnull=False)
        return self.filter(Q(state__in=UNFINISHED) & stopped | Q(state=State.CANCELLED))

    def unleased(self, now: datetime) -> Self:
        return self.filter(Q(lease_token=None) | Q(lease_expires_at__lte=now))

    def due(self, now: datetime) -> Self:
        """Unfinished, held by nobody, and the time of the next attempt has come."""
        return self.unfinished().unleased(now).filter(Q(next_attempt_at=None) | Q(next_attempt_at__lte=now))

    def abandoned(self, now: datetime) -> Self:
        """Whose lease ran out: the worker that held it died."""
        return self.filter(lease_token__isnull=False, lease_expires_at__lte=now)

    def stored(self) -> Self:
        """With a verified copy under its final name."""
        return self.filter(state__in=STORED)

    def with_status(self, word: str) -> Self:
        """Those whose public word is `word`; the same rule as `states.status`, in SQL."""
        leased = Q(lease_expires_at__gt=timezone.now())
        under_way = Q(state__in=UNFINISHED) & ~Q(state__in=STORED)
        conditions = {
            Status.COMPLETED: Q(state__in=STORED),
            Status.SKIPPED: Q(state__in=ENDS),
            Status.FAILED: under_way & Q(given_up=True),
            Status.IN_PROGRESS: under_way & Q(given_up=False) & leased,
            Status.PENDING: under_way & Q(given_up=False) & (Q(lease_expires_at=None) | ~leased),
        }
        return self.filter(conditions[Status(word)])

    def lease(self, *, now: datetime, holder: str, limit: int, limit_bytes: int) -> uuid.UUID | None:
        """Lease at most `limit` due transfers of at most `limit_bytes` together (always at least one).

        A compare-and-swap: of two that claim the same rows, one gets them. Files that were lost in a batch before are
        taken in smaller batches only. Returns the token, None where nothing is due.
        """
        token = uuid.uuid4()
        due = self.due(now).order_by("created_at", "id").values_list("pk", "version__size_bytes", "batch_limit")[:limit]
        chosen: list[uuid.UUID] = []
        first_limit, total_bytes = None, 0
        for pk, size_bytes, batch_limit in due:
            if not chosen:
                first_limit = batch_limit
                limit = min(limit, batch_limit or limit)
            total_bytes += size_bytes
            if chosen and (len(chosen) == limit or total_bytes > limit_bytes or batch_limit != first_limit):
                break
            chosen.append(pk)
        if not chosen:
            return None
        FileTransfer.objects.filter(pk__in=chosen).due(now).update(
            lease_token=token,
            lease_expires_at=now + timedelta(seconds=settings.LEASE_SECONDS),
            lease_holder=holder,
            lease_size=len(chosen),
            carry_attempts=F("carry_attempts") + 1,
            started_at=models.functions.Coalesce("started_at", now),
        )
        return token

    def held(self, token: uuid.UUID) -> list[FileTransfer]:
        """What the lease `token` holds, with record, version and storage, oldest first."""
        held = list(
            self.filter(lease_token=token)
            .select_related("record", "version")
            .defer(*_OF_NO_USE_TO_A_WORKER)
            .order_by("created_at", "id")
        )
        locations = StorageLocation.objects.in_bulk({transfer.storage_location_id for transfer in held})
        for transfer in held:
            transfer.version.record = transfer.record
            transfer.storage_location = locations[transfer.storage_location_id]
        return held

    def take_back_abandoned(self, now: datetime) -> int:
        """Free what dead workers held. A lost batch is tried again in halves; only the loss of a single file counts
        towards giving it up."""
        freed = {"lease_token": None, "lease_expires_at": None, "lease_holder": None, "lease_size": None}
        single = self.abandoned(now).filter(lease_size=1)
        message = "The worker died while it worked on this file alone, {} times; retry it when the cause is found."
        lost = single.filter(losses__gte=settings.MAX_LOSSES - 1).update(
            **freed,
            losses=F("losses") + 1,
            given_up=True,
            error_code="worker_lost",
            error_message=message.format(settings.MAX_LOSSES),
        )
        lost += single.update(
            **freed,
            losses=F("losses") + 1,
            attempts=F("attempts") + 1,
            error_code="worker_lost",
            error_message="The worker died while it worked on this file; it is tried again.",
        )
        halved = models.functions.Greatest((F("lease_size") + 1) / 2, 1)
        return lost + self.abandoned(now).update(**{**freed, "batch_limit": halved})


class FileTransfer(TimestampedModel):
    """The way of one version to one storage: its state, who works on it, and why it has not gone further."""

    record = models.ForeignKey(FileRecord, on_delete=models.CASCADE, related_name="transfers")
    # db_index=False here and below: another index begins with the column, and a second one only costs
    version = models.ForeignKey(FileVersion, on_delete=models.CASCADE, related_name="transfers", db_index=False)
    scheduled_storage = models.ForeignKey(
        StorageLocation,
        on_delete=models.PROTECT,
        related_name="scheduled_transfers",
        help_text="Where the schedule said.",
        db_index=False,  # PostgreSQL would take it, where it should look for the version
    )
    storage_location = models.ForeignKey(
        StorageLocation,
        on_delete=models.PROTECT,
        related_name="transfers",
        help_text="Where it goes; a hook may redirect.",
        db_index=False,
    )
    run = models.ForeignKey(
        HarvestRun,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="transfers",
        help_text="The newest.",
        db_index=False,
    )
    state = models.CharField(max_length=20, choices=State, default=State.DISCOVERED)
    reason = models.TextField(null=True, blank=True, help_text="Why it was skipped, or ended otherwise.")
    waiting_reason = models.TextField(null=True, blank=True, help_text="What it waits for.")

    lease_token = models.UUIDField(null=True, blank=True, editable=False)
    lease_expires_at = models.DateTimeField(null=True, blank=True, editable=False)
    lease_holder = models.CharField(max_length=200, null=True, blank=True, editable=False)
    lease_size = models.PositiveIntegerField(null=True, blank=True, editable=False)
    batch_limit = models.PositiveIntegerField(
        null=True, blank=True, editable=False, help_text="Taken in batches no larger than this, after one was lost."
    )

    attempts = models.PositiveSmallIntegerField(default=0, help_text="Failed attempts.")
    losses = models.PositiveSmallIntegerField(default=0, help_text="How often a worker died on this file alone.")
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    given_up = models.BooleanField(default=False, help_text="Failed; a later run or a person tries it again.")
    error_phase = models.CharField(max_length=20, null=True, blank=True)
    error_code = models.CharField(max_length=40, null=True, blank=True)
    error_message = models.TextField(null=True, blank=True)

    looks = models.PositiveSmallIntegerField(default=0, editable=False)
    unchanged_since = models.DateTimeField(null=True, blank=True, editable=False)

    sub_path = models.TextField(
        null=True, blank=True, help_text="Where a hook has put it below the instrument's folder."
    )
    stored_path = models.TextField(
        null=True, blank=True, help_text="Below the storage's base path; reserved before copying."
    )
    stored_path_key = models.UUIDField(null=True, blank=True, editable=False)
    carry_attempts = models.PositiveIntegerField(default=0, editable=False)  # with each claim; names what it stages
    staged_ref = models.TextField(null=True, blank=True, editable=False)
    staged_proof = models.CharField(max_length=30, null=True, blank=True, editable=False)
    staged_published = models.BooleanField(default=False, editable=False)

    bytes_transferred = models.BigIntegerField(null=True, blank=True)
    source_checksum = models.CharField(max_length=16, null=True, blank=True, help_text="xxh64 of what was read.")
    source_sha256 = models.CharField(max_length=64, null=True, blank=True, editable=False)
    dest_checksum = models.CharField(max_length=16, null=True, blank=True, help_text="xxh64 of what is stored.")
    checksum_verified = models.BooleanField(default=False)
    verified_by = models.CharField(max_length=30, null=True, blank=True, help_text="How the copy was verified.")
    started_at = models.DateTimeField(null=True, blank=True)
    completed_at = models.DateTimeField(null=True, blank=True)
    manifested_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[Any] = FileTransferQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        constraints = [
            models.UniqueConstraint(fields=["version", "scheduled_storage"], name="transfer_one_per_scheduled_storage"),
            models.UniqueConstraint(
                fields=["version", "storage_location"], condition=~Q(state="skipped"), name="transfer_one_per_storage"
            ),
            models.UniqueConstraint(fields=["storage_location", "stored_path_key"], name="transfer_stored_path_unique"),
            models.CheckConstraint(
                condition=~Q(state__in=STORED)
                | Q(
                    checksum_verified=True,
                    source_checksum__isnull=False,
                    dest_checksum__isnull=False,
                    dest_checksum=F("source_checksum"),
                    stored_path__isnull=False,
                    completed_at__isnull=False,
                ),
                name="transfer_completed_is_verified",
            ),
            models.CheckConstraint(
                condition=Q(stored_path=None, stored_path_key=None)
                | Q(stored_path__isnull=False, stored_path_key__isnull=False),
                name="transfer_stored_path_whole",
            ),
            models.CheckConstraint(
                condition=Q(lease_token=None, lease_expires_at=None)
                | Q(lease_token__isnull=False, lease_expires_at__isnull=False),
                name="transfer_lease_whole",
            ),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="transfer_newest"),
            models.Index(fields=["run", "state"], name="transfer_run_state"),
            models.Index(
                fields=["run", "created_at", "id"],
                condition=Q(state__in=UNFINISHED, given_up=False),
                name="transfer_next",
            ),
            models.Index(
                fields=["next_attempt_at"],
                condition=Q(state__in=UNFINISHED, given_up=False),
                name="transfer_unfinished",
            ),
            models.Index(
                fields=["scheduled_storage"],
                condition=Q(state__in=UNFINISHED, given_up=True),
                name="transfer_given_up",
            ),
            models.Index(fields=["lease_expires_at"], condition=Q(lease_token__isnull=False), name="transfer_leased"),
            models.Index(fields=["lease_token"], condition=Q(lease_token__isnull=False), name="transfer_lease_token"),
            models.Index(
                fields=["storage_location", "completed_at"],
                condition=Q(manifested_at=None, state="available"),
                name="transfer_not_manifested",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.record.source_path} → {self.storage_location}"

    @property
    def status(self) -> Status:
        """The public word for it."""
        leased = self.lease_expires_at is not None and self.lease_expires_at > timezone.now()
        return status(self.state, leased=leased, given_up=self.given_up)

    @property
    def destination_path(self) -> str | None:
        """Where it lies or will lie, with the storage's base path."""
        if self.stored_path is None:
            return None
        return f"{self.storage_location.base_path.rstrip('/')}/{self.stored_path}"

    @property
    def is_leased(self) -> bool:
        return self.lease_token is not None

    @property
    def reserved_path(self) -> str:
        """The stored_path, which carry has reserved. Raises ValueError before that."""
        if self.stored_path is None:
            raise ValueError(f"transfer {self.pk} has no path reserved")
        return self.stored_path

    @property
    def staged(self) -> Staged:
        """What carry has brought to the destination, in the storage's words. Raises ValueError if nothing."""
        if self.staged_ref is None or self.staged_proof is None or self.bytes_transferred is None:
            raise ValueError(f"transfer {self.pk} has nothing staged")
        proof = Proof(self.staged_proof)
        return Staged(self.staged_ref, self.reserved_path, self.bytes_transferred, proof, self.staged_published)


FORGET_ERROR: dict[str, Any] = {
    "attempts": 0,
    "losses": 0,
    "batch_limit": None,
    "next_attempt_at": None,
    "given_up": False,
    "error_phase": None,
    "error_code": None,
    "error_message": None,
    "waiting_reason": None,
}
"""The values that make a transfer forget what went wrong before."""

START_ANEW: dict[str, Any] = {
    **FORGET_ERROR,
    "state": State.DISCOVERED,
    "reason": None,
    "looks": 0,
    "unchanged_since": None,
}
"""The values that send a transfer back to the beginning of the way."""
