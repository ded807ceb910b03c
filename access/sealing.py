"""Sealing the audit log, and finding what was done to it behind our back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import islice
from typing import Any

from django.db import connection, models, transaction

from access.models import AuditEvent, AuditSeal
from streamweave.lib.macs import UnknownKeyError

BATCH_EVENTS = 1000
LOOK_BACK = timedelta(hours=1)
"""How far before the last sealed event the sealer looks for unsealed ones: longer than any transaction lasts."""
SEAL_LOCK = 0x5345414C
"""Key of the PostgreSQL advisory lock that the one sealer holds."""
HEAD = re.compile(r"(?P<sequence>[0-9]{1,18}):(?P<signature>\S+)")


class Wrong(StrEnum):
    """What can be wrong with a row."""

    CHANGED = "changed"
    REMOVED = "removed"
    ADDED = "added"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that is not as it should be; `what` tells which and why."""

    wrong: Wrong
    what: str


@dataclass
class Verification:
    """What is known once `verify` is through: how many rows are sealed, how many not yet, and the last seal."""

    sealed: int = 0
    unsealed: int = 0
    head: str | None = None


class HeadError(ValueError):
    """That is no head of the log, which reads NUMBER:SIGNATURE."""

    def __init__(self) -> None:
        super().__init__("A head reads NUMBER:SIGNATURE, as `audit verify` prints it.")


def seal(*, everything: bool = False) -> int:
    """Seals the events that are not sealed yet, oldest first; returns how many.

    Of several processes that come at once one seals, and the others return 0. `everything`: look for unsealed events
    in the whole log, instead of around its end. Events that are not as they were signed stay unsealed.
    """
    count = BATCH_EVENTS
    total = 0
    while count == BATCH_EVENTS:
        with transaction.atomic():
            count = _seal_batch(everything) if _is_only_sealer() else 0
        total += count
    return total


def verify(state: Verification, *, head: str | None = None) -> Iterator[Finding]:
    """Goes through the whole log and tells what was changed, removed or added. `state` is complete when it has ended.

    `head`: a head noted earlier, which must still be in the chain: without one, nobody can tell that the newest events
    were taken away together with their seals. Raises HeadError.
    """
    noted = _parsed(head)
    yield from _verify_seals(state)
    yield from _verify_unsealed(state)
    if noted and not AuditSeal.objects.filter(sequence=noted[0], signature=noted[1]).exists():
        yield Finding(Wrong.REMOVED, f"The log does not contain the head {head}: what was there then is gone.")


def unsealed_events() -> models.QuerySet[Any]:
    return AuditEvent.objects.filter(seal=None)


def _seal_batch(everything: bool) -> int:
    last = AuditSeal.objects.order_by("-sequence").first()
    waiting = unsealed_events().order_by("at", "id")
    if last is not None and not everything:
        # the time of a seal as well as that of its event, since either clock may have been wrong
        at = AuditEvent.objects.filter(pk=last.event_id).values_list("at", flat=True).first()
        waiting = waiting.filter(at__gte=min(at or last.sealed_at, last.sealed_at) - LOOK_BACK)
    genuine = filter(_is_genuine, waiting.iterator(chunk_size=BATCH_EVENTS))
    first, previous = (last.sequence + 1, last.signature) if last else (1, "")
    seals = []
    for sequence, event in enumerate(islice(genuine, BATCH_EVENTS), first):
        one = AuditSeal(sequence=sequence, event=event, event_signature=event.signature, previous=previous)
        one.sign()
        previous = one.signature
        seals.append(one)
    AuditSeal.objects.bulk_create(seals)
    return len(seals)


def _is_genuine(event: AuditEvent) -> bool:
    try:
        return event.is_as_signed()
    except UnknownKeyError:
        return False


def _is_only_sealer() -> bool:
    """SQLite has a single writer; on PostgreSQL the lock is held until the transaction ends."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SEAL_LOCK])
        return bool(cursor.fetchone()[0])


def _verify_seals(state: Verification) -> Iterator[Finding]:
    number, previous = 0, ""
    for one, event in _seals_and_events():
        state.sealed += 1
        if one.sequence > number + 1:
            first, last = number + 1, one.sequence - 1
            which = f"Number {first} is" if first == last else f"Numbers {first} to {last} are"
            yield Finding(Wrong.REMOVED, f"{which} missing, event and seal.")
        elif one.previous != previous:
            yield Finding(Wrong.CHANGED, f"Seal {one.sequence} does not follow the one before it.")
        yield from _verify_row(one, f"Seal {one.sequence}", Wrong.CHANGED)
        yield from _verify_sealed(one, event)
        number, previous = one.sequence, one.signature
        state.head = str(one)


def _seals_and_events() -> Iterator[tuple[AuditSeal, AuditEvent | None]]:
    seals = AuditSeal.objects.order_by("sequence").iterator(chunk_size=BATCH_EVENTS)
    while batch := list(islice(seals, BATCH_EVENTS)):
        events = AuditEvent.objects.in_bulk([one.event_id for one in batch])
        for one in batch:
            yield one, events.get(one.event_id)


def _verify_sealed(one: AuditSeal, event: AuditEvent | None) -> Iterator[Finding]:
    if event is None:
        yield Finding(Wrong.REMOVED, f"Event {one.event_id}, number {one.sequence}, is gone; its seal is there.")
    elif event.signature != one.event_signature:
        yield Finding(Wrong.CHANGED, f"Event {event.pk}, number {one.sequence} ({event}), is not what was sealed.")
    else:
        yield from _verify_row(event, f"Event {event.pk}, number {one.sequence} ({event}),", Wrong.CHANGED)


def _verify_unsealed(state: Verification) -> Iterator[Finding]:
    for event in unsealed_events().order_by("at", "id").iterator(chunk_size=BATCH_EVENTS):
        state.unsealed += 1
        yield from _verify_row(event, f"Event {event.pk} ({event}), not sealed yet,", Wrong.ADDED)


def _verify_row(row: AuditEvent | AuditSeal, name: str, wrong: Wrong) -> Iterator[Finding]:
    try:
        if not row.is_as_signed():
            by = "was written by another hand" if wrong is Wrong.ADDED else "is not as it was written"
            yield Finding(wrong, f"{name} {by}.")
    except UnknownKeyError as error:
        yield Finding(Wrong.UNCHECKED, f"{name} cannot be checked. {error}")


def _parsed(head: str | None) -> tuple[int, str] | None:
    if head is None:
        return None
    match = HEAD.fullmatch(head)
    if match is None:
        raise HeadError
    return int(match["sequence"]), match["signature"]
