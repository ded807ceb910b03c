"""The messages of SMB 2 and 3 as they lie on the wire: requests packed, answers taken apart without trust in who sent
them. Pure functions; nothing here reads or sends.

Sections are those of [MS-SMB2] (messages), [MS-FSCC] (what they carry about files) and [MS-DTYP] (times). All numbers
are little-endian. An answer is the whole message, its header included, for offsets count from there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

HEADER_BYTES = 64
PIECE_BYTES = 0x10000
"""What one credit pays for ([MS-SMB2] 3.2.4.1.5)."""

Bytes: TypeAlias = bytes | bytearray | memoryview


class Command(IntEnum):
    """[MS-SMB2] 2.2.1.2."""

    LOGOFF = 2
    CREATE = 5
    CLOSE = 6
    FLUSH = 7
    READ = 8
    WRITE = 9
    ECHO = 13
    QUERY_DIRECTORY = 14
    QUERY_INFO = 16
    SET_INFO = 17


class Status(IntEnum):
    """The NTSTATUS codes that the messages themselves turn on ([MS-ERREF] 2.3.1); classify.py knows the others."""

    SUCCESS = 0
    PENDING = 0x0000_0103
    NO_MORE_FILES = 0x8000_0006
    NO_SUCH_FILE = 0xC000_000F
    END_OF_FILE = 0xC000_0011
    USER_SESSION_DELETED = 0xC000_0203


RELATED = b"\xff" * 16
"""The handle that the CREATE at the head of the same compound has opened ([MS-SMB2] 3.2.4.1.4)."""

FLAG_FROM_SERVER, FLAG_ASYNC, FLAG_RELATED, FLAG_SIGNED = 1, 2, 4, 8
NO_MESSAGE_ID = 0xFFFF_FFFF_FFFF_FFFF
"""The message id of what the server sends unasked: oplock and lease breaks ([MS-SMB2] 3.2.5.19)."""

SHARE_READ, SHARE_WRITE, SHARE_DELETE = 1, 2, 4
SHARE_ALL = SHARE_READ | SHARE_WRITE | SHARE_DELETE
"""Everybody else may go on reading, writing, renaming and deleting: what an instrument needs of its own files."""

# [MS-SMB2] 2.2.13.1 access masks.
READ_DATA = LIST_FOLDER = 0x1
WRITE_DATA = ADD_FILE = 0x2
ADD_FOLDER = 0x4
READ_ATTRIBUTES = 0x80
WRITE_ATTRIBUTES = 0x100
DELETE = 0x1_0000
SYNCHRONIZE = 0x10_0000

# [MS-SMB2] 2.2.13 CreateDisposition and CreateOptions.
OPEN, CREATE_NEW, OPEN_OR_CREATE = 1, 2, 3
A_FOLDER, A_FILE = 0x1, 0x40
DELETE_ON_CLOSE = 0x1000
THE_LINK_ITSELF = 0x20_0000

# [MS-FSCC] 2.6 file attributes.
ATTRIBUTE_HIDDEN, ATTRIBUTE_FOLDER, ATTRIBUTE_REPARSE_POINT = 0x2, 0x10, 0x400

# [MS-FSCC] 2.4 and 2.5 information classes.
BASIC_INFORMATION = 4
INTERNAL_INFORMATION = 6
RENAME_INFORMATION = 10
LINK_INFORMATION = 11
DISPOSITION_INFORMATION = 13
END_OF_FILE_INFORMATION = 20
NETWORK_OPEN_INFORMATION = 34
ATTRIBUTE_TAG_INFORMATION = 35
ID_FULL_DIRECTORY_INFORMATION = 38
FS_FULL_SIZE_INFORMATION = 7
INFO_FILE, INFO_FILE_SYSTEM = 1, 2


class MalformedError(Exception):
    """What the server sent is no answer to what it was asked. The connection is of no use any more."""


class StatusError(Exception):
    """The server answered with an error: `status` is its NTSTATUS code."""

    def __init__(self, status: int) -> None:
        super().__init__(f"NTSTATUS 0x{status:08x}")
        self.status = status


class Request(NamedTuple):
    """One request without its header. `payload` follows `body`; it is sent from where it lies.

    `charge` is its price in credits, `room_bytes` the longest message that may answer it.
    """

    command: int
    body: bytes
    charge: int
    room_bytes: int
    payload: Bytes = b""


_SLACK_BYTES = 4096
"""What an answer may be longer than its payload: header, fixed part, padding, details of an error."""
_CREATE_ROOM_BYTES = 0x12000
"""An answer that a link is in the way holds the link's target twice, each up to 32 KiB ([MS-SMB2] 2.2.2.2.1)."""

HEADER = struct.Struct("<4sHHIHHIIQIIQ16s")
"""[MS-SMB2] 2.2.1.2: ProtocolId, StructureSize, CreditCharge, Status, Command, Credits, Flags, NextCommand, MessageId,
Reserved, TreeId (both together are AsyncId in an asynchronous answer), SessionId, Signature."""
PROTOCOL_ID, ENCRYPTED_ID = b"\xfeSMB", b"\xfdSMB"

TRANSFORM = struct.Struct("<4s16s16sIHHQ")
"""[MS-SMB2] 2.2.41: ProtocolId, Signature, Nonce, OriginalMessageSize, Reserved, Flags, SessionId."""

_CREATE = struct.Struct("<HBBI8x8xIIIIIHHII")
_CREATED = struct.Struct("<HBBIqqqqqqI4x16s")
_CLOSE = struct.Struct("<HH4x16s")
_CLOSED = struct.Struct("<HH4xqqqqqqI")
_FLUSH = struct.Struct("<H6x16s")
_READ = struct.Struct("<HBBIQ16s16xx")
_READ_ANSWER = struct.Struct("<HBxI")
_WRITE = struct.Struct("<HHIQ16s12xI")
_WRITTEN = struct.Struct("<HxxI")
_QUERY_DIRECTORY = struct.Struct("<HBBI16sHHI")
_QUERY_INFO = struct.Struct("<HBBI16x16s")
_QUERIED = struct.Struct("<HHI")
_SET_INFO = struct.Struct("<HBBIH6x16s")

_FILE_ID_AT = {
    Command.CLOSE: 8,
    Command.FLUSH: 8,
    Command.READ: 16,
    Command.WRITE: 16,
    Command.QUERY_DIRECTORY: 8,
    Command.QUERY_INFO: 24,
    Command.SET_INFO: 16,
}


def charge(payload_bytes: int) -> int:
    """The price in credits of a request that carries, or is answered with, so many bytes ([MS-SMB2] 3.2.4.1.5)."""
    return max(payload_bytes - 1, 0) // PIECE_BYTES + 1


# --------------------------------------------------------------------------------------------------------- requests


def create(
    path: str,
    *,
    access: int,
    options: int = 0,
    disposition: int = OPEN,
    share: int = SHARE_ALL,
    attributes: int = 0,
) -> Request:
    """[MS-SMB2] 2.2.13. `path` is relative to the share, with backslashes. No oplock and no lease is asked for: there
    is nothing for the server to break."""
    name = path.encode("utf-16-le", "surrogatepass")
    fixed = _CREATE.pack(57, 0, 0, 2, access, attributes, share, disposition, options, 120, len(name), 0, 0)
    return Request(Command.CREATE, fixed + (name or b"\0\0"), 1, _CREATE_ROOM_BYTES)


def close(file_id: bytes = RELATED, *, tell: bool = False) -> Request:
    """[MS-SMB2] 2.2.15. `tell` asks what the file is like when it is closed: see `closed`."""
    return Request(Command.CLOSE, _CLOSE.pack(24, int(tell), file_id), 1, _SLACK_BYTES)


def flush(file_id: bytes = RELATED) -> Request:
    """[MS-SMB2] 2.2.17: bring the file or folder to the server's disk."""
    return Request(Command.FLUSH, _FLUSH.pack(24, file_id), 1, _SLACK_BYTES)


def read(offset: int, length: int, file_id: bytes = RELATED, *, unbuffered: bool = False) -> Request:
    """[MS-SMB2] 2.2.19. `unbuffered` asks for the bytes on the disk; only SMB 3.0.2 and newer know it."""
    body = _READ.pack(49, 0x50, int(unbuffered), length, offset, file_id)
    return Request(Command.READ, body, charge(length), length + _SLACK_BYTES)


def write(offset: int, content: Bytes, file_id: bytes = RELATED) -> Request:
    """[MS-SMB2] 2.2.21."""
    length = len(content)
    body = _WRITE.pack(49, 112, length, offset, file_id, 0)
    return Request(Command.WRITE, body, charge(length), _SLACK_BYTES, content)


def query_directory(length: int, file_id: bytes = RELATED, *, restart: bool = False) -> Request:
    """[MS-SMB2] 2.2.33: at most `length` bytes of FileIdFullDirectoryInformation ([MS-FSCC] 2.4.18) of every name."""
    body = _QUERY_DIRECTORY.pack(33, ID_FULL_DIRECTORY_INFORMATION, int(restart), 0, file_id, 96, 2, length) + b"*\0"
    return Request(Command.QUERY_DIRECTORY, body, charge(length), length + _SLACK_BYTES)


def query_info(information: int, length: int, file_id: bytes = RELATED, *, kind: int = INFO_FILE) -> Request:
    """[MS-SMB2] 2.2.37: at most `length` bytes of the information class `information`."""
    body = _QUERY_INFO.pack(41, kind, information, length, file_id)
    return Request(Command.QUERY_INFO, body, charge(length), length + _SLACK_BYTES)


def set_info(information: int, content: bytes, file_id: bytes = RELATED) -> Request:
    """[MS-SMB2] 2.2.39: set the information class `information` of a file to `content`."""
    body = _SET_INFO.pack(33, INFO_FILE, information, len(content), 96, file_id) + content
    return Request(Command.SET_INFO, body, charge(len(content)), _SLACK_BYTES)


def rename(path: str, file_id: bytes = RELATED, *, replace: bool = False) -> Request:
    """[MS-FSCC] 2.4.37.2 FileRenameInformation: give the file the name `path`, relative to the share."""
    return set_info(RENAME_INFORMATION, _new_name(path, replace), file_id)


def link(path: str, file_id: bytes = RELATED, *, replace: bool = False) -> Request:
    """[MS-FSCC] 2.4.21.2 FileLinkInformation: give the file a second name (a hard link)."""
    return set_info(LINK_INFORMATION, _new_name(path, replace), file_id)


def _new_name(path: str, replace: bool) -> bytes:
    name = path.encode("utf-16-le", "surrogatepass")
    # Padded, for Windows refuses what is shorter than the whole structure in C.
    return (struct.pack("<B7xQI", replace, 0, len(name)) + name).ljust(24, b"\0")


def set_times(
    *, created: int = 0, accessed: int = 0, modified: int = 0, changed: int = 0, file_id: bytes = RELATED
) -> Request:
    """[MS-FSCC] 2.4.7 FileBasicInformation. Times are FILETIMEs; 0 leaves one as it is."""
    return set_info(BASIC_INFORMATION, struct.pack("<qqqqI4x", created, accessed, modified, changed, 0), file_id)


def delete_when_closed(file_id: bytes = RELATED, *, delete: bool = True) -> Request:
    """[MS-FSCC] 2.4.11 FileDispositionInformation."""
    return set_info(DISPOSITION_INFORMATION, bytes([delete]), file_id)


def echo() -> Request:
    """[MS-SMB2] 2.2.28: ask for a sign of life."""
    return Request(Command.ECHO, struct.pack("<H2x", 4), 1, _SLACK_BYTES)


def logoff() -> Request:
    """[MS-SMB2] 2.2.7: end the session; what is still open in it is closed by the server."""
    return Request(Command.LOGOFF, struct.pack("<H2x", 4), 1, _SLACK_BYTES)


def with_file_id(request: Request, file_id: bytes) -> Request:
    """`request` on that handle, where it was on RELATED."""
    at = _FILE_ID_AT.get(Command(request.command))
    if at is None or request.body[at : at + 16] != RELATED:
        return request
    return request._replace(body=request.body[:at] + file_id + request.body[at + 16 :])


def packed_bytes(requests: Iterable[Request]) -> int:
    """How long the compound of `requests` is on the wire, without its four bytes of length."""
    return sum(-(-(HEADER_BYTES + len(one.body) + len(one.payload)) // 8) * 8 for one in requests)


# ---------------------------------------------------------------------------------------------------------- answers


class Attributes(NamedTuple):
    """What a CREATE, a CLOSE or FileNetworkOpenInformation tells of a file; times are FILETIMEs."""

    created: int
    accessed: int
    modified: int
    changed: int
    size_bytes: int
    attributes: int


class Opened(NamedTuple):
    """What a CREATE tells."""

    file_id: bytes
    attributes: Attributes


def opened(answer: memoryview) -> Opened:
    """[MS-SMB2] 2.2.14."""
    *_, created, accessed, modified, changed, _, end, attributes, file_id = _unpack(_CREATED, answer, 89)
    if end < 0 or file_id == RELATED:
        raise MalformedError("an opened file has an impossible size or handle")
    return Opened(file_id, Attributes(created, accessed, modified, changed, end, attributes))


def closed(answer: memoryview) -> Attributes | None:
    """[MS-SMB2] 2.2.16: what the file was like when it was closed, None where the server does not tell."""
    _, flags, created, accessed, modified, changed, _, end, attributes = _unpack(_CLOSED, answer, 60)
    if not flags & 1:
        return None
    if end < 0:
        raise MalformedError("a closed file has an impossible size")
    return Attributes(created, accessed, modified, changed, end, attributes)


def content(answer: memoryview, asked_bytes: int) -> memoryview:
    """[MS-SMB2] 2.2.20: the bytes that were read, at most those `asked` for."""
    _, start, length = _unpack(_READ_ANSWER, answer, 17)
    if length > asked_bytes or (length and start < HEADER_BYTES + 16) or start + length > len(answer):
        raise MalformedError("the bytes that were read lie outside of their message")
    return answer[start : start + length]


def written(answer: memoryview, offered_bytes: int) -> int:
    """[MS-SMB2] 2.2.22: how many bytes were written, 1 to those `offered`."""
    _, count = _unpack(_WRITTEN, answer, 17)
    if not 0 < count <= offered_bytes:
        raise MalformedError(f"{count} bytes were written, it says, of {offered_bytes}")
    return int(count)


def queried(answer: memoryview, asked_bytes: int) -> memoryview:
    """[MS-SMB2] 2.2.34 and 2.2.38: the information or the listing, at most the bytes `asked` for."""
    _, start, length = _unpack(_QUERIED, answer, 9)
    if length > asked_bytes or (length and start < HEADER_BYTES + 8) or start + length > len(answer):
        raise MalformedError("what was queried lies outside of its message")
    return answer[start : start + length]


def _unpack(structure: struct.Struct, answer: memoryview, structure_size: int) -> tuple[Any, ...]:
    try:
        fields = structure.unpack_from(answer, HEADER_BYTES)
    except struct.error:
        raise MalformedError("an answer ends too early") from None
    if fields[0] != structure_size:
        raise MalformedError(f"an answer has the structure {fields[0]} instead of {structure_size}")
    return fields


# [MS-FSCC] 2.4.29 FileNetworkOpenInformation: CreationTime, LastAccessTime, LastWriteTime, ChangeTime, AllocationSize,
# EndOfFile, FileAttributes; 2.4.22 FileInternalInformation: IndexNumber; 2.4.6 FileAttributeTagInformation:
# FileAttributes, ReparseTag; 2.5.4 FileFsFullSizeInformation: TotalAllocationUnits, CallerAvailableAllocationUnits,
# ActualAvailableAllocationUnits, SectorsPerAllocationUnit, BytesPerSector.
_NETWORK_OPEN = struct.Struct("<qqqqqqI4x")
_INTERNAL = struct.Struct("<Q")
_ATTRIBUTE_TAG = struct.Struct("<II")
_FS_FULL_SIZE = struct.Struct("<8xq8xII")


def query_network_open() -> Request:
    """[MS-FSCC] 2.4.29: times, size and attributes; see `network_open`."""
    return query_info(NETWORK_OPEN_INFORMATION, _NETWORK_OPEN.size)


def query_internal(file_id: bytes = RELATED) -> Request:
    """[MS-FSCC] 2.4.22: the number that the file system has given the file; see `internal`."""
    return query_info(INTERNAL_INFORMATION, _INTERNAL.size, file_id)


def query_attribute_tag() -> Request:
    """[MS-FSCC] 2.4.6; see `reparse_tag`."""
    return query_info(ATTRIBUTE_TAG_INFORMATION, _ATTRIBUTE_TAG.size)


def query_full_size() -> Request:
    """[MS-FSCC] 2.5.4: the size of the volume; see `free_bytes`."""
    return query_info(FS_FULL_SIZE_INFORMATION, _FS_FULL_SIZE.size, kind=INFO_FILE_SYSTEM)


def network_open(answer: memoryview) -> Attributes:
    created, accessed, modified, changed, _, end, attributes = _information(_NETWORK_OPEN, answer)
    if end < 0:
        raise MalformedError("a file has an impossible size")
    return Attributes(created, accessed, modified, changed, end, attributes)


def internal(answer: memoryview) -> int:
    (number,) = _information(_INTERNAL, answer)
    return int(number)


def reparse_tag(answer: memoryview) -> int:
    """What kind of reparse point it is ([MS-FSCC] 2.1.2.1), 0 where it is none."""
    attributes, tag = _information(_ATTRIBUTE_TAG, answer)
    return int(tag) if attributes & ATTRIBUTE_REPARSE_POINT else 0


def free_bytes(answer: memoryview) -> int:
    """How many bytes the caller may still write there."""
    available, sectors_per_unit, bytes_per_sector = _information(_FS_FULL_SIZE, answer)
    return int(available * sectors_per_unit * bytes_per_sector)


def _information(structure: struct.Struct, answer: memoryview) -> tuple[Any, ...]:
    try:
        return structure.unpack_from(queried(answer, structure.size))
    except struct.error:
        raise MalformedError("what was queried ends too early") from None
