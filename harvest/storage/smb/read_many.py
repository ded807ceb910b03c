"""The bytes of many files, asked for before their turn comes.

A small file is one compound: opened, identified, read and closed, so that it costs no round trip of its own, and what
closing it told makes a second look unnecessary. A large one is opened and begun so, and its further pieces are asked
for while the ones before are used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from harvest.storage import names
from harvest.storage.base import Entry, Fault, Reading, StorageError
from harvest.storage.smb import messages
from harvest.storage.smb.exchange import Connection, Exchange
from harvest.storage.smb.listing import entry, line
from harvest.storage.smb.messages import Status
from harvest.storage.smb.read import Budget, Pieces, open_to_read, piece_bytes, read, read_piece
from harvest.storage.smb.session import Session

SMALL_BYTES = 256 * 1024
"""Up to this size a file is read in one compound."""
_IDENTIFY = messages.query_internal()
_CLOSE = messages.close(tell=True)


class Wanted(NamedTuple):
    """A file to be read: where it lies (relative to the base path), what it is called to a person, its size."""

    path: str
    shown: str
    size_bytes: int


def read_many(
    session: Session,
    files: Iterable[Wanted],
    look: Callable[[str], Entry],
    *,
    past_cache: bool = False,
) -> Generator[Reading]:
    """Each of `files` in turn, see Storage.read_many; one that has not the size that it should have is Fault.CHANGED.

    `look` tells anew what a file is like, where closing it did not. What concerns the whole storage is told by the
    chunks of all files that follow, without trying again.
    """
    ahead = _Ahead(session, iter(files), look, past_cache)
    try:
        while (reading := ahead.next()) is not None:
            yield reading
            reading.finish()
    finally:
        ahead.close()


class _Ahead:
    """The files that are asked for before their turn comes."""

    def __init__(
        self, session: Session, files: Iterator[Wanted], look: Callable[[str], Entry], past_cache: bool
    ) -> None:
        self.session, self.look, self.past_cache = session, look, past_cache
        self.budget = Budget(session.requests_in_flight)
        self.broken: StorageError | None = None
        self._files = files
        self._current: _File | None = None
        self._under_way: deque[_File] = deque()

    def next(self) -> _File | None:
        """The next file, None after the last."""
        if self.budget.requests <= self.budget.most_requests // 2:  # many at a time, so that they are sent together
            self.ask_ahead()
        self._current = self._under_way.popleft() if self._under_way else None
        return self._current

    def ask_ahead(self) -> None:
        """Begin with as many files as may be under way."""
        while self.budget.has_room() or not self._under_way:
            if self._under_way and not self._under_way[-1].is_asked():
                return
            wanted = next(self._files, None)
            if wanted is None:
                return
            self._under_way.append(_File(self, wanted))

    def close(self) -> None:
        """Forget all that is under way. Never raises."""
        if self._current is not None:
            self._current.finish()
        for file in self._under_way:
            file.finish()


class _File(Reading):
    """A file of which the first compound is under way, unless the storage is out of reach."""

    _connection: Connection
    _exchange: Exchange
    _first_bytes: int
    _is_small: bool

    def __init__(self, ahead: _Ahead, wanted: Wanted) -> None:
        super().__init__(wanted.shown)
        self._ahead, self._session, self._wanted = ahead, ahead.session, wanted
        self._pieces: Pieces | None = None
        self._found: Entry | None = None
        self._file_id = self._opened_bytes = 0
        self._is_begun = self._is_finished = False
        self._refused = ahead.broken
        if ahead.broken is None:
            try:
                self._begin()
            except StorageError as error:
                self._refused = error
                if error.whole_storage:
                    ahead.broken = error

    def _begin(self) -> None:
        names.split(self._wanted.path, separators="\\")
        with self._session.told(self.path) as connection:
            if not connection.pipelined:
                self._ahead.budget.most_requests = 1
            most_bytes = piece_bytes(connection)
            self._is_small = self._wanted.size_bytes < min(SMALL_BYTES, most_bytes)
            # One byte more than there should be: a file that has grown shows.
            self._first_bytes = self._wanted.size_bytes + 1 if self._is_small else most_bytes
            self._connection = connection
            self._exchange = connection.submit(
                open_to_read(self._session, self._wanted.path),
                _IDENTIFY,
                read_piece(connection, 0, self._first_bytes, past_cache=self._ahead.past_cache),
                *((_CLOSE,) if self._is_small else ()),
            )
        self._ahead.budget.spend(self._first_bytes)
        self._is_begun = True

    def is_asked(self) -> bool:
        """Whether all its bytes are asked for, so that the next file may be. Asks for what it may."""
        if not self._is_begun or self._is_small:
            return True
        if self._exchange.missing:
            return False
        try:
            with self._told():
                return self._go_on().ask_ahead()
        except StorageError:  # told again by its chunks
            return True

    # ------------------------------------------------------------------------------------------------ the bytes

    def chunks(self) -> Iterator[bytes | memoryview]:
        if self._is_finished:  # it was passed over
            return read(self._session, self._wanted.path, self.path, past_cache=self._ahead.past_cache)
        return self._chunks()

    def _chunks(self) -> Iterator[memoryview]:
        if self._refused is not None:
            raise StorageError(self._refused.fault, str(self._refused), path=self.path)
        with self._told() as connection:
            connection.wait(self._exchange)
            first = self._first()
            told = messages.closed(self._exchange.answer(3)) if self._is_small else None
        yield from self._small(first, told) if self._is_small else self._large(first)

    def _first(self) -> memoryview:
        """What the first compound has read, after it was answered."""
        self._exchange.answer(0)
        if not self._exchange.statuses[1]:
            self._file_id = messages.internal(self._exchange.answer(1))
        if self._exchange.statuses[2] == Status.END_OF_FILE:
            return memoryview(b"")
        return messages.content(self._exchange.answer(2), self._first_bytes)

    def _small(self, content: memoryview, told: messages.Attributes | None) -> Iterator[memoryview]:
        size_bytes = self._wanted.size_bytes
        if len(content) < size_bytes and told is not None and told.size_bytes == size_bytes:
            # A server may send less than it was asked for.
            yield content
            yield from self._rest(len(content))
            return
        self._check_size(len(content))
        self._found = self._seen(told)
        if content:
            yield content

    def _rest(self, offset: int) -> Iterator[memoryview]:
        for piece in read(
            self._session, self._wanted.path, self.path, offset=offset, past_cache=self._ahead.past_cache
        ):
            offset += len(piece)
            yield memoryview(piece)
        self._check_size(offset)

    def _large(self, content: memoryview) -> Iterator[memoryview]:
        with self._told():
            pieces = self._go_on()
        if content:
            yield content
        self._release()
        while True:
            self._ahead.ask_ahead()
            with self._told():
                piece = pieces.take()
            if piece is None:
                break
            yield piece
        with self._told():
            told = pieces.close_and_look()
        if told is not None:
            self._check_size(told.size_bytes)
        self._found = self._seen(told)

    def _go_on(self) -> Pieces:
        """The further pieces of a large file, of which the first compound was answered."""
        if self._pieces is None:
            file_id, told = messages.opened(self._exchange.answer(0))
            offset, end = len(self._first()), self._wanted.size_bytes
            self._pieces = Pieces(
                self._session,
                self._connection,
                self._ahead.budget,
                file_id,
                self.path,
                offset,
                end,
                past_cache=self._ahead.past_cache,
            )
            self._opened_bytes = told.size_bytes
        self._check_size(self._opened_bytes)
        return self._pieces

    def _check_size(self, size_bytes: int) -> None:
        """Raise StorageError(changed) unless the file has the size that it should have."""
        wanted = self._wanted.size_bytes
        if size_bytes != wanted:
            became = "shorter" if size_bytes < wanted else "longer"
            raise StorageError(
                Fault.CHANGED,
                f"{self._session.where(self.path)}: The file became {became} than its {wanted:,} bytes.",
                path=self.path,
            )

    # ------------------------------------------------------------------------------------------------ and after

    def _seen(self, told: messages.Attributes | None) -> Entry | None:
        if told is None or not self._file_id:
            return None
        return entry(self.path, line("", told, self._file_id))

    def look(self) -> Entry:
        if self._found is None and self._pieces is not None:
            with suppress(StorageError):  # of a file that is open, a server may tell the times of its opening
                self._pieces.close_and_look()
        return self._found or self._ahead.look(self.path)

    def finish(self) -> None:
        """Let go of what was not used. Never raises."""
        if self._is_finished or not self._is_begun:
            return
        self._is_finished = True
        self._release()
        if self._pieces is not None:
            self._pieces.close()
        elif self._exchange.missing or self._exchange.statuses[-1] or not self._is_small:
            self._session.forget(self._connection, self._exchange)

    def _release(self) -> None:
        if self._first_bytes:
            self._ahead.budget.give_back(self._first_bytes)
            self._first_bytes = 0

    @contextmanager
    def _told(self) -> Iterator[Connection]:
        try:
            with self._session.told(self.path, on=self._connection) as connection:
                yield connection
        except StorageError as error:
            if error.whole_storage:
                self._ahead.broken = error
            raise
