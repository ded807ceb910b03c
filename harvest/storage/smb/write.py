"""Bytes taken in under temporary names: many small files at once, large ones in many pieces at once.

A small file is one compound: made, written, given its time of change, brought to the disk, closed. A flush in the
compound costs next to nothing more than none; opening every file again for it, once a batch is written, costs a third
as much as writing it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain

from smbprotocol.header import NtStatus

from harvest.storage import names
from harvest.storage.base import Incoming, Proof, Staged, StorageError, WithdrawnError
from harvest.storage.smb import messages
from harvest.storage.smb.compounds import Outcome, outcome
from harvest.storage.smb.exchange import Connection, Exchange
from harvest.storage.smb.hidden import TEMPORARY_FOLDERS, temporary
from harvest.storage.smb.messages import (
    A_FILE,
    CREATE_NEW,
    READ_ATTRIBUTES,
    SHARE_DELETE,
    WRITE_ATTRIBUTES,
    WRITE_DATA,
    Command,
    Request,
    StatusError,
)
from harvest.storage.smb.publish import make_folders, remove
from harvest.storage.smb.session import Session

SMALL_BYTES = 1024 * 1024
"""Up to this size a file is written in one compound."""
PIECE_BYTES = 1024 * 1024
"""How much of a large file is sent at once: more costs the server no less, and less costs it more."""
IN_FLIGHT_BYTES = 8 * 1024 * 1024
"""How much may be sent and not be answered yet."""
EARLY_BYTES = 128 * 1024
"""After how much we send what is submitted, and do not wait for more of it."""

_UNEXPECTED_IO_ERROR = 0xC000_00E9
"""What we take it for when a server wrote less than it was sent: none does that without saying why."""
_FILETIME_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)

Result = Staged | StorageError | WithdrawnError


@dataclass(slots=True)
class _Sent:
    """A file whose last compound is on its way. `requests` are kept to send them once more, if a folder is missing."""

    file: Incoming
    path: str
    size_bytes: int
    exchange: Exchange
    requests: tuple[Request, ...]

    @property
    def held_bytes(self) -> int:
        return sum(len(request.payload) for request in self.requests)

    def wrote(self, index: int) -> int:
        """How much the server says that it has written."""
        return messages.written(self.exchange.answer(index), self.size_bytes)

    def index(self, command: Command) -> int | None:
        """Where the request of that kind is, if there is one."""
        return next((index for index, request in enumerate(self.requests) if request.command == command), None)


def write(
    session: Session, path: str, token: str, chunks: Iterable[bytes | memoryview], modified_at: datetime | None
) -> Staged:
    """See Storage.write."""
    (result,) = write_many(session, [Incoming(path, token, chunks, 0, modified_at)])
    if isinstance(result, Exception):
        raise result
    return result


def write_many(session: Session, files: Iterable[Incoming]) -> Generator[Result]:
    """See Storage.write_many."""
    return _Batch(session).run(files)


class _Batch:
    """The files of one `write_many`, on one connection."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._on: Connection | None = None
        self._waiting: deque[_Sent | Result] = deque()
        self._held_bytes = 0
        self._unsent_bytes = 0

    def run(self, files: Iterable[Incoming]) -> Generator[Result]:
        try:
            for file in files:
                if (result := self._take(file)) is not None:
                    self._waiting.append(result)
                if self._is_full:
                    # Half of them, so that the next ones go out together: sending one by one costs more than the rest.
                    for _ in range(len(self._waiting) // 2 + 1):
                        yield self._next_result()
            while self._waiting:
                yield self._next_result()
        except BaseException:
            self._discard_all()
            raise

    @property
    def _is_full(self) -> bool:
        most = self._session.requests_in_flight if self._on and self._on.pipelined else 1
        return len(self._waiting) >= most or self._held_bytes >= IN_FLIGHT_BYTES

    # --------------------------------------------------------------------------------------------------- on the way

    def _take(self, file: Incoming) -> Result | None:
        """Bring one file on its way, or say why not. Raises what its chunks raise, WithdrawnError apart, and
        StorageError where that concerns the whole storage."""
        path = temporary(file.token)
        try:
            names.split(file.path, separators="\\")
        except StorageError as error:
            return error
        with self._session.told(file.path, on=self._on, ours=True) as self._on:
            limit = self._on.affordable(min(SMALL_BYTES, self._on.max_write_bytes))
        chunks = iter(file.chunks)
        head: list[bytes] = []
        size_bytes = 0
        try:
            while max(file.size_bytes, size_bytes) <= limit:
                if (chunk := next(chunks, None)) is None:
                    self._send_small(file, path, b"".join(head))
                    return None
                head.append(bytes(chunk))
                size_bytes += len(chunk)
        except WithdrawnError as withdrawn:
            return withdrawn
        return self._send_large(file, path, chain(head, chunks))

    def _send_small(self, file: Incoming, path: str, content: bytes) -> None:
        written = (messages.write(0, content),) if content else ()
        requests = (self._create(file, path), *written, *_finish(file), messages.close())
        self._send(file, path, len(content), requests)

    def _send(self, file: Incoming, path: str, size_bytes: int, requests: tuple[Request, ...]) -> None:
        with self._session.told(file.path, on=self._on, ours=True) as connection:
            sent = _Sent(
                file,
                path,
                size_bytes,
                connection.submit(*requests, related=len(requests) > 1 and requests[0].command == Command.CREATE),
                requests,
            )
            self._unsent_bytes += messages.packed_bytes(requests)
            if self._unsent_bytes >= EARLY_BYTES:
                connection.flush()
                self._unsent_bytes = 0
        self._waiting.append(sent)
        self._held_bytes += sent.held_bytes

    def _create(self, file: Incoming, path: str) -> Request:
        return messages.create(
            self._session.wire(path),
            access=WRITE_DATA | READ_ATTRIBUTES | (WRITE_ATTRIBUTES if file.modified_at else 0),
            options=A_FILE,
            disposition=CREATE_NEW,
            # Nobody may read or write it, but it may be discarded while a dead connection still holds it open.
            share=SHARE_DELETE,
        )

    def _send_large(self, file: Incoming, path: str, chunks: Iterator[bytes | memoryview]) -> Result | None:
        assert self._on is not None
        try:
            file_id = self._opened(file, path)
        except StorageError as error:
            if error.whole_storage:
                raise
            return error
        handle = _Handle(self._session, self._on, file.path, file_id, self._unanswered)
        refusal: StorageError | WithdrawnError | None
        try:
            while handle.failure is None and (chunk := next(chunks, None)) is not None:
                handle.put(chunk)
        except WithdrawnError as withdrawn:
            refusal = withdrawn
        except BaseException:
            handle.drop()
            self._remove([(path, file.path)])
            raise
        else:
            handle.settle()
            refusal = handle.failure
        if refusal is None:
            self._send(file, path, handle.size_bytes, (*_finish(file, file_id), messages.close(file_id)))
            return None
        handle.drop()
        self._remove([(path, file.path)])
        if isinstance(refusal, StorageError) and refusal.whole_storage:
            raise refusal
        return refusal

    def _unanswered(self) -> int:
        return sum(isinstance(item, _Sent) and item.exchange.missing > 0 for item in self._waiting)

    def _opened(self, file: Incoming, path: str) -> bytes:
        """The handle of a new temporary file. Raises StorageError."""
        with self._session.told(file.path, on=self._on, ours=True) as connection:
            try:
                (answer,) = connection.ask(self._create(file, path))
            except StatusError as error:
                if not _lacks_folder(error.status):
                    raise
                self._make_temporary_folders(path)
                (answer,) = connection.ask(self._create(file, path))
            return messages.opened(answer).file_id

    def _make_temporary_folders(self, path: str) -> None:
        refused = make_folders(self._session, TEMPORARY_FOLDERS, ours=True)
        if error := refused.get(path.rpartition("/")[0]):
            raise error

    # ----------------------------------------------------------------------------------------------------- results

    def _next_result(self) -> Result:
        """The oldest result. Raises StorageError where that concerns the whole storage."""
        sent = self._waiting[0]
        if isinstance(sent, _Sent):
            result = self._result_of(sent)
            self._forget(sent)
            if isinstance(result, StorageError) and result.whole_storage:
                raise result
            return result
        self._waiting.popleft()
        return sent

    def _result_of(self, sent: _Sent) -> Staged | StorageError:
        found = self._settled(sent)
        create = sent.index(Command.CREATE)
        if found.failed is not None and found.failed == create and _lacks_folder(found.status):
            try:
                self._make_temporary_folders(sent.path)
            except StorageError as error:
                return error
            with self._session.told(sent.file.path, on=self._on, ours=True) as connection:
                sent.exchange = connection.submit(*sent.requests)
            found = self._settled(sent)
        if found.error is None:
            return Staged(ref=sent.file.token, path=sent.file.path, size_bytes=sent.size_bytes, proof=Proof.READ_BACK)
        if found.failed != create:
            self._remove([(sent.path, sent.file.path)])
        return found.error

    def _settled(self, sent: _Sent) -> Outcome:
        """What became of a file's last compound, when it is answered."""
        with self._session.told(sent.file.path, on=self._on, ours=True) as connection:
            connection.wait(sent.exchange)
            if sent.exchange.left_open():
                connection.forget(sent.exchange)
            at = sent.index(Command.WRITE)
            if at is not None and not sent.exchange.statuses[at] and sent.wrote(at) < sent.size_bytes:
                sent.exchange.statuses[at] = _UNEXPECTED_IO_ERROR
        times = sent.index(Command.SET_INFO)
        return outcome(self._session, sent.file.path, sent.exchange, ours=True, dispensable=times)

    def _forget(self, sent: _Sent) -> None:
        self._waiting.popleft()
        self._held_bytes -= sent.held_bytes

    # ------------------------------------------------------------------------------------------------- taking back

    def _discard_all(self) -> None:
        """Leave nothing of the files whose results were not told. Never raises StorageError."""
        sent = [item for item in self._waiting if isinstance(item, _Sent)]
        for item in sent:
            with suppress(StorageError):
                self._settled(item)
        # What exists already is somebody else's.
        ours = [item for item in sent if item.exchange.statuses[0] != NtStatus.STATUS_OBJECT_NAME_COLLISION]
        self._remove((item.path, item.file.path) for item in ours)

    def _remove(self, paths: Iterable[tuple[str, str]]) -> None:
        with suppress(StorageError):
            for error in remove(self._session, paths):
                if error is not None:
                    log.info("What was written of it stays until it is cleared away: %s", error)


class _Handle:
    """A large file that is being written. What goes wrong is noted in `failure`: what its chunks raise is not ours."""

    def __init__(
        self, session: Session, connection: Connection, shown: str, file_id: bytes, others: Callable[[], int]
    ) -> None:
        self._session, self._connection, self._shown, self.file_id = session, connection, shown, file_id
        self._others = others
        """How many requests for other files are under way."""
        self._sent: deque[tuple[Exchange, int]] = deque()
        self.size_bytes = 0
        self.failure: StorageError | None = None

    def put(self, chunk: bytes | memoryview) -> None:
        """Send it, and wait as long as too much is under way."""
        try:
            with self._session.told(self._shown, on=self._connection, ours=True):
                self._put(memoryview(chunk))
        except StorageError as error:
            self.failure = error

    def settle(self) -> None:
        """Wait until all is written."""
        try:
            with self._session.told(self._shown, on=self._connection, ours=True):
                while self._sent:
                    self._check_oldest()
        except StorageError as error:
            self.failure = self.failure or error

    def _put(self, rest: memoryview) -> None:
        connection = self._connection
        while rest:
            length = connection.affordable(min(PIECE_BYTES, len(rest), connection.max_write_bytes))
            request = messages.write(self.size_bytes, rest[:length], self.file_id)
            self._sent.append((connection.submit(request), length))
            connection.flush()
            self.size_bytes += length
            rest = rest[length:]
            while len(self._sent) >= self._most:
                self._check_oldest()

    @property
    def _most(self) -> int:
        if not self._connection.pipelined:
            return 1
        return max(1, min(self._session.requests_in_flight - self._others(), IN_FLIGHT_BYTES // PIECE_BYTES))

    def drop(self) -> None:
        """Close it, when the server has done with it: what it still writes would keep the file there. Never raises."""
        with suppress(StorageError), self._session.told(self._shown, on=self._connection):
            for exchange, _ in self._sent:
                self._connection.wait(exchange)
        self._session.forget(self._connection, file_id=self.file_id)

    def _check_oldest(self) -> None:
        exchange, length = self._sent.popleft()
        if messages.written(self._connection.wait(exchange).answer(0), length) < length:
            raise StatusError(_UNEXPECTED_IO_ERROR)


def _finish(file: Incoming, file_id: bytes = messages.RELATED) -> tuple[Request, ...]:
    """Give it its time of change, and bring it to the disk."""
    flush = messages.flush(file_id)
    modified = filetime(file.modified_at) if file.modified_at else 0
    return (messages.set_times(modified=modified, file_id=file_id), flush) if modified > 0 else (flush,)


def filetime(at: datetime) -> int:
    """A time as [MS-DTYP] 2.3.3 counts it: 100 ns since 1601."""
    return (at - _FILETIME_EPOCH) // timedelta(microseconds=1) * 10


def _lacks_folder(status: int) -> bool:
    return status in (NtStatus.STATUS_OBJECT_PATH_NOT_FOUND, NtStatus.STATUS_OBJECT_NAME_NOT_FOUND)
