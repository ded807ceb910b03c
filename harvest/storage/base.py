"""What the way of a file asks of a storage.

One class per kind implements `Storage`; it does what it is told and reports what it did. It knows no Django model and
decides nothing. Paths are relative to the storage's base path, separated by "/", and name their components exactly as
the storage does. Everything of our own lies under the reserved folder `RESERVED` at the base path; `walk` never
yields what is in it.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Self

RESERVED = ".streamweave"
"""The one hidden folder at a base path: temporary files, the mount sentinel, the manifests of runs."""

CHUNK_BYTES = 1 << 20
"""How many bytes a reader yields at most in one piece."""


class Fault(enum.StrEnum):
    """What went wrong, in the words that errors, back-off and pages go by."""

    NOT_FOUND = "not_found"
    EXISTS = "exists"
    DENIED = "denied"
    LOCKED = "locked"
    NAME = "name"
    CHANGED = "changed"
    IO = "io"
    # From here on the whole storage is concerned, not one file of it.
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    AUTHENTICATION = "authentication"
    NO_SUCH_SHARE = "no_such_share"
    NOT_MOUNTED = "not_mounted"
    FULL = "full"
    READ_ONLY = "read_only"
    CONFIGURATION = "configuration"


PERMANENT = frozenset({Fault.EXISTS, Fault.NAME, Fault.AUTHENTICATION, Fault.NO_SUCH_SHARE, Fault.CONFIGURATION})
"""Faults that trying again does not cure: somebody has to change something first."""

WHOLE_STORAGE = frozenset(
    {
        Fault.UNREACHABLE,
        Fault.TIMEOUT,
        Fault.AUTHENTICATION,
        Fault.NO_SUCH_SHARE,
        Fault.NOT_MOUNTED,
        Fault.FULL,
        Fault.READ_ONLY,
        Fault.CONFIGURATION,
    }
)


class StorageError(Exception):
    """A storage could not do what it was told.

    `fault` says what went wrong, the message says it to a person and what to do about it, `permanent` whether
    trying again is useless, `whole_storage` whether other files of the same storage will meet it too.
    """

    def __init__(self, fault: Fault, message: str, *, path: str = "", permanent: bool | None = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.path = path
        self.permanent = fault in PERMANENT if permanent is None else permanent

    @property
    def whole_storage(self) -> bool:
        return self.fault in WHOLE_STORAGE


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a listing or a stat tells of it.

    `modified_at` and `created_at` are aware UTC datetimes, truncated to microseconds. `created_at` is None where the
    storage tells none; some that keep none tell another time instead, never one after the last access. `file_id` is
    the volume's own identity of the file (it survives a rename, and a replaced file has another one), or None.
    """

    path: str
    size_bytes: int
    modified_at: datetime
    file_id: str | None = None
    created_at: datetime | None = None

    def same_content_as(self, other: Entry) -> bool:
        """Whether nothing that the storage tells says that the bytes differ."""
        return (self.size_bytes, self.modified_at, self.file_id) == (other.size_bytes, other.modified_at, other.file_id)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder or name that `walk` could not look into; the walk went on without it."""

    path: str
    error: StorageError


class Proof(enum.StrEnum):
    """How a storage lets a staged copy be verified."""

    BY_STORE = "by_store"
    """The store itself rejected any wrong digest while it took the bytes (a probe has shown that it does)."""
    READ_BACK = "read_back"
    """Read the staged copy back through a fresh handle, then publish it."""
    READ_BACK_PUBLISHED = "read_back_published"
    """It can only be read under its final name: publish, read back, and serve nothing before that."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Bytes that are at the destination and not yet published.

    `ref` is all that a later process needs to go on with them (a temporary name, an upload id); it is kept on the
    transfer's row. `published` is true where taking the bytes and publishing them was one atomic act.
    """

    ref: str
    path: str
    size_bytes: int
    proof: Proof
    published: bool = False


class Reading(ABC):
    """One file of `Storage.read_many`; use it before the next is asked for, with which it may share buffers."""

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def chunks(self) -> Iterator[bytes | memoryview]:
        """The bytes, once, in pieces of at most CHUNK_BYTES; a piece is valid until the next is asked for.

        Raises StorageError, with Fault.CHANGED where the file is seen not to have the size of its entry; unless that
        concerns the whole storage, the next file can still be read.
        """

    @abstractmethod
    def look(self) -> Entry:
        """The file as it is after its last byte was read: a fresh look, or what closing its handle told. Raises
        StorageError."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One file for `Storage.write_many`: see `Storage.write`. `size_bytes` is what is expected, `modified_at` the time
    of last change that the copy shall have, where the storage can keep one."""

    path: str
    token: str
    chunks: Iterable[bytes | memoryview]
    size_bytes: int
    modified_at: datetime | None = None


class WithdrawnError(Exception):
    """Raised by the chunks of an Incoming: the file shall not be written after all. The others go on."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding of `Storage.check`: what was tried, whether it went well, and what to do if not."""

    name: str
    ok: bool
    detail: str


class Storage(ABC):
    """One connection to one place that keeps files. Use it as a context manager, within one thread and process."""

    kind: ClassVar[str]
    config_schema: ClassVar[Mapping[str, Any]]
    """JSON schema of the connection_config of this kind."""
    secret_fields: ClassVar[frozenset[str]] = frozenset()
    """The keys of the connection_config that are encrypted at rest and shown as `****`."""
    folds_case: ClassVar[bool] = False
    """Whether `A` and `a` name the same file here."""
    publishes_at_once: ClassVar[bool] = False
    """Whether `write` may give a file its final name already."""

    @classmethod
    @abstractmethod
    def from_config(cls, base_path: str, config: Mapping[str, Any]) -> Self:
        """The storage that `config` (valid by `config_schema`, secrets in clear) describes. Touches nothing yet."""

    def tune(self, *, requests_in_flight: int | None = None, pipelined: bool = True) -> None:
        """How much may be asked of it at once: at most so many requests under way, or, not `pipelined`, one. Call it
        before connecting. A kind that has no such limits of its own does nothing."""
        return

    def describe(self) -> str:
        """How it is connected, in a line for a person. Raises StorageError."""
        return self.kind

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def connect(self) -> None:
        """Open the connection. Raises StorageError (unreachable, authentication, no_such_share, not_mounted…)."""

    @abstractmethod
    def close(self) -> None:
        """Close it. Never raises; may be called twice."""

    # ------------------------------------------------------------------------------------------------- looking

    @abstractmethod
    def walk(
        self, top: str = "", *, recursive: bool = True, advanced: Callable[[], None] = lambda: None
    ) -> Iterator[Entry | Unreadable]:
        """Every file below `top` (or, not recursive, in it), in flat memory.

        `advanced` is called before each folder is listed, for a tree of many folders may hold no file for long.

        Never follows a reparse point or symbolic link, meets each folder once, leaves out `RESERVED`. A folder that
        cannot be read is yielded as Unreadable and the rest goes on; StorageError is raised only where the whole
        storage is concerned.
        """

    @abstractmethod
    def stat(self, path: str) -> Entry:
        """The file at `path` as it is now. Raises StorageError (not_found, …)."""

    @abstractmethod
    def read(self, path: str, *, offset: int = 0) -> Generator[bytes]:
        """The bytes of the file from `offset` on, in pieces of at most CHUNK_BYTES, in order.

        Opened so that nobody else is hindered from writing, renaming or deleting it. Close the iterator (or exhaust
        it) to close the handle.
        """

    def read_many(self, entries: Iterable[Entry]) -> Generator[Reading]:
        """Each file of `entries` in turn, as `read` would give it: what an Entry says (its size above all) lets a
        storage ask for many at once. A file that cannot be read raises from its chunks and stops none of the others.

        Close the iterator (or exhaust it) to close what is open.
        """
        for entry in entries:
            yield _OneByOne(entry.path, self.read, self.stat)

    # ------------------------------------------------------------------------------------------------- writing

    @abstractmethod
    def stored_path(self, path: str) -> str:
        """`path` with every name this storage cannot hold encoded reversibly (see `names`).

        Raises StorageError(name) where it cannot be held at all, e.g. because it is too long; the message says the
        limit.
        """

    @abstractmethod
    def write(
        self, path: str, token: str, chunks: Iterable[bytes | memoryview], *, modified_at: datetime | None = None
    ) -> Staged:
        """Take the bytes in, hidden from everybody, on the way to `path`; nothing is visible at `path` yet, except
        where the result says published.

        `token` is unique to the attempt and makes the temporary name; one that exists already is never written over
        (StorageError exists). If `chunks` raises, what was written is discarded and the exception passes through.
        Parent folders are made as needed. `modified_at` becomes the copy's time of last change, where the storage can
        keep one. Raises StorageError(exists) where the kind publishes at once and `path` is taken.
        """

    def write_many(self, files: Iterable[Incoming]) -> Generator[Staged | StorageError | WithdrawnError]:
        """`write` each of `files`; per file, in order, what was staged or what went wrong. The results may lag behind
        the files that were taken, so that a storage can have many under way.

        The chunks of one file are consumed, if at all, before the next file is asked for. Of a file whose chunks raise
        WithdrawnError, nothing stays and that is its result; anything else that chunks or `files` raise passes
        through: of the file it met, and of those whose results were not yielded yet, nothing stays. A StorageError
        that concerns the whole storage is raised.
        """
        for file in files:
            try:
                yield self.write(file.path, file.token, file.chunks, modified_at=file.modified_at)
            except WithdrawnError as withdrawn:
                yield withdrawn
            except StorageError as error:
                if error.whole_storage:
                    raise
                yield error

    @abstractmethod
    def make_durable(self, staged: Sequence[Staged]) -> None:
        """Return when all of `staged` would survive a power cut: once for a batch, not once for each file. What is
        gone, because it was published before, is passed over."""

    @abstractmethod
    def read_back(self, staged: Staged) -> Iterator[bytes]:
        """The staged bytes as the storage really holds them: through a fresh handle, past caches where possible.

        Raises StorageError(not_found) where they are gone.
        """

    def read_back_many(self, staged: Iterable[Staged]) -> Generator[Reading]:
        """`read_back` each of `staged` in turn; see `read_many`. Looking at one is not supported."""
        for item in staged:
            yield _OneByOne(item.path, partial(self._read_back, item), self.stat)

    def _read_back(self, staged: Staged, _: str) -> Iterator[bytes]:
        return self.read_back(staged)

    @abstractmethod
    def publish(self, staged: Sequence[Staged]) -> Iterator[StorageError | None]:
        """Give each its final name, atomically and never replacing; yield per item None or what went wrong.

        StorageError(exists): the name is taken, the staged bytes are still there. StorageError(not_found): the
        staged bytes are gone. The names are durable when the iterator is exhausted. What is published already
        stays so.
        """

    @abstractmethod
    def discard(self, ref: str, path: str) -> None:
        """Remove staged bytes. Succeeds where they are gone already."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a published file. Succeeds where it is gone already."""

    def token_of(self, path: str) -> str | None:
        """The token of the attempt that wrote the published file at `path`; None where there is none, or where the
        storage keeps no tokens with its files. A kind that publishes at once keeps them, so that an attempt can tell
        what an earlier one of its own left there."""
        return None

    # -------------------------------------------------------------------------------------- our own small files

    @abstractmethod
    def read_reserved(self, name: str) -> bytes | None:
        """A small file of our own under `RESERVED`, or None where there is none."""

    @abstractmethod
    def write_reserved(self, name: str, content: bytes) -> None:
        """Write a small file of our own under `RESERVED`, replacing it atomically, durably."""

    # ------------------------------------------------------------------------------------------------- health

    @abstractmethod
    def free_bytes(self) -> int | None:
        """How many bytes still fit, or None where the storage does not tell."""

    def clock_offset_seconds(self) -> float | None:
        """How far the storage's clock is ahead of ours, or None where it does not tell."""
        return None

    @abstractmethod
    def leftovers(self) -> Iterator[tuple[str, str]]:
        """The (ref, token) of everything staged that is neither published nor discarded, whoever staged it.

        `discard(ref, "")` removes one.
        """

    @abstractmethod
    def check(self, *, write: bool = True) -> list[Check]:
        """Try step by step what a harvest needs (reach, log in, list, and with `write` also write, read back,
        publish without replacing, delete) and say how each went. Leaves nothing behind and never raises
        StorageError."""


class _OneByOne(Reading):
    """A file that is opened when its bytes are asked for, and looked at anew after."""

    def __init__(
        self, path: str, read: Callable[[str], Iterator[bytes | memoryview]], stat: Callable[[str], Entry]
    ) -> None:
        super().__init__(path)
        self._read, self._stat = read, stat

    def chunks(self) -> Iterator[bytes | memoryview]:
        return self._read(self.path)

    def look(self) -> Entry:
        return self._stat(self.path)
