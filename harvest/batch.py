"""A batch: the transfers that one worker holds under one lease, and the writes that move them on.

Every write asks for the lease in its WHERE clause. A worker that has lost it writes nothing.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from harvest.models import FORGET_ERROR, FileRecord, FileTransfer, FileVersion, HarvestRun, LeaseLostError, State
from harvest.models.states import BEFORE_A_COPY, STORED, check_step
from harvest.storage.base import Entry, Fault, StorageError
from streamweave.lib import bulk, shutdown
from streamweave.lib.logs import one_line

RELEASED: dict[str, Any] = {"lease_token": None, "lease_expires_at": None, "lease_holder": None, "lease_size": None}

WRITE_ATTEMPTS = 3
FIRST_RETRY_SECONDS = 5
LOCKED_RETRY_SECONDS = 60
GIVE_UP_AT_ONCE = frozenset({Fault.FULL, Fault.READ_ONLY, Fault.NOT_MOUNTED})
"""Faults that somebody must mend first, though they may mend themselves: left to the next run."""


def retry_delay(attempts: int) -> timedelta:
    """The pause after the `attempts`-th failure: 5 s, 20 s, 80 s …, at most an hour, with jitter of a half."""
    seconds = min(FIRST_RETRY_SECONDS * 4 ** (attempts - 1), 3600)
    return timedelta(seconds=seconds * random.uniform(0.75, 1.25))  # noqa: S311 - jitter, no secret


class Batch:
    """Transfers under one lease. `transfers` shrinks as some come to a stop."""

    def __init__(self, run: HarvestRun, token: uuid.UUID, transfers: list[FileTransfer]) -> None:
        self.run = run
        self.token = token
        self.transfers = transfers
        self._held = {transfer.pk: transfer.state for transfer in transfers}
        """The state of each as the database has it."""
        self._unwritten: set[str] = set()
        self._renewed_at = time.monotonic()
        self._held_until = self._renewed_at + settings.LEASE_SECONDS

    def __contains__(self, transfer: FileTransfer) -> bool:
        return transfer.pk in self._held

    def in_state(self, state: State) -> list[FileTransfer]:
        return [transfer for transfer in self.transfers if transfer.state == state]

    # ------------------------------------------------------------------------------------------------ the lease

    def keep(self, _passed_bytes: int = 0) -> None:
        """Renew the lease if a third of it has passed; call it whenever bytes or steps advance.

        Raises LeaseLostError; StoppingError where the worker is to stop.
        """
        shutdown.check()
        if time.monotonic() - self._renewed_at >= settings.LEASE_SECONDS / 3:
            self._renew(settings.LEASE_SECONDS)

    def hold_for(self, seconds: float) -> None:
        """See that the lease lasts for a step of that long that cannot report on its way. Raises LeaseLostError."""
        if time.monotonic() + seconds + settings.LEASE_SECONDS / 3 > self._held_until:
            self._renew(seconds + settings.LEASE_SECONDS)

    def confirm(self) -> None:
        """Return only if the lease is ours still, and renewed. Raises LeaseLostError."""
        self._renew(settings.LEASE_SECONDS)

    def _renew(self, seconds: float) -> None:
        if self._mine().update(lease_expires_at=self._renewed(seconds)) < len(self.transfers):
            raise LeaseLostError

    def _renewed(self, seconds: float) -> datetime:
        self._renewed_at = time.monotonic()
        self._held_until = self._renewed_at + seconds
        return timezone.now() + timedelta(seconds=seconds)

    def release(self) -> None:
        """Give back what is still held, as it stands."""
        self._let_go(self.transfers, [])

    def _mine(self) -> Any:
        return FileTransfer.objects.filter(lease_token=self.token)

    # ------------------------------------------------------------------------------------------------ moving on

    def step(self, transfers: Iterable[FileTransfer], state: State, *fields: str) -> None:
        """Move `transfers` to `state` on the objects. That and `fields` are written with the batch's next write: a
        stage that can be done again need not be written down by itself."""
        _step(transfers, state)
        self._unwritten |= {"state", *fields}

    def write(self, *, hold_for: float = 0, mend: Callable[[], None] | None = None) -> None:
        """Write down what was stepped and, with the same statement, renew the lease for a step of `hold_for` seconds.

        `mend` is called where a constraint refuses that, and it is tried again. Raises LeaseLostError; nothing is
        written then.
        """
        if self.transfers and self._unwritten:
            expires_at = self._renewed(settings.LEASE_SECONDS + hold_for)
            for transfer in self.transfers:
                transfer.lease_expires_at = expires_at
            self._write(self.transfers, ["lease_expires_at"], mend=mend)
        self._unwritten = set()

    def _write(
        self,
        transfers: Sequence[FileTransfer],
        fields: Iterable[str],
        *,
        mend: Callable[[], None] | None = None,
        counted: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Write `fields`, and what is not written yet, as they stand on the objects, in one statement, and count: all
        or nothing. After a failure the objects tell no other states than the database."""
        fields = list(dict.fromkeys([*fields, *sorted(self._unwritten)]))
        try:
            for attempts_left in reversed(range(WRITE_ATTEMPTS)):
                try:
                    with transaction.atomic():
                        if bulk.write(transfers, fields, where={"lease_token": self.token}) < len(transfers):
                            raise LeaseLostError
                        self.count(**counted)
                    break
                except IntegrityError:
                    if mend is None or not attempts_left:
                        raise
                    mend()
        except BaseException:
            for transfer in self.transfers:
                transfer.state = self._held[transfer.pk]
            self._unwritten = set()
            raise
        self._held |= {transfer.pk: transfer.state for transfer in transfers}

    def end(self, transfers: Sequence[FileTransfer], state: State, reason: str | None = None) -> None:
        """Bring `transfers` to an end and let them go; `reason` overrides the one on the objects."""
        _step(transfers, state)
        for transfer in transfers:
            transfer.reason = reason if reason is not None else transfer.reason
            self._forget(transfer)
        self._let_go(transfers, ["state", "reason", *FORGET_ERROR], files_skipped=len(transfers))

    def vanish(self, transfers: Sequence[FileTransfer]) -> None:
        """They are gone from the instrument, and no copy had been made."""
        self.end(transfers, State.VANISHED, "It is gone from the instrument; no copy had been made.")

    def settle_anew(self, transfer: FileTransfer, entry: Entry) -> None:
        """It is not what was discovered: take it as it is now, and let it wait until it has settled.

        A version with a verified copy is never altered; what changed after it will be found as the next version.
        """
        if transfer.version.frozen_at is not None:
            self.end([transfer], State.SUPERSEDED, "It changed on the instrument before it was copied.")
            return
        instrument = self.run.instrument
        until = timezone.now() + timedelta(seconds=max(instrument.min_age_seconds, instrument.look_interval_seconds))
        reason = "It changed on the instrument while we looked at it; it is looked at again when it has settled."
        seen = {"size_bytes": entry.size_bytes, "source_mtime": entry.modified_at}
        identity = {"source_file_id": entry.file_id, "source_created_at": entry.created_at}
        with transaction.atomic():
            FileVersion.objects.filter(pk=transfer.version_id, frozen_at=None).update(**seen, **identity)
            FileRecord.objects.filter(pk=transfer.record_id, version_number=transfer.version.number).update(**seen)
            _step([transfer], State.ACCEPTED)
            self.wait([(transfer, reason, until)], "looks", "unchanged_since")

    def finish(self, transfers: Sequence[FileTransfer]) -> None:
        """They have come to the end of the way: let them go."""
        _step(transfers, State.AVAILABLE)
        for transfer in transfers:
            self._forget(transfer)
        self._let_go(transfers, ["state", *FORGET_ERROR])

    def wait(self, waits: Sequence[tuple[FileTransfer, str, datetime]], *fields: str) -> None:
        """Let transfers go, each with the reason why it waits and until when: for something that is not ours to
        hurry."""
        for transfer, reason, until in waits:
            transfer.waiting_reason, transfer.next_attempt_at = reason, until
        waiting = [transfer for transfer, _, _ in waits]
        self._let_go(waiting, ["state", "waiting_reason", "next_attempt_at", *fields])

    def fail(
        self,
        transfers: Sequence[FileTransfer],
        phase: str,
        code: str,
        message: str,
        *,
        permanent: bool = False,
        state: State | None = None,
    ) -> None:
        """Record what went wrong and let `transfers` go: to the next attempt, or given up."""
        self.fail_each([(transfer, code, message) for transfer in transfers], phase, permanent=permanent, state=state)

    def fail_each(
        self,
        failures: Sequence[tuple[FileTransfer, str, str]],
        phase: str,
        *,
        permanent: bool = False,
        state: State | None = None,
    ) -> None:
        """The same for transfers that each have a code and a message of their own."""
        now = timezone.now()
        given_up = 0
        failed = [transfer for transfer, _, _ in failures]
        _step(failed, state)
        for transfer, code, message in failures:
            transfer.attempts += 1
            transfer.error_phase, transfer.error_code, transfer.error_message = phase, code, one_line(message)
            transfer.waiting_reason = None
            transfer.given_up = permanent or transfer.attempts >= settings.MAX_ATTEMPTS
            transfer.next_attempt_at = None if transfer.given_up else now + retry_delay(transfer.attempts)
            given_up += transfer.given_up and transfer.state not in STORED
        fields = ["state", "attempts", "error_phase", "error_code", "error_message", "waiting_reason", "given_up"]
        self._let_go(failed, [*fields, "next_attempt_at"], files_failed=given_up)

    def fail_by(self, transfers: Sequence[FileTransfer], phase: str, error: StorageError) -> None:
        """What a storage could not do for `transfers`; where all of it is concerned, the run's others share the fate of
        these."""
        self.fail_by_each([(transfer, error) for transfer in transfers], phase)
        if error.whole_storage and transfers:
            self._spare_the_others(transfers, phase, error)

    def fail_by_each(self, failures: Sequence[tuple[FileTransfer, StorageError]], phase: str) -> None:
        """What a storage could not do, told apart: what the instrument has locked waits, full disks give up, the rest
        is tried again."""
        until = timezone.now() + timedelta(seconds=LOCKED_RETRY_SECONDS)
        locked: list[tuple[FileTransfer, str, datetime]] = []
        hopeless: list[tuple[FileTransfer, str, str]] = []
        again: list[tuple[FileTransfer, str, str]] = []
        for transfer, error in failures:
            if error.fault is Fault.LOCKED and phase == "source":
                locked.append((transfer, f"Locked by the instrument: {error}", until))
            else:
                (hopeless if _is_hopeless(error) else again).append((transfer, error.fault.value, str(error)))
        self.wait(locked)
        self.fail_each(hopeless, phase, permanent=True)
        self.fail_each(again, phase)

    def _spare_the_others(self, failed: Sequence[FileTransfer], phase: str, error: StorageError) -> None:
        """What the whole source or destination cannot do, it need not be asked again for each batch of the run: the
        run's other files share the fate of these, in a few queries."""
        now = timezone.now()
        others = FileTransfer.objects.due(now).filter(run=self.run.pk, state__in=BEFORE_A_COPY)
        if phase == "destination":
            others = others.filter(storage_location__in={transfer.storage_location_id for transfer in failed})
        told = {
            "error_phase": phase,
            "error_code": error.fault.value,
            "error_message": one_line(str(error)),
            "waiting_reason": None,
        }
        last = others if _is_hopeless(error) else others.filter(attempts__gte=settings.MAX_ATTEMPTS - 1)
        with transaction.atomic():
            self.count(files_failed=last.update(**told, attempts=F("attempts") + 1, given_up=True))
            again_at = now + retry_delay(failed[0].attempts)
            others.update(**told, attempts=F("attempts") + 1, next_attempt_at=again_at)

    # ------------------------------------------------------------------------------------------------ letting go

    @staticmethod
    def _forget(transfer: FileTransfer) -> None:
        for field, value in FORGET_ERROR.items():
            setattr(transfer, field, value)

    def _let_go(self, transfers: Sequence[FileTransfer], fields: Iterable[str], **counted: int) -> None:
        """Write `fields`, count, release the lease of `transfers` and drop them from the batch: all or nothing."""
        if not transfers:
            return
        for transfer in transfers:
            for field, value in RELEASED.items():
                setattr(transfer, field, value)
        self._write(transfers, [*fields, *RELEASED], counted=counted)
        for transfer in transfers:
            del self._held[transfer.pk]
        self.transfers = [transfer for transfer in self.transfers if transfer.pk in self._held]

    def count(self, **counted: int) -> None:
        """Add to the counters of the run; last in a transaction, for the others of the run wait for its row."""
        counted = {field: number for field, number in counted.items() if number}
        if counted:
            HarvestRun.objects.filter(pk=self.run.pk).update(
                **{field: F(field) + number for field, number in counted.items()}
            )


def _is_hopeless(error: StorageError) -> bool:
    """Whether trying again within the run is of no use."""
    return error.permanent or error.fault in GIVE_UP_AT_ONCE


def _step(transfers: Iterable[FileTransfer], state: State | None) -> None:
    """Set the state on the objects; None leaves it. Raises ValueError for a step that no file takes."""
    if state is not None:
        for transfer in transfers:
            check_step(transfer.state, state)
            transfer.state = state
