"""The listing of a folder as it comes over the wire, read without trust in who sent it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from harvest.storage.base import Entry
from harvest.storage.smb.messages import ATTRIBUTE_FOLDER, ATTRIBUTE_REPARSE_POINT, Attributes, Bytes

# [MS-FSCC] 2.4.18 FileIdFullDirectoryInformation: NextEntryOffset, FileIndex, CreationTime, LastAccessTime,
# LastWriteTime, ChangeTime, EndOfFile, AllocationSize, FileAttributes, FileNameLength, EaSize, Reserved, FileId.
_FIXED = struct.Struct("<I4xq8xqqq8xIII4xQ")
_FILETIME_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)
_NO_FILE_ID = (0, 0xFFFF_FFFF_FFFF_FFFF)  # [MS-FSCC] 2.1.9: the file system has none, or none that is unique
_NAME_SURROGATE = 0x2000_0000  # [MS-FSCC] 2.1.2.1: the reparse point stands for another name


class MalformedListingError(ValueError):
    """The server's answer is not a listing."""


class Listed(NamedTuple):
    """One line of a listing. `name` may hold lone surrogates: [MS-FSCC] 2.1.5 lets a name be any 16-bit units. Times
    are FILETIMEs; `file_id` and `reparse_tag` are as they were sent."""

    name: str
    size_bytes: int
    modified: int
    changed: int
    created: int
    attributes: int
    reparse_tag: int
    file_id: int

    @property
    def is_folder(self) -> bool:
        return bool(self.attributes & ATTRIBUTE_FOLDER)

    @property
    def is_link(self) -> bool:
        return leads_elsewhere(self.attributes, self.reparse_tag)


def leads_elsewhere(attributes: int, reparse_tag: int) -> bool:
    """Whether opening it would lead to another place: a symbolic link, junction, mount point or DFS link.

    A file that the server keeps deduplicated, compressed or on tape is a reparse point too, but stands for itself.
    Folders of that kind are rare, and DFS links look like them, so that of folders none is followed.
    """
    if not attributes & ATTRIBUTE_REPARSE_POINT:
        return False
    return bool(reparse_tag & _NAME_SURROGATE or attributes & ATTRIBUTE_FOLDER)


def parse_listing(buffer: Bytes) -> Iterator[Listed]:
    """The lines of a buffer of FileIdFullDirectoryInformation. Raises MalformedListingError."""
    offset, end = 0, len(buffer)
    unpack, fixed_bytes = _FIXED.unpack_from, _FIXED.size
    while True:
        start = offset + fixed_bytes
        if start > end:
            raise MalformedListingError("it ends in the middle of a line")
        step, created, modified, changed, size, attributes, name_bytes, extra, file_id = unpack(buffer, offset)
        if start + name_bytes > end or name_bytes % 2 or not name_bytes or size < 0:
            raise MalformedListingError("a line has an impossible size")
        name = str(buffer[start : start + name_bytes], "utf-16-le", "surrogatepass")
        # EaSize is the reparse tag where the attributes say that there is one.
        tag = extra if attributes & ATTRIBUTE_REPARSE_POINT else 0
        yield Listed(name, size, modified, changed, created, attributes, tag, file_id)
        if step == 0:
            return
        if step < fixed_bytes:
            raise MalformedListingError("its lines overlap")
        offset += step


def entry(path: str, listed: Listed) -> Entry:
    """What a line of a listing tells of the file at `path`."""
    file_id = None if listed.file_id in _NO_FILE_ID else str(listed.file_id)
    created_at = creation(listed.created, listed.modified, listed.changed)
    return Entry(path, listed.size_bytes, moment(listed.modified), file_id, created_at)


def line(name: str, told: Attributes, file_id: int, reparse_tag: int = 0) -> Listed:
    """What a listing would say of a file of which a handle has `told` this."""
    return Listed(
        name, told.size_bytes, told.modified, told.changed, told.created, told.attributes, reparse_tag, file_id
    )


def moment(filetime: int) -> datetime:
    """A FILETIME ([MS-DTYP] 2.3.3: 100 ns since 1601) as UTC, truncated to microseconds and to the year 9999."""
    try:
        return _FILETIME_EPOCH + timedelta(0, 0, max(filetime, 0) // 10)
    except OverflowError:
        return _LATEST


def creation(created: int, modified: int, changed: int) -> datetime | None:
    """The time of creation, None where the server tells none, or plainly another time.

    For a file that was not made through it, Samba tells the earliest of the other three times: the last write, if the
    file has been read since, else the last access, which for a new file is its creation.
    """
    return None if created <= 0 or created in (modified, changed) else moment(created)


def unique_id(file_id: int) -> int | None:
    """`file_id` unless it says that there is none."""
    return None if file_id in _NO_FILE_ID else file_id
