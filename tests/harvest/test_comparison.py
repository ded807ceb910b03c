"""What a listing says beside what is known, and the database's own answer beside the careful one."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection

from harvest.comparison import Change, Course, compare, course, known, unsettled
from harvest.discovery import discover
from harvest.models import (
    ENDS,
    STORED,
    WAY,
    FileRecord,
    FileTransfer,
    FileVersion,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    ReplacedFile,
    RunStatus,
    State,
    StorageLocation,
    path_key,
)
from harvest.storage.base import Entry

WRITTEN_AT = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


def entry(size_bytes: int = 10, minutes: int = 0, file_id: str | None = "1", created: int | None = None) -> Entry:
    created_at = None if created is None else WRITTEN_AT + timedelta(minutes=created)
    return Entry("a/fid", size_bytes, WRITTEN_AT + timedelta(minutes=minutes), file_id, created_at)


def version(frozen: bool = True) -> FileVersion:
    copied_at = WRITTEN_AT + timedelta(minutes=5) if frozen else None
    return FileVersion(size_bytes=10, source_mtime=WRITTEN_AT, source_file_id="1", frozen_at=copied_at)


@pytest.mark.parametrize(
    ("seen", "known", "change"),
    [
        (entry(), None, Change.NEW),
        (entry(), version(), Change.NONE),
        (entry(file_id="2"), version(), Change.NONE),
        (entry(), version(frozen=False), Change.NONE),
        (entry(file_id="2"), version(frozen=False), Change.UNSETTLED),
        (entry(size_bytes=11), version(frozen=False), Change.UNSETTLED),
        (entry(size_bytes=11), version(), Change.CHANGED),
        (entry(minutes=1), version(), Change.CHANGED),
        (entry(size_bytes=11, file_id="2"), version(), Change.REPLACED),
        (entry(size_bytes=11, file_id=None), version(), Change.CHANGED),
        # where ids are used again, a time of creation after the copy tells
        (entry(minutes=9, created=8), version(), Change.REPLACED),
        (entry(minutes=9, created=-5), version(), Change.CHANGED),
        # a server that keeps none tells the last access: ours, when we copied it
        (entry(minutes=9, created=4), version(), Change.CHANGED),
    ],
)
def test_a_listing_is_compared_with_the_newest_version(seen: Entry, known: FileVersion | None, change: Change) -> None:
    assert compare(seen, known, HarvestRun(instrument=Instrument())) is change


def test_an_instrument_may_take_replaced_files_as_versions() -> None:
    run = HarvestRun(instrument=Instrument(replaced_file=ReplacedFile.NEW_VERSION))
    assert compare(entry(size_bytes=11, file_id="2"), version(), run) is Change.CHANGED


def test_the_share_s_clock_is_asked_when_a_file_was_created() -> None:
    run = HarvestRun(instrument=Instrument(), clock_offset_seconds=600)
    assert compare(entry(minutes=9, created=8), version(), run) is Change.CHANGED


# ---------------------------------------------------------------------------------------------------- the whole of it


class Rows:
    """Files in every state that the constraints allow, drawn by chance, and a listing that agrees with some of them."""

    def __init__(self, schedule: HarvestSchedule, second: StorageLocation, seed: int) -> None:
        self.chance = random.Random(seed)
        self.instrument, self.mine, self.second = schedule.instrument, schedule.default_storage_location, second
        runs = {"schedule": schedule, "instrument": self.instrument, "storage_location": self.mine}
        self.run = HarvestRun.objects.create(**runs, status=RunStatus.RUNNING)
        self.other_run = HarvestRun.objects.create(**runs, status=RunStatus.COMPLETED, ended_at=WRITTEN_AT)
        self.entries: dict[UUID, Entry] = {}

    def add(self, number: int) -> None:
        path = f"folder/{number}"
        listed = Entry(path, number, WRITTEN_AT, str(number), self.chance.choice([None, WRITTEN_AT]))
        for generation in range(1, known_before := self.chance.choice([0, 1, 1, 1, 1, 2]) + 1):
            self._record(listed, generation, is_current=generation + 1 == known_before)
        change: dict[str, Any] = self.chance.choice(
            [
                {},
                {},
                {},
                {"size_bytes": 10**6},
                {"modified_at": WRITTEN_AT + timedelta(microseconds=1)},
                {"file_id": "x"},
            ]
        )
        self.entries[path_key(path)] = replace(listed, **change)

    def _record(self, listed: Entry, generation: int, *, is_current: bool) -> None:
        newest = self.chance.choice([1, 1, 2])
        seen = {"size_bytes": listed.size_bytes, "source_mtime": listed.modified_at}
        record = FileRecord.objects.create(
            instrument=self.instrument,
            source_path=listed.path,
            source_path_key=path_key(listed.path),
            filename=listed.path,
            generation=generation,
            is_current=is_current,
            version_number=newest,
            **seen,
        )
        for version_number in range(1, newest + 1):
            frozen = {"frozen_at": WRITTEN_AT, "xxhash": "0" * 16, "sha256": "0" * 64}
            version = FileVersion.objects.create(
                record=record,
                number=version_number,
                source_file_id=listed.file_id,
                **seen,
                **(frozen if self.chance.random() < 0.8 else {}),
            )
            for storage in (self.mine, self.second):
                if self.chance.random() < 0.8:
                    self._transfer(version, storage)

    def _transfer(self, version: FileVersion, scheduled: StorageLocation) -> None:
        state = self.chance.choice([State.AVAILABLE, *WAY, *ENDS])
        goes_to = self.chance.choice([scheduled, scheduled, self.mine])
        if version.transfers.exclude(state=State.SKIPPED).filter(storage_location=goes_to).exists():
            state = State.SKIPPED
        values: dict[str, Any] = {"given_up": self.chance.random() < 0.2}
        if state in STORED:
            values |= {"checksum_verified": True, "completed_at": WRITTEN_AT, "source_checksum": "0" * 16}
            values |= {"dest_checksum": "0" * 16, "stored_path": str(version.pk), "stored_path_key": uuid4()}
        if self.chance.random() < 0.2:
            values |= {"lease_token": uuid4(), "lease_expires_at": WRITTEN_AT}
        FileTransfer.objects.create(
            record=version.record,
            version=version,
            scheduled_storage=scheduled,
            storage_location=goes_to,
            run=self.chance.choice([None, self.run, self.other_run]),
            state=state,
            **values,
        )


@pytest.mark.parametrize("seed", range(4))
def test_the_database_leaves_out_just_the_settled_ones(
    schedule: HarvestSchedule, second_archive: StorageLocation, seed: int
) -> None:
    rows = Rows(schedule, second_archive, seed)
    for number in range(250):
        rows.add(number)
    there = known(rows.run, rows.entries)
    nothing_to_do, settled = set(), set()
    for key, listed in rows.entries.items():
        version = there.versions.get(key)
        if version is None or compare(listed, version, rows.run) is not Change.NONE:
            continue
        transfer, elsewhere = there.transfers.get(version.pk), version.pk in there.elsewhere
        if course(rows.run, transfer, elsewhere=elsewhere, changed=False) is Course.LEAVE:
            nothing_to_do.add(key)
            assert transfer is not None
            if version.frozen_at and (transfer.is_leased or transfer.state == State.AVAILABLE):
                settled.add(key)

    left = unsettled(rows.run, rows.entries)

    assert all(left[key] is rows.entries[key] for key in left)
    if connection.vendor == "postgresql":
        assert set(rows.entries) - set(left) == settled
        assert 10 < len(settled) < len(nothing_to_do) < 200
    else:
        assert left == rows.entries
    assert set(rows.entries) - set(left) <= nothing_to_do


def test_another_instrument_s_files_and_another_storage_s_copies_settle_nothing(
    schedule: HarvestSchedule, second_archive: StorageLocation
) -> None:
    rows = Rows(schedule, second_archive, 1)
    for number in range(50):
        rows.add(number)
    other = Instrument.objects.create(
        name="HPLC", cifs_host="127.0.0.1:1", cifs_share="hplc", service_account=rows.instrument.service_account
    )
    FileTransfer.objects.filter(scheduled_storage=rows.mine).delete()
    assert unsettled(rows.run, rows.entries) == rows.entries
    rows.run.instrument, rows.run.storage_location = other, rows.second
    assert unsettled(rows.run, rows.entries) == rows.entries
    assert unsettled(rows.run, {}) == {}


def test_it_goes_by_the_unique_indexes_even_without_statistics(schedule: HarvestSchedule) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("it is asked of PostgreSQL only")
    explained = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        execute(f"EXPLAIN {sql}", params, many, context)
        explained.extend(line for (line,) in context["cursor"].fetchall())
        return execute(sql, params, many, context)

    places = {"instrument": schedule.instrument, "storage_location": schedule.default_storage_location}
    run = HarvestRun.objects.create(schedule=schedule, status=RunStatus.RUNNING, **places)
    entries = {path_key(str(number)): Entry(str(number), 1, WRITTEN_AT) for number in range(2000)}
    share: Any = SimpleNamespace(walk=lambda advanced: iter(entries.values()))
    discover(run, share, lambda: None)
    with connection.execute_wrapper(explain):
        assert unsettled(run, entries) == entries
    plan = "\n".join(explained)
    assert "version_one_per_number" in plan
    assert "transfer_one_per_scheduled_storage" in plan
    for other in ("Hash", "Merge", "Nested Loop", "Seq Scan"):
        assert other not in plan
