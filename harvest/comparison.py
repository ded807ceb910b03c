"""What a listing says of files, beside what the database knows of them, and what a run does about it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.db.models import F

from harvest.models import (
    STORED,
    UNFINISHED,
    FileRecord,
    FileTransfer,
    FileVersion,
    HarvestRun,
    ReplacedFile,
    State,
)
from harvest.storage.base import Entry
from streamweave.lib.arrays import Arrays


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


class Course(enum.Enum):
    """What a run does about a version whose bytes are known already (the same, or taken as they are now)."""

    LEAVE = "nothing is to be done"
    TAKE_ON = "it has no transfer to the run's storage yet"
    LOOK_AGAIN = "skipped, vanished, failed or changed before it was copied: from the beginning"
    ADOPT = "on its way for another run"
    ASK_HOOKS_AGAIN = "its copy is verified; only the hooks after it have failed"


def course(run: HarvestRun, transfer: FileTransfer | None, *, elsewhere: bool, changed: bool) -> Course:
    """What `run` does about a version with this transfer to its storage. `elsewhere`: another schedule or a redirect
    has brought or brings it there; `changed`: it was not copied yet and has just been taken as it is now."""
    if transfer is None:
        return Course.TAKE_ON
    if transfer.is_leased or (transfer.state == State.SKIPPED and elsewhere):
        return Course.LEAVE
    if transfer.state in STORED:
        return Course.LEAVE if transfer.state == State.AVAILABLE else Course.ASK_HOOKS_AGAIN
    if changed or transfer.given_up or transfer.state in (State.SKIPPED, State.VANISHED):
        return Course.LOOK_AGAIN
    if transfer.state in UNFINISHED and transfer.run_id != run.pk:
        return Course.ADOPT
    return Course.LEAVE


@dataclass
class Known:
    """What the database knows of some paths, by path key or version."""

    versions: dict[UUID, FileVersion]
    transfers: dict[UUID, FileTransfer]
    elsewhere: set[UUID]
    """Versions that another schedule or a redirect has brought or brings to this run's storage."""


def known(run: HarvestRun, entries: Mapping[UUID, Entry]) -> Known:
    """The newest versions of `entries`, by path key, and their transfers to the run's storage."""
    newest = FileVersion.objects.filter(
        record__instrument=run.instrument_id,
        record__source_path_key__in=entries,
        record__is_current=True,
        number=F("record__version_number"),
    ).select_related("record")
    versions = {version.record.source_path_key: version for version in newest}
    transfers = FileTransfer.objects.filter(version__in=[version.pk for version in versions.values()])
    mine = transfers.filter(scheduled_storage=run.storage_location_id)
    elsewhere = transfers.filter(storage_location=run.storage_location_id).exclude(
        scheduled_storage=run.storage_location_id
    )
    return Known(
        versions,
        {transfer.version_id: transfer for transfer in mine},
        set(elsewhere.exclude(state=State.SKIPPED).values_list("version_id", flat=True)),
    )


# Subqueries in one another, not joins: whatever the statistics say (on the first run there are none), it goes by the
# unique index of each table, row by row. It says the same as `compare` and `course` of a version with a verified copy.
_UNSETTLED = """
SELECT given.row - 1 FROM {rows} WHERE COALESCE((
    SELECT (
        SELECT (
            SELECT transfer.lease_token IS NOT NULL OR transfer.state = 'available'
            FROM harvest_filetransfer transfer
            WHERE transfer.version_id = version.id AND transfer.scheduled_storage_id = {storage}
        )
        FROM harvest_fileversion version
        WHERE version.record_id = record.id AND version.number = record.version_number
            AND version.size_bytes = {size_bytes} AND version.source_mtime = {modified_at}
            AND version.frozen_at IS NOT NULL
    )
    FROM harvest_filerecord record
    WHERE record.instrument_id = {instrument} AND record.source_path_key = {key} AND record.is_current
), FALSE) IS FALSE
"""


def unsettled(run: HarvestRun, entries: Mapping[UUID, Entry]) -> dict[UUID, Entry]:
    """Those of `entries`, by path key, that are not plainly settled: the same as a version with a verified copy, whose
    transfer to the run's storage is available or in a worker's hands. SQLite leaves the whole question to `compare`."""
    if connection.vendor != "postgresql" or not entries:
        return dict(entries)
    arrays = Arrays(connection)
    record, version = FileRecord._meta.get_field, FileVersion._meta.get_field
    statement = _UNSETTLED.format(
        key=arrays.column(record("source_path_key"), list(entries)),
        size_bytes=arrays.column(version("size_bytes"), [entry.size_bytes for entry in entries.values()]),
        modified_at=arrays.column(version("source_mtime"), [entry.modified_at for entry in entries.values()]),
        instrument=arrays.value(record("instrument"), run.instrument_id),
        storage=arrays.value(FileTransfer._meta.get_field("scheduled_storage"), run.storage_location_id),
        rows=arrays.rows,
    )
    with arrays.execute(statement) as cursor:
        numbers = [number for (number,) in cursor.fetchall()]
    items = list(entries.items())
    return dict(items) if len(numbers) == len(items) else dict(items[number] for number in numbers)
