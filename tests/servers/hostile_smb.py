"""An SMB server that lies, stalls and hangs up: a relay in front of an honest one, whose answers a script damages.

The log-in passes unharmed, so that the client has a session; from `HostileSmb.harm` on, the script gets each frame of
the server in place of the client, and says what the client is told. A script that shall get past the signatures needs
the session's keys, which `learn` takes from the client under test.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.cmac import CMAC
from smbprotocol import Dialects
from smbprotocol.connection import Ciphers, SigningAlgorithms

HEADER_BYTES = 64
_TRANSFORM = b"\xfdSMB"  # [MS-SMB2] 2.2.41
_SIGNED = 0x0000_0008
_PATIENCE_SECONDS = 20.0


class Message(bytearray):
    """One answer of the server. Its fields are those of [MS-SMB2] 2.2.1, at their offsets."""

    def field(self, layout: str, offset: int) -> Any:
        return struct.unpack_from(f"<{layout}", self, offset)[0]

    def put(self, layout: str, offset: int, value: int) -> None:
        struct.pack_into(f"<{layout}", self, offset, value)

    @property
    def status(self) -> int:
        return int(self.field("I", 8))

    @property
    def command(self) -> int:
        return int(self.field("H", 12))

    @property
    def message_id(self) -> int:
        return int(self.field("Q", 24))

    @property
    def session_id(self) -> int:
        return int(self.field("Q", 40))


Script = Callable[["Wire", bytes], None]
"""Gets a connection and a frame that the server sent on it, without the four bytes of its length."""


@dataclass(frozen=True)
class Keys:
    """What makes a lie pass for the server's word ([MS-SMB2] 3.1.4.1 and 3.1.4.3)."""

    algorithm: int
    signing_key: bytes
    cipher: int | None
    encryption_key: bytes | None

    def signature(self, message: Message) -> bytes:
        blank = bytes(message[:48]) + bytes(16) + bytes(message[64:])
        if self.algorithm == SigningAlgorithms.AES_GMAC:
            return AESGCM(self.signing_key).encrypt(struct.pack("<QI", message.message_id, 1), b"", blank)
        if self.algorithm == SigningAlgorithms.AES_CMAC:
            mac = CMAC(algorithms.AES(self.signing_key))
            mac.update(blank)
            return mac.finalize()
        return hmac.new(self.signing_key, blank, hashlib.sha256).digest()[:16]

    def decrypted(self, frame: bytes) -> bytes:
        cipher, nonce_bytes = self._cipher()
        return cipher.decrypt(frame[20 : 20 + nonce_bytes], frame[52:] + frame[4:20], frame[20:52])

    def encrypted(self, plain: bytes, session_id: int) -> bytes:
        cipher, nonce_bytes = self._cipher()
        nonce = os.urandom(nonce_bytes)
        header = struct.pack("<16sIHHQ", nonce, len(plain), 0, 1, session_id)
        sealed = cipher.encrypt(nonce, plain, header)
        return _TRANSFORM + sealed[-16:] + header + sealed[:-16]

    def _cipher(self) -> tuple[AESGCM | AESCCM, int]:
        assert self.encryption_key is not None, "the session is not encrypted"
        if self.cipher in (Ciphers.AES_128_GCM, Ciphers.AES_256_GCM):
            return AESGCM(self.encryption_key), 12
        return AESCCM(self.encryption_key), 11


class Wire:
    """One connection between the client and the honest server, as a script uses it."""

    def __init__(self, client: socket.socket, server: socket.socket, keys: dict[int, Keys]) -> None:
        self._client, self._server, self._keys = client, server, keys
        self.script: Script | None = None
        self.kept: list[bytes] = []
        """Frames that a script holds back."""
        self.keeping = threading.Lock()
        self.ended = threading.Event()
        self._is_reset = False

    # ------------------------------------------------------------------------------------- what scripts may do

    def messages(self, frame: bytes) -> list[Message]:
        """The answers in a frame, decrypted."""
        if self.is_encrypted(frame):
            frame = self._keys[int.from_bytes(frame[44:52], "little")].decrypted(frame)
        found = []
        while frame:
            step = int.from_bytes(frame[20:24], "little") or len(frame)
            found.append(Message(frame[:step]))
            frame = frame[step:]
        return found

    def is_encrypted(self, frame: bytes) -> bool:
        return frame.startswith(_TRANSFORM)

    def tell(self, messages: Sequence[Message], *, like: bytes) -> None:
        """Send answers in one frame, protected as the server would protect them, and has protected the frame `like`."""
        encrypted = self.is_encrypted(like)
        keys = self._keys[int.from_bytes(like[44:52] if encrypted else like[40:48], "little")]
        for message in messages:
            if not encrypted and message.field("I", 16) & _SIGNED:
                message[48:64] = keys.signature(message)
        plain = b"".join(messages)
        self.send(keys.encrypted(plain, int.from_bytes(like[44:52], "little")) if encrypted else plain)

    def send(self, frame: bytes) -> None:
        self.send_raw(len(frame).to_bytes(4, "big") + frame)

    def send_raw(self, octets: bytes) -> None:
        self._client.sendall(octets)

    def drip(self, octets: bytes, *, seconds_each: float) -> None:
        """One byte at a time, until all are sent or the client hangs up."""
        for octet in octets:
            if self.ended.wait(seconds_each):
                return
            self.send_raw(bytes((octet,)))

    def half_close(self) -> None:
        """Say that nothing more will come, and go on listening."""
        self._client.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection as a machine does that knows nothing of it."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._is_reset = True
        self.ended.set()

    # ------------------------------------------------------------------------------------------- carrying bytes

    def carry_requests(self) -> None:
        with suppress(OSError):
            while not self.ended.is_set():
                # Never for long in recv(): close() resets a connection only when no thread waits on it any more.
                if select.select([self._client], [], [], 0.1)[0]:
                    octets = self._client.recv(1 << 16)
                    if not octets:
                        break
                    self._server.sendall(octets)
        if self._is_reset:
            self._client.close()
        self.end()

    def carry_answers(self) -> None:
        with suppress(OSError):
            while frame := self._next_frame():
                if self.script is None:
                    self.send(frame)
                else:
                    self.script(self, frame)
        self.end()

    def _next_frame(self) -> bytes | None:
        prefix = self._exactly(4)
        return self._exactly(int.from_bytes(prefix, "big")) if prefix else None

    def _exactly(self, count: int) -> bytes:
        received = bytearray(count)
        rest = memoryview(received)
        while rest:
            arrived = self._server.recv_into(rest)
            if not arrived:
                return b""
            rest = rest[arrived:]
        return bytes(received)

    def end(self) -> None:
        self.ended.set()
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.end()
        self._client.close()
        self._server.close()


class HostileSmb:
    """Relays connections to the SMB server at `host`, `port`. Use it as a context manager."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self._keys: dict[int, Keys] = {}
        self._wires: list[Wire] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(_PATIENCE_SECONDS)
        for wire in self._wires:
            wire.end()
        for thread in self._threads:
            thread.join(_PATIENCE_SECONDS)
            assert not thread.is_alive(), "a script does not end with its connection"
        for wire in self._wires:
            wire.close()
        self._listener.close()

    def harm(self, script: Script) -> None:
        """From now on `script` answers on the connections that are open. Later ones are honest."""
        for wire in self._wires:
            if not wire.ended.is_set():
                wire.script = script

    @property
    def connections(self) -> int:
        """How many were made so far."""
        return len(self._wires)

    def learn(self, session: Any) -> None:
        """Take the keys of smbprotocol's `session`, which has just logged in."""
        connection = session.connection
        algorithm = SigningAlgorithms.HMAC_SHA256
        if connection.dialect >= Dialects.SMB_3_0_0:
            algorithm = SigningAlgorithms.AES_CMAC
        if connection.dialect >= Dialects.SMB_3_1_1 and connection.signing_algorithm_id is not None:
            algorithm = connection.signing_algorithm_id
        self._keys[session.session_id] = Keys(
            algorithm, session.signing_key, connection.cipher_id, session.decryption_key
        )

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.upstream)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = Wire(client, server, self._keys)
            self._wires.append(wire)
            self._start(wire.carry_requests)
            self._start(wire.carry_answers)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()


def linked(messages: Iterable[Message]) -> list[Message]:
    """`messages` as one compound: padded, and each pointing to the next ([MS-SMB2] 3.2.4.1.4)."""
    chain = list(messages)
    for message in chain[:-1]:
        message.extend(bytes(-len(message) % 8))
        message.put("I", 20, len(message))
    chain[-1].put("I", 20, 0)
    return chain
