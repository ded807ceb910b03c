"""The life of a run: due, queued, begun, ended, cancelled; files retried."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Count, F, Q, Sum
from django.db.models.functions import Greatest
from django.utils import timezone

from access.audit import record
from access.models import User
from harvest.batch import RELEASED, retry_delay
from harvest.connections import Connections, pause_if_refused
from harvest.discovery import discover
from harvest.models import (
    ENDS,
    FORGET_ERROR,
    START_ANEW,
    STORED,
    UNFINISHED,
    FileTransfer,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    LeaseLostError,
    MissedRun,
    RunStatus,
    State,
    StorageLocation,
    Trigger,
)
from harvest.storage.base import StorageError
from harvest.transfer import SourceError
from streamweave.lib import cron, shutdown
from streamweave.lib.shutdown import StoppingError

log = logging.getLogger(__name__)

LATE = timedelta(minutes=5)
"""A slot noticed later than this was missed, and its schedule's policy decides."""
MAX_WALKS = 3
"""How often a run begins its walk before it fails."""
MEANWHILE_SECONDS = 0.5
MANIFEST_FILES = 10_000


# ---------------------------------------------------------------------------------------------------------------- due


def decide_due(now: datetime | None = None, schedule_id: Any = None) -> list[HarvestRun]:
    """Decide every slot that has come: at most one new run per schedule, for its newest slot. Idempotent.

    Whoever asks first for a slot gets it, by compare-and-swap on the schedule and a constraint on the run; a tick, a
    schedule's own periodic task, a second beat may all ask.
    """
    now = now or timezone.now()
    schedules = HarvestSchedule.objects.active()
    if schedule_id is not None:
        schedules = schedules.filter(pk=schedule_id)
    runs = []
    for schedule in schedules:
        try:
            run = _decide(schedule, now)
        except cron.CronError:
            log.exception("the cron expression of schedule %s", schedule.pk)
            continue
        if run is not None:
            runs.append(run)
    return runs


def _decide(schedule: HarvestSchedule, now: datetime) -> HarvestRun | None:
    newest, count = None, 0
    for slot in cron.slots(schedule.cron_expression, schedule.timezone, schedule.decided_until):
        if slot > now:
            break
        newest, count = slot, count + 1
    if newest is None:
        return None
    late = now - newest > LATE
    missed = late and schedule.missed_run == MissedRun.SKIP
    ended = {"status": RunStatus.MISSED, "ended_at": now, "error_message": "Nobody was there at its time."}
    with transaction.atomic():
        mine = HarvestSchedule.objects.filter(pk=schedule.pk, decided_until=schedule.decided_until)
        if not mine.update(decided_until=newest):
            return None
        queued = HarvestRun.objects.filter(schedule=schedule, status=RunStatus.QUEUED).exists()
        if queued and not missed:
            # One waits already for its turn; it will find what this slot would have found.
            HarvestRun.objects.filter(schedule=schedule, status=RunStatus.QUEUED).update(
                missed_slots=F("missed_slots") + count
            )
            return None
        return HarvestRun.objects.create(
            schedule=schedule,
            instrument_id=schedule.instrument_id,
            storage_location_id=schedule.default_storage_location_id,
            scheduled_for=newest,
            missed_slots=count - 1,
            trigger=Trigger.CATCH_UP if late else Trigger.SCHEDULE,
            **(ended if missed else {}),
        )


def request(schedule: HarvestSchedule, *, trigger: Trigger, by: Any = None) -> HarvestRun:
    """A run of `schedule` now, or right after the one that runs: the queued one, if there is one already."""
    while True:
        try:
            with transaction.atomic():
                return HarvestRun.objects.create(
                    schedule=schedule,
                    instrument_id=schedule.instrument_id,
                    storage_location_id=schedule.default_storage_location_id,
                    trigger=trigger,
                    started_by=by,
                )
        except IntegrityError:
            # One is queued; unless a worker has just begun it, that is the answer.
            queued = HarvestRun.objects.filter(schedule=schedule, status=RunStatus.QUEUED).first()
            if queued is not None:
                return queued


def obstacle(schedule: HarvestSchedule) -> str | None:
    """What keeps `schedule` from being harvested by anybody, and what to do about it; None where nothing does."""
    instrument, location = schedule.instrument, schedule.default_storage_location
    for thing, name in (
        (instrument, f"The instrument “{instrument}”"),
        (location, f"The storage location “{location}”"),
    ):
        if thing.deleted_at is not None:
            return f"{name} is deleted; restore it first."
        if not thing.enabled:
            return f"{name} is disabled; enable it first."
    if schedule.deleted_at is not None:
        return "The schedule is deleted; restore it first."
    if instrument.paused_at is not None:
        return (
            f"The instrument “{instrument}” is paused since {instrument.paused_at:%Y-%m-%d %H:%M} UTC, because a log-in"
            f" was refused: {instrument.paused_reason} Correct its host, share or service account, or resume it."
        )
    return None


# -------------------------------------------------------------------------------------------------------------- begin


def quiet_until(instrument: Instrument, now: datetime) -> datetime | None:
    """When the instrument's quiet hours end, if they are now."""
    if instrument.quiet_from is None or instrument.quiet_until is None:
        return None
    zone = ZoneInfo(instrument.quiet_timezone)
    local = now.astimezone(zone)
    start, end = instrument.quiet_from, instrument.quiet_until
    clock = local.time()
    within = start <= clock < end if start <= end else (clock >= start or clock < end)
    if not within:
        return None
    day = local.date() + timedelta(days=1 if clock >= end else 0)
    return datetime.combine(day, end, tzinfo=zone)


def begin(run: HarvestRun) -> bool:
    """Take a queued run up. False where it must wait: another runs for its instrument and storage, quiet hours."""
    now = timezone.now()
    if quiet_until(run.instrument, now):
        return False
    try:
        with transaction.atomic():
            begun = HarvestRun.objects.filter(pk=run.pk, status=RunStatus.QUEUED).update(
                status=RunStatus.RUNNING, started_at=now
            )
    except IntegrityError:
        return False
    if begun:
        run.status, run.started_at = RunStatus.RUNNING, now
    return bool(begun)


def walk(run: HarvestRun, *, meanwhile: Callable[[HarvestRun], None] = lambda run: None) -> bool:
    """Walk the share, if nobody has or does. Whether it is walked now. `meanwhile` is called about every second.

    Whatever keeps the walk from its end is written on the run, which is tried again, or fails.
    """
    token = _lease_walk(run)
    if token is None:
        return run.walked_at is not None
    if run.instrument.paused_at is not None:
        _fail_walk(run, token, "paused", f"The instrument is paused: {run.instrument.paused_reason}", permanent=True)
        return False

    renewed_at = called_at = time.monotonic()

    def keep() -> None:
        nonlocal renewed_at, called_at
        shutdown.check()
        if time.monotonic() - called_at >= MEANWHILE_SECONDS:
            called_at = time.monotonic()
            meanwhile(run)
        if time.monotonic() - renewed_at < settings.LEASE_SECONDS / 3:
            return
        renewed_at = time.monotonic()
        expires_at = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)
        if not HarvestRun.objects.filter(pk=run.pk, lease_token=token).update(lease_expires_at=expires_at):
            raise LeaseLostError

    try:
        with Connections(run.instrument) as connections:
            source = connections.source()
            run.clock_offset_seconds = source.clock_offset_seconds()
            run.source_connection = source.describe()
            discover(run, source, keep)
    except LeaseLostError:
        log.warning("run %s: another worker has taken over the walk", run.pk)
        return False
    except StoppingError:
        freed = {"lease_token": None, "lease_expires_at": None, "attempts": F("attempts") - 1}
        HarvestRun.objects.filter(pk=run.pk, lease_token=token).update(**freed)
        return False
    except (SourceError, StorageError) as error:
        cause = error.error if isinstance(error, SourceError) else error
        pause_if_refused(run.instrument, cause)
        _fail_walk(run, token, cause.fault.value, str(cause), permanent=cause.permanent)
        return False
    except Exception as error:
        log.exception("the walk of run %s", run.pk)
        _fail_walk(run, token, "internal", f"{type(error).__name__}: {error}", permanent=False)
        return False
    run.walked_at = timezone.now()
    HarvestRun.objects.filter(pk=run.pk, lease_token=token).update(
        walked_at=run.walked_at,
        clock_offset_seconds=run.clock_offset_seconds,
        source_connection=run.source_connection,
        lease_token=None,
        lease_expires_at=None,
        error_code=None,
        error_message=None,
    )
    return True


def is_being_walked(run: HarvestRun) -> bool:
    """Whether another worker walks the share, so that what it finds can be taken on already."""
    leased = run.lease_expires_at is not None and run.lease_expires_at > timezone.now()
    return run.status == RunStatus.RUNNING and leased


def _lease_walk(run: HarvestRun) -> uuid.UUID | None:
    now, token = timezone.now(), uuid.uuid4()
    free = Q(lease_token=None) | Q(lease_expires_at__lte=now)
    due = Q(next_attempt_at=None) | Q(next_attempt_at__lte=now)
    mine = HarvestRun.objects.filter(free, due, pk=run.pk, status=RunStatus.RUNNING, walked_at=None)
    taken = mine.update(
        lease_token=token,
        lease_expires_at=now + timedelta(seconds=settings.LEASE_SECONDS),
        attempts=F("attempts") + 1,
        files_seen=0,
        walk_errors=0,
    )
    run.refresh_from_db()
    if not taken:
        return None
    if run.attempts > MAX_WALKS:
        message = (
            f"The worker died while it walked the share, {MAX_WALKS} times; harvest again when the cause is found."
        )
        _fail_walk(run, token, "worker_lost", message, permanent=True)
        return None
    run.errors.all().delete()
    return token


def _fail_walk(run: HarvestRun, token: uuid.UUID, code: str, message: str, *, permanent: bool) -> None:
    failed = permanent or run.attempts >= MAX_WALKS
    values: dict[str, Any] = {
        "error_code": code,
        "error_message": message,
        "lease_token": None,
        "lease_expires_at": None,
    }
    if failed:
        values |= {"status": RunStatus.FAILED, "ended_at": timezone.now()}
    else:
        values["next_attempt_at"] = timezone.now() + retry_delay(run.attempts)
    HarvestRun.objects.filter(pk=run.pk, lease_token=token).update(**values)
    run.refresh_from_db()


# ---------------------------------------------------------------------------------------------------------------- end


def end_if_done(run: HarvestRun) -> bool:
    """End a run each of whose files is available, skipped, failed or waiting with a reason. Whether it is ended."""
    run.refresh_from_db()
    if run.status != RunStatus.RUNNING:
        return run.ended_at is not None
    if run.walked_at is None or run.transfers.unfinished().filter(waiting_reason=None).exists():
        return False
    counted = run.transfers.aggregate(
        files_discovered=Count("pk"),
        files_completed=Count("pk", filter=Q(state__in=STORED)),
        files_skipped=Count("pk", filter=Q(state__in=ENDS)),
        files_failed=Count("pk", filter=Q(given_up=True) & ~Q(state__in=STORED)),
        bytes_transferred=Sum("bytes_transferred", filter=Q(state__in=STORED), default=0),
    )
    troubled = counted["files_failed"] or run.walk_errors or run.transfers.filter(given_up=True).exists()
    status = RunStatus.COMPLETED_WITH_ERRORS if troubled else RunStatus.COMPLETED
    now = timezone.now()
    with transaction.atomic():
        if not HarvestRun.objects.filter(pk=run.pk, status=RunStatus.RUNNING).update(
            status=status, ended_at=now, **counted
        ):
            return True
        Instrument.objects.filter(pk=run.instrument_id).update(last_harvested_at=now)
    run.refresh_from_db()
    return True


def end_paused(run: HarvestRun) -> None:
    """End a run whose instrument was paused under way. Its files wait; the sweep takes them up after the pause."""
    reason = f"The instrument is paused: {run.instrument.paused_reason}"
    with transaction.atomic():
        run.transfers.due(timezone.now()).filter(state__in=UNFINISHED).update(waiting_reason=reason)
        HarvestRun.objects.filter(pk=run.pk, status=RunStatus.RUNNING).exclude(walked_at=None).update(
            status=RunStatus.FAILED, ended_at=timezone.now(), error_code="paused", error_message=reason
        )
    run.refresh_from_db()


MANIFEST = {
    "ark": "record__persistent_id",
    "instrument": "record__instrument__name",
    "source_path": "record__source_path",
    "generation": "record__generation",
    "version": "version__number",
    "stored_path": "stored_path",
    "size_bytes": "version__size_bytes",
    "modified_at": "version__source_mtime",
    "xxh64": "version__xxhash",
    "sha256": "version__sha256",
    "metadata": "record__metadata",
    "completed_at": "completed_at",
}
"""What a manifest says of a stored file, and where that stands."""


def write_manifests(run: HarvestRun, location: StorageLocation, connections: Connections) -> None:
    """Write down at `location`, in `manifests/`, what the run has made available there: one JSON object a line, with
    all that is needed to register the files anew without the database. Raises StorageError."""
    pending = run.transfers.filter(storage_location=location, state=State.AVAILABLE, manifested_at=None)
    told = pending.order_by("pk").values_list("pk", *MANIFEST.values())
    while part := list(told[:MANIFEST_FILES]):
        HarvestRun.objects.filter(pk=run.pk).update(manifest_parts=F("manifest_parts") + 1)
        run.refresh_from_db(fields=["manifest_parts"])
        lines = "".join(
            json.dumps(dict(zip(MANIFEST, values, strict=True)), default=datetime.isoformat) + "\n"
            for _, *values in part
        )
        name = f"manifests/{run.pk}-{run.manifest_parts}.jsonl"
        connections.storage(location).write_reserved(name, lines.encode())
        FileTransfer.objects.filter(pk__in=[pk for pk, *_ in part]).update(manifested_at=timezone.now())


# ------------------------------------------------------------------------------------------------------- by a person


def cancel(run: HarvestRun, *, by: User | None = None) -> bool:
    """Cancel an open run: files that have no verified copy yet stop where they are. Whether it was open."""
    now = timezone.now()
    with transaction.atomic():
        if (
            not HarvestRun.objects.open()
            .filter(pk=run.pk)
            .update(status=RunStatus.CANCELLED, ended_at=now, lease_token=None, lease_expires_at=None)
        ):
            return False
        under_way = run.transfers.unfinished().exclude(state__in=STORED)
        under_way.update(**{**FORGET_ERROR, **RELEASED}, state=State.CANCELLED, reason="The run was cancelled.")
        record("harvestrun.cancelled", by=by, on=run, detail={"name": str(run)})
    run.refresh_from_db()
    return True


def retry(transfers: Any) -> int:
    """Try failed, waiting and cancelled transfers (a queryset) again now, from where they stand. How many."""
    now = timezone.now()
    with transaction.atomic():
        cancelled = transfers.unleased(now).filter(state=State.CANCELLED)
        failed = transfers.unleased(now).filter(state__in=UNFINISHED)
        given_up = failed.filter(given_up=True).exclude(state__in=STORED).order_by()
        for row in list(given_up.values("run").annotate(number=Count("pk"))):
            # Those that were given up because a worker died were not counted.
            left = Greatest(F("files_failed") - row["number"], 0)
            HarvestRun.objects.filter(pk=row["run"]).update(files_failed=left)
        count = failed.update(**FORGET_ERROR)
        return count + cancelled.update(**START_ANEW)
