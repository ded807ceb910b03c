"""A connection that smbprotocol drives, one compound at a time: for servers that the fast one does not know.

Signatures, encryption, credits and time limits are smbprotocol's. What is asked for is packed, and what the answers say
is taken apart, by the same code as on the fast one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from smbprotocol.exceptions import SMBResponseException

from harvest.storage.smb import messages
from harvest.storage.smb.classify import LIBRARY_ERRORS
from harvest.storage.smb.connection import GOODBYE_SECONDS
from harvest.storage.smb.exchange import Connection, Exchange
from harvest.storage.smb.messages import HEADER_BYTES, PIECE_BYTES, MalformedError, Request

if TYPE_CHECKING:
    from smbprotocol.tree import TreeConnect

    from harvest.storage.smb.login import SignedConnection

log = logging.getLogger(__name__)


class _Packed:
    """A request of ours as smbprotocol wants to be given one."""

    def __init__(self, request: Request) -> None:
        self.COMMAND = int(request.command)
        self.charge = request.charge
        self._bytes = b"".join((request.body, request.payload))

    def pack(self) -> bytes:
        return self._bytes

    def __len__(self) -> int:
        return len(self._bytes)


class PlainConnection(Connection):
    """See Connection. `why_plain` says why it is not the fast one."""

    pipelined = False

    def __init__(self, connection: SignedConnection, tree: TreeConnect, reason: str) -> None:
        self.why_plain = reason
        self._connection = connection
        self._tree = tree
        self._pending: dict[Exchange, tuple[list[Any], tuple[Request, ...]]] = {}
        self._is_closed = False

    def submit(self, *requests: Request, related: bool = True) -> Exchange:
        if len(requests) > 1 and sum(request.charge for request in requests) > self._credits:
            return self._one_by_one(requests)
        exchange = Exchange(requests)
        sent = self._connection.send_compound(
            [_Packed(request) for request in requests],
            self._tree.session.session_id,
            self._tree.tree_connect_id,
            related=related and len(requests) > 1,
        )
        self._pending[exchange] = sent, requests
        return exchange

    def wait(self, exchange: Exchange) -> Exchange:
        if exchange.missing:
            sent, requests = self._pending.pop(exchange)
            for index, (one, request) in enumerate(zip(sent, requests, strict=True)):
                exchange.statuses[index], exchange.messages[index] = self._received(one, request)
                exchange.missing -= 1
        return exchange

    def _received(self, sent: Any, request: Request) -> tuple[int, memoryview]:
        try:
            header, status = self._connection.receive(sent, resolve_symlinks=False), 0
        except SMBResponseException as error:
            header, status = error.header, int(error.status)
        body: bytes = header["data"].get_value()
        if HEADER_BYTES + len(body) > request.room_bytes:
            raise MalformedError("an answer is longer than what was asked for")
        return status, memoryview(bytes(HEADER_BYTES) + body)

    def flush(self) -> None:
        """What is submitted is sent already."""

    @property
    def _credits(self) -> int:
        window = self._connection.sequence_window
        return int(window["high"] - window["low"])

    def affordable(self, wanted_bytes: int) -> int:
        if not self._connection.supports_multi_credit:
            return min(wanted_bytes, PIECE_BYTES)
        return min(wanted_bytes, max(1, self._credits) * PIECE_BYTES)

    def forget(self, exchange: Exchange) -> None:
        if (file_id := self.wait(exchange).left_open()) is not None:
            self.wait(self.submit(messages.close(file_id)))

    def recycle(self, exchange: Exchange) -> None:
        """Every answer has memory of its own."""

    def has_ended(self) -> bool:
        return self._is_closed or self._connection.has_ended

    def close(self) -> None:
        try:
            self._connection.disconnect(timeout=GOODBYE_SECONDS)
        except LIBRARY_ERRORS as error:
            log.info("The connection to %s was gone before it was closed: %s", self._tree.share_name, error)
            self.abandon()
        self._is_closed = True

    def abandon(self) -> None:
        self._is_closed = True
        try:
            self._connection.disconnect(close=False)
        except LIBRARY_ERRORS as error:
            log.info("The connection to %s could not be closed: %s", self._tree.share_name, error)
