"""Clears away what dead workers left staged, and takes back what they held."""

from __future__ import annotations

import uuid
from datetime import datetime
from itertools import islice

from django.db.models import Q
from django.utils import timezone

from harvest.models import OPEN, FileTransfer, HarvestRun, RunStatus
from harvest.storage.base import Storage


def take_back(now: datetime | None = None) -> int:
    """Free the files that dead workers held. Their walks free themselves when the lease runs out."""
    return FileTransfer.objects.take_back_abandoned(now or timezone.now())


def runs_with_work(now: datetime | None = None) -> list[HarvestRun]:
    """The runs that something is due for: queued, to be walked, with files due, or done and not ended."""
    now = now or timezone.now()
    moving = FileTransfer.objects.unfinished().filter(waiting_reason=None).order_by().values("run")
    unleased = Q(lease_token=None) | Q(lease_expires_at__lte=now)
    its_time = Q(next_attempt_at=None) | Q(next_attempt_at__lte=now)
    walked = Q(status=RunStatus.RUNNING, walked_at__isnull=False)
    open_ = Q(unleased, its_time, status__in=OPEN) & ~(walked & Q(pk__in=moving))
    due = Q(
        pk__in=FileTransfer.objects.due(now).order_by().values("run"),
        instrument__paused_at=None,
        instrument__deleted_at=None,
    )
    return list(HarvestRun.objects.filter(open_ | due).order_by("created_at"))


def clear_leftovers(storage: Storage) -> int:
    """Discard what is staged on the storage by attempts that are over. How many."""
    cleared = 0
    found = ((ref, token) for ref, token in storage.leftovers())
    while chunk := list(islice(found, 1000)):
        transfers = {token: _transfer_of(token) for _, token in chunk}
        ids = [pk for pk in transfers.values() if pk]
        rows = FileTransfer.objects.filter(pk__in=ids).values_list("pk", "lease_token", "staged_ref")
        alive = {pk: (leased, staged_ref) for pk, leased, staged_ref in rows}
        for ref, token in chunk:
            if (pk := transfers[token]) is None:
                continue
            leased, staged_ref = alive.get(pk, (None, None))
            if not leased and ref != staged_ref:
                storage.discard(ref, "")
                cleared += 1
    return cleared


def _transfer_of(token: str) -> uuid.UUID | None:
    """The transfer of a token that the way of a file made; None for any other."""
    transfer, dash, number = token.partition("-")
    if len(transfer) != 32 or not dash or not number.removesuffix("c").isdigit():
        return None
    try:
        return uuid.UUID(hex=transfer)
    except ValueError:
        return None
