"""The bytes of one file, asked for in many pieces at once and taken in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import suppress

from harvest.storage.base import StorageError
from harvest.storage.smb import messages
from harvest.storage.smb.exchange import Connection, Exchange
from harvest.storage.smb.messages import A_FILE, READ_ATTRIBUTES, READ_DATA, Request, Status, StatusError
from harvest.storage.smb.session import Session

PIECE_BYTES = 512 * 1024
"""How much of a large file is asked for at once: small enough to stay in the processor's cache."""
IN_FLIGHT_BYTES = 4 * 1024 * 1024
"""How much may be asked for, or have come and not been used yet."""
_SMB_3_0_2 = 0x0302


class Budget:
    """What may be under way at once, and what is."""

    def __init__(self, most_requests: int) -> None:
        self.most_requests = max(1, most_requests)
        self.requests = 0
        self.bytes = 0

    def has_room(self) -> bool:
        return self.requests < self.most_requests and self.bytes < IN_FLIGHT_BYTES

    def spend(self, count: int) -> None:
        self.requests += 1
        self.bytes += count

    def give_back(self, count: int) -> None:
        self.requests -= 1
        self.bytes -= count


def read(session: Session, path: str, shown: str, *, offset: int = 0, past_cache: bool = False) -> Generator[bytes]:
    """The bytes from `offset` to the end that the file had when it was opened. `past_cache` asks the server to read
    from its disk. `shown` is what the file is called to a person. Raises StorageError."""
    with session.told(shown) as connection:
        (answer,) = connection.ask(open_to_read(session, path))
        file_id, told = messages.opened(answer)
    budget = Budget(1)
    pieces = Pieces(session, connection, budget, file_id, shown, offset, told.size_bytes, past_cache=past_cache)
    most = session.requests_in_flight if connection.pipelined else 1
    try:
        while (piece := pieces.take()) is not None:
            yield bytes(piece)
            budget.most_requests = min(most, 2 * budget.most_requests)  # whoever goes on will want all of it
        with suppress(StorageError):  # all the bytes are here
            pieces.close_and_look()
    finally:
        pieces.close()


def open_to_read(session: Session, path: str) -> Request:
    return messages.create(session.wire(path), access=READ_DATA | READ_ATTRIBUTES, options=A_FILE)


def read_piece(
    connection: Connection, offset: int, length: int, file_id: bytes = messages.RELATED, *, past_cache: bool
) -> Request:
    unbuffered = past_cache and connection.dialect >= _SMB_3_0_2
    return messages.read(offset, length, file_id, unbuffered=unbuffered)


def piece_bytes(connection: Connection) -> int:
    """How much one request may ask for."""
    return connection.affordable(min(PIECE_BYTES, connection.max_read_bytes))


class Pieces:
    """The bytes of an open file from `offset` to `end`. Closes the handle."""

    def __init__(
        self,
        session: Session,
        connection: Connection,
        budget: Budget,
        file_id: bytes,
        shown: str,
        offset: int,
        end: int,
        *,
        past_cache: bool,
    ) -> None:
        self._session, self._connection, self._budget = session, connection, budget
        self._file_id, self._shown, self._past_cache = file_id, shown, past_cache
        self._offset, self._end = offset, end
        self._asked: deque[tuple[Exchange, int, int]] = deque()  # with the offset and the length
        self._used: Exchange | None = None
        self._is_open = True

    def ask_ahead(self) -> bool:
        """Ask for what may be under way; whether all has been asked for."""
        while self._offset < self._end and self._budget.has_room():
            self._ask_next()
        return self._offset >= self._end

    def _ask_next(self) -> None:
        length = min(piece_bytes(self._connection), self._end - self._offset)
        self._asked.append((self._ask(self._offset, length), self._offset, length))
        self._offset += length

    def _ask(self, offset: int, length: int) -> Exchange:
        request = read_piece(self._connection, offset, length, self._file_id, past_cache=self._past_cache)
        exchange = self._connection.submit(request)
        self._budget.spend(length)
        return exchange

    def take(self) -> memoryview | None:
        """The next bytes, valid until the next are taken; None at the end. Raises StorageError."""
        if not self._is_open:
            raise RuntimeError("The bytes of a file have to be taken before the next file is asked for.")
        with self._session.told(self._shown, on=self._connection):
            if self._used is not None:
                self._connection.recycle(self._used)
                self._used = None
            self.ask_ahead()
            if not self._asked:
                if self._offset >= self._end:
                    return None
                self._ask_next()
            exchange, offset, length = self._asked[0]
            piece = messages.content(self._connection.wait(exchange).answer(0), length)
            self._asked.popleft()
            self._budget.give_back(length)
            self._used = exchange
            if not piece:
                raise StatusError(Status.END_OF_FILE)
            if len(piece) < length:  # a server may send less than it was asked for
                rest = offset + len(piece), length - len(piece)
                self._asked.appendleft((self._ask(*rest), *rest))
            return piece

    def close(self) -> None:
        """Close the handle, if it is open yet, and wait for nothing. Never raises."""
        if self._is_open:
            self._is_open = False
            for _, _, length in self._asked:
                self._budget.give_back(length)
            self._session.forget(self._connection, *(asked[0] for asked in self._asked), file_id=self._file_id)
            self._asked.clear()

    def close_and_look(self) -> messages.Attributes | None:
        """Close the handle when all was taken: what the file is like then, if the server tells. Raises StorageError."""
        with self._session.told(self._shown, on=self._connection):
            self._is_open = False
            (answer,) = self._connection.ask(messages.close(self._file_id, tell=True))
            return messages.closed(answer)
