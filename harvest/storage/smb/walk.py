"""Every file below a folder of a share, met once, all its facts from the listings."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from harvest.storage.base import RESERVED, Entry, Fault, StorageError, Unreadable
from harvest.storage.smb.listing import Listed, entry, unique_id
from harvest.storage.smb.messages import ATTRIBUTE_FOLDER, ATTRIBUTE_REPARSE_POINT

DEEPEST = 64
"""How many folders deep a walk goes. What lies deeper is taken for a loop that the server does not admit."""

AHEAD = 32
"""How many folders are picked before they are listed, so that their listings can be asked for at once."""

ListFolder = Callable[[str], Iterator[Listed]]
Look = Callable[[str], Listed]
Expect = Callable[[Iterable[str]], None]

_UNUSUAL = ATTRIBUTE_FOLDER | ATTRIBUTE_REPARSE_POINT
_SEPARATORS = re.compile(r"[/\\\0]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_UNUSABLE = re.compile("[/\\\\\0\ud800-\udfff]|^[.]{1,2}$")


class _Folder(NamedTuple):
    path: str
    depth: int
    file_id: int | None


def walk(
    list_folder: ListFolder,
    look: Look,
    top: str,
    *,
    recursive: bool,
    advanced: Callable[[], None] = lambda: None,
    expect: Expect = lambda _: None,
) -> Iterator[Entry | Unreadable]:
    """See Storage.walk. `list_folder` yields the lines of a folder's listing, `look` what one would say of a path; both
    raise StorageError. `expect` is told again and again which folders will be listed next.

    A server follows its own symbolic links and shows what they lead to as ordinary folders. So a folder is entered
    once; where the server tells no ids, DEEPEST ends the loop.
    """
    met: dict[int, list[str]] = {}
    pending = [_Folder(top, 0, None)]
    picked: deque[_Folder] = deque()
    while pending or picked:
        while pending and len(picked) < AHEAD:
            folder = pending.pop()
            if folder.path.split("/", maxsplit=1)[0] != RESERVED:
                picked.append(folder)
        if not picked:
            return
        expect(folder.path for folder in picked if folder.depth <= DEEPEST)
        folder = picked.popleft()
        advanced()
        below: list[_Folder] = []
        try:
            file_id = folder.file_id if folder.depth else unique_id(look(top).file_id)
            if file_id is not None:
                _refuse_met(folder.path, met.setdefault(file_id, []), look)
            if folder.depth > DEEPEST:
                raise _unusable(folder.path, f"It lies more than {DEEPEST} folders deep, as in a loop of links.")
            yield from _files_in(folder, list_folder(folder.path), below)
        except StorageError as error:
            if error.whole_storage:
                raise
            yield Unreadable(folder.path, error)
        if not recursive:
            return
        # In name order, so that of two ways to one folder it is the same one every time.
        pending += sorted(below, key=lambda one: one.path, reverse=True)


def _files_in(folder: _Folder, lines: Iterator[Listed], below: list[_Folder]) -> Iterator[Entry | Unreadable]:
    """What is to be told of `folder`; the folders in it are added to `below`."""
    above = f"{folder.path}/" if folder.path else ""
    for listed in lines:
        if not listed.attributes & _UNUSUAL and not _UNUSABLE.search(listed.name):
            yield entry(above + listed.name, listed)
        else:
            found = _look_at(listed, folder)
            if isinstance(found, _Folder):
                below.append(found)
            elif found is not None:
                yield found


def _refuse_met(path: str, same_id: list[str], look: Look) -> None:
    """Raise StorageError for a folder that was met under another path, and note one that was not.

    The same id is not enough: each file system below a share may number its folders from the same start. But two
    folders do not share the times of their last changes as well, asked for at one moment.
    """
    if same_id:
        times = (now := look(path)).modified, now.changed
        for met in same_id:
            if times == ((other := look(met)).modified, other.changed):
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
        return _Folder(path, folder.depth + 1, unique_id(listed.file_id))
    return entry(path, listed)


def _why_unusable(name: str) -> str | None:
    if _SEPARATORS.search(name):
        return "The server sent a name that no file can have, and that would lead elsewhere. Nothing was done with it."
    if _SURROGATES.search(name):
        return "The name is not valid UTF-16 and could not be kept exactly. Rename it."
    return None


def _unreadable(path: str, reason: str) -> Unreadable:
    error = _unusable(path, reason)
    return Unreadable(error.path, error)


def _unusable(path: str, reason: str) -> StorageError:
    shown = path.replace("\0", "␀").encode("utf-8", "backslashreplace").decode()
    return StorageError(Fault.NAME, f"{shown}: {reason}", path=shown)
