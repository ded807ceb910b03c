"""Is a file complete on the instrument? The policy of its instrument, applied to a batch."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from harvest.models import FileTransfer, Instrument
from harvest.storage.base import Entry, Fault, Storage, StorageError, Unreadable
from harvest.transfer import SourceError


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: why, and when to look next."""

    reason: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Changed:
    """It has changed since the last look; `entry` is what it is now."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Gone:
    """It is no longer there."""


Verdict = Wait | Changed | Gone | StorageError | None
"""None: it is complete."""


def asks_the_share(instrument: Instrument) -> bool:
    """Whether the policy needs a look at the share, beyond what the listing told."""
    return bool(
        instrument.unchanged_looks
        or instrument.marker_name
        or instrument.lock_pattern
        or instrument.quiet_folder_seconds
    )


def judge(
    instrument: Instrument, transfers: Sequence[FileTransfer], source: Storage | None, now: datetime
) -> Iterator[tuple[FileTransfer, Verdict]]:
    """Each transfer with what the instrument's policy says of it.

    `source` is needed where `asks_the_share`; `now` is the share's time. Updates `looks` and `unchanged_since` on the
    transfers; the caller writes them. Raises SourceError where the whole share is concerned.
    """
    folders: dict[str, Sequence[Entry] | StorageError] = {}
    for transfer in transfers:
        yield transfer, _judge_one(instrument, transfer, source, now, folders)


def _judge_one(
    instrument: Instrument,
    transfer: FileTransfer,
    source: Storage | None,
    now: datetime,
    folders: dict[str, Sequence[Entry] | StorageError],
) -> Verdict:
    if wait := _too_young(instrument, transfer, now):
        return wait
    if source is None:
        return None
    if instrument.unchanged_looks and (verdict := _look(instrument, transfer, source, now)):
        return verdict
    if instrument.marker_name or instrument.lock_pattern:
        folder = _listing(source, _parent(transfer.record.source_path), folders, recursive=False)
        if isinstance(folder, StorageError):
            return folder
        if wait := _marked(instrument, transfer, folder, now):
            return wait
    if instrument.quiet_folder_seconds:
        top = "/".join(PurePosixPath(transfer.record.source_path).parts[:-1][: instrument.acquisition_depth])
        folder = _listing(source, top, folders, recursive=bool(top))
        if isinstance(folder, StorageError):
            return folder
        newest = max((entry.modified_at for entry in folder), default=now)
        quiet_at = newest + timedelta(seconds=instrument.quiet_folder_seconds)
        if now < quiet_at and newest <= now:
            return Wait(f"Folder “{top or '/'}” changed at {newest:%Y-%m-%d %H:%M:%S} UTC.", quiet_at)
    return None


def _too_young(instrument: Instrument, transfer: FileTransfer, now: datetime) -> Wait | None:
    """A time in the future proves nothing: such a file is old enough when *we* have known it unchanged for so long."""
    minimum = timedelta(seconds=instrument.min_age_seconds)
    changed_at = transfer.version.source_mtime
    if changed_at > now:
        changed_at = transfer.unchanged_since = transfer.unchanged_since or now
    old_enough_at = changed_at + minimum
    if now >= old_enough_at:
        return None
    return Wait(f"It changed less than {instrument.min_age_seconds} s ago.", old_enough_at)


def _look(instrument: Instrument, transfer: FileTransfer, source: Storage, now: datetime) -> Verdict:
    interval = timedelta(seconds=instrument.look_interval_seconds)
    if transfer.unchanged_since is None:
        # The listing that discovered it was a sighting, not yet a look.
        transfer.unchanged_since, transfer.looks = now, 0
    elif transfer.looks < instrument.unchanged_looks:
        try:
            entry = source.stat(transfer.record.source_path)
        except StorageError as error:
            return _unseen(error)
        version = transfer.version
        if (entry.size_bytes, entry.modified_at) != (version.size_bytes, version.source_mtime):
            transfer.unchanged_since, transfer.looks = now, 0
            return Changed(entry)
        transfer.looks += 1
    if transfer.looks >= instrument.unchanged_looks:
        return None
    return Wait(f"Unchanged in {transfer.looks} of {instrument.unchanged_looks} looks.", now + interval)


def _unseen(error: StorageError) -> Verdict:
    if error.whole_storage:
        raise SourceError(error) from error
    return Gone() if error.fault is Fault.NOT_FOUND else error


def _marked(instrument: Instrument, transfer: FileTransfer, folder: Sequence[Entry], now: datetime) -> Wait | None:
    names = {PurePosixPath(entry.path).name.casefold() for entry in folder}
    again_at = now + timedelta(seconds=instrument.look_interval_seconds)
    filename = transfer.record.filename
    if instrument.lock_pattern:
        locks = fnmatch.filter(names - {filename.casefold()}, instrument.lock_pattern.casefold())
        if locks:
            return Wait(f"“{min(locks)}” lies beside it and says that it is being written.", again_at)
    if instrument.marker_name:
        marker = instrument.marker_name.replace("{name}", filename).casefold()
        if marker not in names and filename.casefold() != marker:
            return Wait(f"“{marker}”, which says that it is complete, is not there yet.", again_at)
    return None


def _listing(
    source: Storage, folder: str, known: dict[str, Sequence[Entry] | StorageError], *, recursive: bool
) -> Sequence[Entry] | StorageError:
    """The files of a folder, asked for once a batch."""
    key = f"{folder}\0{recursive}"
    if key not in known:
        entries: list[Entry] = []
        try:
            for found in source.walk(folder, recursive=recursive):
                if isinstance(found, Unreadable):
                    known[key] = found.error
                    return found.error
                entries.append(found)
            known[key] = entries
        except StorageError as error:
            if error.whole_storage:
                raise SourceError(error) from error
            known[key] = error
    return known[key]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
