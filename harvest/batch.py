"""A batch: the transfers that one worker holds under one lease, and the writes that move them on.

Every write asks for the lease in its WHERE clause. A worker that has lost it writes nothing.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from harvest.models import FORGET_ERROR, FileRecord, FileTransfer, FileVersion, HarvestRun, LeaseLostError, State
from harvest.models.states import BEFORE_A_COPY, STORED, check_step
from harvest.storage.base import Entry, Fault, StorageError
from streamweave.lib import bulk, shutdown
from streamweave.lib.logs import one_line

RELEASED: dict[str, Any] = {"lease_token": None, "lease_expires_at": None, "lease_holder": None, "lease_size": None}

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
        self._renewed_at = time.monotonic()

    def in_state(self, state: State) -> list[FileTransfer]:
        return [transfer for transfer in self.transfers if transfer.state == state]

    # ------------------------------------------------------------------------------------------------ the lease

    def keep(self, _passed_bytes: int = 0) -> None:
        """Renew the lease if a third of it has passed; call it whenever bytes or steps advance.

        Raises LeaseLostError; StoppingError where the worker is to stop.
        """
        shutdown.check()
        if time.monotonic() - self._renewed_at >= settings.LEASE_SECONDS / 3:
            self.hold_for(settings.LEASE_SECONDS)

    def hold_for(self, seconds: float) -> None:
        """Renew the lease for a step that cannot report on its way. Raises LeaseLostError."""
        expires_at = timezone.now() + timedelta(seconds=max(seconds, settings.LEASE_SECONDS))
        if self._mine().update(lease_expires_at=expires_at) < len(self.transfers):
            raise LeaseLostError
        self._renewed_at = time.monotonic()

    def confirm(self) -> None:
        """Return only if the lease is ours still, and renewed. Raises LeaseLostError."""
        self.hold_for(settings.LEASE_SECONDS)

    def release(self) -> None:
        """Give back what is still held, as it stands."""
        self._mine().update(**RELEASED)
        self.transfers = []

    def _mine(self) -> Any:
        return FileTransfer.objects.filter(lease_token=self.token)

    # ------------------------------------------------------------------------------------------------ moving on

    def move(self, transfers: Sequence[FileTransfer], state: State, *fields: str) -> None:
        """Move `transfers` to `state`, writing also `fields` as they stand on the objects, in one update.

        Raises LeaseLostError; nothing is written then.
        """
        if not transfers:
            return
        before = [transfer.state for transfer in transfers]
        _step(transfers, state)
        try:
            with transaction.atomic():
                self._write(transfers, ["state", *fields])
        except BaseException:
            # The objects must not tell more than the database.
            for transfer, old in zip(transfers, before, strict=True):
                transfer.state = old
            raise

    def _write(self, transfers: Sequence[FileTransfer], fields: Iterable[str]) -> None:
        """Write `fields` as they stand on the objects in one statement; a plain update where they are alike in all."""
        fields = list(dict.fromkeys(fields))
        first = {field: getattr(transfers[0], field) for field in fields}
        if all(getattr(transfer, field) == value for transfer in transfers for field, value in first.items()):
            written = self._mine().filter(pk__in=[transfer.pk for transfer in transfers]).update(**first)
        else:
            written = bulk.write(transfers, fields, where={"lease_token": self.token})
        if written < len(transfers):
            raise LeaseLostError

    def end(self, transfers: Sequence[FileTransfer], state: State, reason: str | None = None) -> None:
        """Bring `transfers` to an end and let them go; `reason` overrides the one on the objects."""
        _step(transfers, state)
        for transfer in transfers:
            transfer.reason = reason if reason is not None else transfer.reason
            self._forget(transfer)
        self._stop(transfers, ["state", "reason", *FORGET_ERROR], files_skipped=len(transfers))

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
            self.wait([transfer], reason, until, "looks", "unchanged_since", state=State.ACCEPTED)

    def finish(self, transfers: Sequence[FileTransfer]) -> None:
        """They have come to the end of the way: let them go."""
        _step(transfers, State.AVAILABLE)
        for transfer in transfers:
            self._forget(transfer)
        self._stop(transfers, ["state", *FORGET_ERROR])

    def wait(
        self, transfers: Sequence[FileTransfer], reason: str, until: datetime, *fields: str, state: State | None = None
    ) -> None:
        """Let `transfers` go until then; they wait for something that is not ours to hurry."""
        _step(transfers, state)
        for transfer in transfers:
            transfer.waiting_reason, transfer.next_attempt_at = reason, until
        self._stop(transfers, ["state", "waiting_reason", "next_attempt_at", *fields])

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
        now = timezone.now()
        given_up = 0
        _step(transfers, state)
        for transfer in transfers:
            transfer.attempts += 1
            transfer.error_phase, transfer.error_code, transfer.error_message = phase, code, one_line(message)
            transfer.waiting_reason = None
            transfer.given_up = permanent or transfer.attempts >= settings.MAX_ATTEMPTS
            transfer.next_attempt_at = None if transfer.given_up else now + retry_delay(transfer.attempts)
            given_up += transfer.given_up and transfer.state not in STORED
        fields = ["state", "attempts", "error_phase", "error_code", "error_message", "waiting_reason", "given_up"]
        self._stop(transfers, [*fields, "next_attempt_at"], files_failed=given_up)

    def fail_by(
        self, transfers: Sequence[FileTransfer], phase: str, error: StorageError, *, state: State | None = None
    ) -> None:
        """What a storage could not do, told apart: locked files wait, full disks give up, the rest is tried again."""
        if error.fault is Fault.LOCKED and phase == "source":
            until = timezone.now() + timedelta(seconds=LOCKED_RETRY_SECONDS)
            self.wait(transfers, f"Locked by the instrument: {error}", until, state=state)
            return
        permanent = error.permanent or error.fault in GIVE_UP_AT_ONCE
        self.fail(transfers, phase, error.fault.value, str(error), permanent=permanent, state=state)
        if error.whole_storage and transfers:
            self._spare_the_others(transfers, phase, error, permanent=permanent)

    def _spare_the_others(
        self, failed: Sequence[FileTransfer], phase: str, error: StorageError, *, permanent: bool
    ) -> None:
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
        last = others if permanent else others.filter(attempts__gte=settings.MAX_ATTEMPTS - 1)
        with transaction.atomic():
            self.count(files_failed=last.update(**told, attempts=F("attempts") + 1, given_up=True))
            again_at = now + retry_delay(failed[0].attempts)
            others.update(**told, attempts=F("attempts") + 1, next_attempt_at=again_at)

    # ------------------------------------------------------------------------------------------------ letting go

    @staticmethod
    def _forget(transfer: FileTransfer) -> None:
        for field, value in FORGET_ERROR.items():
            setattr(transfer, field, value)

    def _stop(self, transfers: Sequence[FileTransfer], fields: Iterable[str], **counted: int) -> None:
        """Write `fields`, count, release the lease of `transfers` and drop them from the batch."""
        if not transfers:
            return
        stopped = {transfer.pk for transfer in transfers}
        with transaction.atomic():
            self._write(transfers, fields)
            self._mine().filter(pk__in=stopped).update(**RELEASED)
            self.count(**counted)
        self.transfers = [transfer for transfer in self.transfers if transfer.pk not in stopped]

    def count(self, **counted: int) -> None:
        """Add to the counters of the run."""
        counted = {field: number for field, number in counted.items() if number}
        if counted:
            HarvestRun.objects.filter(pk=self.run.pk).update(
                **{field: F(field) + number for field, number in counted.items()}
            )


def _step(transfers: Iterable[FileTransfer], state: State | None) -> None:
    """Set the state on the objects; None leaves it. Raises ValueError for a step that no file takes."""
    if state is not None:
        for transfer in transfers:
            check_step(transfer.state, state)
            transfer.state = state
