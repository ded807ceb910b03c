"""An SMB share as a storage: an instrument's, which is only read, or one that keeps files."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar, Self

from harvest.storage import names
from harvest.storage.base import (
    RESERVED,
    Check,
    Entry,
    Fault,
    Incoming,
    Reading,
    Staged,
    Storage,
    StorageError,
    Unreadable,
    WithdrawnError,
)
from harvest.storage.smb import folders, messages
from harvest.storage.smb.classify import LIBRARY_ERRORS, classify
from harvest.storage.smb.hidden import leftovers, temporary
from harvest.storage.smb.listing import Listed, entry
from harvest.storage.smb.login import DEFAULT_PORT, Address
from harvest.storage.smb.publish import delete, publish, replace
from harvest.storage.smb.read import read
from harvest.storage.smb.read_many import Wanted, read_many
from harvest.storage.smb.session import Session
from harvest.storage.smb.walk import walk
from harvest.storage.smb.write import write, write_many
from harvest.storage.trial import Steps, try_out

_HOST = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[^:\[\]]+))(?::(?P<port>\d+))?")

_STEPS: Steps = (
    ("reach the server", frozenset({Fault.UNREACHABLE, Fault.TIMEOUT})),
    ("log in", frozenset({Fault.AUTHENTICATION})),
    ("open the share", frozenset({Fault.NO_SUCH_SHARE, Fault.DENIED, Fault.CONFIGURATION})),
    ("open the base folder", frozenset({Fault.NOT_MOUNTED, Fault.NAME})),
)


class SmbStorage(Storage):
    """Files on an SMB 2 or 3 share, signed always, encrypted where the server asks for it.

    A connection that breaks is given up; the next call makes a new one. Set `pipelined` to False before connecting, and
    smbprotocol drives the connection, one request at a time: for a server that cannot bear ours.
    """

    kind: ClassVar[str] = "cifs"
    config_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "host": {
                "type": "string",
                "minLength": 1,
                "title": "Host",
                "description": "Name or address of the server; “host:port” and “[IPv6]:port” are understood.",
            },
            "port": {"type": ["integer", "null"], "minimum": 1, "maximum": 65535, "title": "Port"},
            "share": {"type": "string", "minLength": 1, "pattern": r"^[^\\/]+$", "title": "Share"},
            "domain": {
                "type": ["string", "null"],
                "title": "Domain",
                "description": "Windows domain of the account; empty for a local account.",
            },
            "username": {"type": "string", "minLength": 1, "title": "User name"},
            "password": {"type": "string", "minLength": 1, "title": "Password"},
        },
        "required": ["host", "share", "username", "password"],
        "additionalProperties": False,
    }
    secret_fields: ClassVar[frozenset[str]] = frozenset({"password"})
    folds_case: ClassVar[bool] = True
    pipelined: bool = True

    def __init__(self, base_path: str, address: Address) -> None:
        self._session = Session(address, base_path)
        self._session.pipelined = self.pipelined

    @classmethod
    def from_config(cls, base_path: str, config: Mapping[str, Any]) -> Self:
        host, port = _host_and_port(config["host"], config.get("port"))
        domain = config.get("domain")
        username = f"{domain}\\{config['username']}" if domain else config["username"]
        return cls(base_path, Address(host, port, config["share"], username, config["password"]))

    @property
    def address(self) -> Address:
        return self._session.address

    @property
    def requests_in_flight(self) -> int:
        """How many requests, or compounds of requests, an operation may have under way."""
        return self._session.requests_in_flight

    @requests_in_flight.setter
    def requests_in_flight(self, most: int) -> None:
        self._session.requests_in_flight = most

    def tune(self, *, requests_in_flight: int | None = None, pipelined: bool = True) -> None:
        self.pipelined = self.pipelined and pipelined
        self.requests_in_flight = requests_in_flight or self.requests_in_flight

    def connect(self) -> None:
        self.close()
        self._session.pipelined = self.pipelined
        try:
            with self._session.told("") as connection:
                try:
                    connection.ask(*folders.list_request(self._session, ""))
                except LIBRARY_ERRORS as error:
                    raise self._without_base(error) from error
        except BaseException:  # whoever could not connect has nothing to close
            self.close()
            raise

    def _without_base(self, error: BaseException) -> StorageError:
        told = classify(error, "", self._session.where(""))
        if told.fault not in (Fault.NOT_FOUND, Fault.NAME):
            return told
        return StorageError(
            Fault.NOT_MOUNTED, f"{self._session.where('')}: There is no such folder. Make it, or correct the base path."
        )

    def close(self) -> None:
        self._session.close()

    def describe(self) -> str:
        """How it is connected, for a person; it connects if it is not. Raises StorageError."""
        with self._session.told("") as connection:
            if connection.pipelined:
                return f"{connection.description}, up to {self.requests_in_flight} requests in flight"
            return f"{connection.description}, one request at a time: {connection.why_plain}"

    # ------------------------------------------------------------------------------------------------- looking

    def walk(
        self, top: str = "", *, recursive: bool = True, advanced: Callable[[], None] = lambda: None
    ) -> Iterator[Entry | Unreadable]:
        """See Storage.walk. What leads elsewhere (symbolic links, junctions, DFS links), a folder met before, and a
        name that cannot be kept exactly are Unreadable(name)."""
        listings = folders.Listings(self._session)
        try:
            yield from walk(
                listings.lines, self._look, top, recursive=recursive, advanced=advanced, expect=listings.expect
            )
        finally:
            listings.close()

    def _look(self, path: str) -> Listed:
        return folders.look(self._session, path)

    def stat(self, path: str) -> Entry:
        names.split(path, separators="\\")
        listed = self._look(path)
        if listed.is_folder or listed.is_link:
            raise StorageError(Fault.NOT_FOUND, f"{self._session.where(path)}: It is not a file.", path=path)
        return entry(path, listed)

    def read(self, path: str, *, offset: int = 0) -> Generator[bytes]:
        names.split(path, separators="\\")
        return read(self._session, path, path, offset=offset)

    def read_many(self, entries: Iterable[Entry]) -> Generator[Reading]:
        """See Storage.read_many. A file that has not the size of its entry is Fault.CHANGED."""
        wanted = (Wanted(entry.path, entry.path, entry.size_bytes) for entry in entries)
        return read_many(self._session, wanted, self.stat)

    # ------------------------------------------------------------------------------------------------- writing

    def stored_path(self, path: str) -> str:
        return names.encode(path, names.SMB)

    def write(
        self, path: str, token: str, chunks: Iterable[bytes | memoryview], *, modified_at: datetime | None = None
    ) -> Staged:
        """See Storage.write. What is written is flushed to the server's disk here, while its handle is open: SMB has
        no way to flush a batch, and opening every file again for it would cost more."""
        return write(self._session, path, token, chunks, modified_at)

    def write_many(self, files: Iterable[Incoming]) -> Generator[Staged | StorageError | WithdrawnError]:
        return write_many(self._session, files)

    def make_durable(self, staged: Sequence[Staged]) -> None:
        """See Storage.make_durable. `write` has seen to it."""

    def read_back(self, staged: Staged) -> Iterator[bytes]:
        return read(self._session, temporary(staged.ref), staged.path, past_cache=True)

    def read_back_many(self, staged: Iterable[Staged]) -> Generator[Reading]:
        wanted = (Wanted(temporary(item.ref), item.path, item.size_bytes) for item in staged)
        return read_many(self._session, wanted, self.stat, past_cache=True)

    def publish(self, staged: Sequence[Staged]) -> Iterator[StorageError | None]:
        return publish(self._session, staged)

    def discard(self, ref: str, path: str) -> None:
        delete(self._session, temporary(ref), path)

    def delete(self, path: str) -> None:
        names.split(path, separators="\\")
        delete(self._session, path, path)

    # -------------------------------------------------------------------------------------- our own small files

    def read_reserved(self, name: str) -> bytes | None:
        try:
            return b"".join(self.read(f"{RESERVED}/{name}"))
        except StorageError as error:
            if error.fault is Fault.NOT_FOUND:
                return None
            raise

    def write_reserved(self, name: str, content: bytes) -> None:
        path = f"{RESERVED}/{name}"
        staged = self.write(path, f"reserved-{uuid.uuid4().hex}", [content])
        try:
            replace(self._session, staged.ref, path)
        except StorageError:
            with suppress(StorageError):
                self.discard(staged.ref, path)
            raise

    # ------------------------------------------------------------------------------------------------- health

    def free_bytes(self) -> int | None:
        with self._session.told("") as connection:
            _, answer, _ = connection.ask(
                messages.create(self._session.wire(""), access=messages.READ_ATTRIBUTES, options=messages.A_FOLDER),
                messages.query_full_size(),
                messages.close(),
            )
            return messages.free_bytes(answer)

    def clock_offset_seconds(self) -> float | None:
        with self._session.told("") as connection:
            return connection.clock_offset_seconds

    def leftovers(self) -> Iterator[tuple[str, str]]:
        return leftovers(folders.Listings(self._session).lines)

    def check(self, *, write: bool = True) -> list[Check]:
        return try_out(self, _STEPS, write=write)


def _host_and_port(host: str, port: int | None) -> tuple[str, int]:
    """“host”, “host:port”, “[v6]:port” or a bare IPv6 address. Raises StorageError(configuration)."""
    if host.count(":") > 1 and not host.startswith("["):
        return host, port or DEFAULT_PORT
    found = _HOST.fullmatch(host)
    if not found or (found["port"] and not 0 < int(found["port"]) < 65536):
        raise StorageError(
            Fault.CONFIGURATION, f"{host!r} is no host: write a name or an address, with “:port” after it if needed."
        )
    return found["bracketed"] or found["plain"], int(found["port"] or port or DEFAULT_PORT)
