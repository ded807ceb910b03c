"""What a walk makes of a share: new, changed and replaced files, in sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from harvest import discovery
from harvest.discovery import discover
from harvest.models import (
    FileRecord,
    FileTransfer,
    FileVersion,
    HarvestRun,
    HarvestSchedule,
    RunStatus,
    State,
    StorageLocation,
)
from harvest.storage.base import Entry, Fault, StorageError, Unreadable
from harvest.storage.posix import PosixStorage

WRITTEN_AT = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@pytest.fixture
def run(schedule: HarvestSchedule) -> HarvestRun:
    return new_run(schedule)


def new_run(schedule: HarvestSchedule, storage: StorageLocation | None = None) -> HarvestRun:
    HarvestRun.objects.filter(status=RunStatus.RUNNING).update(status=RunStatus.COMPLETED, ended_at=WRITTEN_AT)
    return HarvestRun.objects.create(
        schedule=schedule,
        instrument=schedule.instrument,
        storage_location=storage or schedule.default_storage_location,
        status=RunStatus.RUNNING,
    )


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


def write(path: Path, content: bytes, minutes: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    at = (WRITTEN_AT + timedelta(minutes=minutes)).timestamp()
    os.utime(path, (at, at))


def walk(run: HarvestRun, share: Path) -> HarvestRun:
    with PosixStorage.from_config(str(share), {}) as source:
        discover(run, source, lambda: None)
    run.refresh_from_db()
    return run


def freeze(path: str) -> None:
    """As if a copy of the newest version had been verified."""
    record = FileRecord.objects.current().get(source_path=path)
    newest = record.versions.get(number=record.version_number)
    newest.xxhash, newest.sha256, newest.frozen_at = "0" * 16, "0" * 64, WRITTEN_AT
    newest.save()
    for transfer in newest.transfers.all():
        transfer.state, transfer.checksum_verified, transfer.completed_at = State.AVAILABLE, True, WRITTEN_AT
        transfer.source_checksum = transfer.dest_checksum = "0" * 16
        transfer.stored_path, transfer.stored_path_key = f"NMR/{path}", newest.pk
        transfer.save()


def test_new_files_get_a_record_a_version_and_a_transfer(run: HarvestRun, share: Path) -> None:
    write(share / "20260115_glucose/fid", b"0123456789")
    write(share / "20260115_glucose/acqus", b"##TITLE=")

    walk(run, share)

    assert (run.files_seen, run.files_discovered) == (2, 2)
    record = FileRecord.objects.get(source_path="20260115_glucose/fid")
    assert (record.filename, record.size_bytes, record.source_mtime) == ("fid", 10, WRITTEN_AT)
    assert record.persistent_id.startswith("ark:/99999/fk4")
    assert (record.xxhash, record.sha256, record.metadata, record.owner) == (None, None, {}, None)
    transfer = record.transfers.get()
    assert (transfer.state, transfer.run, transfer.storage_location) == (State.DISCOVERED, run, run.storage_location)


def test_a_second_walk_finds_nothing_new(run: HarvestRun, share: Path, schedule: HarvestSchedule) -> None:
    write(share / "fid", b"0123456789")
    walk(run, share)
    freeze("fid")

    again = walk(new_run(schedule), share)

    assert (again.files_seen, again.files_discovered) == (1, 0)
    assert (FileRecord.objects.count(), FileVersion.objects.count(), FileTransfer.objects.count()) == (1, 1, 1)


def test_a_changed_file_is_a_new_version_of_the_same_record(
    run: HarvestRun, share: Path, schedule: HarvestSchedule
) -> None:
    write(share / "fid", b"0123456789")
    walk(run, share)
    freeze("fid")
    write(share / "fid", b"0123456789 and more", minutes=5)

    walk(new_run(schedule), share)

    record = FileRecord.objects.get()
    assert (record.version_number, record.size_bytes, record.xxhash) == (2, 19, None)
    assert list(record.versions.values_list("number", "size_bytes")) == [(1, 10), (2, 19)]
    assert record.transfers.filter(state=State.DISCOVERED).get().version.number == 2


def test_a_replaced_file_is_a_new_record(run: HarvestRun, share: Path, schedule: HarvestSchedule) -> None:
    write(share / "test.fid", b"of the first team")
    walk(run, share)
    freeze("test.fid")
    write(share / "new", b"of the second", minutes=5)
    (share / "new").replace(share / "test.fid")

    walk(new_run(schedule), share)

    old, new = FileRecord.objects.order_by("generation")
    assert (old.generation, old.is_current, old.size_bytes) == (1, False, 17)
    assert (new.generation, new.is_current, new.size_bytes) == (2, True, 13)
    assert old.persistent_id != new.persistent_id


def test_a_file_without_a_copy_is_taken_as_it_is_now(run: HarvestRun, share: Path, schedule: HarvestSchedule) -> None:
    write(share / "fid", b"begun")
    walk(run, share)
    FileTransfer.objects.update(state=State.READY, given_up=True, error_message="no")
    write(share / "fid", b"begun and ended", minutes=5)

    walk(new_run(schedule), share)

    transfer = FileTransfer.objects.get()
    assert (transfer.state, transfer.given_up, transfer.error_message) == (State.DISCOVERED, False, None)
    assert (transfer.version.number, transfer.version.size_bytes, transfer.record.size_bytes) == (1, 15, 15)


def test_a_file_that_a_worker_holds_is_left_to_it(run: HarvestRun, share: Path, schedule: HarvestSchedule) -> None:
    write(share / "fid", b"begun")
    walk(run, share)
    token = FileTransfer.objects.lease(now=WRITTEN_AT, holder="w", limit=9, limit_bytes=9)
    assert token is not None
    FileTransfer.objects.update(state=State.READY)
    write(share / "fid", b"begun and ended", minutes=5)

    walk(new_run(schedule), share)

    transfer = FileTransfer.objects.get()
    assert (transfer.state, transfer.lease_token) == (State.READY, token)
    assert len(FileTransfer.objects.held(token)) == 1


@pytest.mark.parametrize("state", [State.SKIPPED, State.VANISHED])
def test_skipped_and_vanished_files_are_looked_at_again_on_the_same_row(
    run: HarvestRun, share: Path, schedule: HarvestSchedule, state: State
) -> None:
    write(share / "scratch.tmp", b"temp data\n")
    walk(run, share)
    FileTransfer.objects.update(state=state, reason="because")

    again = walk(new_run(schedule), share)

    transfer = FileTransfer.objects.get()
    assert (transfer.state, transfer.reason, transfer.run) == (State.DISCOVERED, None, again)
    assert again.files_discovered == 1


def test_a_second_storage_gets_its_own_transfer_of_the_same_record(
    run: HarvestRun, share: Path, schedule: HarvestSchedule, second_archive: StorageLocation
) -> None:
    write(share / "fid", b"0123456789")
    walk(run, share)
    freeze("fid")
    other = HarvestSchedule.objects.create(
        instrument=schedule.instrument, default_storage_location=second_archive, cron_expression="0 2 * * *"
    )

    walk(new_run(other), share)

    assert FileRecord.objects.count() == 1
    assert set(FileTransfer.objects.values_list("scheduled_storage__name", "state")) == {
        ("archive", "available"),
        ("second", "discovered"),
    }


def test_a_storage_that_a_redirect_has_served_gets_no_second_copy(
    run: HarvestRun, share: Path, schedule: HarvestSchedule, second_archive: StorageLocation
) -> None:
    write(share / "fid", b"0123456789")
    walk(run, share)
    freeze("fid")
    FileTransfer.objects.update(storage_location=second_archive)
    other = HarvestSchedule.objects.create(
        instrument=schedule.instrument, default_storage_location=second_archive, cron_expression="0 2 * * *"
    )

    first = walk(new_run(other), share)
    second = walk(new_run(other), share)

    extra = FileTransfer.objects.get(scheduled_storage=second_archive)
    assert extra.state == State.SKIPPED
    assert (first.files_discovered, first.files_skipped) == (1, 1)
    assert (second.files_discovered, second.files_skipped) == (0, 0)


def test_a_thousand_files_cost_no_more_queries_than_ten(
    run: HarvestRun, share: Path, schedule: HarvestSchedule
) -> None:
    for number in range(10):
        write(share / f"{number:04}", b"x")
    with CaptureQueriesContext(connection) as ten:
        walk(run, share)
    for number in range(1000):
        write(share / f"{number:04}", b"x", minutes=0)
    with CaptureQueriesContext(connection) as thousand:
        walk(new_run(schedule), share)
    # new ones beside known ones: the same, and an update of these
    assert len(thousand) <= len(ten) + 6


def test_where_all_is_known_only_the_number_of_files_seen_is_written(
    run: HarvestRun, share: Path, schedule: HarvestSchedule
) -> None:
    for name in ("a", "b", "c"):
        write(share / name, b"x")
    walk(run, share)
    for name in ("a", "b", "c"):
        freeze(name)
    tables = (FileRecord, FileVersion, FileTransfer)
    before = [list(table.objects.order_by("pk").values()) for table in tables]
    second = new_run(schedule)

    with CaptureQueriesContext(connection) as queries, PosixStorage.from_config(str(share), {}) as source:
        discover(second, source, lambda: None)

    assert [list(table.objects.order_by("pk").values()) for table in tables] == before
    second.refresh_from_db()
    assert (second.files_seen, second.files_discovered) == (3, 0)
    if connection.vendor == "postgresql":
        changing = [query["sql"] for query in queries if "FOR UPDATE" in query["sql"] or "INSERT" in query["sql"]]
        assert changing == []


class Watched(PosixStorage):
    """Calls `between` when its walk goes on after a file."""

    between: Callable[[int], None]

    def walk(self, top: str = "", **how: Any) -> Iterator[Entry | Unreadable]:
        for number, item in enumerate(super().walk(top, **how), start=1):
            yield item
            self.between(number)


def test_while_the_walk_goes_on_its_progress_is_shown_and_what_it_found_can_be_taken_on(
    run: HarvestRun, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "CHUNK_FILES", 2)
    monkeypatch.setattr(discovery, "PROGRESS_SECONDS", 0)
    told = {}

    def between(number: int) -> None:
        there = HarvestRun.objects.get(pk=run.pk)
        told[number] = (there.files_seen, there.files_discovered, there.transfers.unfinished().count())

    for name in "abcde":
        write(share / name, b"x")
    with Watched(str(share)) as source:
        source.between = between
        discover(run, source, lambda: None)

    assert told == {1: (0, 0, 0), 2: (2, 2, 2), 3: (2, 2, 2), 4: (4, 4, 4), 5: (4, 4, 4)}
    run.refresh_from_db()
    assert (run.files_seen, run.files_discovered) == (5, 5)


def test_a_walk_that_begins_anew_after_a_crash_counts_and_writes_no_file_twice(run: HarvestRun, share: Path) -> None:
    for name in "abc":
        write(share / name, b"x")
    walk(run, share)
    HarvestRun.objects.filter(pk=run.pk).update(files_seen=0)
    run.refresh_from_db()

    walk(run, share)

    assert (run.files_seen, run.files_discovered) == (3, 3)
    assert FileTransfer.objects.count() == 3


def test_the_newest_first_is_the_walk_backwards(run: HarvestRun, share: Path) -> None:
    for name in "abcde":
        write(share / name, b"x")
    with PosixStorage.from_config(str(share), {}) as source:
        walked = [item.path for item in source.walk()]
    walk(run, share)
    assert list(FileRecord.objects.values_list("source_path", flat=True)) == walked[::-1]
    oldest_first = FileTransfer.objects.order_by("created_at").values_list("record__source_path", flat=True)
    assert list(oldest_first) == walked


def test_unreadable_folders_are_written_down_and_the_rest_goes_on(run: HarvestRun, share: Path) -> None:
    class Partly(PosixStorage):
        def walk(self, top: str = "", **how: Any) -> Iterator[Entry | Unreadable]:
            yield Unreadable("secret", StorageError(Fault.DENIED, "Access to “secret”\nis denied."))
            yield from super().walk(top, **how)

    write(share / "fid", b"0123456789")
    with Partly(str(share)) as source:
        discover(run, source, lambda: None)
    run.refresh_from_db()

    error = run.errors.get()
    assert (error.path, error.code) == ("secret", "denied")
    assert "\n" not in error.message
    assert (run.walk_errors, run.files_seen) == (1, 1)


def test_paths_of_any_length_and_script_are_kept(run: HarvestRun, share: Path) -> None:
    deep = "/".join(["長い名前" * 10] * 30)
    write(share / deep / "ﬁd\u202egnp.exe", b"x")
    write(share / "cafe\u0301", b"x")
    write(share / "caf\u00e9", b"x")

    walk(run, share)

    assert set(FileRecord.objects.values_list("source_path", flat=True)) == {
        f"{deep}/ﬁd\u202egnp.exe",
        "cafe\u0301",
        "caf\u00e9",
    }
