"""One connection to one share, and what can be asked of it.

Built on smbprotocol's own classes and not on its `smbclient` layer, which shares state between all connections of a
process: a cache that lets a wrong password in on a session that is open already, and DFS referrals that one server
could use to redirect what we send to another. Nothing here outlives its connection. DFS referrals are not followed.
"""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from smbprotocol import MAX_PAYLOAD_SIZE, Dialects
from smbprotocol.connection import Connection
from smbprotocol.exceptions import NoMoreFiles, NoSuchFile, SMBException
from smbprotocol.file_info import FileInformationClass, InfoType
from smbprotocol.header import Commands, NtStatus, Smb2Flags
from smbprotocol.open import (
    CreateDisposition,
    ImpersonationLevel,
    Open,
    QueryDirectoryFlags,
    ShareAccess,
    SMB2FlushRequest,
    SMB2QueryDirectoryResponse,
    SMB2QueryInfoRequest,
    SMB2QueryInfoResponse,
    SMB2SetInfoRequest,
)
from smbprotocol.session import Session
from smbprotocol.tree import TreeConnect

from harvest.storage.base import CHUNK_BYTES
from harvest.storage.smb.classify import LIBRARY_ERRORS

DEFAULT_PORT = 445
CONNECT_SECONDS = 15
GOODBYE_SECONDS = 5
UNACKNOWLEDGED_MILLISECONDS = 60_000
"""After how long the system gives up a connection on which what we sent is not acknowledged; sending has no limit of
its own in smbprotocol."""
LISTING_BYTES = 256 * 1024
"""How much of a listing one answer may hold; about two thousand files."""

SHARE_ALL = ShareAccess.FILE_SHARE_READ | ShareAccess.FILE_SHARE_WRITE | ShareAccess.FILE_SHARE_DELETE
"""Everybody else may go on reading, writing, renaming and deleting: what an instrument needs of its own files."""
RELATED = b"\xff" * 16
"""The handle that the CREATE at the head of the same compound has opened ([MS-SMB2] 3.2.4.1.4)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where a share is and who we are there."""

    host: str
    port: int
    share: str
    username: str
    password: str = field(repr=False)

    def __str__(self) -> str:
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"\\\\{host}{port}\\{self.share}"


class SignedConnection(Connection):
    """A connection that takes no unsigned answer where signing was agreed on ([MS-SMB2] 3.2.5.1.3). smbprotocol checks
    the signature of an answer only if the answer says that it has one."""

    clock_offset: timedelta

    def verify_signature(self, header: Any, session_id: int, force: bool = False) -> None:
        session = self.session_table.get(session_id)
        unsigned = not header["flags"].has_flag(Smb2Flags.SMB2_FLAGS_SIGNED)
        exempt = header["command"].get_value() == Commands.SMB2_SESSION_SETUP or header["status"].get_value() in (
            NtStatus.STATUS_PENDING,
            NtStatus.STATUS_USER_SESSION_DELETED,
        )
        if session is not None and session.signing_required and unsigned and not exempt:
            raise SMBException("An answer bears no signature although signing was agreed on")
        super().verify_signature(header, session_id, force=force)

    def _send_smb2_negotiate(self, *arguments: Any) -> Any:
        """The answer also tells the server's clock ([MS-SMB2] 2.2.4 SystemTime), which smbprotocol does not keep."""
        answer = super()._send_smb2_negotiate(*arguments)
        self.clock_offset = answer["system_time"].get_value() - datetime.now(UTC)
        return answer


class Share:
    """A share that is open. Paths are those of the protocol: relative to the share, with backslashes.

    Every method raises what smbprotocol raises, one of LIBRARY_ERRORS.
    """

    def __init__(self, connection: SignedConnection, tree: TreeConnect) -> None:
        self._connection = connection
        self._tree = tree

    @classmethod
    def connect(cls, address: Address) -> Self:
        """Reach the server, log in, open the share: a log-in of its own, never one that is open already."""
        connection = SignedConnection(uuid.uuid4(), address.host, address.port, require_signing=True)
        try:
            connection.connect(timeout=CONNECT_SECONDS)
            # smbprotocol keeps the socket to itself, and has no setting for this.
            connection.transport._sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS
            )
            session = Session(connection, address.username, address.password, require_encryption=False)
            session.connect()
            tree = TreeConnect(session, f"\\\\{address.host}\\{address.share}")
            tree.connect()
        except BaseException:
            _hang_up(connection)
            raise
        # Ask for paths as they are, not for their DFS referrals.
        tree.is_dfs_share = False
        return cls(connection, tree)

    def close(self) -> None:
        """Log off and close. Never raises."""
        try:
            self._connection.disconnect(timeout=GOODBYE_SECONDS)
        except LIBRARY_ERRORS as error:
            log.info("The connection to %s was gone before it was closed: %s", self._tree.share_name, error)
            self.abandon()

    def abandon(self) -> None:
        """Close a connection that is no longer to be trusted or to be waited for."""
        _hang_up(self._connection)

    @property
    def clock_offset_seconds(self) -> float:
        """How far the server's clock was ahead of ours when the connection was made."""
        return self._connection.clock_offset.total_seconds()

    # ------------------------------------------------------------------------------------------------ requests

    def open(
        self,
        path: str,
        *,
        access: int,
        options: int = 0,
        disposition: int = CreateDisposition.FILE_OPEN,
        share: int = SHARE_ALL,
    ) -> Open:
        """A handle; close it when done."""
        handle = Open(self._tree, path)
        handle.create(ImpersonationLevel.Impersonation, access, 0, share, disposition, options)
        return handle

    def owns(self, handle: Open) -> bool:
        """Whether `handle` was opened on this connection, and so can be used while this one lives."""
        return handle.connection is self._connection

    def ask(
        self,
        path: str,
        *requests: Any,
        access: int,
        options: int = 0,
        disposition: int = CreateDisposition.FILE_OPEN,
        attributes: int = 0,
    ) -> list[bytes]:
        """Open, `requests` on the handle (their file_id is RELATED), close: one round trip. The answers' payloads.

        Raises the first error; the handle is closed in any case.
        """
        handle = Open(self._tree, path)
        create, opened = handle.create(
            ImpersonationLevel.Impersonation, access, attributes, SHARE_ALL, disposition, options, send=False
        )
        close, closed = handle.close(send=False)
        session_id, tree_id = self._tree.session.session_id, self._tree.tree_connect_id
        sent = self._connection.send_compound([create, *requests, close], session_id, tree_id, related=True)
        answers: list[Any] = []
        failure: SMBException | None = None
        for request, receive in zip(sent, (opened, *([self._payload] * len(requests)), closed), strict=True):
            try:
                answers.append(receive(request))
            except SMBException as error:  # and wait for the rest, lest an answer be left over
                failure = failure or error
        if failure:
            raise failure
        return answers[1:-1]

    def _payload(self, request: Any) -> bytes:
        data: bytes = self._connection.receive(request)["data"].get_value()
        return data

    # -------------------------------------------------------------------------------------------------- bytes

    def read(self, handle: Open, *, offset: int, past_cache: bool = False) -> Iterator[bytes]:
        """The bytes from `offset` to the end that the file had when it was opened, at most CHUNK_BYTES at a time.

        `past_cache` asks the server to read from its disk (SMB 3.0.2 and newer).
        """
        unbuffered = past_cache and self._connection.dialect >= Dialects.SMB_3_0_2
        while offset < handle.end_of_file:
            wanted = min(CHUNK_BYTES, handle.end_of_file - offset, self._connection.max_read_size)
            piece: bytes = handle.read(offset, self._affordable(wanted), unbuffered=unbuffered)
            if not piece:
                return
            yield piece
            offset += len(piece)

    def write(self, handle: Open, content: memoryview, *, offset: int) -> int:
        """Write some of `content`, and say how much."""
        wanted = min(CHUNK_BYTES, len(content), self._connection.max_write_size)
        written: int = handle.write(bytes(content[: self._affordable(wanted)]), offset)
        return written

    def list_folder(self, handle: Open) -> Iterator[bytes]:
        """The listing of an open folder: buffers of FileIdFullDirectoryInformation ([MS-FSCC] 2.4.18)."""
        limit = min(LISTING_BYTES, self._connection.max_transact_size)
        flags = QueryDirectoryFlags.SMB2_RESTART_SCANS
        while True:
            request, _ = handle.query_directory(
                "*",
                FileInformationClass.FILE_ID_FULL_DIRECTORY_INFORMATION,
                flags=flags,
                max_output=self._affordable(limit),
                send=False,
            )
            sent = self._connection.send(request, self._tree.session.session_id, self._tree.tree_connect_id)
            answer = SMB2QueryDirectoryResponse()
            try:
                answer.unpack(self._payload(sent))
            except (NoMoreFiles, NoSuchFile):
                return
            yield answer["buffer"].get_value()
            flags = 0

    def _affordable(self, wanted: int) -> int:
        """As much of `wanted` bytes as the credits that the server has granted pay for ([MS-SMB2] 3.2.4.1.5)."""
        if not self._connection.supports_multi_credit:
            return min(wanted, MAX_PAYLOAD_SIZE)
        window = self._connection.sequence_window
        return min(wanted, max(1, window["high"] - window["low"]) * MAX_PAYLOAD_SIZE)


def query(info_class: int, length: int, *, info_type: int = InfoType.SMB2_0_INFO_FILE) -> SMB2QueryInfoRequest:
    """A request for at most `length` bytes of information, for `Share.ask`."""
    request = SMB2QueryInfoRequest()
    request["info_type"] = info_type
    request["file_info_class"] = info_class
    request["output_buffer_length"] = length
    request["file_id"] = RELATED
    return request


def queried(answer: bytes) -> bytes:
    """The information in the answer to a `query`."""
    response = SMB2QueryInfoResponse()
    response.unpack(answer)
    information: bytes = response["buffer"].get_value()
    return information


def change(information: Any) -> SMB2SetInfoRequest:
    """A request to set `information`, for `Share.ask`."""
    request = SMB2SetInfoRequest()
    request["info_type"] = information.INFO_TYPE
    request["file_info_class"] = information.INFO_CLASS
    request["file_id"] = RELATED
    request["buffer"] = information
    return request


def flush() -> SMB2FlushRequest:
    """A request to bring the file to the server's disk, for `Share.ask`."""
    request = SMB2FlushRequest()
    request["file_id"] = RELATED
    return request


def _hang_up(connection: Connection) -> None:
    if connection.transport is not None:
        with suppress(*LIBRARY_ERRORS):
            connection.disconnect(close=False)
