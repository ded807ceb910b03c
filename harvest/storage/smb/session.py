"""The connection of a storage: made when it is needed, given up when it fails; and its errors in our words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from harvest.storage import names
from harvest.storage.base import Fault, StorageError
from harvest.storage.smb.classify import LIBRARY_ERRORS, classify
from harvest.storage.smb.exchange import Connection, Exchange
from harvest.storage.smb.login import Address, log_in

REQUESTS_IN_FLIGHT = 8


class Session:
    """What the operations of a storage share. Paths are relative to the base path, with slashes.

    `pipelined` and `requests_in_flight` (how many requests or compounds an operation may have under way) may be set
    before it connects.
    """

    def __init__(self, address: Address, base_path: str) -> None:
        self.address = address
        self.base_path = "/".join(part for part in re.split(r"[/\\]", base_path) if part)
        if self.base_path:
            names.split(self.base_path)
        self.pipelined = True
        self.requests_in_flight = REQUESTS_IN_FLIGHT
        self._connection: Connection | None = None

    def connection(self) -> Connection:
        """The connection, a new one if there is none or it was lost. Raises StorageError."""
        if self._connection is not None and self._connection.has_ended():
            self.give_up()
        if self._connection is None:
            self._connection = self._connected()
        return self._connection

    def owns(self, connection: Connection) -> bool:
        """Whether `connection` is the present one, so that what was opened on it can be used."""
        return connection is self._connection

    @contextmanager
    def told(self, path: str, *, on: Connection | None = None, ours: bool = False) -> Iterator[Connection]:
        """The connection; the errors met on it, which are about `path`, become ours.

        A connection that failed is given up. `on`: the one that must be it, for something was opened on it. `ours`: a
        folder of our own is concerned, where being denied means that nothing can be written here at all.
        """
        try:
            if on is None:
                on = self.connection()
            elif not self.owns(on):
                raise ConnectionResetError("the connection was lost while the file was open")
            yield on
        except LIBRARY_ERRORS as error:
            raise self.explained(error, path, on=on, ours=ours) from error

    def explained(
        self, error: BaseException, path: str, *, on: Connection | None = None, ours: bool = False
    ) -> StorageError:
        """What one of LIBRARY_ERRORS, met `on` a connection, means for `path`. Gives a connection up that is of no more
        use."""
        told = classify(error, path, self.where(path))
        if told.fault in (Fault.UNREACHABLE, Fault.TIMEOUT) and (on is None or self.owns(on)):
            self.give_up()
        if ours and told.fault is Fault.DENIED:
            return StorageError(
                Fault.READ_ONLY,
                f"{self.where('')}: The account may not write here, or the share is read-only. Grant "
                f"{self.address.username} the right to change files.",
                path=path,
            )
        return told

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def give_up(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.abandon()

    def forget(self, connection: Connection, *exchanges: Exchange, file_id: bytes | None = None) -> None:
        """Nobody waits for `exchanges` any more, or needs the handle; with its connection all is gone anyhow. Never
        raises."""
        if self.owns(connection):
            with suppress(StorageError), self.told("", on=connection):
                for exchange in exchanges:
                    connection.forget(exchange)
                if file_id is not None:
                    connection.let_go(file_id)
                connection.flush()

    def wire(self, path: str) -> str:
        """`path` as the share knows it."""
        return "\\".join(part for part in (*self.base_path.split("/"), *path.split("/")) if part)

    def where(self, path: str) -> str:
        """`path` as a person knows it."""
        below = self.wire(path)
        return f"{self.address}\\{below}" if below else str(self.address)

    def _connected(self) -> Connection:
        try:
            return log_in(self.address, pipelined=self.pipelined)
        except LIBRARY_ERRORS as error:
            told = classify(error, "", str(self.address))
            if told.fault is Fault.NOT_FOUND:  # a few servers say so of a share
                told = StorageError(Fault.NO_SUCH_SHARE, f"{self.address}: There is no such share. Correct its name.")
            raise told from error
