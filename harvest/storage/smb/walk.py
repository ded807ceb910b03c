"""Every file below a folder of a share, met once, all its facts from the listings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harvest.storage.base import RESERVED, Entry, Fault, StorageError, Unreadable
from harvest.storage.smb.listing import Listed

DEEPEST = 64
"""How many folders deep a walk goes. What lies deeper is taken for a loop that the server does not admit."""

ListFolder = Callable[[str], Iterator[Listed]]
Look = Callable[[str], Listed]


@dataclass(frozen=True, slots=True)
class _Folder:
    path: str
    depth: int
    file_id: int | None


def walk(
    list_folder: ListFolder, look: Look, top: str, *, recursive: bool, advanced: Callable[[], None] = lambda: None
) -> Iterator[Entry | Unreadable]:
    """See Storage.walk. `list_folder` yields the lines of a folder's listing, `look` what one would say of a path; both
    raise StorageError.

    A server follows its own symbolic links and shows what they lead to as ordinary folders. So a folder is entered
    once; where the server tells no ids, DEEPEST ends the loop.
    """
    met: dict[int, list[str]] = {}
    pending = [_Folder(top, 0, None)]
    while pending:
        folder = pending.pop()
        if folder.path.split("/", maxsplit=1)[0] == RESERVED:
            continue
        advanced()
        below: list[_Folder] = []
        try:
            file_id = folder.file_id if folder.depth else look(top).file_id
            if file_id is not None:
                _refuse_met(folder.path, met.setdefault(file_id, []), look)
            if folder.depth > DEEPEST:
                raise _unusable(folder.path, f"It lies more than {DEEPEST} folders deep, as in a loop of links.")
            for listed in list_folder(folder.path):
                found = _look_at(listed, folder)
                if isinstance(found, _Folder):
                    below.append(found)
                elif found is not None:
                    yield found
        except StorageError as error:
            if error.whole_storage:
                raise
            yield Unreadable(folder.path, error)
        if not recursive:
            return
        # In name order, so that of two ways to one folder it is the same one every time.
        pending += sorted(below, key=lambda one: one.path, reverse=True)


def _refuse_met(path: str, same_id: list[str], look: Look) -> None:
    """Raise StorageError for a folder that was met under another path, and note one that was not.

    The same id is not enough: each file system below a share may number its folders from the same start. But two
    folders do not share the times of their last changes as well, asked for at one moment.
    """
    if same_id:
        times = (now := look(path)).modified_at, now.changed_at
        for met in same_id:
            if times == ((other := look(met)).modified_at, other.changed_at):
                raise _unusable(path, f"It is {met!r}, met already: a link on the server leads here.")
    same_id.append(path)


def _look_at(listed: Listed, folder: _Folder) -> Entry | Unreadable | _Folder | None:
    if listed.name in (".", ".."):
        return None
    path = f"{folder.path}/{listed.name}" if folder.path else listed.name
    if reason := _why_unusable(listed.name):
        return _unreadable(path, reason)
    if listed.is_link:
        return _unreadable(path, "It is a link (a reparse point that leads to another place); links are not followed.")
    if listed.is_folder:
        return _Folder(path, folder.depth + 1, listed.file_id)
    return entry(path, listed)


def entry(path: str, listed: Listed) -> Entry:
    """What a line of a listing tells of the file at `path`."""
    file_id = None if listed.file_id is None else str(listed.file_id)
    return Entry(path, listed.size_bytes, listed.modified_at, file_id, listed.created_at)


def _why_unusable(name: str) -> str | None:
    if any(character in name for character in "/\\\0"):
        return "The server sent a name that no file can have, and that would lead elsewhere. Nothing was done with it."
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "The name is not valid UTF-16 and could not be kept exactly. Rename it."
    return None


def _unreadable(path: str, reason: str) -> Unreadable:
    error = _unusable(path, reason)
    return Unreadable(error.path, error)


def _unusable(path: str, reason: str) -> StorageError:
    shown = path.replace("\0", "␀").encode("utf-8", "backslashreplace").decode()
    return StorageError(Fault.NAME, f"{shown}: {reason}", path=shown)
