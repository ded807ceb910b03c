"""Reaching a server, logging in, opening a share; and who drives the connection from then on.

smbprotocol negotiates, authenticates (NTLM, or Kerberos by pyspnego), derives the keys, opens the share and sees that
nobody has tampered with what was agreed on. Its own classes are used and not its `smbclient` layer, which shares state
between all connections of a process: a cache that lets a wrong password in on a session that is open already, and DFS
referrals that one server could use to redirect what we send to another. DFS referrals are not followed.

Then PipelinedConnection takes the socket over, where it knows the cipher and the server lets many requests be under
way; else smbprotocol goes on with it. What is used of smbprotocol's private parts, is used here.
"""

from __future__ import annotations

import socket
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from smbprotocol import Dialects
from smbprotocol.connection import Ciphers, Connection, SigningAlgorithms, SMB2Echo
from smbprotocol.exceptions import SMBConnectionClosed, SMBException
from smbprotocol.header import Commands, NtStatus, Smb2Flags
from smbprotocol.session import Session
from smbprotocol.transport import Tcp
from smbprotocol.tree import TreeConnect

from harvest.storage.smb import connection as driven
from harvest.storage.smb.classify import LIBRARY_ERRORS
from harvest.storage.smb.exchange import Connection as ShareConnection
from harvest.storage.smb.plain import PlainConnection
from harvest.storage.smb.protection import CIPHERS, SIGNINGS, Encryption

DEFAULT_PORT = 445
CONNECT_SECONDS = 15
LOGIN_SECONDS = 60
"""How long it may take from the first message to the open share."""
UNACKNOWLEDGED_MILLISECONDS = 60_000
"""After how long the system gives up a connection on which what we sent is not acknowledged."""
LARGEST_FRAME_BYTES = 0xFF_FFFF
"""[MS-SMB2] 2.1: the length of a message has 24 bits."""
_KEEP_ALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
_NAMES = {
    Dialects.SMB_2_0_2: "SMB 2.0.2",
    Dialects.SMB_2_1_0: "SMB 2.1",
    Dialects.SMB_3_0_0: "SMB 3.0",
    Dialects.SMB_3_0_2: "SMB 3.0.2",
    Dialects.SMB_3_1_1: "SMB 3.1.1",
}


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


class Transport(Tcp):
    """The socket while smbprotocol's thread reads it. `last_is_next`: the next message is the last that it takes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.last_is_next = False
        self._last_was_taken = False

    def recv(self, timeout: float) -> bytes:
        if self._last_was_taken:
            return b""  # which ends the thread
        message: bytes = super().recv(timeout)
        self._last_was_taken = self.last_is_next
        return message

    def _recv(self, length: int, timeout: float) -> Any:
        if length > LARGEST_FRAME_BYTES:
            raise SMBException(f"A message says that it has {length} bytes")
        return super()._recv(length, timeout)

    def take_socket(self) -> socket.socket:
        taken: socket.socket = self._sock
        return taken


class SignedConnection(Connection):
    """A connection that takes no unsigned answer where signing was agreed on ([MS-SMB2] 3.2.5.1.3). smbprotocol checks
    the signature of an answer only if the answer says that it has one."""

    clock_offset: timedelta
    _transport: Transport | None

    @property
    def transport(self) -> Transport | None:
        return self._transport

    @transport.setter
    def transport(self, made: Tcp | None) -> None:
        """smbprotocol makes its transport itself; ours takes its place."""
        self._transport = None if made is None else Transport(made.server, made.port, made.timeout)

    @property
    def made_transport(self) -> Transport:
        """The transport, once there is one."""
        assert self._transport is not None
        return self._transport

    @property
    def has_ended(self) -> bool:
        return self._t_exc is not None or not self.made_transport.connected

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

    def _calculate_credit_charge(self, message: Any) -> int:
        """Ours bring their price along; smbprotocol would look for fields that they do not have."""
        price = getattr(message, "charge", None)
        if price is None or not self.supports_multi_credit:
            return int(super()._calculate_credit_charge(message))
        return int(price)


def log_in(address: Address, *, pipelined: bool) -> ShareConnection:
    """Reach the server, log in, open the share: a log-in of its own, never one that is open already. Not `pipelined`:
    smbprotocol drives the connection. Raises one of LIBRARY_ERRORS."""
    connection = SignedConnection(uuid.uuid4(), address.host, address.port, require_signing=True)
    watch = threading.Timer(LOGIN_SECONDS, hang_up, [connection])
    watch.daemon = True
    try:
        connection.connect(timeout=CONNECT_SECONDS)
        _set_up(connection.made_transport.take_socket())
        watch.start()
        session = Session(connection, address.username, address.password, require_encryption=False)
        session.connect()
        tree = TreeConnect(session, f"\\\\{address.host}\\{address.share}")
        tree.connect()
        # Ask for paths as they are, not for their DFS referrals.
        tree.is_dfs_share = False
        reason = "as the settings say" if not pipelined else _why_not_pipelined(connection, session, tree)
        made: ShareConnection
        made = PlainConnection(connection, tree, reason) if reason else _take_over(connection, session, tree)
    except BaseException:
        hang_up(connection)
        raise
    finally:
        watch.cancel()
    made.dialect = connection.dialect
    made.max_read_bytes = connection.max_read_size
    made.max_write_bytes = connection.max_write_size
    made.max_transact_bytes = connection.max_transact_size
    made.clock_offset_seconds = connection.clock_offset.total_seconds()
    made.description = f"{_NAMES.get(connection.dialect, 'SMB')}, {_protection(connection, session, tree)}"
    return made


def hang_up(connection: Connection) -> None:
    """Close the socket under smbprotocol. Never raises."""
    if connection.transport is not None:
        with suppress(*LIBRARY_ERRORS):
            connection.disconnect(close=False)


def _set_up(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _take_over(connection: SignedConnection, session: Session, tree: TreeConnect) -> driven.PipelinedConnection:
    """End smbprotocol's thread with the answer to a last message, and go on where it has stopped."""
    transport = connection.made_transport
    transport.last_is_next = True
    last = connection.send(SMB2Echo(), sid=session.session_id, credit_request=driven.WANTED_CREDITS)
    connection._t_worker.join(timeout=CONNECT_SECONDS)
    if connection._t_worker.is_alive() or not transport.connected:
        raise SMBConnectionClosed("The server did not let the connection be taken over")
    # Not before the thread has ended: on its way out it goes through the requests, of which receive() takes one away.
    connection.receive(last, timeout=CONNECT_SECONDS)
    encrypted = _is_encrypted(session, tree)
    return driven.PipelinedConnection(
        transport.take_socket(),
        session_id=session.session_id,
        tree_id=tree.tree_connect_id,
        next_message_id=connection.sequence_window["low"],
        credits=connection.sequence_window["high"] - connection.sequence_window["low"],
        signing=None if encrypted else SIGNINGS[_signing_algorithm(connection)](session.signing_key),
        encryption=Encryption(_cipher(connection), session.session_id, session.encryption_key, session.decryption_key)
        if encrypted
        else None,
    )


def _why_not_pipelined(connection: Connection, session: Session, tree: TreeConnect) -> str:
    if not connection.supports_multi_credit:
        return "the server has no multi-credit operations"
    if _is_encrypted(session, tree):
        return "" if _cipher(connection) in CIPHERS else "its cipher is not known"
    if not session.signing_required:
        return "its answers would not be signed"
    return "" if _signing_algorithm(connection) in SIGNINGS else "its algorithm for signatures is not known"


def _is_encrypted(session: Session, tree: TreeConnect) -> bool:
    return bool(session.encrypt_data or tree.encrypt_data)


def _cipher(connection: Connection) -> int:
    return int(connection.cipher_id) if connection.dialect >= Dialects.SMB_3_1_1 else int(Ciphers.AES_128_CCM)


def _signing_algorithm(connection: Connection) -> int:
    """[MS-SMB2] 3.1.4.1. A server of SMB 3.1.1 that did not say which one signs with AES-CMAC."""
    if connection.dialect >= Dialects.SMB_3_1_1 and connection.signing_algorithm_id is not None:
        return int(connection.signing_algorithm_id)
    newer = connection.dialect >= Dialects.SMB_3_0_0
    return int(SigningAlgorithms.AES_CMAC if newer else SigningAlgorithms.HMAC_SHA256)


def _protection(connection: Connection, session: Session, tree: TreeConnect) -> str:
    if _is_encrypted(session, tree):
        cipher = _cipher(connection)
        return f"encrypted ({CIPHERS[cipher][0]})" if cipher in CIPHERS else "encrypted"
    return f"signed ({SIGNINGS[_signing_algorithm(connection)].name})"
