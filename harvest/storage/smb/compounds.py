"""Many independent compounds under way at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from smbprotocol.header import NtStatus

from harvest.storage.base import StorageError
from harvest.storage.smb.exchange import Connection, Exchange
from harvest.storage.smb.messages import Request, StatusError
from harvest.storage.smb.session import Session

UNABLE = frozenset(
    {
        # What a server says whose file system has no hard links or keeps no times, or that does not flush folders.
        # Samba makes EPERM, with which Linux answers link(2) there, the last one.
        NtStatus.STATUS_NOT_SUPPORTED,
        NtStatus.STATUS_INVALID_DEVICE_REQUEST,
        NtStatus.STATUS_INVALID_PARAMETER,
        NtStatus.STATUS_INVALID_INFO_CLASS,
        0xC0000002,  # NOT_IMPLEMENTED
        NtStatus.STATUS_ACCESS_DENIED,
    }
)


class Job(NamedTuple):
    """A compound that opens something at its head and closes it at its end. `shown` is the path to name in errors;
    `ours`: a folder of our own is concerned, see Session.told."""

    shown: str
    requests: tuple[Request, ...]
    ours: bool = False


class Outcome(NamedTuple):
    """What became of a compound: the first of its requests that failed, its status, and what that means."""

    failed: int | None = None
    status: int = 0
    error: StorageError | None = None


def in_parallel(session: Session, jobs: Iterable[Job]) -> Iterator[Outcome]:
    """Do each of `jobs`; what became of them, in order. Raises StorageError where the connection is lost."""
    waiting: deque[tuple[Job, Exchange]] = deque()
    connection: Connection | None = None
    try:
        for job in jobs:
            with session.told(job.shown, on=connection) as connection:
                waiting.append((job, connection.submit(*job.requests)))
            if len(waiting) >= (session.requests_in_flight if connection.pipelined else 1):
                # Half of them, so that the next ones go out together: sending one by one costs more than all the rest.
                for _ in range(len(waiting) // 2 + 1):
                    yield _settled(session, connection, *waiting.popleft())
        while waiting and connection is not None:
            yield _settled(session, connection, *waiting.popleft())
    finally:
        if connection is not None:
            session.forget(connection, *(exchange for _, exchange in waiting))


def _settled(session: Session, connection: Connection, job: Job, exchange: Exchange) -> Outcome:
    with session.told(job.shown, on=connection):
        connection.wait(exchange)
        if exchange.left_open():
            connection.forget(exchange)
    return outcome(session, job.shown, exchange, ours=job.ours)


def outcome(
    session: Session, shown: str, exchange: Exchange, *, ours: bool = False, dispensable: int | None = None
) -> Outcome:
    """The first failure of an exchange that is answered. The request at `dispensable` may be one of UNABLE."""
    for index, status in enumerate(exchange.statuses):
        if status and not (index == dispensable and status in UNABLE):
            cause = StatusError(status)
            error = session.explained(cause, shown, ours=ours)
            error.__cause__ = cause
            return Outcome(index, status, error)
    return Outcome()
