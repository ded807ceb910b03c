"""What Celery reminds us of. The database remembers: losing every message delays files and loses none, and a message
that comes twice does nothing twice."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from celery import shared_task
from django.conf import settings
from django.db import transaction
from kombu.exceptions import OperationalError

from access import sealing
from access.audit import record
from access.models import User
from harvest import janitor, runs, work
from harvest.models import FileTransfer, HarvestRun, HarvestSchedule, Trigger
from harvest.models.transfers import FileTransferQuerySet

log = logging.getLogger(__name__)

WORK_SECONDS = 60
"""After this long a worker puts a run back in the queue, so that others get their turn."""


@shared_task
def tick() -> None:
    """Begin what has become due by any schedule."""
    remind(runs.decide_due())


@shared_task
def harvest_due(schedule_id: str) -> None:
    """The same for one schedule, woken by its own periodic task."""
    remind(runs.decide_due(schedule_id=schedule_id))


@shared_task
def sweep() -> None:
    """Take back what dead workers held, remind of everything that is due, and seal the audit log."""
    janitor.take_back()
    # The next sweep reminds again of what is still due then.
    remind(janitor.runs_with_work(), expires=4 * settings.SWEEP_SECONDS)
    sealing.seal()


@shared_task
def work_on(run_id: str) -> None:
    """Do what is due for a run."""
    run = HarvestRun.objects.select_related("instrument__service_account", "storage_location").get(pk=run_id)
    helpers = 0

    def call_for_help(run: HarvestRun) -> None:
        """Let others join while there is more to do than one worker takes at once, as many as the instrument allows.
        Those that are called for nothing find nothing due."""
        nonlocal helpers
        allowed = run.instrument.max_connections - 1
        if helpers < allowed:
            wanted = min(work.batches_due(run), allowed)
            remind([run] * max(wanted - helpers, 0))
            helpers = max(wanted, helpers)

    more = work.work_on(run, seconds=WORK_SECONDS, meanwhile=call_for_help)
    if more:
        remind([run])
    elif run.ended_at is not None:
        remind(HarvestRun.objects.filter(instrument=run.instrument_id, status="queued"))


def trigger(schedule: HarvestSchedule, *, by: User | None = None) -> HarvestRun:
    """Harvest by `schedule` now. The run is written down even where the broker cannot be reached."""
    run = write_down(schedule, by=by)
    transaction.on_commit(lambda: remind([run]))
    return run


def write_down(schedule: HarvestSchedule, *, by: User | None = None) -> HarvestRun:
    """The run that a person asks for, of which nobody is reminded yet, with its audit event."""
    with transaction.atomic():
        run = runs.request(schedule, trigger=Trigger.PERSON, by=by)
        record("harvestschedule.triggered", by=by, on=schedule, detail={"run": str(run.pk)})
    return run


def retry(transfers: FileTransferQuerySet) -> int:
    """Send what can be retried of `transfers` on its way again now. How many."""
    chosen = FileTransfer.objects.filter(pk__in=transfers.retriable().order_by().values("pk"))
    concerned = list(HarvestRun.objects.filter(pk__in=chosen.order_by().values("run")))
    count = runs.retry(chosen)
    transaction.on_commit(lambda: remind(concerned))
    return count


def remind(of: Iterable[HarvestRun], *, expires: float | None = None) -> bool:
    """Send a reminder for each run. Whether all were sent; one that cannot be sent now is sent by the next sweep."""
    for run in of:
        try:
            work_on.apply_async((str(run.pk),), expires=expires)  # type: ignore[arg-type]  # the stubs forget None
        except OperationalError as error:
            log.warning("run %s is queued but the broker cannot be reached: %s", run.pk, error)
            return False
    return True
