"""Requests that are under way at the same time, their results taken in the order in which they were begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, wait
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")
Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")

MOST_JOBS = 64
"""How many are under way or done and waiting for their turn: so many that no connection idles while one takes long."""
MOST_BYTES = 32 << 20
"""How many bytes are under way at once, unless a single job has more."""


class Pending(Protocol[Result_co]):
    """Something that was begun."""

    def result(self) -> Result_co:
        """What became of it; waits for it, and raises what it raised."""

    def give_up(self) -> bool:
        """Go without the result: whether it may have done something. It does nothing any more after this returns."""


class Known(Generic[Result]):
    """A result that is known already and waits for its turn."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def result(self) -> Result:
        return self._result

    def give_up(self) -> bool:
        return True


class InThread(Generic[Result]):
    """A job that a thread of `executor` does; it must not begin others there."""

    def __init__(self, executor: Executor, job: Callable[[], Result]) -> None:
        self._future = executor.submit(job)

    def result(self) -> Result:
        return self._future.result()

    def give_up(self) -> bool:
        if self._future.cancel():
            return False
        wait([self._future])
        return True


class Underway(Generic[Item, Result]):
    """What was begun and is not taken yet, each for an item; bounded in number and in the bytes that it holds.

    Used by one thread.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._begun: deque[tuple[Item, Pending[Result], int]] = deque()

    def __len__(self) -> int:
        return len(self._begun)

    def has_room(self, size_bytes: int) -> bool:
        """Whether one that holds `size_bytes` may be begun; the first one always may."""
        fits = len(self._begun) < MOST_JOBS and self._bytes + size_bytes <= MOST_BYTES
        return fits or not self._begun

    def add(self, item: Item, pending: Pending[Result], size_bytes: int = 0) -> None:
        self._begun.append((item, pending, size_bytes))
        self._bytes += size_bytes

    def take(self) -> Result:
        """What became of the oldest; waits for it, and raises what it raised."""
        _, pending, _ = self._begun[0]
        try:
            result = pending.result()
        except Exception:  # not an interrupt of this: what it broke off is still under way
            self._forget_first()
            raise
        self._forget_first()
        return result

    def give_up(self) -> Iterator[Item]:
        """Take nothing more: the items of which something may have been done. Exhaust it."""
        while self._begun:
            item, pending, _ = self._begun.popleft()
            if pending.give_up():
                yield item
        self._bytes = 0

    def _forget_first(self) -> None:
        _, _, size_bytes = self._begun.popleft()
        self._bytes -= size_bytes
