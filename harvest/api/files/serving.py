"""The bytes of a version, from whichever of its verified copies gives them."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import xxhash

from harvest.connections import wrong_disk
from harvest.models import FileRecord, FileTransfer, FileVersion
from harvest.storage.base import Fault, StorageError
from streamweave.lib.logs import one_line

log = logging.getLogger(__name__)


class NoCopyError(Exception):
    """There is no verified copy in any storage that is in use; the message says so to a person."""


class CopiesFailedError(Exception):
    """No copy could be read to the end. What was sent before is right, and too short."""


class Delivery(Iterator[bytes]):
    """Pieces on their way to a client. The first is read at once, so that what fails does so before an answer."""

    def __init__(self, pieces: Generator[bytes]) -> None:
        self._pieces = pieces
        self._first: bytes | None = next(pieces, None)

    def __next__(self) -> bytes:
        first, self._first = self._first, None
        return next(self._pieces) if first is None else first

    def close(self) -> None:
        self._pieces.close()


def newest_version(file: FileRecord, number: int | None = None) -> FileVersion | None:
    """The version with this number; without one the newest of which there is a verified copy, else the newest."""
    versions = file.versions.order_by("-number")
    if number is not None:
        found: FileVersion | None = versions.filter(number=number).first()
        return found
    stored = FileTransfer.objects.stored().filter(record=file).values("version")
    return versions.filter(pk__in=stored).first() or versions.first()


def copies_of(version: FileVersion) -> list[FileTransfer]:
    """The verified copies of `version` that may be read, the newest first. Raises NoCopyError."""
    stored = FileTransfer.objects.stored().filter(version=version, checksum_verified=True)
    if not stored.exists():
        raise NoCopyError("No verified copy of it exists yet. Its transfers tell how far they are.")
    usable = stored.filter(storage_location__enabled=True, storage_location__deleted_at=None)
    copies = list(usable.select_related("storage_location").order_by("-completed_at", "-id"))
    if not copies:
        raise NoCopyError("Every storage that holds a copy of it is disabled or deleted. Ask an administrator.")
    return copies


def deliver(version: FileVersion, copies: Sequence[FileTransfer], span: range) -> Delivery:
    """The bytes of `version` at the positions of `span`, in flat memory.

    Where one copy cannot be read or breaks off, the next one goes on. The last piece of a whole file is let go only
    when all of it has the checksum that was verified when it was stored. Raises CopiesFailedError, at once or, after
    some bytes, from the iterator.
    """
    return Delivery(_pieces(version, copies, span))


def _pieces(version: FileVersion, copies: Sequence[FileTransfer], span: range) -> Generator[bytes]:
    whole = len(span) == version.size_bytes
    position, sums, held, sent = span.start, xxhash.xxh64(), b"", False
    for copy in copies:
        try:
            with closing(_of_copy(copy, version, position, span.stop)) as pieces:
                for piece in pieces:
                    if held:
                        yield held
                        sent = True
                    position, held = position + len(piece), piece
                    sums.update(piece)
        except StorageError as error:
            log.warning("a copy of version %s cannot be read: %s", version.pk, one_line(str(error)))
            continue
        if not whole or sums.hexdigest() == version.xxhash:
            if held:
                yield held
            return
        log.error("the copy of version %s on “%s” is not what was verified", version.pk, copy.storage_location)
        if sent:
            break
        position, sums, held = span.start, xxhash.xxh64(), b""
    raise CopiesFailedError


def _of_copy(copy: FileTransfer, version: FileVersion, start: int, stop: int) -> Generator[bytes]:
    """The bytes of one copy from `start` to before `stop`. Raises StorageError, also where it ends before."""
    location, path = copy.storage_location, copy.reserved_path
    with location.open() as storage:
        if why := wrong_disk(location, storage):
            raise StorageError(Fault.NOT_MOUNTED, why)
        size_bytes = storage.stat(path).size_bytes
        if size_bytes != version.size_bytes:
            message = f"{path}: {size_bytes:,} bytes are there, {version.size_bytes:,} were verified."
            raise StorageError(Fault.CHANGED, message, path=path)
        if start == stop:
            return
        with closing(storage.read(path, offset=start)) as pieces:
            for piece in pieces:
                piece = piece[: stop - start]
                start += len(piece)
                yield piece
                if start == stop:
                    return
    raise StorageError(Fault.IO, f"{path}: it ended {stop - start:,} bytes early.", path=path)
