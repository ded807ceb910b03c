"""When a file is complete: each policy, alone and together, against a real folder."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harvest.completion import Changed, Gone, Verdict, Wait, asks_the_share, judge
from harvest.models import FileRecord, FileTransfer, FileVersion, Instrument
from harvest.storage.posix import PosixStorage

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def write(share: Path, path: str, content: bytes = b"x", seconds_ago: float = 3600) -> FileTransfer:
    """A file on the share, and its transfer as discovery would have made it."""
    file = share / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    at = NOW - timedelta(seconds=seconds_ago)
    os.utime(file, (at.timestamp(), at.timestamp()))
    record = FileRecord(source_path=path, filename=file.name, size_bytes=len(content), source_mtime=at)
    version = FileVersion(record=record, size_bytes=len(content), source_mtime=at)
    return FileTransfer(record=record, version=version)


def verdicts(instrument: Instrument, share: Path, *transfers: FileTransfer, now: datetime = NOW) -> list[Verdict]:
    with PosixStorage.from_config(str(share), {}) as source:
        return [verdict for _, verdict in judge(instrument, transfers, source, now)]


def policy(**fields: object) -> Instrument:
    return Instrument(**{"min_age_seconds": 0, **fields})  # type: ignore[arg-type]


def test_a_young_file_waits_until_it_is_old_enough(tmp_path: Path) -> None:
    transfer = write(tmp_path, "fid", seconds_ago=20)
    (verdict,) = verdicts(policy(min_age_seconds=60), tmp_path, transfer)
    assert isinstance(verdict, Wait)
    assert verdict.until == NOW + timedelta(seconds=40)
    assert verdicts(policy(min_age_seconds=60), tmp_path, transfer, now=verdict.until) == [None]


def test_a_file_from_the_future_is_taken_when_we_have_known_it_long_enough(tmp_path: Path) -> None:
    transfer = write(tmp_path, "fid", seconds_ago=-86400)
    (verdict,) = verdicts(policy(min_age_seconds=60), tmp_path, transfer)
    assert isinstance(verdict, Wait)
    assert verdict.until == NOW + timedelta(seconds=60)
    assert verdicts(policy(min_age_seconds=60), tmp_path, transfer, now=NOW + timedelta(seconds=60)) == [None]


def test_looks_must_find_it_unchanged(tmp_path: Path) -> None:
    transfer = write(tmp_path, "fid")
    instrument = policy(unchanged_looks=2, look_interval_seconds=30)
    reasons = []
    for look in range(3):
        (verdict,) = verdicts(instrument, tmp_path, transfer, now=NOW + timedelta(seconds=30 * look))
        reasons.append(verdict.reason if isinstance(verdict, Wait) else verdict)
    assert reasons == ["Unchanged in 0 of 2 looks.", "Unchanged in 1 of 2 looks.", None]


def test_a_look_that_finds_it_changed_begins_anew(tmp_path: Path) -> None:
    transfer = write(tmp_path, "fid")
    instrument = policy(unchanged_looks=1)
    verdicts(instrument, tmp_path, transfer)
    write(tmp_path, "fid", b"longer", seconds_ago=1)

    (verdict,) = verdicts(instrument, tmp_path, transfer)

    assert isinstance(verdict, Changed)
    assert verdict.entry.size_bytes == 6
    assert transfer.looks == 0


def test_a_look_at_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    transfer = write(tmp_path, "fid")
    instrument = policy(unchanged_looks=1)
    verdicts(instrument, tmp_path, transfer)
    (tmp_path / "fid").unlink()
    assert verdicts(instrument, tmp_path, transfer) == [Gone()]


@pytest.mark.parametrize("marker", ["done.txt", "DONE.TXT"])
def test_a_marker_must_lie_beside_it(tmp_path: Path, marker: str) -> None:
    transfer = write(tmp_path, "a/fid")
    write(tmp_path, "done.txt")
    instrument = policy(marker_name=marker)
    (verdict,) = verdicts(instrument, tmp_path, transfer)
    assert isinstance(verdict, Wait)
    write(tmp_path, "a/done.txt")
    assert verdicts(instrument, tmp_path, transfer) == [None]


def test_a_marker_may_bear_the_name_of_the_file(tmp_path: Path) -> None:
    first, second = write(tmp_path, "a/1.raw"), write(tmp_path, "a/2.raw")
    marker = write(tmp_path, "a/1.raw.done")
    done, waiting, itself = verdicts(policy(marker_name="{name}.done"), tmp_path, first, second, marker)
    assert done is None
    assert isinstance(waiting, Wait)
    assert isinstance(itself, Wait)


def test_a_lock_file_beside_it_keeps_it(tmp_path: Path) -> None:
    locked, free = write(tmp_path, "a/1.raw"), write(tmp_path, "b/1.raw")
    write(tmp_path, "a/Run.LOCK")
    waiting, done = verdicts(policy(lock_pattern="*.lock"), tmp_path, locked, free)
    assert isinstance(waiting, Wait)
    assert "run.lock" in waiting.reason
    assert done is None


def test_an_acquisition_is_taken_whole(tmp_path: Path) -> None:
    old = write(tmp_path, "20260115_glucose/acqus", seconds_ago=3600)
    write(tmp_path, "20260115_glucose/pdata/1/1r", seconds_ago=30)
    other = write(tmp_path, "20260201_alanine/fid", seconds_ago=3600)
    instrument = policy(quiet_folder_seconds=300)

    waiting, done = verdicts(instrument, tmp_path, old, other)

    assert isinstance(waiting, Wait)
    assert waiting.until == NOW + timedelta(seconds=270)
    assert done is None
    assert verdicts(instrument, tmp_path, old, now=waiting.until) == [None]


def test_a_file_at_the_top_does_not_wait_for_every_folder(tmp_path: Path) -> None:
    alone = write(tmp_path, "notes.txt", seconds_ago=3600)
    write(tmp_path, "20260115_glucose/fid", seconds_ago=1)
    assert verdicts(policy(quiet_folder_seconds=300), tmp_path, alone) == [None]


def test_policies_hold_together(tmp_path: Path) -> None:
    transfer = write(tmp_path, "a/fid", seconds_ago=120)
    write(tmp_path, "a/done")
    instrument = policy(min_age_seconds=60, marker_name="done", quiet_folder_seconds=10)
    assert verdicts(instrument, tmp_path, transfer) == [None]
    write(tmp_path, "a/other", seconds_ago=5)
    (verdict,) = verdicts(instrument, tmp_path, transfer)
    assert isinstance(verdict, Wait)


def test_a_minimum_age_alone_needs_no_connection() -> None:
    assert not asks_the_share(policy(min_age_seconds=60))
    assert asks_the_share(policy(quiet_folder_seconds=1))
