"""Walks a share and writes down what is new or changed, in sets: a few queries for a thousand files."""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from harvest.models import (
    BEFORE_A_COPY,
    FORGET_ERROR,
    START_ANEW,
    STORED,
    UNFINISHED,
    FileRecord,
    FileTransfer,
    FileVersion,
    HarvestRun,
    Instrument,
    ReplacedFile,
    RunError,
    State,
    StorageLocation,
    path_key,
)
from harvest.storage.base import Entry, Storage, Unreadable
from streamweave.lib import bulk
from streamweave.lib.logs import one_line

CHUNK_FILES = 1000
MAX_RUN_ERRORS = 10_000
"""How many unreadable names a run writes down one by one; all are counted."""


class Change(enum.Enum):
    NONE = "the same as its newest version"
    NEW = "not known yet"
    UNSETTLED = "its newest version has no verified copy yet and is taken as it is now"
    CHANGED = "a new version"
    REPLACED = "another file under the same name"


def compare(entry: Entry, version: FileVersion | None, run: HarvestRun) -> Change:
    """What a listing says of a file, beside the newest version that we know."""
    if version is None:
        return Change.NEW
    same = (entry.size_bytes, entry.modified_at) == (version.size_bytes, version.source_mtime)
    if version.frozen_at is None:
        return Change.NONE if same and entry.file_id == version.source_file_id else Change.UNSETTLED
    if same:
        return Change.NONE
    offset = timedelta(seconds=run.clock_offset_seconds or 0)
    replaced = is_replacement(entry, version, version.frozen_at + offset)
    if replaced and run.instrument.replaced_file == ReplacedFile.NEW_RECORD:
        return Change.REPLACED
    return Change.CHANGED


def is_replacement(entry: Entry, version: FileVersion, copied_at: datetime) -> bool:
    """Whether other content lies in another file, not in the same one written further.

    Another file id says so. File systems use ids again, so a time of creation after `copied_at` (by the share's clock),
    when a copy of the version was there already, says so too. Where a server keeps no such time it tells the last
    access instead, which then was ours, before the copy was there.
    """
    if None not in (entry.file_id, version.source_file_id) and entry.file_id != version.source_file_id:
        return True
    return entry.created_at is not None and entry.created_at > copied_at


@dataclass
class Known:
    """What the database knows of the paths of one chunk, by path key or record."""

    versions: dict[UUID, FileVersion]
    transfers: dict[UUID, FileTransfer]
    elsewhere: set[UUID]
    """Versions that another schedule or a redirect has brought or brings to this run's storage."""


def discover(run: HarvestRun, source: Storage, keep: Callable[[], None]) -> None:
    """Walk the share and write down, for the run's storage, what is new, changed or to be looked at again.

    `keep` is called as steps advance and may raise to stop the walk. May be repeated after a crash: what was written
    is found as known. Raises StorageError where the whole share is concerned.
    """
    found = source.walk(advanced=keep)
    while chunk := list(islice(found, CHUNK_FILES)):
        keep()
        unreadable = [item for item in chunk if isinstance(item, Unreadable)]
        entries = {path_key(item.path): item for item in chunk if isinstance(item, Entry)}
        _note_unreadable(run, unreadable)
        with transaction.atomic():
            # One discovery at a time writes for an instrument, so that nothing is discovered twice.
            Instrument.objects.select_for_update().only("pk").get(pk=run.instrument_id)
            discovered, skipped = _take_in(run, entries)
            HarvestRun.objects.filter(pk=run.pk).update(
                files_seen=F("files_seen") + len(entries),
                files_discovered=F("files_discovered") + discovered,
                files_skipped=F("files_skipped") + skipped,
            )
    _look_again_at_older_versions(run)


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


def _take_in(run: HarvestRun, entries: dict[UUID, Entry]) -> tuple[int, int]:
    """Compare one chunk with what is known and write the difference. Returns how many files the run takes on, and how
    many of these are skipped already, because their storage gets them another way."""
    known = _known(run, entries)
    changes: dict[Change, list[UUID]] = {change: [] for change in Change}
    for key, entry in entries.items():
        changes[compare(entry, known.versions.get(key), run)].append(key)

    versions = _new_records(run, entries, changes[Change.NEW], {})
    versions += _replaced(run, entries, changes[Change.REPLACED], known)
    versions += _new_versions(entries, changes[Change.CHANGED], known)
    settled_anew = _take_as_it_is_now(entries, changes[Change.UNSETTLED], known)

    again, adopted, stored = [], [], []
    for key in [*changes[Change.NONE], *changes[Change.UNSETTLED]]:
        version = known.versions[key]
        transfer = known.transfers.get(version.pk)
        if transfer is None:
            versions.append(version)
        elif transfer.is_leased or (transfer.state == State.SKIPPED and version.pk in known.elsewhere):
            continue
        elif transfer.state in STORED:
            if transfer.state != State.AVAILABLE:
                stored.append(transfer)
        elif key in settled_anew or transfer.given_up or transfer.state in (State.SKIPPED, State.VANISHED):
            again.append(transfer)
        elif transfer.state in UNFINISHED and transfer.run_id != run.pk:
            adopted.append(transfer)
    _look_again(run, again)
    FileTransfer.objects.filter(pk__in=[transfer.pk for transfer in adopted]).update(run=run)
    # Their copies are verified; only the hooks after it have failed, and are asked again.
    FileTransfer.objects.filter(pk__in=[transfer.pk for transfer in stored]).update(**FORGET_ERROR, run=run)
    _new_transfers(run, versions, known)
    skipped = sum(version.pk in known.elsewhere for version in versions)
    return len(versions) + len(again) + len(adopted) + len(stored), skipped


def _known(run: HarvestRun, entries: dict[UUID, Entry]) -> Known:
    newest = FileVersion.objects.filter(
        record__instrument=run.instrument_id,
        record__source_path_key__in=entries,
        record__is_current=True,
        number=F("record__version_number"),
    ).select_related("record")
    versions = {version.record.source_path_key: version for version in newest}
    ids = [version.pk for version in versions.values()]
    transfers = FileTransfer.objects.filter(version__in=ids)
    mine = transfers.filter(scheduled_storage=run.storage_location_id)
    elsewhere = transfers.filter(storage_location=run.storage_location_id).exclude(
        scheduled_storage=run.storage_location_id
    )
    return Known(
        versions,
        {transfer.version_id: transfer for transfer in mine},
        set(elsewhere.exclude(state=State.SKIPPED).values_list("version_id", flat=True)),
    )


def _new_records(
    run: HarvestRun, entries: dict[UUID, Entry], keys: Sequence[UUID], generations: dict[UUID, int]
) -> list[FileVersion]:
    """Records and first versions for `keys`. One time of discovery for all would leave the order of the newest to
    chance, so they are a microsecond apart, in the order of the walk."""
    records, versions = [], []
    now = timezone.now()
    for number, key in enumerate(keys):
        entry = entries[key]
        record = FileRecord(
            instrument_id=run.instrument_id,
            source_path=entry.path,
            source_path_key=key,
            generation=generations.get(key, 1),
            filename=entry.path.rpartition("/")[2],
            size_bytes=entry.size_bytes,
            source_mtime=entry.modified_at,
            first_discovered_at=now + number * timedelta(microseconds=1),
        )
        records.append(record)
        versions.append(_version(record, 1, entry))
    FileRecord.objects.bulk_create(records)
    FileVersion.objects.bulk_create(versions)
    return versions


def _replaced(run: HarvestRun, entries: dict[UUID, Entry], keys: Sequence[UUID], known: Known) -> list[FileVersion]:
    """New generations: the old records stay, with their grants and bytes, and are no longer current."""
    old = [known.versions[key].record for key in keys]
    FileRecord.objects.filter(pk__in=[record.pk for record in old]).update(is_current=False)
    generations = {record.source_path_key: record.generation + 1 for record in old}
    return _new_records(run, entries, keys, generations)


def _new_versions(entries: dict[UUID, Entry], keys: Sequence[UUID], known: Known) -> list[FileVersion]:
    records, versions = [], []
    for key in keys:
        entry, record = entries[key], known.versions[key].record
        record.version_number += 1
        record.size_bytes, record.source_mtime = entry.size_bytes, entry.modified_at
        record.xxhash = record.sha256 = None
        records.append(record)
        versions.append(_version(record, record.version_number, entry))
    bulk.write(records, ["version_number", "size_bytes", "source_mtime", "xxhash", "sha256"])
    FileVersion.objects.bulk_create(versions)
    return versions


def _version(record: FileRecord, number: int, entry: Entry) -> FileVersion:
    return FileVersion(
        record=record,
        number=number,
        size_bytes=entry.size_bytes,
        source_mtime=entry.modified_at,
        source_file_id=entry.file_id,
        source_created_at=entry.created_at,
    )


def _take_as_it_is_now(entries: dict[UUID, Entry], keys: Sequence[UUID], known: Known) -> set[UUID]:
    """Versions without a verified copy become what the file is now; a copy under way will notice by itself."""
    versions, records = [], []
    for key in keys:
        entry, version = entries[key], known.versions[key]
        version.size_bytes, version.source_mtime = entry.size_bytes, entry.modified_at
        version.source_file_id, version.source_created_at = entry.file_id, entry.created_at
        version.record.size_bytes, version.record.source_mtime = entry.size_bytes, entry.modified_at
        versions.append(version)
        records.append(version.record)
    fields = ["size_bytes", "source_mtime"]
    bulk.write(versions, [*fields, "source_file_id", "source_created_at"], where={"frozen_at": None})
    bulk.write(records, fields)
    return set(keys)


def _look_again(run: HarvestRun, transfers: Sequence[FileTransfer]) -> None:
    """Skipped, vanished, failed or changed before they were copied: from the beginning, on the same row."""
    FileTransfer.objects.filter(pk__in=[transfer.pk for transfer in transfers]).unleased(timezone.now()).update(
        **START_ANEW, run=run
    )


def _new_transfers(run: HarvestRun, versions: Sequence[FileVersion], known: Known) -> None:
    """One for each version, to the run's storage. Created in the order of the walk, a microsecond apart."""
    now = timezone.now()
    transfers = []
    for number, version in enumerate(versions):
        there = version.pk in known.elsewhere
        transfers.append(
            FileTransfer(
                record=version.record,
                version=version,
                scheduled_storage_id=run.storage_location_id,
                storage_location_id=run.storage_location_id,
                run=run,
                state=State.SKIPPED if there else State.DISCOVERED,
                reason="Another schedule brings this version to the same storage." if there else None,
                created_at=now + number * timedelta(microseconds=1),
            )
        )
    FileTransfer.objects.bulk_create(transfers)


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
        known = _known(run, {path_key(item.path): item for item in chunk if isinstance(item, Entry)})
        yield [item if isinstance(item, Unreadable) else _predict(item, known, run) for item in chunk]


def _predict(entry: Entry, known: Known, run: HarvestRun) -> Prediction:
    version = known.versions.get(path_key(entry.path))
    change = compare(entry, version, run)
    if version is None:
        return Prediction(entry, change, None, None, False)
    return Prediction(entry, change, version, known.transfers.get(version.pk), version.pk in known.elsewhere)
