"""What the share tells of folders and of what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harvest.storage.base import Fault, StorageError
from harvest.storage.smb import messages
from harvest.storage.smb.exchange import Connection, Exchange
from harvest.storage.smb.listing import Listed, MalformedListingError, line, parse_listing
from harvest.storage.smb.messages import A_FOLDER, LIST_FOLDER, READ_ATTRIBUTES, Request, Status
from harvest.storage.smb.session import Session

SMALL_BYTES = 0x10000
"""How much of a listing is asked for, twice, when a folder is opened: about a thousand files for two credits. It is
doubled whenever a folder held more, for the next ones are likely to be of that kind too."""
LARGE_BYTES = 256 * 1024
"""How much is asked for at most in one request; about two thousand files."""

_LIST = LIST_FOLDER | READ_ATTRIBUTES
_AT_AN_END = (Status.NO_MORE_FILES, Status.NO_SUCH_FILE)


def look(session: Session, path: str) -> Listed:
    """What a listing would say of the file or folder at `path`. Raises StorageError."""
    with session.told(path) as connection:
        _, told, identity, tag, _ = connection.ask(
            messages.create(session.wire(path), access=READ_ATTRIBUTES, options=messages.THE_LINK_ITSELF),
            messages.query_network_open(),
            messages.query_internal(),
            messages.query_attribute_tag(),
            messages.close(),
        )
        name = path.rpartition("/")[2]
        return line(name, messages.network_open(told), messages.internal(identity), messages.reparse_tag(tag))


class Listings:
    """The listings of folders, asked for ahead where one says which will be wanted."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._expected: dict[str, tuple[Exchange, int]] = {}
        self._first_bytes = SMALL_BYTES
        self._connection: Connection | None = None

    def expect(self, paths: Iterable[str]) -> None:
        """Ask for those of `paths`, which will be wanted in that order, that were not asked for yet; as many as may be
        under way. What is wrong with one is told when it is listed. Raises StorageError where the connection is lost.
        """
        with self._session.told("", on=self._connection if self._expected else None) as connection:
            self._connection = connection
            if connection.pipelined:
                for path in paths:
                    if len(self._expected) >= self._session.requests_in_flight:
                        return
                    if path not in self._expected:
                        self._expected[path] = self._ask(connection, path)

    def lines(self, path: str) -> Iterator[Listed]:
        """The lines of one folder. Raises StorageError."""
        try:
            for buffer in self._buffers(path):
                yield from parse_listing(buffer)
        except MalformedListingError as error:
            raise StorageError(
                Fault.IO, f"{self._session.where(path)}: The server's listing makes no sense: {error}.", path=path
            ) from error

    def close(self) -> None:
        """Forget what was asked for ahead. Never raises."""
        if self._connection is not None and self._expected:
            self._session.forget(self._connection, *(exchange for exchange, _ in self._expected.values()))
        self._expected.clear()

    def _ask(self, connection: Connection, path: str) -> tuple[Exchange, int]:
        """Open, list what fits, see whether that was all, close: so that no handle outlives its listing, which could
        hinder others from renaming a folder while the walk pauses."""
        length = connection.affordable(min(self._first_bytes, connection.max_transact_bytes))
        create, close = list_request(self._session, path)
        exchange = connection.submit(
            create,
            messages.query_directory(length, restart=True),
            messages.query_directory(length),
            close,
        )
        return exchange, length

    def _buffers(self, path: str) -> Iterator[memoryview]:
        asked = self._expected.pop(path, None)
        with self._session.told(path, on=self._connection if asked else None) as connection:
            self._connection = connection
            exchange, length = asked or self._ask(connection, path)
            connection.wait(exchange)
            if exchange.left_open():
                connection.forget(exchange)
            exchange.answer(0)
            found = [
                messages.queried(exchange.answer(index), length)
                for index in (1, 2)
                if exchange.statuses[index] not in _AT_AN_END
            ]
        if len(found) == 2:
            self._first_bytes = min(2 * length, LARGE_BYTES)
            yield from self._all_of(path, connection)
        else:
            yield from found

    def _all_of(self, path: str, connection: Connection) -> Iterator[memoryview]:
        """The listing of a folder that holds much, anew: each buffer is asked for while the one before is used."""
        with self._session.told(path, on=connection):
            (answer,) = connection.ask(list_request(self._session, path)[0])
            file_id = messages.opened(answer).file_id
        asked: Exchange | None = None
        try:
            length, asked = self._ask_more(path, connection, file_id, restart=True)
            while True:
                with self._session.told(path, on=connection):
                    status = connection.wait(asked).statuses[0]
                    if status in _AT_AN_END:
                        return
                    found = messages.queried(asked.answer(0), length)
                used = asked
                length, asked = self._ask_more(path, connection, file_id)
                yield found
                connection.recycle(used)
        finally:
            self._session.forget(connection, *([asked] if asked else []), file_id=file_id)

    def _ask_more(
        self, path: str, connection: Connection, file_id: bytes, *, restart: bool = False
    ) -> tuple[int, Exchange]:
        with self._session.told(path, on=connection):
            length = connection.affordable(min(LARGE_BYTES, connection.max_transact_bytes))
            asked = connection.submit(messages.query_directory(length, file_id, restart=restart))
            connection.flush()
        return length, asked


def list_request(session: Session, path: str) -> tuple[Request, Request]:
    """What shows whether the folder at `path` can be listed."""
    return messages.create(session.wire(path), access=_LIST, options=A_FOLDER), messages.close()
