"""What the operations on a share need of a connection, whoever drives it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from harvest.storage.smb import messages
from harvest.storage.smb.messages import Command, Request, Status, StatusError


class NoCreditsError(Exception):
    """The server lets us send no further request, and there is no answer that would change that."""


class Exchange:
    """A compound under way, or one that was answered: for each of its requests a status and a message."""

    __slots__ = ("_closes", "_opens", "buffer", "forgotten", "messages", "missing", "statuses")

    def __init__(self, requests: tuple[Request, ...]) -> None:
        self.missing = len(requests)
        self.statuses = [int(Status.PENDING)] * self.missing
        self.messages: list[memoryview | None] = [None] * self.missing
        self.forgotten = False
        self.buffer: bytearray | None = None
        self._opens = requests[0].command == Command.CREATE
        self._closes = self._opens and requests[-1].command == Command.CLOSE

    @property
    def opens_for_longer(self) -> bool:
        """Whether it opens a handle that it does not close."""
        return self._opens and not self._closes

    def answer(self, index: int) -> memoryview:
        """The message that answers the request `index`. Raises StatusError where it says that it failed."""
        if self.statuses[index]:
            raise StatusError(self.statuses[index])
        message = self.messages[index]
        assert message is not None
        return message

    def left_open(self) -> bytes | None:
        """The handle that the compound has opened and not closed again."""
        if not self._opens or self.statuses[0] or (self._closes and not self.statuses[-1]):
            return None
        return messages.opened(self.answer(0)).file_id


class Connection(ABC):
    """What the operations on a share need of a connection. Paths are relative to the share, with backslashes.

    Raises StatusError, MalformedError, ForgedError, NoCreditsError, or what the socket and smbprotocol raise; after
    anything but a StatusError nothing more can be had from it.
    """

    description: str
    dialect: int
    pipelined: bool
    """Whether it pays to have more than one compound under way."""
    why_plain: str = ""
    """Why not."""
    max_read_bytes: int
    max_write_bytes: int
    max_transact_bytes: int
    clock_offset_seconds: float
    """How far the server's clock was ahead of ours when the connection was made."""

    @abstractmethod
    def submit(self, *requests: Request, related: bool = True) -> Exchange:
        """Send `requests` as one compound, soon; `flush` or `wait` sends it at once. `related` ones work on the handle
        that the first, a CREATE, opens. Waits while too many requests are under way for the server."""

    @abstractmethod
    def wait(self, exchange: Exchange) -> Exchange:
        """Return when every request of `exchange` is answered."""

    @abstractmethod
    def flush(self) -> None:
        """Send what was submitted."""

    @abstractmethod
    def affordable(self, wanted_bytes: int) -> int:
        """As much of `wanted_bytes` as one request may carry or ask for, by the credits that the server grants."""

    @abstractmethod
    def forget(self, exchange: Exchange) -> None:
        """Nobody waits for `exchange` any more. A handle that it opened and has not closed is closed, after a wait for
        the answer where the compound was never meant to close it."""

    @abstractmethod
    def recycle(self, exchange: Exchange) -> None:
        """What `exchange` was answered has been used, and may be written over."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether the server has ended the connection meanwhile."""

    @abstractmethod
    def close(self) -> None:
        """Log off and close. Never raises."""

    @abstractmethod
    def abandon(self) -> None:
        """Close a connection that is no longer to be trusted or to be waited for. Never raises."""

    def ask(self, *requests: Request) -> list[memoryview]:
        """Send `requests` as one related compound: the answers, of all of them. Raises the first error, after the
        handle is closed again if the compound does that."""
        exchange = self.wait(self.submit(*requests))
        for status in exchange.statuses:
            if status:
                self.forget(exchange)
                self.flush()
                raise StatusError(status)
        return [exchange.answer(index) for index in range(len(requests))]

    def let_go(self, file_id: bytes) -> None:
        """Close a handle, and do not wait for the answer."""
        exchange = self.submit(messages.close(file_id))
        self.forget(exchange)
        self.flush()

    def _one_by_one(self, requests: tuple[Request, ...]) -> Exchange:
        """A related compound without a compound, for a server that grants fewer credits than it would cost."""
        whole = Exchange(requests)
        file_id = messages.RELATED
        for index, request in enumerate(requests):
            if index and whole._opens and whole.statuses[0]:
                whole.statuses[index] = whole.statuses[0]  # as a server does ([MS-SMB2] 3.3.5.2.7.2)
            else:
                single = self.wait(self.submit(messages.with_file_id(request, file_id)))
                whole.statuses[index], whole.messages[index] = single.statuses[0], single.messages[0]
                if request.command == Command.CREATE and not single.statuses[0]:
                    file_id = messages.opened(single.answer(0)).file_id
        whole.missing = 0
        return whole
