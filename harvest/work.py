"""What a worker does for a run, until nothing of it is due: begin, walk, advance batch after batch, end."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime

from django.db import transaction
from django.db.models import Count, Q, Sum
from django.utils import timezone

from harvest import janitor, runs
from harvest.batch import Batch
from harvest.connections import Connections
from harvest.models import FileTransfer, HarvestRun, Instrument, LeaseLostError, RunStatus, StorageLocation
from harvest.pipeline import advance
from harvest.storage.base import StorageError
from streamweave.lib import shutdown
from streamweave.lib.shutdown import StoppingError

log = logging.getLogger(__name__)

BATCH_FILES = 500
BATCH_BYTES = 256 * 1024 * 1024
"""A batch is lost and done again as one, so neither many files nor many bytes are in one."""


def holder() -> str:
    """Who works here: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def work_on(run: HarvestRun, *, seconds: float, meanwhile: Callable[[HarvestRun], None] = lambda run: None) -> bool:
    """Do what is due for `run`, for about `seconds` at most. Whether more is due right now.

    `meanwhile` is called now and then during the walk, and after every batch.
    """
    stop_at = time.monotonic() + seconds
    if run.status == RunStatus.QUEUED and not runs.begin(run):
        return False
    if run.status == RunStatus.RUNNING and run.walked_at is None:
        if not runs.walk(run, meanwhile=meanwhile) and not runs.is_being_walked(run):
            return False
        meanwhile(run)
    with Connections(run.instrument) as connections:
        while batch := claim(run):
            try:
                advance(batch, connections)
            except LeaseLostError:
                log.warning("run %s: another worker has taken over a batch of %s", run.pk, len(batch.transfers))
            except StoppingError:
                return True
            meanwhile(run)
            if time.monotonic() >= stop_at or shutdown.is_requested():
                return True
        if run.instrument.paused_at is not None:
            runs.end_paused(run)
        elif runs.end_if_done(run):
            _tidy_up(run, connections)
        return False


def claim(run: HarvestRun) -> Batch | None:
    """The next batch of the run, or None: nothing due, or the instrument must be left alone for now."""
    now = timezone.now()
    with transaction.atomic():
        instrument = Instrument.objects.select_for_update().get(pk=run.instrument_id)
        run.instrument = instrument
        if instrument.paused_at or runs.quiet_until(instrument, now) or _busy(instrument, now):
            return None
        token = run.transfers.lease(now=now, holder=holder(), limit=BATCH_FILES, limit_bytes=BATCH_BYTES)
    transfers = FileTransfer.objects.held(token) if token else []
    return Batch(run, token, transfers) if token and transfers else None


def batches_due(run: HarvestRun) -> int:
    """About how many batches wait for a worker."""
    due = run.transfers.due(timezone.now()).aggregate(
        files=Count("pk"), size_bytes=Sum("version__size_bytes", default=0)
    )
    return max(due["files"] // BATCH_FILES, due["size_bytes"] // BATCH_BYTES)


def _busy(instrument: Instrument, now: datetime) -> bool:
    """Whether as many connections to the instrument are open as it allows."""
    batches = FileTransfer.objects.filter(run__instrument=instrument, lease_expires_at__gt=now)
    walks = HarvestRun.objects.filter(instrument=instrument, lease_expires_at__gt=now)
    open_ = batches.order_by().values("lease_token").distinct().count() + walks.count()
    return open_ >= instrument.max_connections


def _tidy_up(run: HarvestRun, connections: Connections) -> None:
    """After the end of a run: manifests, and left-overs of dead workers. What fails here is done after the next."""
    redirected = run.transfers.order_by().values("storage_location").distinct()
    for location in StorageLocation.objects.filter(Q(pk=run.storage_location_id) | Q(pk__in=redirected), enabled=True):
        try:
            runs.write_manifests(run, location, connections)
            janitor.clear_leftovers(connections.storage(location))
        except StorageError as error:
            log.warning("run %s: manifests or left-overs on %s: %s", run.pk, location, error)
