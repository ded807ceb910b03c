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

    @classmethod
    @abstractmethod
    def from_config(cls, base_path: str, config: Mapping[str, Any]) -> Self:
        """The storage that `config` (valid by `config_schema`, secrets in clear) describes. Touches nothing yet."""

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

    # ------------------------------------------------------------------------------------------------- writing

    @abstractmethod
    def stored_path(self, path: str) -> str:
        """`path` with every name this storage cannot hold encoded reversibly (see `names`).

        Raises StorageError(name) where it cannot be held at all, e.g. because it is too long; the message says the
        limit.
        """

    @abstractmethod
    def write(self, path: str, token: str, chunks: Iterable[bytes]) -> Staged:
        """Take the bytes in, hidden from everybody, on the way to `path`; nothing is visible at `path` yet, except
        where the result says published.

        `token` is unique to the attempt and makes the temporary name; one that exists already is never written over
        (StorageError exists). If `chunks` raises, what was written is discarded and the exception passes through.
        Parent folders are made as needed. Raises StorageError(exists) where the kind publishes at once and `path` is
        taken.
        """

    @abstractmethod
    def make_durable(self, staged: Sequence[Staged]) -> None:
        """Return when all of `staged` would survive a power cut: once for a batch, not once for each file. What is
        gone, because it was published before, is passed over."""

    @abstractmethod
    def read_back(self, staged: Staged) -> Iterator[bytes]:
        """The staged bytes as the storage really holds them: through a fresh handle, past caches where possible.

        Raises StorageError(not_found) where they are gone.
        """

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
