"""Signatures and encryption of messages ([MS-SMB2] 3.1.4.1, 3.1.4.3), with the keys that the log-in has left."""

from __future__ import annotations

import hmac
import os
import struct
from abc import ABC, abstractmethod

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import cmac
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from smbprotocol.connection import Ciphers, SigningAlgorithms

from harvest.storage.smb.messages import ENCRYPTED_ID, TRANSFORM, MalformedError

TAG_BYTES = 16
_SIGNATURE = slice(48, 64)
_AUTHENTICATED = slice(20, TRANSFORM.size)
_IS_ENCRYPTED = 1  # [MS-SMB2] 2.2.41 Flags, and EncryptionAlgorithm of SMB 3.0: AES-128-CCM


class ForgedError(Exception):
    """An answer bears no signature or a wrong one, or is not encrypted as agreed on. The connection is given up."""


class Signing(ABC):
    """The signatures of one session."""

    name: str

    @abstractmethod
    def signature(self, message: memoryview, message_id: int, *, from_server: bool) -> bytes:
        """The 16 bytes that belong into `message`, whose signature field is zero yet."""

    def sign(self, message: memoryview, message_id: int) -> None:
        """Put the signature into a message of ours."""
        message[_SIGNATURE] = self.signature(message, message_id, from_server=False)

    def verify(self, message: memoryview, message_id: int) -> None:
        """Raise ForgedError unless the server has signed `message`; its signature field is zero afterwards."""
        found = bytes(message[_SIGNATURE])
        message[_SIGNATURE] = _NO_SIGNATURE
        if not hmac.compare_digest(found, self.signature(message, message_id, from_server=True)):
            raise ForgedError("an answer's signature is wrong")


_NO_SIGNATURE = bytes(16)


class _Gmac(Signing):
    """AES-128-GMAC: of SMB 3.1.1. The nonce is the message id, and whether the server sends it."""

    name = "AES-GMAC"
    _nonce = struct.Struct("<QI").pack

    def __init__(self, key: bytes) -> None:
        self._encrypt = AESGCM(key).encrypt

    def signature(self, message: memoryview, message_id: int, *, from_server: bool) -> bytes:
        return self._encrypt(self._nonce(message_id, from_server), b"", message)


class _Cmac(Signing):
    """AES-128-CMAC: of SMB 3."""

    name = "AES-CMAC"

    def __init__(self, key: bytes) -> None:
        self._begin = cmac.CMAC(algorithms.AES(key)).copy

    def signature(self, message: memoryview, message_id: int, *, from_server: bool) -> bytes:
        signed = self._begin()
        signed.update(message)  # type: ignore[arg-type]  # any buffer will do
        return signed.finalize()


class _Hmac(Signing):
    """HMAC-SHA256, cut to its first half: of SMB 2."""

    name = "HMAC-SHA256"

    def __init__(self, key: bytes) -> None:
        self._key = key

    def signature(self, message: memoryview, message_id: int, *, from_server: bool) -> bytes:
        return hmac.digest(self._key, message, "sha256")[:16]


SIGNINGS: dict[int, type[_Gmac] | type[_Cmac] | type[_Hmac]] = {
    SigningAlgorithms.AES_GMAC: _Gmac,
    SigningAlgorithms.AES_CMAC: _Cmac,
    SigningAlgorithms.HMAC_SHA256: _Hmac,
}

CIPHERS: dict[int, tuple[str, type[AESGCM] | type[AESCCM], int]] = {
    Ciphers.AES_128_GCM: ("AES-128-GCM", AESGCM, 12),
    Ciphers.AES_256_GCM: ("AES-256-GCM", AESGCM, 12),
    Ciphers.AES_128_CCM: ("AES-128-CCM", AESCCM, 11),
    Ciphers.AES_256_CCM: ("AES-256-CCM", AESCCM, 11),
}
"""By the number of [MS-SMB2] 2.2.3.1.2: name, cipher, and how many bytes of the nonce it uses."""


class Encryption:
    """The encryption of one session."""

    def __init__(self, cipher: int, session_id: int, our_key: bytes, server_key: bytes) -> None:
        self.name, kind, nonce_bytes = CIPHERS[cipher]
        self._session_id = session_id
        self._ours, self._servers = kind(our_key), kind(server_key)
        self._nonce_bytes = nonce_bytes
        # A counter never repeats; it starts at random, for the log-in has used the same key with nonces of its own.
        self._count = int.from_bytes(os.urandom(8), "little")
        self._rest_of_nonce = os.urandom(nonce_bytes - 8)

    def encrypt(self, message: memoryview) -> bytearray:
        """The frame, after four bytes for its length, that carries `message` encrypted."""
        self._count = (self._count + 1) & 0xFFFF_FFFF_FFFF_FFFF
        nonce = self._count.to_bytes(8, "little") + self._rest_of_nonce
        length = len(message)
        frame = bytearray(4 + TRANSFORM.size + length + TAG_BYTES)
        TRANSFORM.pack_into(frame, 4, ENCRYPTED_ID, b"", nonce, length, 0, _IS_ENCRYPTED, self._session_id)
        view = memoryview(frame)[4:]
        sealed = view[TRANSFORM.size :]
        self._ours.encrypt_into(nonce, message, bytes(view[_AUTHENTICATED]), sealed)
        view[4:20] = sealed[length:]
        del sealed, view
        del frame[-TAG_BYTES:]
        return frame

    def decrypt(self, frame: memoryview) -> memoryview:
        """What `frame` carries. Raises ForgedError, MalformedError."""
        if len(frame) < TRANSFORM.size:
            raise MalformedError("an encrypted message ends too early")
        protocol_id, tag, nonce, length, _, flags, session_id = TRANSFORM.unpack_from(frame)
        if protocol_id != ENCRYPTED_ID:
            raise ForgedError("an answer is not encrypted although encryption was agreed on")
        if flags != _IS_ENCRYPTED or session_id != self._session_id or length != len(frame) - TRANSFORM.size:
            raise MalformedError("an encrypted message has an impossible length, flag or session")
        sealed = b"".join((frame[TRANSFORM.size :], tag))
        message = bytearray(length)
        try:
            self._servers.decrypt_into(nonce[: self._nonce_bytes], sealed, bytes(frame[_AUTHENTICATED]), message)
        except InvalidTag:
            raise ForgedError("an answer cannot be decrypted") from None
        return memoryview(message)
