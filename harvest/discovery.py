"""Walks a share and writes down what is new or changed, in sets: a few queries for a thousand files."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from harvest.comparison import Change, Course, Known, compare, course, known, unsettled
from harvest.models import (
    BEFORE_A_COPY,
    FORGET_ERROR,
    START_ANEW,
    FileRecord,
    FileTransfer,
    FileVersion,
    HarvestRun,
    Instrument,
    RunError,
    State,
    StorageLocation,
    mint_arks,
    path_key,
)
from harvest.storage.base import Entry, Storage, Unreadable
from streamweave.lib import bulk
from streamweave.lib.ids import ordered
from streamweave.lib.logs import one_line

CHUNK_FILES = 2000
MAX_RUN_ERRORS = 10_000
"""How many unreadable names a run writes down one by one; all are counted."""
PROGRESS_SECONDS = 2.0
SERVED_ELSEWHERE = "Another schedule brings this version to the same storage."

Version = tuple[UUID, UUID]
"""The keys of a record and of one of its versions."""


def discover(run: HarvestRun, source: Storage, keep: Callable[[], None]) -> None:
    """Walk the share and write down, for the run's storage, what is new, changed or to be looked at again.

    Where nothing is, nothing is written but how many files were seen, now and then. What is found can be taken on by
    other workers while the walk goes on. `keep` is called as steps advance and may raise to stop the walk. May be
    repeated after a crash: what was written is found as known. Raises StorageError where the whole share is concerned.
    """
    found = source.walk(advanced=keep)
    written_at = time.monotonic()
    while chunk := list(islice(found, CHUNK_FILES)):
        keep()
        _note_unreadable(run, [item for item in chunk if isinstance(item, Unreadable)])
        entries = {path_key(item.path): item for item in chunk if isinstance(item, Entry)}
        run.files_seen += len(entries)
        if concerned := unsettled(run, entries):
            _write_down(run, concerned)
        if time.monotonic() - written_at >= PROGRESS_SECONDS:
            written_at = time.monotonic()
            HarvestRun.objects.filter(pk=run.pk).update(files_seen=run.files_seen)
    HarvestRun.objects.filter(pk=run.pk).update(files_seen=run.files_seen)
    _look_again_at_older_versions(run)


def _write_down(run: HarvestRun, entries: Mapping[UUID, Entry]) -> None:
    with transaction.atomic():
        # One discovery at a time writes for an instrument, so that nothing is discovered twice.
        Instrument.objects.select_for_update().only("pk").get(pk=run.instrument_id)
        discovered, skipped = _take_in(run, entries)
        if discovered:
            HarvestRun.objects.filter(pk=run.pk).update(
                files_discovered=F("files_discovered") + discovered, files_skipped=F("files_skipped") + skipped
            )


def _look_again_at_older_versions(run: HarvestRun) -> None:
    """Versions that the share no longer has, given up on the way to the run's storage: where a verified copy is
    elsewhere, it is copied from there; the others can be had no more."""
    given_up = FileTransfer.objects.filter(
        record__instrument=run.instrument_id,
        scheduled_storage=run.storage_location_id,
        given_up=True,
        state__in=BEFORE_A_COPY,
    ).exclude(record__is_current=True, version__number=F("record__version_number"))
    lost = given_up.filter(version__frozen_at=None).values("pk")
    FileTransfer.objects.filter(pk__in=lost).update(
        **FORGET_ERROR, state=State.SUPERSEDED, reason="It changed on the instrument before it was copied."
    )
    copied = given_up.filter(version__frozen_at__isnull=False).values("pk")
    count = FileTransfer.objects.filter(pk__in=copied).unleased(timezone.now()).update(**START_ANEW, run=run)
    if count:
        HarvestRun.objects.filter(pk=run.pk).update(files_discovered=F("files_discovered") + count)


def _note_unreadable(run: HarvestRun, unreadable: Sequence[Unreadable]) -> None:
    if not unreadable:
        return
    room = max(MAX_RUN_ERRORS - run.walk_errors, 0)
    RunError.objects.bulk_create(
        RunError(run=run, path=one_line(item.path), code=item.error.fault.value, message=one_line(str(item.error)))
        for item in unreadable[:room]
    )
    run.walk_errors += len(unreadable)
    HarvestRun.objects.filter(pk=run.pk).update(walk_errors=run.walk_errors)


def _take_in(run: HarvestRun, entries: Mapping[UUID, Entry]) -> tuple[int, int]:
    """Compare one chunk with what is known and write the difference. Returns how many files the run takes on, and how
    many of these are skipped already, because their storage gets them another way."""
    there = known(run, entries)
    changes: dict[Change, list[UUID]] = {change: [] for change in Change}
    for key, entry in entries.items():
        changes[compare(entry, there.versions.get(key), run)].append(key)

    taken_on = _new_records(run, entries, changes[Change.NEW], {})
    taken_on += _replaced(run, entries, changes[Change.REPLACED], there)
    taken_on += _new_versions(entries, changes[Change.CHANGED], there)
    _take_as_it_is_now(entries, changes[Change.UNSETTLED], there)

    courses: dict[Course, list[FileTransfer]] = {course: [] for course in Course}
    for change in (Change.NONE, Change.UNSETTLED):
        for key in changes[change]:
            version = there.versions[key]
            transfer, elsewhere = there.transfers.get(version.pk), version.pk in there.elsewhere
            if transfer is None:
                taken_on.append((version.record_id, version.pk))
            else:
                changed = change is Change.UNSETTLED
                courses[course(run, transfer, elsewhere=elsewhere, changed=changed)].append(transfer)
    again, adopted, asked = courses[Course.LOOK_AGAIN], courses[Course.ADOPT], courses[Course.ASK_HOOKS_AGAIN]
    _look_again(run, again)
    _rows(adopted).update(run=run)
    _rows(asked).update(**FORGET_ERROR, run=run)
    _new_transfers(run, taken_on, there)
    skipped = sum(version in there.elsewhere for _, version in taken_on)
    return len(taken_on) + len(again) + len(adopted) + len(asked), skipped


def _rows(transfers: Sequence[FileTransfer]) -> Any:
    return FileTransfer.objects.filter(pk__in=[transfer.pk for transfer in transfers])


def _new_records(
    run: HarvestRun, entries: Mapping[UUID, Entry], keys: Sequence[UUID], generations: Mapping[UUID, int]
) -> list[Version]:
    """Records and first versions for `keys`. One time of discovery for all would leave the order of the newest to
    chance, so they are a microsecond apart, in the order of the walk."""
    now = timezone.now()
    records = ordered(len(keys), now)
    found = [entries[key] for key in keys]
    bulk.insert(
        FileRecord,
        {
            "id": records,
            "persistent_id": mint_arks(len(keys)),
            "source_path": [entry.path for entry in found],
            "source_path_key": keys,
            "generation": [generations.get(key, 1) for key in keys],
            "filename": [entry.path.rpartition("/")[2] for entry in found],
            "size_bytes": [entry.size_bytes for entry in found],
            "source_mtime": [entry.modified_at for entry in found],
            "first_discovered_at": _apart(now, len(keys)),
        },
        instrument_id=run.instrument_id,
        created_at=now,
    )
    return _versions(records, [1] * len(keys), found)


def _replaced(run: HarvestRun, entries: Mapping[UUID, Entry], keys: Sequence[UUID], there: Known) -> list[Version]:
    """New generations: the old records stay, with their grants and bytes, and are no longer current."""
    old = [there.versions[key].record for key in keys]
    FileRecord.objects.filter(pk__in=[record.pk for record in old]).update(is_current=False)
    generations = {record.source_path_key: record.generation + 1 for record in old}
    return _new_records(run, entries, keys, generations)


def _new_versions(entries: Mapping[UUID, Entry], keys: Sequence[UUID], there: Known) -> list[Version]:
    records = [there.versions[key].record for key in keys]
    found = [entries[key] for key in keys]
    for entry, record in zip(found, records, strict=True):
        record.version_number += 1
        record.size_bytes, record.source_mtime = entry.size_bytes, entry.modified_at
        record.xxhash = record.sha256 = None
    bulk.write(records, ["version_number", "size_bytes", "source_mtime", "xxhash", "sha256"])
    return _versions([record.pk for record in records], [record.version_number for record in records], found)


def _versions(records: Sequence[UUID], numbers: Sequence[int], found: Sequence[Entry]) -> list[Version]:
    """A version for each of `records`, as the listing tells of it."""
    now = timezone.now()
    versions = ordered(len(records), now)
    bulk.insert(
        FileVersion,
        {
            "id": versions,
            "record_id": records,
            "number": numbers,
            "size_bytes": [entry.size_bytes for entry in found],
            "source_mtime": [entry.modified_at for entry in found],
            "source_file_id": [entry.file_id for entry in found],
            "source_created_at": [entry.created_at for entry in found],
        },
        created_at=now,
    )
    return list(zip(records, versions, strict=True))


def _take_as_it_is_now(entries: Mapping[UUID, Entry], keys: Sequence[UUID], there: Known) -> None:
    """Versions without a verified copy become what the file is now; a copy under way will notice by itself."""
    versions, records = [], []
    for key in keys:
        entry, version = entries[key], there.versions[key]
        version.size_bytes, version.source_mtime = entry.size_bytes, entry.modified_at
        version.source_file_id, version.source_created_at = entry.file_id, entry.created_at
        version.record.size_bytes, version.record.source_mtime = entry.size_bytes, entry.modified_at
        versions.append(version)
        records.append(version.record)
    fields = ["size_bytes", "source_mtime"]
    bulk.write(versions, [*fields, "source_file_id", "source_created_at"], where={"frozen_at": None})
    bulk.write(records, fields)


def _look_again(run: HarvestRun, transfers: Sequence[FileTransfer]) -> None:
    """Skipped, vanished, failed or changed before they were copied: from the beginning, on the same row."""
    FileTransfer.objects.filter(pk__in=[transfer.pk for transfer in transfers]).unleased(timezone.now()).update(
        **START_ANEW, run=run
    )


def _new_transfers(run: HarvestRun, versions: Sequence[Version], there: Known) -> None:
    """One for each version, to the run's storage. Created in the order of the walk, a microsecond apart."""
    now = timezone.now()
    elsewhere = [version in there.elsewhere for _, version in versions]
    bulk.insert(
        FileTransfer,
        {
            "id": ordered(len(versions), now),
            "record_id": [record for record, _ in versions],
            "version_id": [version for _, version in versions],
            "state": [State.SKIPPED if skipped else State.DISCOVERED for skipped in elsewhere],
            "reason": [SERVED_ELSEWHERE if skipped else None for skipped in elsewhere],
            "created_at": _apart(now, len(versions)),
        },
        scheduled_storage_id=run.storage_location_id,
        storage_location_id=run.storage_location_id,
        run_id=run.pk,
    )


def _apart(first: datetime, count: int) -> list[datetime]:
    """`count` times from `first` on, a microsecond apart."""
    return [first + timedelta(microseconds=number) for number in range(count)]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A file of the share: what it is beside what is known, its transfer to the storage asked about, and whether
    another schedule or a redirect has brought or brings it there."""

    entry: Entry
    change: Change
    version: FileVersion | None
    transfer: FileTransfer | None
    elsewhere: bool


def predicted(
    instrument: Instrument, location: StorageLocation, source: Storage
) -> Generator[list[Prediction | Unreadable]]:
    """For a dry run: the share in chunks, each entry with what a harvest to `location` would meet. Writes nothing."""
    ahead = source.clock_offset_seconds()
    run = HarvestRun(instrument=instrument, storage_location=location, clock_offset_seconds=ahead)
    found = source.walk()
    while chunk := list(islice(found, CHUNK_FILES)):
        there = known(run, {path_key(item.path): item for item in chunk if isinstance(item, Entry)})
        yield [item if isinstance(item, Unreadable) else _predict(item, there, run) for item in chunk]


def _predict(entry: Entry, there: Known, run: HarvestRun) -> Prediction:
    version = there.versions.get(path_key(entry.path))
    change = compare(entry, version, run)
    if version is None:
        return Prediction(entry, change, None, None, False)
    return Prediction(entry, change, version, there.transfers.get(version.pk), version.pk in there.elsewhere)
