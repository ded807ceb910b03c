"""Many objects read one after another: small ones are asked for ahead, several at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from harvest.storage.base import CHUNK_BYTES, Entry, Reading
from harvest.storage.s3.kept import Answer, Exchange
from harvest.storage.s3.many import Known, Underway
from harvest.storage.s3.metadata import TOKEN_METADATA
from harvest.storage.s3.signed import SignedRequests

FETCHED_BYTES = 8 << 20
"""Up to this size an object is asked for ahead, and taken into memory whole."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object to read: its path, its key (None where it cannot have one), its size as far as it is known, and how to
    read it and look at it by itself. With `token`, only the object of that attempt will do."""

    path: str
    key: str | None
    size_bytes: int
    read: Callable[[], Iterator[bytes]]
    look: Callable[[], Entry]
    token: str | None = None


class _Object(Reading):
    """One object; what could not be fetched ahead is read when it is asked for, so that errors are told there."""

    def __init__(self, wanted: Wanted, fetched: Answer | None) -> None:
        super().__init__(wanted.path)
        self._wanted, self._fetched = wanted, fetched

    def chunks(self) -> Iterator[bytes | memoryview]:
        if self._fetched is None:
            return self._wanted.read()
        content = memoryview(self._fetched.content)
        return (content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES))

    def look(self) -> Entry:
        """What the answer that had the bytes told of the object, for an object never changes: it is replaced."""
        changed = self._fetched and self._fetched.headers.get("last-modified")
        if self._fetched is None or not changed:
            return self._wanted.look()
        return Entry(self.path, len(self._fetched.content), whole_seconds(parsedate_to_datetime(changed)))


class _Get:
    """An object that was asked for."""

    def __init__(self, wanted: Wanted, exchange: Exchange | None) -> None:
        self._wanted, self._exchange = wanted, exchange

    def result(self) -> Reading:
        answer = self._exchange.answer() if self._exchange else None
        return _Object(self._wanted, answer if answer is not None and self._is_good(answer) else None)

    def give_up(self) -> bool:
        if self._exchange:
            self._exchange.abandon()
        return False

    def _is_good(self, answer: Answer) -> bool:
        token = self._wanted.token
        return answer.status == 200 and token in (None, answer.headers.get(f"x-amz-meta-{TOKEN_METADATA}"))


def read_ahead(wanted: Iterable[Wanted], signed: SignedRequests | None) -> Generator[Reading]:
    """A Reading of each object in turn; without `signed` none is fetched ahead."""
    ahead: Underway[Wanted, Reading] = Underway()
    try:
        for item in wanted:
            small = item.size_bytes <= FETCHED_BYTES
            while not ahead.has_room(item.size_bytes if small else 0):
                yield ahead.take()
            if small and signed is not None and item.key is not None:
                exchange = signed.get(item.key, most_bytes=item.size_bytes)
                ahead.add(item, _Get(item, exchange), item.size_bytes)
            else:
                ahead.add(item, Known(_Object(item, None)))
        while ahead:
            yield ahead.take()
    finally:
        tuple(ahead.give_up())


def whole_seconds(moment: datetime) -> datetime:
    """HEAD tells whole seconds alone, a listing sometimes more: the same object must have the same time in both."""
    return moment.astimezone(UTC).replace(microsecond=0)
