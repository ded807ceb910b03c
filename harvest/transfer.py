"""Moves the bytes of one file and proves the copy. Does what it is told and reports what it did; decides nothing.

The write protocol: read the source without locking anybody out, hashing; stage the bytes hidden at the destination;
look at the source again; read the staged bytes back through a fresh handle; only then publish, never replacing.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import xxhash

from harvest.storage.base import Entry, Fault, Reading, Staged, Storage, StorageError, WithdrawnError

Progress = Callable[[int], None]
"""Called with the number of bytes that have just passed; may raise to stop the transfer."""


class SourceError(WithdrawnError):
    """The source, not the destination, could not do its part."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(str(error))
        self.error = error


class SourceChangedError(WithdrawnError):
    """The source is not, or no longer, what was discovered; `entry` is what it is now."""

    def __init__(self, entry: Entry) -> None:
        super().__init__("changed on the instrument while it was read")
        self.entry = entry


class TakenError(Exception):
    """The final name is taken already; `sums` are those of the source."""

    def __init__(self, sums: Sums) -> None:
        super().__init__("the name is taken at the destination")
        self.sums = sums


@dataclass(frozen=True, slots=True)
class Sums:
    """Size in bytes, xxh64 (16 hexadecimal digits, seed 0) and SHA-256 of some content."""

    size_bytes: int
    xxh64: str
    sha256: str


class Summing:
    """Passes bytes through and sums them in one go."""

    def __init__(self, chunks: Iterable[bytes | memoryview], progress: Progress) -> None:
        self._chunks = chunks
        self._progress = progress
        self._xxh64 = xxhash.xxh64()
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for chunk in self._chunks:
            self._xxh64.update(chunk)
            self._sha256.update(chunk)
            self._size_bytes += len(chunk)
            self._progress(len(chunk))
            yield chunk

    def exhaust(self) -> Sums:
        for _ in self:
            pass
        return self.sums

    @property
    def sums(self) -> Sums:
        return Sums(self._size_bytes, self._xxh64.hexdigest(), self._sha256.hexdigest())


class Pacer:
    """Holds a flow of bytes down to a rate, so that an instrument keeps its air. None is no limit."""

    def __init__(self, bytes_per_second: float | None) -> None:
        self._bytes_per_second = bytes_per_second
        self._owed_until = 0.0

    def __call__(self, passed_bytes: int, meanwhile: Callable[[], None]) -> None:
        """Wait as long as `passed_bytes` may take; `meanwhile` is called every second and may raise to end it."""
        if not self._bytes_per_second:
            return
        self._owed_until = max(self._owed_until, time.monotonic()) + passed_bytes / self._bytes_per_second
        while (owed_seconds := self._owed_until - time.monotonic()) > 0:
            time.sleep(min(owed_seconds, 1.0))
            meanwhile()


class Pull:
    """One file on its way from the source: its bytes, summed as they pass, and whether it was what is `expected`.

    `is_live`: the file may change at any time, so it is looked at again after its last byte; a verified copy on another
    storage is not. `known`: the xxh64 and SHA-256 that its content must have, where they are known already.
    """

    def __init__(
        self,
        reading: Reading,
        expected: Entry,
        progress: Progress,
        *,
        is_live: bool = True,
        known: tuple[str | None, str | None] | None = None,
    ) -> None:
        self._reading = reading
        self._expected = expected
        self._content = Summing((), progress)
        self._progress = progress
        self._is_live = is_live
        self._known = known
        self.has_broken = False
        """Whether the whole source broke down on it."""

    @property
    def sums(self) -> Sums:
        """Those of the bytes that have passed."""
        return self._content.sums

    def chunks(self) -> Generator[bytes | memoryview]:
        """The bytes, for `Storage.write`. Raises SourceError, SourceChangedError; nothing of them is kept then."""
        try:
            self._content = Summing(self._reading.chunks(), self._progress)
            yield from self._content
            now = self._look()
        except StorageError as error:  # not the destination's
            self.has_broken = error.whole_storage
            raise self._why(error) from error
        sums = self.sums
        same = now.same_content_as(self._expected) and sums.size_bytes == self._expected.size_bytes
        # With the same size and time, other bytes: it was rewritten and its times put back.
        if not same or (self._known is not None and self._known != (sums.xxh64, sums.sha256)):
            raise SourceChangedError(now)

    def _look(self) -> Entry:
        return self._reading.look() if self._is_live else self._expected

    def _why(self, error: StorageError) -> SourceError | SourceChangedError:
        if error.fault is not Fault.CHANGED:
            return SourceError(error)
        try:
            return SourceChangedError(self._look())
        except StorageError as gone:
            return SourceError(gone)


def stage(
    source: Storage,
    expected: Entry,
    destination: Storage,
    stored_path: str,
    token: str,
    *,
    progress: Progress,
    is_live: bool = True,
    known: tuple[str | None, str | None] | None = None,
) -> tuple[Staged, Sums]:
    """Bring the one file `expected` from the source to a hidden place at the destination; see Pull.

    Returns what was staged and the sums of what was read. Raises SourceError, SourceChangedError, StorageError (the
    destination's), TakenError; whatever is raised, nothing stays staged.
    """
    with closing(source.read_many([expected])) as readings:
        pull = Pull(next(readings), expected, progress, is_live=is_live, known=known)
        with closing(pull.chunks()) as chunks:
            try:
                staged = destination.write(stored_path, token, chunks, modified_at=expected.modified_at)
            except StorageError as error:
                if error.fault is not Fault.EXISTS:
                    raise
                # This kind publishes at once and the name is taken; the caller may adopt what is there if it is equal.
                deque(chunks, maxlen=0)
                raise TakenError(pull.sums) from error
    return staged, pull.sums


def sums_of(chunks: Iterable[bytes | memoryview], progress: Progress) -> Sums:
    """The sums of what `chunks` yields."""
    return Summing(chunks, progress).exhaust()


def echoes(chunks: Iterable[bytes | memoryview], expected: Sums, progress: Progress) -> bool:
    """Whether what is read back has the expected size and xxh64, which no accident on the way leaves alike.

    What others may have put there is compared by SHA-256 as well; see `holds`.
    """
    xxh64, size_bytes = xxhash.xxh64(), 0
    for chunk in chunks:
        xxh64.update(chunk)
        size_bytes += len(chunk)
        progress(len(chunk))
    return (size_bytes, xxh64.hexdigest()) == (expected.size_bytes, expected.xxh64)


def holds(destination: Storage, stored_path: str, expected: Sums, progress: Progress) -> bool:
    """Whether the destination has exactly the expected bytes under the final name. Raises StorageError other than
    not_found."""
    try:
        if destination.stat(stored_path).size_bytes != expected.size_bytes:
            return False
        return sums_of(destination.read(stored_path), progress) == expected
    except StorageError as error:
        if error.fault is Fault.NOT_FOUND:
            return False
        raise
