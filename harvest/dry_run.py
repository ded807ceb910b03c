"""What a harvest would do with each file of a share, and why. Writes nothing; hooks before the transfer are asked."""

from __future__ import annotations

import enum
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone

from harvest import completion, runs
from harvest.comparison import Change
from harvest.connections import Connections
from harvest.discovery import Prediction, predicted
from harvest.facts import facts_of
from harvest.models import (
    STORED,
    UNFINISHED,
    FileRecord,
    FileTransfer,
    FileVersion,
    HarvestSchedule,
    State,
    StorageLocation,
)
from harvest.storage.base import Fault, Storage, StorageError, Unreadable
from harvest.transfer import SourceError
from hooks import engine
from hooks.decisions import Verdict
from hooks.models import HookConfig

BATCH_FILES = 200
"""As many files as hooks are asked about together in a harvest."""


class Course(enum.StrEnum):
    """What would become of a file."""

    TAKE = "take"
    SKIP = "skip"
    WAIT = "wait"
    HOLD = "hold"
    """A hook that fails, or names what does not exist, holds its files back."""
    LEAVE = "leave"
    """Nothing is to be done about it."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Plan:
    """One file of the share: what would become of it, and why. `size_bytes` is None where it could not be read."""

    path: str
    size_bytes: int | None
    course: Course
    reason: str


def plan(schedule: HarvestSchedule) -> Generator[Plan]:
    """Every file of the instrument's share with what a harvest by `schedule` would do now, in the order of the walk.

    Flat memory, a few queries for a thousand files. Close the iterator (or exhaust it) to close the connection. Raises
    StorageError where the share cannot be looked at, or must not be now.
    """
    instrument = schedule.instrument
    keep_out = runs.obstacle(schedule)
    if keep_out is None and (until := runs.quiet_until(instrument, timezone.now())):
        keep_out = f"The instrument “{instrument}” is left alone in its quiet hours, until {until:%H:%M %Z}."
    if keep_out is not None:
        raise StorageError(Fault.CONFIGURATION, keep_out)
    with Connections(instrument) as connections:
        try:
            source = connections.source()
            planner = _Planner(schedule, source)
            with closing(predicted(instrument, schedule.default_storage_location, source)) as chunks:
                for chunk in chunks:
                    for start in range(0, len(chunk), BATCH_FILES):
                        yield from planner.plan(chunk[start : start + BATCH_FILES])
        except SourceError as error:
            raise error.error from error


class _Planner:
    def __init__(self, schedule: HarvestSchedule, source: Storage) -> None:
        self.instrument = schedule.instrument
        self.hooks = list(HookConfig.objects.active_for(schedule.instrument_id, "pre_transfer"))
        self.source = source if completion.asks_the_share(self.instrument) else None
        self.ahead = timedelta(seconds=source.clock_offset_seconds() or 0)
        self.storages: set[str] = set()
        for location in StorageLocation.objects.alive().filter(enabled=True):
            self.storages |= {str(location.pk), location.name}

    def plan(self, found: Sequence[Prediction | Unreadable]) -> list[Plan]:
        plans: dict[int, Plan] = {}
        asked: dict[int, FileTransfer] = {}
        reasons: dict[int, str] = {}
        for number, item in enumerate(found):
            if isinstance(item, Unreadable):
                plans[number] = Plan(item.path, None, Course.UNREADABLE, str(item.error))
                continue
            course, reasons[number] = _known_course(item)
            if course is Course.TAKE:
                asked[number] = _as_it_would_be(item, self.instrument.pk)
            else:
                plans[number] = _plan(item, course, reasons[number])
        self._ask_hooks(found, plans, asked, reasons)
        self._ask_policy(found, plans, asked)
        for number in asked:
            plans[number] = _plan(found[number], Course.TAKE, reasons[number])
        return [plans[number] for number in sorted(plans)]

    def _ask_hooks(
        self,
        found: Sequence[Prediction | Unreadable],
        plans: dict[int, Plan],
        asked: dict[int, FileTransfer],
        reasons: dict[int, str],
    ) -> None:
        """Move what hooks skip or hold from `asked` to `plans`."""
        numbers = [number for number, transfer in asked.items() if transfer.state == State.DISCOVERED]
        facts = [facts_of(asked[number], self.instrument) for number in numbers]
        for number, decision in zip(numbers, engine.before_transfer(self.hooks, facts, record=False), strict=True):
            reason = f"{decision.hook_name}: {decision.reason}"
            if decision.verdict is Verdict.ACCEPT and decision.storage and decision.storage not in self.storages:
                course = Course.HOLD
                reason = f"{decision.hook_name}: there is no enabled storage location “{decision.storage}”."
            elif decision.verdict is Verdict.ACCEPT:
                if decision.storage:
                    reasons[number] += f"; {decision.hook_name} redirects it to {decision.storage}"
                continue
            else:
                course = Course.SKIP if decision.verdict is Verdict.SKIP else Course.HOLD
            del asked[number]
            plans[number] = _plan(found[number], course, reason)

    def _ask_policy(
        self, found: Sequence[Prediction | Unreadable], plans: dict[int, Plan], asked: dict[int, FileTransfer]
    ) -> None:
        """Move what is not complete on the instrument from `asked` to `plans`."""
        waiting = {
            transfer: number
            for number, transfer in asked.items()
            if transfer.state in (State.DISCOVERED, State.ACCEPTED)
        }
        now: datetime = timezone.now() + self.ahead
        for transfer, verdict in completion.judge(self.instrument, list(waiting), self.source, now):
            match verdict:
                case None:
                    continue
                case completion.Wait(reason, until):
                    course, reason = (
                        Course.WAIT,
                        f"{reason} It is looked at again at {until - self.ahead:%H:%M:%S} UTC.",
                    )
                case completion.Changed():
                    course, reason = Course.WAIT, "It changed since it was last looked at."
                case completion.Gone():
                    course, reason = Course.LEAVE, "It is gone from the instrument."
                case StorageError():
                    course, reason = Course.UNREADABLE, str(verdict)
            number = waiting[transfer]
            del asked[number]
            plans[number] = _plan(found[number], course, reason)


def _plan(item: Prediction | Unreadable, course: Course, reason: str) -> Plan:
    if isinstance(item, Unreadable):
        return Plan(item.path, None, course, reason)
    return Plan(item.entry.path, item.entry.size_bytes, course, reason)


def _known_course(item: Prediction) -> tuple[Course, str]:
    """What the rows alone say; TAKE is provisional, hooks and policy come after."""
    transfer = item.transfer
    if item.change in (Change.NEW, Change.CHANGED, Change.REPLACED):
        return Course.TAKE, item.change.value
    if transfer is None:
        if item.elsewhere:
            return Course.SKIP, "Another schedule brings this version to the same storage."
        return Course.TAKE, "not on this storage yet"
    if transfer.is_leased:
        return Course.LEAVE, "A worker has it in hand."
    if transfer.state == State.SKIPPED and item.elsewhere:
        return Course.LEAVE, transfer.reason or "skipped"
    if transfer.state in STORED:
        return Course.LEAVE, "It is stored already."
    if item.change is Change.UNSETTLED:
        return Course.TAKE, item.change.value
    if transfer.given_up or transfer.state in (State.SKIPPED, State.VANISHED):
        before = transfer.error_message or transfer.reason or transfer.state
        return Course.TAKE, f"looked at again; before: {before}"
    if transfer.state in UNFINISHED:
        return Course.TAKE, "on its way already"
    return Course.LEAVE, transfer.reason or transfer.get_state_display()


def _as_it_would_be(item: Prediction, instrument_id: UUID) -> FileTransfer:
    """The transfer as a harvest would take it on: never saved."""
    entry, version = item.entry, item.version
    if version is None:
        filename = entry.path.rpartition("/")[2]
        record = FileRecord(
            instrument_id=instrument_id, source_path=entry.path, filename=filename, persistent_id="", metadata={}
        )
        version = FileVersion(record=record)
    version.size_bytes, version.source_mtime = entry.size_bytes, entry.modified_at
    goes_on = item.change is Change.NONE and item.transfer is not None and item.transfer.state in UNFINISHED
    transfer = item.transfer if goes_on and item.transfer and not item.transfer.given_up else FileTransfer()
    transfer.record, transfer.version = version.record, version
    return transfer
