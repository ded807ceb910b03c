"""A run: one harvest of one instrument to one storage."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q

from harvest.models.equipment import Instrument, StorageLocation
from harvest.models.schedules import HarvestSchedule
from streamweave.lib.models import TimestampedModel, TimestampedQuerySet


class RunStatus(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISSED = "missed"


OPEN = (RunStatus.QUEUED, RunStatus.RUNNING)


class Trigger(models.TextChoices):
    SCHEDULE = "schedule", "the schedule"
    CATCH_UP = "catch_up", "the schedule, late"
    PERSON = "person", "a person"
    COMMAND = "command", "a command"


class HarvestRunQuerySet(TimestampedQuerySet):
    def open(self) -> Self:
        return self.filter(status__in=OPEN)


class HarvestRun(TimestampedModel):
    """Walks the instrument once and brings what it finds new or changed to the storage.

    At most one runs per instrument and storage, at most one more waits per schedule; both by constraint.
    """

    schedule = models.ForeignKey(HarvestSchedule, null=True, blank=True, on_delete=models.PROTECT, related_name="runs")
    instrument = models.ForeignKey(Instrument, on_delete=models.PROTECT, related_name="runs")
    storage_location = models.ForeignKey(StorageLocation, on_delete=models.PROTECT, related_name="runs")
    scheduled_for = models.DateTimeField(null=True, blank=True, help_text="The cron slot it stands for.")
    missed_slots = models.PositiveIntegerField(default=0, help_text="Earlier slots that passed with nobody there.")
    trigger = models.CharField(max_length=20, choices=Trigger, default=Trigger.SCHEDULE)
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="started_runs"
    )
    status = models.CharField(max_length=30, choices=RunStatus, default=RunStatus.QUEUED)
    started_at = models.DateTimeField(null=True, blank=True)
    walked_at = models.DateTimeField(null=True, blank=True, help_text="When the whole share had been walked.")
    ended_at = models.DateTimeField(null=True, blank=True)
    lease_token = models.UUIDField(null=True, blank=True, editable=False)
    lease_expires_at = models.DateTimeField(null=True, blank=True, editable=False)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="How often the walk has been begun.")
    next_attempt_at = models.DateTimeField(null=True, blank=True, editable=False)

    files_seen = models.PositiveBigIntegerField(default=0, help_text="Files listed on the share.")
    files_discovered = models.PositiveBigIntegerField(default=0, help_text="Of these: new, changed or looked at again.")
    files_completed = models.PositiveBigIntegerField(default=0)
    files_skipped = models.PositiveBigIntegerField(default=0)
    files_failed = models.PositiveBigIntegerField(default=0)
    bytes_transferred = models.PositiveBigIntegerField(default=0)
    walk_errors = models.PositiveIntegerField(default=0, help_text="Folders and names that could not be read.")
    clock_offset_seconds = models.FloatField(
        null=True, blank=True, help_text="How far the share's clock is ahead of ours."
    )
    source_connection = models.TextField(
        null=True, blank=True, help_text="How the share was connected: dialect, signing, how many requests at once."
    )
    manifest_parts = models.PositiveIntegerField(default=0, editable=False)
    error_code = models.CharField(max_length=40, null=True, blank=True)
    error_message = models.TextField(null=True, blank=True)

    objects: ClassVar[Any] = HarvestRunQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.UniqueConstraint(fields=["schedule", "scheduled_for"], name="run_one_per_slot"),
            models.UniqueConstraint(
                fields=["instrument", "storage_location"], condition=Q(status="running"), name="run_one_running"
            ),
            models.UniqueConstraint(fields=["schedule"], condition=Q(status="queued"), name="run_one_queued"),
            models.CheckConstraint(
                condition=Q(status__in=OPEN, ended_at=None) | (~Q(status__in=OPEN) & Q(ended_at__isnull=False)),
                name="run_ended_has_time",
            ),
        ]
        indexes = [
            models.Index(fields=["status", "created_at"], name="run_status"),
            models.Index(fields=["instrument", "-created_at"], name="run_instrument"),
        ]

    def __str__(self) -> str:
        return f"{self.instrument} → {self.storage_location}, {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def files_waiting(self) -> int:
        """Files taken on that have come to no end: under way, or waiting with a reason."""
        return max(self.files_discovered - self.files_completed - self.files_skipped - self.files_failed, 0)


class RunError(models.Model):
    """A folder or name on the share that could not be read; the rest of the run went on."""

    run = models.ForeignKey(HarvestRun, on_delete=models.CASCADE, related_name="errors")
    path = models.TextField()
    code = models.CharField(max_length=40)
    message = models.TextField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"
