"""HTTP/1.1 over connections that are kept, of which many may have a request outstanding (RFC 9112).

Only what an S3 server plainly answers is understood: a status line, headers and a body of told length. All else is no
answer, and its connection is closed.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

_MOST_HEAD_BYTES = 64 << 10
_RECEIVED_BYTES = 64 << 10


class Connection(Protocol):
    """What urllib3's connections have of ours to use."""

    sock: socket.socket

    def connect(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered, whole; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytearray


class UnclearError(Exception):
    """The answer is none that is understood here."""


class Exchange:
    """One request that was sent."""

    def __init__(self, connections: KeptConnections, connection: Connection, *, most_bytes: int) -> None:
        self.connection = connection
        self._connections = connections
        self._most_bytes = most_bytes
        self._outstanding = True
        self._answer: Answer | None = None

    def answer(self) -> Answer | None:
        """The answer; None where there is none, or none that is understood, or a body of more than `most_bytes`."""
        if self._outstanding:
            kept = False
            try:
                self._answer, kept = _receive(self.connection.sock, self._most_bytes)
            except (OSError, ValueError, UnclearError):
                pass  # no answer
            finally:
                self._end(kept=kept)
        return self._answer

    def abandon(self) -> None:
        """Close the connection: no answer is wanted."""
        if self._outstanding:
            self._end(kept=False)

    def _end(self, *, kept: bool) -> None:
        self._outstanding = False
        self._connections.give_back(self, kept=kept)


class KeptConnections:
    """At most `most` connections to one server, made by `make` where none is idle. Used by one thread."""

    def __init__(self, make: Callable[[], Connection], *, most: int, read_timeout: float) -> None:
        self._make = make
        self._most = most
        self._read_timeout = read_timeout
        self._idle: deque[Connection] = deque()
        self._outstanding: dict[int, Exchange] = {}

    def send(self, head: bytes, content: bytes | bytearray, *, most_bytes: int) -> Exchange:
        """Send a request and do not wait for its answer. Raises OSError and what connecting raises.

        Where all connections have a request outstanding, some answer is received first and kept for who asks for it.
        """
        connection = self._take()
        try:
            # In one piece where it is small: one packet, and one call.
            if len(content) <= _RECEIVED_BYTES:
                connection.sock.sendall(head + content)
            else:
                connection.sock.sendall(head)
                connection.sock.sendall(content)
        except BaseException:
            connection.close()
            raise
        exchange = Exchange(self, connection, most_bytes=most_bytes)
        self._outstanding[connection.sock.fileno()] = exchange
        return exchange

    def give_back(self, exchange: Exchange, *, kept: bool) -> None:
        """Take the connection of an exchange that has ended."""
        connection = exchange.connection
        del self._outstanding[connection.sock.fileno()]
        if kept:
            self._idle.append(connection)
        else:
            connection.close()

    def _receive_some(self) -> None:
        """Receive what was answered; wait until at least one request is."""
        poll = select.poll()
        for descriptor in self._outstanding:
            poll.register(descriptor, select.POLLIN)
        # Who does not answer in time is asked for his answer, and found not to have one.
        ready = [descriptor for descriptor, _ in poll.poll(self._read_timeout * 1000)] or list(self._outstanding)[:1]
        for descriptor in ready:
            self._outstanding[descriptor].answer()

    def close(self) -> None:
        for exchange in tuple(self._outstanding.values()):
            exchange.abandon()
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Connection:
        if len(self._outstanding) >= self._most:
            self._receive_some()
        while self._idle:
            connection = self._idle.pop()
            if not _says_something(connection.sock):
                return connection
            connection.close()  # unasked: the server closed it
        connection = self._make()
        try:
            connection.connect()
            connection.sock.settimeout(self._read_timeout)
        except BaseException:
            connection.close()
            raise
        return connection


def _says_something(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _receive(sock: socket.socket, most_bytes: int) -> tuple[Answer, bool]:
    """The answer, and whether the connection may be used again.

    Raises UnclearError, ValueError where it is not understood; OSError.
    """
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) > _MOST_HEAD_BYTES:
            raise UnclearError("the headers do not end")
        received += _some(sock)
    status_line, *lines = received[:end].decode("latin-1").split("\r\n")
    version, status, *_ = status_line.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers["content-length"]) if "content-length" in headers else -1
    if version != "HTTP/1.1" or "transfer-encoding" in headers or not 0 <= length <= most_bytes:
        raise UnclearError(status_line)
    begun = received[end + 4 :]
    if len(begun) > length:
        raise UnclearError("more than was asked for")
    content = _filled(sock, begun, length)
    return Answer(int(status), headers, content), headers.get("connection", "").lower() != "close"


def _filled(sock: socket.socket, begun: bytearray, length: int) -> bytearray:
    """`begun` and what follows it, `length` bytes in all."""
    content = bytearray(length)
    content[: len(begun)] = begun
    position = len(begun)
    with memoryview(content) as room:
        while position < length:
            count = sock.recv_into(room[position:])
            if not count:
                raise UnclearError("the body ends early")
            position += count
    return content


def _some(sock: socket.socket) -> bytes:
    got = sock.recv(_RECEIVED_BYTES)
    if not got:
        raise UnclearError("the answer ends early")
    return got
