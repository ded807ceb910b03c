"""Names on a share: folders made, staged bytes given their final names, names taken away; many at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from smbprotocol.header import NtStatus

from harvest.storage import names
from harvest.storage.base import Fault, Staged, StorageError
from harvest.storage.smb import messages
from harvest.storage.smb.compounds import UNABLE, Job, Outcome, in_parallel
from harvest.storage.smb.hidden import temporary
from harvest.storage.smb.messages import (
    A_FILE,
    A_FOLDER,
    ADD_FILE,
    ADD_FOLDER,
    ATTRIBUTE_FOLDER,
    ATTRIBUTE_HIDDEN,
    DELETE,
    DELETE_ON_CLOSE,
    OPEN_OR_CREATE,
    READ_ATTRIBUTES,
    THE_LINK_ITSELF,
    WRITE_ATTRIBUTES,
    Request,
)
from harvest.storage.smb.session import Session

_CHANGE = 1  # where that request is in the compound of a change of name

log = logging.getLogger(__name__)


def publish(session: Session, staged: Sequence[Staged]) -> Iterator[StorageError | None]:
    """See Storage.publish."""
    return _Publication(session, staged).run()


class _Publication:
    """One batch of staged bytes on the way to their names."""

    def __init__(self, session: Session, staged: Sequence[Staged]) -> None:
        self._session = session
        self._staged = staged
        self._results: dict[int, StorageError | None] = {}
        self._folders: dict[int, str] = {}
        self._unusable: dict[str, StorageError] = {}
        """The folders that could not be made."""
        self._linked: list[int] = []
        for index, item in enumerate(staged):
            try:
                self._folders[index] = "/".join(names.split(item.path, separators="\\")[:-1])
            except StorageError as error:
                self._results[index] = error

    def run(self) -> Iterator[StorageError | None]:
        """By hard links, and by renaming only where the server has no links: Samba looks whether a name is taken before
        it renames, so that of two at the same time both win and one file is lost; a link is made or refused in one
        act. A temporary name goes when the new one is durable."""
        lost: StorageError | None = None
        unflushed: StorageError | None = None
        try:
            self._give_names()
        except StorageError as error:
            lost = error
        try:
            flush_folders(self._session, {self._folders[index] for index, error in self._results.items() if not error})
            self._remove_temporary_names()
        except StorageError as error:
            unflushed = error
        for index in range(len(self._staged)):
            yield self._results.get(index, lost)  # the others would meet it too, each after waiting for the server
        if unflushed is not None:
            raise unflushed

    def _give_names(self) -> None:
        """First one file of each folder, which shows the folders that are missing; then all others; then, in folders
        that only they have shown to be missing, those again."""
        leaders: dict[str, int] = {}
        for index, folder in self._folders.items():
            leaders.setdefault(folder, index)
        again = self._link(leaders.values())
        self._make_folders_of(again)
        others = [index for index in range(len(self._staged)) if index not in self._results]
        again = self._link(others)
        if again:
            self._make_folders_of(again)
            for index in self._link(again):
                shown = self._session.where(self._staged[index].path)
                self._results[index] = StorageError(
                    Fault.IO, f"{shown}: Its folder vanished as soon as it was made.", path=self._staged[index].path
                )

    def _link(self, indices: Iterable[int]) -> list[int]:
        """Give these their names. Returns those whose folder is missing; what became of the others is in the
        results."""
        indices = [index for index in indices if not self._is_refused(index)]
        missing, to_rename = [], []
        for index, done in zip(indices, in_parallel(self._session, self._jobs(indices, messages.link)), strict=True):
            if done.failed == _CHANGE and done.status in UNABLE:
                to_rename.append(index)
            elif _lacks_folder(done):
                missing.append(index)
            else:
                self._results[index] = done.error
                if done.failed is None:
                    self._linked.append(index)
        for index, done in zip(
            to_rename, in_parallel(self._session, self._jobs(to_rename, messages.rename)), strict=True
        ):
            if _lacks_folder(done):
                missing.append(index)
            else:
                self._results[index] = done.error
        return missing

    def _jobs(self, indices: Iterable[int], change: Callable[[str], Request]) -> Iterator[Job]:
        for index in indices:
            item = self._staged[index]
            create = messages.create(
                self._session.wire(temporary(item.ref)),
                access=DELETE | WRITE_ATTRIBUTES,
                options=A_FILE | THE_LINK_ITSELF,
            )
            yield Job(item.path, (create, change(self._session.wire(item.path)), messages.close()))

    def _is_refused(self, index: int) -> bool:
        """Whether the folder could not be made, which then is the result."""
        error = self._unusable.get(self._folders[index])
        if error is not None:
            self._results[index] = error
        return error is not None

    def _make_folders_of(self, indices: Iterable[int]) -> None:
        self._unusable |= make_folders(self._session, {self._folders[index] for index in indices})

    def _remove_temporary_names(self) -> None:
        removed = remove(self._session, ((temporary(self._staged[i].ref), self._staged[i].path) for i in self._linked))
        for error in removed:
            if error is not None:
                log.warning("Published, but its temporary name could not be removed: %s", error)


def _lacks_folder(done: Outcome) -> bool:
    """Whether the new name could not be given because its folder is not there: the staged bytes are."""
    return done.failed == _CHANGE and done.error is not None and done.error.fault is Fault.NOT_FOUND


def make_folders(session: Session, folders: Iterable[str], *, ours: bool = False) -> dict[str, StorageError]:
    """Make `folders` and what is missing above them; somebody else may be making the same. `ours` are hidden. Returns
    those that could not be made, with the reason; raises StorageError where that concerns the whole storage."""
    wanted = {path for folder in folders for path in with_parents(folder) if path}
    refused: dict[str, StorageError] = {}
    for depth in range(max((path.count("/") for path in wanted), default=-1) + 1):
        level = sorted(path for path in wanted if path.count("/") == depth)
        for path in level:
            if above := refused.get(path.rpartition("/")[0]):
                refused[path] = above
        level = [path for path in level if path not in refused]
        jobs = (Job(path, _made(session, path, ours=ours), ours=ours) for path in level)
        for path, done in zip(level, in_parallel(session, jobs), strict=True):
            if done.error is not None:
                if done.error.whole_storage:
                    raise done.error
                refused[path] = done.error
    return refused


def _made(session: Session, path: str, *, ours: bool) -> tuple[Request, ...]:
    create = messages.create(
        session.wire(path),
        access=READ_ATTRIBUTES,
        options=A_FOLDER,
        disposition=OPEN_OR_CREATE,
        attributes=ATTRIBUTE_FOLDER | (ATTRIBUTE_HIDDEN if ours else 0),
    )
    return create, messages.close()


def flush_folders(session: Session, folders: Iterable[str]) -> None:
    """Make the names in `folders`, and theirs in what is above, durable. [MS-FSA] 2.1.5.7 lets a folder be flushed; a
    server that does not has its own idea of when names are durable, and knows no better way to ask for it."""
    paths = sorted({path for folder in folders for path in with_parents(folder)})
    jobs = (Job(path, _flushed(session, path)) for path in paths)
    refusal: StorageError | None = None
    for done in in_parallel(session, jobs):
        if done.error is not None:
            if done.status not in UNABLE:
                raise done.error
            refusal = refusal or done.error
    if refusal is not None:
        log.info("The server does not flush folders: %s", refusal)


def _flushed(session: Session, path: str) -> tuple[Request, ...]:
    create = messages.create(session.wire(path), access=ADD_FILE | ADD_FOLDER, options=A_FOLDER)
    return create, messages.flush(), messages.close()


def remove(session: Session, paths: Iterable[tuple[str, str]]) -> Iterator[StorageError | None]:
    """Take away each file of `paths` (where it is, and what to call it to a person); what is gone already is fine."""
    for done in in_parallel(session, (Job(shown, _removed(session, path)) for path, shown in paths)):
        is_gone = done.error is not None and done.error.fault is Fault.NOT_FOUND
        yield None if is_gone or done.status == NtStatus.STATUS_DELETE_PENDING else done.error


def delete(session: Session, path: str, shown: str) -> None:
    """See Storage.delete."""
    for error in remove(session, [(path, shown)]):
        if error is not None:
            raise error


def _removed(session: Session, path: str) -> tuple[Request, ...]:
    options = A_FILE | THE_LINK_ITSELF | DELETE_ON_CLOSE
    return messages.create(session.wire(path), access=DELETE, options=options), messages.close()


def replace(session: Session, token: str, path: str) -> None:
    """Give the staged bytes of `token` the name `path`, whatever has it now, durably. Raises StorageError."""
    folder = path.rpartition("/")[0]
    for error in make_folders(session, [folder], ours=True).values():
        raise error
    create = messages.create(
        session.wire(temporary(token)), access=DELETE | WRITE_ATTRIBUTES, options=A_FILE | THE_LINK_ITSELF
    )
    with session.told(path) as connection:
        connection.ask(create, messages.rename(session.wire(path), replace=True), messages.close())
    flush_folders(session, [folder])


def with_parents(folder: str) -> list[str]:
    """`folder` and all above it, from the base folder ("") down."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]
