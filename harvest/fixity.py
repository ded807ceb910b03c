"""Fixity: stored files read again and compared with what was verified when they were stored. Changes nothing."""

from __future__ import annotations

import enum
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from harvest.destinations import key_of
from harvest.models import FileTransfer, Instrument, StorageLocation, path_key
from harvest.storage.base import Entry, Fault, Storage, StorageError, Unreadable
from harvest.transfer import Sums, sums_of

CHUNK_FILES = 1000


class Problem(enum.StrEnum):
    MISSING = "missing"
    """A verified copy was there and is not."""
    CHANGED = "changed"
    """Other bytes are there than were verified."""
    UNKNOWN = "unknown"
    """A file is there that no row names."""
    UNREADABLE = "unreadable"
    """It could not be read, so that nothing is known of its bytes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that is not as it should be; `ark` is None for an unknown one."""

    problem: Problem
    path: str
    detail: str
    ark: str | None = None


def stored_count(*, location: StorageLocation, instrument: Instrument | None = None) -> int:
    """How many verified copies should be there."""
    return _stored(location, instrument).count()


def reread(
    *,
    location: StorageLocation,
    storage: Storage,
    instrument: Instrument | None = None,
    sample_percent: float = 100,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda files, read_bytes: None,
) -> Iterator[Finding]:
    """Read verified copies of `location` on the connected `storage` and yield those that are missing, changed or
    unreadable.

    `sample_percent`: each file is read with this probability. `limit`: at most so many files are read; where they
    begin is left to chance, so that repeated calls come round to all. `progress` is called after each file, and as
    bytes pass, with the files and the bytes since its last call. One query for a thousand files. Raises StorageError
    where the whole storage is concerned.
    """
    chosen = (
        row
        for row in _rows(location, instrument)
        if sample_percent >= 100 or random.uniform(0, 100) < sample_percent  # noqa: S311 - a sample, no secret
    )
    for row in islice(chosen, limit):
        finding = _compared(storage, row, lambda read_bytes: progress(0, read_bytes))
        progress(1, 0)
        if finding is not None:
            yield finding


def unknown_files(
    *, location: StorageLocation, storage: Storage, instrument: Instrument | None = None
) -> Iterator[Finding]:
    """Yield the files on the connected `storage` that no row names, and folders that cannot be read.

    A path is reserved on its row before a byte is copied there, and the rows are asked after the listing: what is
    stored meanwhile is therefore never taken for unknown. Flat memory, one query for a thousand files. Raises
    StorageError where the whole storage is concerned.
    """
    found = storage.walk(storage.stored_path(instrument.storage_folder) if instrument else "")
    while chunk := list(islice(found, CHUNK_FILES)):
        keys = {path_key(key_of(item.path, location)): item for item in chunk if isinstance(item, Entry)}
        named = FileTransfer.objects.filter(storage_location=location, stored_path_key__in=keys)
        known = set(named.values_list("stored_path_key", flat=True))
        for item in chunk:
            if isinstance(item, Unreadable):
                if not (instrument and item.error.fault is Fault.NOT_FOUND):  # nothing of it is stored here
                    yield Finding(Problem.UNREADABLE, item.path, str(item.error))
            elif path_key(key_of(item.path, location)) not in known:
                yield Finding(Problem.UNKNOWN, item.path, f"{item.size_bytes:,} bytes that no harvest has put there.")


def _stored(location: StorageLocation, instrument: Instrument | None) -> Any:
    stored = FileTransfer.objects.stored().filter(storage_location=location)
    return stored.filter(record__instrument=instrument) if instrument else stored


def _rows(location: StorageLocation, instrument: Instrument | None) -> Iterator[tuple[Any, ...]]:
    """(key of the stored path, the path, size, xxh64, SHA-256, ARK) of every verified copy, once round from a random
    one, in pages: a cursor that stays open for hours would hold up the database. These keys are spread evenly."""
    sums = ("version__size_bytes", "version__xxhash", "version__sha256")
    fields = ("stored_path_key", "stored_path", *sums, "record__persistent_id")
    ordered = _stored(location, instrument).order_by("stored_path_key").values_list(*fields)
    start = uuid.uuid4()
    for part in (ordered.filter(stored_path_key__gte=start), ordered.filter(stored_path_key__lt=start)):
        page = list(part[:CHUNK_FILES])
        while page:
            yield from page
            page = list(part.filter(stored_path_key__gt=page[-1][0])[:CHUNK_FILES])


def _compared(storage: Storage, row: tuple[Any, ...], passed: Callable[[int], None]) -> Finding | None:
    _, path, size_bytes, xxh64, sha256, ark = row
    try:
        found = sums_of(storage.read(path), passed)
    except StorageError as error:
        if error.whole_storage:
            raise
        problem = Problem.MISSING if error.fault is Fault.NOT_FOUND else Problem.UNREADABLE
        return Finding(problem, path, str(error), ark)
    if found == Sums(size_bytes, xxh64, sha256):
        return None
    if found.size_bytes != size_bytes:
        detail = f"{found.size_bytes:,} bytes are there; {size_bytes:,} were verified."
    else:
        detail = f"Its SHA-256 is {found.sha256}; {sha256} was verified."
    return Finding(Problem.CHANGED, path, detail, ark)
