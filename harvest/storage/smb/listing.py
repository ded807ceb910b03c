"""The listing of a folder as it comes over the wire, read without trust in who sent it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from smbprotocol.file_info import FileAttributes

# [MS-FSCC] 2.4.18 FileIdFullDirectoryInformation: NextEntryOffset, FileIndex, CreationTime, LastAccessTime,
# LastWriteTime, ChangeTime, EndOfFile, AllocationSize, FileAttributes, FileNameLength, EaSize, Reserved, FileId.
_FIXED = struct.Struct("<IIqqqqqqIII4xQ")
_FILETIME_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)
_NO_FILE_ID = (0, 0xFFFF_FFFF_FFFF_FFFF)  # [MS-FSCC] 2.1.9: the file system has none, or none that is unique
_NAME_SURROGATE = 0x2000_0000  # [MS-FSCC] 2.1.2.1: the reparse point stands for another name


class MalformedListingError(ValueError):
    """The server's answer is not a listing."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a listing. `name` may hold lone surrogates: [MS-FSCC] 2.1.5 lets a name be any 16-bit units."""

    name: str
    size_bytes: int
    modified_at: datetime
    changed_at: datetime
    created_at: datetime | None
    attributes: int
    reparse_tag: int
    file_id: int | None

    @property
    def is_folder(self) -> bool:
        return bool(self.attributes & FileAttributes.FILE_ATTRIBUTE_DIRECTORY)

    @property
    def is_link(self) -> bool:
        return leads_elsewhere(self.attributes, self.reparse_tag)


def leads_elsewhere(attributes: int, reparse_tag: int) -> bool:
    """Whether opening it would lead to another place: a symbolic link, junction, mount point or DFS link.

    A file that the server keeps deduplicated, compressed or on tape is a reparse point too, but stands for itself.
    Folders of that kind are rare, and DFS links look like them, so that of folders none is followed.
    """
    if not attributes & FileAttributes.FILE_ATTRIBUTE_REPARSE_POINT:
        return False
    return bool(reparse_tag & _NAME_SURROGATE or attributes & FileAttributes.FILE_ATTRIBUTE_DIRECTORY)


def parse_listing(buffer: bytes) -> Iterator[Listed]:
    """The lines of a buffer of FileIdFullDirectoryInformation. Raises MalformedListingError."""
    offset = 0
    while True:
        try:
            step, _, created, _, modified, changed, size, _, attributes, name_length, extra, file_id = (
                _FIXED.unpack_from(buffer, offset)
            )
        except struct.error:
            raise MalformedListingError("it ends in the middle of a line") from None
        start = offset + _FIXED.size
        name = buffer[start : start + name_length]
        if len(name) != name_length or name_length % 2 or not name or size < 0:
            raise MalformedListingError("a line has an impossible size")
        yield Listed(
            name=name.decode("utf-16-le", "surrogatepass"),
            size_bytes=size,
            modified_at=moment(modified),
            changed_at=moment(changed),
            created_at=creation(created, modified, changed),
            attributes=attributes,
            # EaSize is the reparse tag where the attributes say that there is one.
            reparse_tag=extra if attributes & FileAttributes.FILE_ATTRIBUTE_REPARSE_POINT else 0,
            file_id=unique_id(file_id),
        )
        if step == 0:
            return
        if step < _FIXED.size:
            raise MalformedListingError("its lines overlap")
        offset += step


def moment(filetime: int) -> datetime:
    """A FILETIME ([MS-DTYP] 2.3.3: 100 ns since 1601) as UTC, truncated to microseconds and to the year 9999."""
    try:
        return _FILETIME_EPOCH + timedelta(microseconds=max(filetime, 0) // 10)
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
