"""Keyed hashes over what must not be changed behind our back: whoever lacks the key can make none.

A hash reads `v1:<key id>:<hex>`: HMAC-SHA-256 (RFC 2104) with a key derived from one of the setting ENCRYPTION_KEYS by
HKDF (RFC 5869), so that neither says anything about the other. The first key signs; all of them verify.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode
from functools import lru_cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class UnknownKeyError(LookupError):
    """The key by which a hash was made is not among the settings' any more."""

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"It was signed with the key {key_id}, which is not among STREAMWEAVE_ENCRYPTION_KEYS. Add that key again."
        )


def sign(purpose: str, message: bytes) -> str:
    """The hash of `message`. `purpose` keeps the hashes of one use from being taken for those of another."""
    key: str = settings.ENCRYPTION_KEYS[0]
    return f"v1:{_key_id(key)}:{_digest(key, purpose, message)}"


def is_signed(purpose: str, message: bytes, signature: str) -> bool:
    """Whether `signature` is the hash of `message` for this purpose. Raises UnknownKeyError if its key is missing."""
    version, _, rest = signature.partition(":")
    key_id, _, digest = rest.partition(":")
    if version != "v1" or not digest:
        return False
    known = {_key_id(key): key for key in settings.ENCRYPTION_KEYS}
    if key_id not in known:
        raise UnknownKeyError(key_id)
    return hmac.compare_digest(_digest(known[key_id], purpose, message).encode(), digest.encode())


def _digest(key: str, purpose: str, message: bytes) -> str:
    return hmac.new(_derived(key, purpose), message, hashlib.sha256).hexdigest()


@lru_cache(maxsize=32)
def _derived(key: str, purpose: str) -> bytes:
    info = f"streamweave {purpose}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(urlsafe_b64decode(key))


def _key_id(key: str) -> str:
    """Told apart as `streamweave.lib.secrets` does."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]
