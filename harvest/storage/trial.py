"""A storage tried out: what a harvest needs of it, done through its own interface, leaving nothing behind."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from harvest.storage.base import RESERVED, Check, Fault, Staged, Storage, StorageError, Unreadable

Steps = Sequence[tuple[str, frozenset[Fault]]]
"""What connecting does, in order, each step with the faults that mean that it is the one that failed."""


def try_out(storage: Storage, steps: Steps, *, write: bool) -> list[Check]:
    """Connect, list, and with `write` also write, read back, publish without replacing and delete a small file.

    The storage must be closed, and is closed again afterwards, so that nothing is taken for granted that an earlier
    connection has left behind (a cached log-in, a cached answer). Stops at the first step that fails.
    """
    try:
        checks = _connect(storage, steps)
        if all(check.ok for check in checks):
            checks.append(_attempt("list files", lambda: _list(storage)))
        if write and all(check.ok for check in checks):
            checks += _write(storage)
    finally:
        storage.close()
    return checks


def _connect(storage: Storage, steps: Steps) -> list[Check]:
    try:
        storage.connect()
    except StorageError as error:
        names = [name for name, faults in steps]
        at = next((position for position, (_, faults) in enumerate(steps) if error.fault in faults), len(steps) - 1)
        return [Check(name, True, "It worked.") for name in names[:at]] + [Check(names[at], False, str(error))]
    return [Check(name, True, "It worked.") for name, _ in steps]


def _write(storage: Storage) -> list[Check]:
    trial = _Trial(storage)
    checks = []
    for name, action in (
        ("write a file", trial.write),
        ("read it back", trial.read_back),
        ("publish it", trial.publish),
        ("never replace a file", trial.refuse_to_replace),
    ):
        checks.append(_attempt(name, action))
        if not checks[-1].ok:
            break
    if trial.staged:
        checks.append(_attempt("delete it", trial.delete))
        checks.append(_attempt("free space", lambda: _free_space(storage)))
    return checks


def _attempt(name: str, action: Callable[[], str]) -> Check:
    try:
        return Check(name, True, action())
    except StorageError as error:
        return Check(name, False, str(error))


def _list(storage: Storage) -> str:
    found = next(iter(storage.walk()), None)
    if isinstance(found, Unreadable) and found.path == "":
        raise found.error
    return "The folder is empty." if found is None else f"The first that a listing shows is {found.path!r}."


def _free_space(storage: Storage) -> str:
    free = storage.free_bytes()
    return "The storage does not tell how much still fits." if free is None else f"{free:,} bytes still fit."


class _Trial:
    """A small file on the whole way of a file: written, read back, published, not replaced, deleted."""

    def __init__(self, storage: Storage) -> None:
        token = f"check-{uuid.uuid4().hex}"
        self.storage = storage
        self.path = f"{RESERVED}/{token}"
        self.tokens = (token, f"{token}-again")
        self.content = f"StreamWeave tried this storage at {datetime.now(UTC).isoformat()}.\n".encode()
        self.staged: list[Staged] = []

    def write(self) -> str:
        self._stage(self.tokens[0])
        return f"{len(self.content)} bytes were written under a temporary name."

    def read_back(self) -> str:
        (staged,) = self.staged
        self.storage.make_durable(self.staged)
        if b"".join(self.storage.read_back(staged)) != self.content:
            raise StorageError(Fault.IO, "What was read back is not what was written. Do not trust this storage.")
        return "What was read back is what was written."

    def publish(self) -> str:
        for error in self.storage.publish([staged for staged in self.staged if not staged.published]):
            if error:
                raise error
        return "It got its final name."

    def refuse_to_replace(self) -> str:
        try:
            errors = list(self.storage.publish([self._stage(self.tokens[1])]))
        except StorageError as refusal:  # the kinds that publish while they take the bytes refuse here
            errors = [refusal]
        error = errors[0]
        if error is None:
            raise StorageError(
                Fault.CONFIGURATION, "A second file of the same name replaced the first. Such a storage loses data."
            )
        if error.fault is not Fault.EXISTS:
            raise error
        return "A second file of the same name was refused."

    def delete(self) -> str:
        self.storage.delete(self.path)
        for staged in self.staged:
            self.storage.discard(staged.ref, staged.path)
        return "Nothing is left behind."

    def _stage(self, token: str) -> Staged:
        staged = self.storage.write(self.path, token, [self.content])
        self.staged.append(staged)
        return staged
