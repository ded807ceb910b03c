"""How everything that a harvest needs is just now: database, broker, workers, beat, storages.

What may hang is asked in threads and waited for together, no longer than SECONDS. One that hangs even then (a dead
network mount cannot be interrupted) is left behind, and not asked a second time before it has come back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery import current_app
from django.db import connection
from django.db.models import Max
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from kombu.exceptions import OperationalError

from harvest.models import StorageLocation
from harvest.storage.base import Storage, StorageError

log = logging.getLogger(__name__)

SECONDS = 5.0
"""How long the answers are waited for."""
PING_SECONDS = 1.0
"""How long workers have to say that they are there."""
BEAT_SECONDS = 300
"""Beat writes down at least every three minutes what it has sent; if it has not for longer than this, it is gone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is. `latency_ms` is how long it took to answer, None where it was not asked or has not."""

    ok: bool
    detail: str
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Health:
    database: Finding
    broker: Finding
    workers: Finding
    beat: Finding
    storages: Mapping[StorageLocation, Finding]

    @property
    def ok(self) -> bool:
        parts = (self.database, self.broker, self.workers, self.beat, *self.storages.values())
        return all(part.ok for part in parts)


def health() -> Health:
    """Everything asked at once. Returns within SECONDS and what the database takes; raises only where that is down."""
    database, beat = _timed(_database), _beat()
    locations = list(StorageLocation.objects.alive().filter(enabled=True).order_by("created_at"))
    asked: dict[str, Callable[[], Finding]] = {"broker": _broker, "workers": _workers}
    storages: dict[str, StorageLocation] = {}
    unusable: dict[StorageLocation, Finding] = {}
    for location in locations:
        try:
            asked[str(location.pk)] = _storage(location.open())
            storages[str(location.pk)] = location
        except StorageError as error:
            unusable[location] = Finding(False, str(error))
    found = _together(asked)
    answers = {location: found[key] for key, location in storages.items()} | unusable
    return Health(
        database=database,
        broker=found["broker"],
        workers=found["workers"],
        beat=beat,
        storages={location: answers[location] for location in locations},
    )


class _Question(threading.Thread):
    """One thing asked, and its finding as soon as there is one."""

    finding: Finding | None = None

    def __init__(self, name: str, ask: Callable[[], Finding]) -> None:
        super().__init__(name=f"health of {name}", daemon=True)
        self._ask = ask

    def run(self) -> None:
        try:
            self.finding = _timed(self._ask)
        except Exception as error:
            log.exception("the %s", self.name)
            self.finding = Finding(False, f"{type(error).__name__}: {error}")


_asked: dict[str, _Question] = {}
_asking = threading.Lock()


def _together(things: Mapping[str, Callable[[], Finding]]) -> dict[str, Finding]:
    """The finding about each of `things`. Who asks for one that is being asked already gets the same answer."""
    deadline = time.monotonic() + SECONDS
    questions = {}
    with _asking:
        for name, ask in things.items():
            if name not in _asked or not _asked[name].is_alive():
                _asked[name] = _Question(name, ask)
                _asked[name].start()
            questions[name] = _asked[name]
    for question in questions.values():
        question.join(max(deadline - time.monotonic(), 0))
    late = Finding(False, f"It has not answered within {SECONDS:g} seconds.")
    return {name: question.finding or late for name, question in questions.items()}


def _timed(ask: Callable[[], Finding]) -> Finding:
    begun = time.perf_counter()
    finding = ask()
    return Finding(finding.ok, finding.detail, round((time.perf_counter() - begun) * 1000, 1))


def _database() -> Finding:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return Finding(True, f"It answers ({connection.display_name}).")


def _broker() -> Finding:
    try:
        with current_app.connection_for_write() as broker:
            broker.ensure_connection(max_retries=1, timeout=int(SECONDS))
    except OperationalError as error:
        return Finding(False, f"It cannot be reached: {error}. Runs stay queued until it can.")
    return Finding(True, "It answers.")


def _workers() -> Finding:
    try:
        replies: list[dict[str, Any]] = current_app.control.ping(timeout=PING_SECONDS) or []
    except OperationalError:
        return Finding(False, "They cannot be asked without the broker.")
    names = sorted(name for reply in replies for name in reply)
    if not names:
        return Finding(False, f"None has answered within {PING_SECONDS:g} s; start one (see docs/operations.md).")
    return Finding(True, ", ".join(names))


def _beat() -> Finding:
    newest = PeriodicTask.objects.filter(enabled=True).aggregate(newest=Max("last_run_at"))["newest"]
    if newest is None:
        return Finding(False, "It has never reminded of anything; start it (see docs/operations.md).")
    age = max((timezone.now() - newest).total_seconds(), 0)
    if age > BEAT_SECONDS:
        return Finding(False, f"It has reminded of nothing for {age:,.0f} s; is it running?")
    return Finding(True, f"It last reminded of something {age:,.0f} s ago at most.")


def _storage(storage: Storage) -> Callable[[], Finding]:
    def ask() -> Finding:
        failed = next((check for check in storage.check(write=False) if not check.ok), None)
        return Finding(False, f"{failed.name}: {failed.detail}") if failed else Finding(True, "It answers.")

    return ask
