"""Moves the bytes of one file and proves the copy. Does what it is told and reports what it did; decides nothing.

The write protocol: read the source without locking anybody out, hashing; stage the bytes hidden at the destination;
look at the source again; read the staged bytes back through a fresh handle; only then publish, never replacing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import xxhash

from harvest.storage.base import Entry, Fault, Proof, Staged, Storage, StorageError

Progress = Callable[[int], None]
"""Called with the number of bytes that have just passed; may raise to stop the transfer."""


class SourceError(Exception):
    """The source, not the destination, could not do its part."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(str(error))
        self.error = error


class SourceChangedError(Exception):
    """The source is not, or no longer, what was discovered; `entry` is what it is now."""

    def __init__(self, entry: Entry) -> None:
        super().__init__("changed on the instrument while it was read")
        self.entry = entry


class TakenError(Exception):
    """The final name is taken already; `sums` are those of the source."""

    def __init__(self, sums: Sums) -> None:
        super().__init__("the name is taken at the destination")
        self.sums = sums


class UnequalError(Exception):
    """What the destination holds is not what was read; `found` is its sums."""

    def __init__(self, found: Sums) -> None:
        super().__init__("the copy reads back differently from what was sent")
        self.found = found


@dataclass(frozen=True, slots=True)
class Sums:
    """Size in bytes, xxh64 (16 hexadecimal digits, seed 0) and SHA-256 of some content."""

    size_bytes: int
    xxh64: str
    sha256: str


class Summing:
    """Passes bytes through and sums them in one go."""

    def __init__(self, chunks: Iterable[bytes], progress: Progress) -> None:
        self._chunks = chunks
        self._progress = progress
        self._xxh64 = xxhash.xxh64()
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
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


def _read(source: Storage, path: str) -> Generator[bytes]:
    """The bytes of the source; what it cannot do is a SourceError, so that the destination is not blamed."""
    try:
        yield from source.read(path)
    except StorageError as error:
        raise SourceError(error) from error


def look(source: Storage, path: str) -> Entry:
    """The source file as it is now. Raises SourceError."""
    try:
        return source.stat(path)
    except StorageError as error:
        raise SourceError(error) from error


def stage(
    source: Storage,
    expected: Entry,
    destination: Storage,
    stored_path: str,
    token: str,
    *,
    progress: Progress,
    confirm: Callable[[], None],
    source_is_live: bool = True,
) -> tuple[Staged, Sums]:
    """Bring the file `expected` from the source to a hidden place at the destination.

    `source_is_live`: the source may change at any time, so it is looked at again after reading; a verified copy on
    another storage is not. `confirm` is called before something is taken away that others could rely on by now, and
    raises if the file is no longer ours. Returns what was staged and the sums of what was read. Raises SourceError,
    SourceChangedError, StorageError (the destination's), TakenError; whatever is raised, nothing stays staged.
    """
    staged: Staged | None = None
    with closing(_read(source, expected.path)) as chunks:
        content = Summing(chunks, progress)
        try:
            staged = destination.write(stored_path, token, content)
        except StorageError as error:
            if error.fault is not Fault.EXISTS:
                raise
            # This kind publishes at once and the name is taken; the caller may adopt what is there if it is equal.
            content.exhaust()
    try:
        if source_is_live:
            now = look(source, expected.path)
            if not now.same_content_as(expected) or content.sums.size_bytes != expected.size_bytes:
                raise SourceChangedError(now)
    except BaseException:
        if staged is not None:
            discard(destination, staged, confirm)
        raise
    if staged is None:
        raise TakenError(content.sums)
    return staged, content.sums


def discard(destination: Storage, staged: Staged, confirm: Callable[[], None]) -> None:
    """Take staged bytes away again; where they bear their final name already, only if `confirm` does not raise."""
    if staged.published:
        confirm()
    destination.discard(staged.ref, staged.path)


def sums_of(chunks: Iterable[bytes], progress: Progress) -> Sums:
    """The sums of what `chunks` yields."""
    return Summing(chunks, progress).exhaust()


def prove(destination: Storage, staged: Staged, expected: Sums, progress: Progress) -> None:
    """Return only if the staged bytes are, as the destination really holds them, the expected ones.

    Raises UnequalError, StorageError.
    """
    if staged.proof is Proof.BY_STORE:
        return
    found = sums_of(destination.read_back(staged), progress)
    if found != expected:
        raise UnequalError(found)


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
