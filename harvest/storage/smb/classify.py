"""What an error of the SMB library means.

Only the NTSTATUS code and the class of an exception tell that. `OSError.errno` does not: smbprotocol makes a wrong
share name ENOENT and a refused log-in 0.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

from smbprotocol.exceptions import (
    SMBAuthenticationError,
    SMBConnectionClosed,
    SMBException,
    SMBLinkRedirectionError,
    SMBOSError,
    SMBResponseException,
    SMBUnsupportedFeature,
)
from smbprotocol.header import NtStatus

from harvest.storage.base import Fault, StorageError
from harvest.storage.smb.exchange import NoCreditsError
from harvest.storage.smb.messages import MalformedError, StatusError
from harvest.storage.smb.protection import ForgedError

LIBRARY_ERRORS = (
    *(StatusError, MalformedError, ForgedError, NoCreditsError),
    *(SMBException, OSError, ValueError, KeyError, IndexError, struct.error),
)
"""All that a connection raises, and smbprotocol, its receiving thread's accidents included. Not Exception: a task's
time limit is one."""

Meaning = tuple[Fault, str]

_REFUSED = "Correct the credentials before you try again: further attempts may lock the account."
_GONE = "The server ended the connection. It is tried again by itself."
_BUSY = "The server is short of resources. It is tried again by itself."
_NO_DOMAIN = "The server cannot ask its domain controller who we are. Tell the domain's administrator."
_FULL = "There is no room left. Make room or raise the quota."
_NO_NAME = "The server cannot hold that name, or the whole path is too long for it."
_IN_USE = "Another program holds it open and lets nobody else in. It is tried again later."
_BROKEN_DISK = "The server's disk reports an error. Have it checked before you trust it."
_NO_DISK = "The disk behind the share is not there. Mount it on the server."
_NO_SHARE = "There is no such share. Correct the share's name."
_HANDLE_LOST = "The server has forgotten the open file, as after a restart. It is tried again by itself."

_MEANINGS: Mapping[int, Meaning] = {
    # [MS-ERREF] 2.3.1. Codes without a name in smbprotocol stand with theirs as a comment.
    NtStatus.STATUS_OBJECT_NAME_NOT_FOUND: (Fault.NOT_FOUND, "It does not exist."),
    NtStatus.STATUS_OBJECT_PATH_NOT_FOUND: (Fault.NOT_FOUND, "A folder of its path does not exist."),
    NtStatus.STATUS_NO_SUCH_FILE: (Fault.NOT_FOUND, "It does not exist."),
    NtStatus.STATUS_OBJECT_NAME_COLLISION: (Fault.EXISTS, "A file of that name exists already; it was left as it is."),
    NtStatus.STATUS_ACCESS_DENIED: (Fault.DENIED, "The account may not do that. Change the share's permissions."),
    NtStatus.STATUS_PRIVILEGE_NOT_HELD: (Fault.DENIED, "The account lacks a privilege for that."),
    NtStatus.STATUS_CANNOT_DELETE: (Fault.DENIED, "The server does not let it be deleted."),
    0xC00000CA: (Fault.DENIED, "The account may not use this share over the network."),  # NETWORK_ACCESS_DENIED
    NtStatus.STATUS_SHARING_VIOLATION: (Fault.LOCKED, _IN_USE),
    NtStatus.STATUS_DELETE_PENDING: (Fault.LOCKED, "It is being deleted."),
    0xC0000054: (Fault.LOCKED, _IN_USE),  # FILE_LOCK_CONFLICT
    0xC0000055: (Fault.LOCKED, _IN_USE),  # LOCK_NOT_GRANTED
    NtStatus.STATUS_OBJECT_NAME_INVALID: (Fault.NAME, _NO_NAME),
    NtStatus.STATUS_OBJECT_PATH_INVALID: (Fault.NAME, _NO_NAME),
    NtStatus.STATUS_OBJECT_PATH_SYNTAX_BAD: (Fault.NAME, _NO_NAME),
    0xC0000106: (Fault.NAME, _NO_NAME),  # NAME_TOO_LONG
    NtStatus.STATUS_NOT_A_DIRECTORY: (Fault.NAME, "A file stands where a folder is needed. Move it away."),
    NtStatus.STATUS_FILE_IS_A_DIRECTORY: (Fault.NAME, "A folder stands where a file is needed. Move it away."),
    NtStatus.STATUS_STOPPED_ON_SYMLINK: (Fault.NAME, "A symbolic link is in the way, and links are not followed."),
    NtStatus.STATUS_END_OF_FILE: (Fault.CHANGED, "The file became shorter while it was read."),
    0xC0000185: (Fault.IO, _BROKEN_DISK),  # IO_DEVICE_ERROR
    0xC000003E: (Fault.IO, _BROKEN_DISK),  # DATA_ERROR
    0xC000003F: (Fault.IO, _BROKEN_DISK),  # CRC_ERROR
    0xC0000032: (Fault.IO, _BROKEN_DISK),  # DISK_CORRUPT_ERROR
    0xC0000102: (Fault.IO, _BROKEN_DISK),  # FILE_CORRUPT_ERROR
    0xC000009C: (Fault.IO, _BROKEN_DISK),  # DEVICE_DATA_ERROR
    0xC00000E9: (Fault.IO, _BROKEN_DISK),  # UNEXPECTED_IO_ERROR
    NtStatus.STATUS_NETWORK_NAME_DELETED: (Fault.UNREACHABLE, _GONE),
    NtStatus.STATUS_USER_SESSION_DELETED: (Fault.UNREACHABLE, _GONE),
    NtStatus.STATUS_SERVER_UNAVAILABLE: (Fault.UNREACHABLE, _GONE),
    NtStatus.STATUS_CANCELLED: (Fault.UNREACHABLE, _GONE),
    0xC000035C: (Fault.UNREACHABLE, _GONE),  # NETWORK_SESSION_EXPIRED
    0xC000020C: (Fault.UNREACHABLE, _GONE),  # CONNECTION_DISCONNECTED
    0xC000020D: (Fault.UNREACHABLE, _GONE),  # CONNECTION_RESET
    0xC00000C4: (Fault.UNREACHABLE, _GONE),  # UNEXPECTED_NETWORK_ERROR
    0xC00000BE: (Fault.UNREACHABLE, _GONE),  # BAD_NETWORK_PATH
    NtStatus.STATUS_FILE_CLOSED: (Fault.UNREACHABLE, _HANDLE_LOST),
    NtStatus.STATUS_INVALID_HANDLE: (Fault.UNREACHABLE, _HANDLE_LOST),
    NtStatus.STATUS_INSUFFICIENT_RESOURCES: (Fault.UNREACHABLE, _BUSY),
    NtStatus.STATUS_INSUFF_SERVER_RESOURCES: (Fault.UNREACHABLE, _BUSY),
    NtStatus.STATUS_REQUEST_NOT_ACCEPTED: (Fault.UNREACHABLE, "The server takes no further connections now."),
    0xC000005E: (Fault.UNREACHABLE, _NO_DOMAIN),  # NO_LOGON_SERVERS
    0xC0000192: (Fault.UNREACHABLE, _NO_DOMAIN),  # NETLOGON_NOT_STARTED
    0xC000018C: (Fault.UNREACHABLE, _NO_DOMAIN),  # TRUSTED_DOMAIN_FAILURE
    0xC000018D: (Fault.UNREACHABLE, _NO_DOMAIN),  # TRUSTED_RELATIONSHIP_FAILURE
    NtStatus.STATUS_IO_TIMEOUT: (Fault.TIMEOUT, "The server's disk did not answer in time."),
    NtStatus.STATUS_LOGON_FAILURE: (Fault.AUTHENTICATION, f"The user name or password is wrong. {_REFUSED}"),
    NtStatus.STATUS_WRONG_PASSWORD: (Fault.AUTHENTICATION, f"The password is wrong. {_REFUSED}"),
    0xC0000064: (Fault.AUTHENTICATION, f"The server does not know this user. {_REFUSED}"),  # NO_SUCH_USER
    NtStatus.STATUS_PASSWORD_EXPIRED: (Fault.AUTHENTICATION, "The password has expired. Set a new one."),
    0xC0000224: (Fault.AUTHENTICATION, "The password must be changed. Set a new one."),  # PASSWORD_MUST_CHANGE
    0xC0000234: (Fault.AUTHENTICATION, "The account is locked. Have it unlocked."),  # ACCOUNT_LOCKED_OUT
    0xC0000072: (Fault.AUTHENTICATION, "The account is disabled. Have it enabled."),  # ACCOUNT_DISABLED
    0xC0000193: (Fault.AUTHENTICATION, "The account has expired. Have it prolonged."),  # ACCOUNT_EXPIRED
    0xC000006E: (Fault.AUTHENTICATION, "The account is restricted: is its password empty?"),  # ACCOUNT_RESTRICTION
    0xC000006F: (Fault.AUTHENTICATION, "The account may not log in at this hour."),  # INVALID_LOGON_HOURS
    0xC0000070: (Fault.AUTHENTICATION, "The account may not log in from this machine."),  # INVALID_WORKSTATION
    0xC000015B: (Fault.AUTHENTICATION, "The account may not log in over the network."),  # LOGON_TYPE_NOT_GRANTED
    0xC0000133: (Fault.AUTHENTICATION, "Our clock and the domain's differ too much."),  # TIME_DIFFERENCE_AT_DC
    NtStatus.STATUS_BAD_NETWORK_NAME: (Fault.NO_SUCH_SHARE, _NO_SHARE),
    NtStatus.STATUS_NOT_FOUND: (Fault.NO_SUCH_SHARE, _NO_SHARE),  # never about a file, as measured
    0xC00000CB: (Fault.NO_SUCH_SHARE, "That is not a share of files."),  # BAD_DEVICE_TYPE
    0xC00000A3: (Fault.NOT_MOUNTED, _NO_DISK),  # DEVICE_NOT_READY
    0xC0000013: (Fault.NOT_MOUNTED, _NO_DISK),  # NO_MEDIA_IN_DEVICE
    0xC000026E: (Fault.NOT_MOUNTED, _NO_DISK),  # VOLUME_DISMOUNTED
    NtStatus.STATUS_DISK_FULL: (Fault.FULL, _FULL),
    0xC0000044: (Fault.FULL, _FULL),  # QUOTA_EXCEEDED
    0xC0000802: (Fault.FULL, _FULL),  # DISK_QUOTA_EXCEEDED
    0xC00000A2: (Fault.READ_ONLY, "The disk is write-protected."),  # MEDIA_WRITE_PROTECTED
    NtStatus.STATUS_PATH_NOT_COVERED: (
        Fault.CONFIGURATION,
        "It lies in a DFS namespace, on another server. Enter the server and share that hold the files.",
    ),
    NtStatus.STATUS_NOT_SUPPORTED: (Fault.CONFIGURATION, "The server does not support what is asked of it."),
    NtStatus.STATUS_INVALID_DEVICE_REQUEST: (Fault.CONFIGURATION, "The server does not support what is asked of it."),
    0xC0000904: (Fault.CONFIGURATION, "The file is larger than the server's file system allows."),  # FILE_TOO_LARGE
}

_OF_THE_CONNECTION: Mapping[type[Exception], str] = {
    ForgedError: "An answer arrived damaged or forged, and the connection was given up",
    MalformedError: "The server's answer makes no sense, and the connection was given up",
    NoCreditsError: "The server hangs: it grants no further requests",
}

_TELLING_WORDS: Mapping[str, Meaning] = {
    # smbprotocol raises these as a bare SMBException or ValueError; nothing but the text tells them apart.
    "as a guest": (Fault.AUTHENTICATION, f"The server took us for a guest: it does not know this user. {_REFUSED}"),
    "without a session signing key": (
        Fault.AUTHENTICATION,
        f"The server took us for a guest: it does not know this user. {_REFUSED}",
    ),
    "Secure negotiate failed": (
        Fault.CONFIGURATION,
        "Somebody between us and the server has changed what they agreed on. Tell the network's administrator.",
    ),
    "Connection timeout of": (Fault.TIMEOUT, "The server did not answer in time."),
    "Request requires": (Fault.UNREACHABLE, "The server hangs: it grants no further requests."),
    "signature": (Fault.UNREACHABLE, "An answer arrived damaged or forged, and the connection was given up."),
}


def status_of(error: BaseException | None) -> int | None:
    """The NTSTATUS code with which the server answered, None where `error` is no answer of a server."""
    if isinstance(error, SMBResponseException | StatusError):
        return int(error.status)
    return int(error.ntstatus) if isinstance(error, SMBOSError) else None


def classify(error: BaseException, path: str, where: str = "") -> StorageError:
    """What `error` means for the file or folder at `path`; `where` names it to a person (a UNC path, as a rule)."""
    fault, explanation = _meaning(error)
    return StorageError(fault, f"{where or path}: {explanation}", path=path)


def _meaning(error: BaseException) -> Meaning:
    status = status_of(error)
    if status is not None:
        return _MEANINGS.get(status) or (Fault.IO, f"The server answered with {_status_name(status)}.")
    for kind, explanation in _OF_THE_CONNECTION.items():
        if isinstance(error, kind):
            return Fault.UNREACHABLE, f"{explanation}: {error}."
    return _of_the_library(error)


def _of_the_library(error: BaseException) -> Meaning:
    match error:
        case SMBAuthenticationError():
            return Fault.AUTHENTICATION, f"The log-in failed: {error}. {_REFUSED}"
        case SMBConnectionClosed() if "did not respond" in str(error):
            return Fault.TIMEOUT, "The server did not answer in time, and the connection was given up."
        case SMBConnectionClosed():
            return Fault.UNREACHABLE, "The connection was lost."
        case SMBLinkRedirectionError():
            return Fault.NAME, "It is a symbolic link that leads out of the share."
        case SMBUnsupportedFeature():
            return Fault.CONFIGURATION, f"The server's version of SMB is too old: {error}."
        case ValueError() if str(error).startswith("Failed to connect"):
            return _why_not_connected(error.__cause__)
        case TimeoutError():
            return Fault.TIMEOUT, "The server did not answer in time."
    for words, meaning in _TELLING_WORDS.items():
        if words in str(error):
            return meaning
    return Fault.UNREACHABLE, f"The connection broke: {type(error).__name__}: {error}."


def _why_not_connected(cause: BaseException | None) -> Meaning:
    match cause:
        case socket.gaierror():
            return Fault.UNREACHABLE, "No address is known for this host. Correct its name."
        case TimeoutError():
            return Fault.TIMEOUT, "The host does not answer. Is it switched on, and is the port let through?"
        case ConnectionRefusedError():
            return Fault.UNREACHABLE, "Nothing listens there. Is file sharing switched on, and is the port right?"
    return Fault.UNREACHABLE, f"There is no way to the host: {cause}."


def _status_name(status: int) -> str:
    name = next((name for name, value in vars(NtStatus).items() if value == status), "an unknown status")
    return f"{name} (0x{status:08x})"
