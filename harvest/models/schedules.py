"""When an instrument is harvested, and to which storage."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, ClassVar, Self
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils.timezone import now
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from harvest.models.equipment import Instrument, StorageLocation
from streamweave.lib import cron
from streamweave.lib.models import SoftDeletedModel, SoftDeletedQuerySet

WAKE_UP_TASK = "harvest.tasks.harvest_due"


class MissedRun(models.TextChoices):
    RUN_ONCE = "run_once", "run once, as soon as possible"
    SKIP = "skip", "leave it out"


class HarvestScheduleQuerySet(SoftDeletedQuerySet):
    def active(self) -> Self:
        """Those that run by themselves: enabled, as are their instrument and storage."""
        return self.alive().filter(
            enabled=True,
            instrument__enabled=True,
            instrument__deleted_at=None,
            default_storage_location__enabled=True,
            default_storage_location__deleted_at=None,
        )


class HarvestSchedule(SoftDeletedModel):
    """Harvest this instrument to this storage at these times."""

    instrument = models.ForeignKey(Instrument, on_delete=models.PROTECT, related_name="schedules")
    default_storage_location = models.ForeignKey(StorageLocation, on_delete=models.PROTECT, related_name="schedules")
    cron_expression = models.CharField(
        max_length=100,
        help_text="Minute, hour, day of month, month, day of week, e.g. 0 1 * * * for every night at one.",
    )
    timezone = models.CharField(max_length=64, default="UTC", help_text="The time zone of the expression.")
    missed_run = models.CharField(
        max_length=20,
        choices=MissedRun,
        default=MissedRun.RUN_ONCE,
        help_text="What to do about a time at which the system was down.",
    )
    enabled = models.BooleanField(default=True)
    decided_until = models.DateTimeField(
        default=now, editable=False, help_text="Every due time up to here has been decided."
    )
    periodic_task = models.OneToOneField(
        PeriodicTask, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="harvest_schedule"
    )

    objects: ClassVar[Any] = HarvestScheduleQuerySet.as_manager()

    class Meta:
        ordering = ("created_at",)
        indexes = [models.Index(fields=["enabled", "deleted_at"], name="schedule_active")]

    def __str__(self) -> str:
        return f"{self.instrument} → {self.default_storage_location} ({self.cron_expression})"

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> HarvestSchedule:
        schedule = super().from_db(*args, **kwargs)
        schedule._loaded_timing = schedule._timing()
        return schedule

    _loaded_timing: tuple[Any, ...] | None = None

    def _timing(self) -> tuple[Any, ...] | None:
        fields = ("cron_expression", "timezone", "enabled", "deleted_at")
        return None if self.get_deferred_fields() & set(fields) else tuple(getattr(self, field) for field in fields)

    def clean(self) -> None:
        try:
            cron.validate(self.cron_expression, self.timezone)
        except cron.CronError as error:
            field = "timezone" if "time zone" in str(error) else "cron_expression"
            raise ValidationError({field: str(error)}) from None

    def save(self, *args: Any, update_fields: Any = None, **kwargs: Any) -> None:
        """Keeps the PeriodicTask in step. Times that passed while it was off, or by the old expression, stay past."""
        changed = self._loaded_timing != self._timing()
        if changed:
            cron.validate(self.cron_expression, self.timezone)
            if self._loaded_timing is not None:
                self.decided_until = now()
        with transaction.atomic():
            if update_fields is not None and changed:
                update_fields = {*update_fields, "decided_until"}
            super().save(*args, update_fields=update_fields, **kwargs)
            if changed or self.periodic_task_id is None:
                self._write_periodic_task()
        self._loaded_timing = self._timing()

    def _write_periodic_task(self) -> None:
        wake_up: dict[str, Any] = {"crontab": None, "interval": None, "enabled": self.enabled and not self.deleted_at}
        if celery_can_express(self.cron_expression):
            minute, hour, day_of_month, month_of_year, day_of_week = self.cron_expression.split()
            wake_up["crontab"] = _shared(
                CrontabSchedule,
                minute=minute,
                hour=hour,
                day_of_month=day_of_month,
                month_of_year=month_of_year,
                day_of_week=day_of_week,
                timezone=ZoneInfo(self.timezone),
            )
        else:
            wake_up["interval"] = _shared(IntervalSchedule, every=1, period=IntervalSchedule.MINUTES)
        task, _ = PeriodicTask.objects.update_or_create(
            name=f"harvest {self.pk}",
            defaults={**wake_up, "task": WAKE_UP_TASK, "args": json.dumps([str(self.pk)]), "description": str(self)},
        )
        if self.periodic_task_id != task.pk:
            HarvestSchedule.objects.filter(pk=self.pk).update(periodic_task=task)
            self.periodic_task = task

    def next_slots(self, count: int = 5) -> list[datetime]:
        """The next times at which it is due, in UTC; none while it is disabled."""
        if not self.enabled or self.deleted_at:
            return []
        return cron.next_slots(self.cron_expression, self.timezone, now(), count)


def _shared(model: Any, **timing: Any) -> Any:
    """The row of django-celery-beat with this timing, or a new one. Nothing there keeps two that come at the same
    moment from making one each, and either will do."""
    return model.objects.filter(**timing).order_by("pk").first() or model.objects.create(**timing)


def celery_can_express(expression: str) -> bool:
    """Whether Celery's crontab means the same by `expression` as cron does.

    It refuses weekday 7 and L, reads MON#1 as every Monday, and asks for both the day of month and the day of week
    where cron asks for either.
    """
    _, _, day_of_month, _, day_of_week = expression.split()
    if re.search(r"[#LW]|(?<![\d/])7", day_of_week.upper().replace("WED", "")) or re.search(
        "[LW]", day_of_month.upper()
    ):
        return False
    return day_of_month == "*" or day_of_week == "*"
