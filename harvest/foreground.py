"""A harvest in this process, with or without workers beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from django.db.models import Min, Q
from django.utils import timezone

from harvest import janitor, runs, work
from harvest.models import HarvestRun, HarvestSchedule, RunStatus, Trigger

WORK_SECONDS = 60
POLL_SECONDS = 0.5

Show = Callable[[HarvestRun], None]
Say = Callable[[str], None]


def begin(schedule: HarvestSchedule, *, say: Say) -> HarvestRun:
    """A run of `schedule` to follow: the one that is under way, or a new one."""
    under_way = HarvestRun.objects.filter(schedule=schedule, status=RunStatus.RUNNING).first()
    if under_way is None:
        return runs.request(schedule, trigger=Trigger.COMMAND)
    say(f"A run is under way since {under_way.started_at:%Y-%m-%d %H:%M:%S} UTC; it is followed to its end.")
    return under_way


def follow(run: HarvestRun, *, patience_seconds: float, show: Show, say: Say) -> str | None:
    """Work on `run`, together with whoever else does, until it has ended. None then.

    Otherwise why it is left as it is: nothing can be done before a time that is further away than `patience_seconds`.
    `show` is called with the run as it gets on.
    """
    while True:
        janitor.take_back()
        ahead = _ahead_of(run)
        if ahead is not None:
            say(f"The run of “{ahead.schedule or ahead}” goes to the same storage and comes first.")
            reason = follow(ahead, patience_seconds=patience_seconds, show=show, say=say)
            if reason is not None:
                return reason
        more = work.work_on(run, seconds=WORK_SECONDS, meanwhile=show)
        run.refresh_from_db()
        show(run)
        if run.ended_at is not None:
            return None
        if more:
            continue
        reason = _why_not_now(run, patience_seconds)
        if reason is not None:
            return reason
        time.sleep(POLL_SECONDS)


def _ahead_of(run: HarvestRun) -> HarvestRun | None:
    """The run that goes to the same storage and keeps a queued one waiting."""
    if run.status != RunStatus.QUEUED:
        return None
    same_pair = HarvestRun.objects.filter(instrument=run.instrument_id, storage_location=run.storage_location_id)
    return same_pair.filter(status=RunStatus.RUNNING).exclude(pk=run.pk).first()


def _why_not_now(run: HarvestRun, patience_seconds: float) -> str | None:
    now = timezone.now()
    instrument = run.instrument
    if instrument.paused_at is not None:
        return f"The instrument “{instrument}” is paused: {instrument.paused_reason}"
    if until := runs.quiet_until(instrument, now):
        return f"The instrument “{instrument}” is left alone in its quiet hours, until {until:%H:%M %Z}."
    under_way = run.transfers.unfinished().filter(waiting_reason=None).order_by()
    if under_way.filter(lease_expires_at__gt=now).exists() or (run.lease_expires_at and run.lease_expires_at > now):
        return None
    if under_way.filter(Q(next_attempt_at=None) | Q(next_attempt_at__lte=now)).exists():
        return None
    times = [under_way.aggregate(at=Min("next_attempt_at"))["at"], run.next_attempt_at if not run.walked_at else None]
    next_at = min((at for at in times if at is not None), default=None)
    if next_at is None or next_at - now <= timedelta(seconds=patience_seconds):
        return None
    what = f"{under_way.count():,} files are" if run.walked_at else "The share is"
    return f"{what} tried again at {next_at:%H:%M:%S} UTC."
