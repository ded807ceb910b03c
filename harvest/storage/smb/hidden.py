"""Where bytes lie that are not published yet: in our hidden folder at the base path, by their tokens."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from harvest.storage import names
from harvest.storage.base import RESERVED, Fault, StorageError
from harvest.storage.smb.listing import Listed

_TEMPORARY = "/".join((RESERVED, "tmp"))
TEMPORARY_FOLDERS = tuple(f"{_TEMPORARY}/{digit:x}" for digit in range(16))
"""Samba looks through a whole folder for each new name in it, lest one differ by upper and lower case alone: a file
that is one of thousands in one folder costs it several times what it costs in one of these."""


def temporary(token: str) -> str:
    """The path of the bytes staged with `token`. Raises ValueError where that cannot be one."""
    digit = zlib.crc32(names.check_token(token).encode()) % len(TEMPORARY_FOLDERS)
    return f"{TEMPORARY_FOLDERS[digit]}/{token}"


def leftovers(list_folder: Callable[[str], Iterator[Listed]]) -> Iterator[tuple[str, str]]:
    """See Storage.leftovers. `list_folder` yields the lines of a folder's listing, or raises StorageError."""
    for folder in TEMPORARY_FOLDERS:
        try:
            for listed in list_folder(folder):
                if not listed.is_folder and names.is_token(listed.name):
                    yield listed.name, listed.name
        except StorageError as error:
            if error.fault is not Fault.NOT_FOUND:
                raise
