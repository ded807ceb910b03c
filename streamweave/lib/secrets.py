"""Secrets at rest: encrypted in the database, opened only where they are used.

A sealed text reads `v1:<key id>:<token>`; the token is Fernet's (https://github.com/fernet/spec: AES-128-CBC and
HMAC-SHA-256, so that a changed text is noticed). The key id is the beginning of the key's SHA-256 and says which of
several keys opens it: the first key of the setting ENCRYPTION_KEYS encrypts, the others still decrypt.

What cannot be opened raises `SecretError`; no ciphertext is ever given back as if it were the secret.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, cast

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.db import models
from django.db.models.query_utils import DeferredAttribute

MASK = "****"
"""What is shown in place of a secret, and what is sent back to keep it."""


class SecretError(Exception):
    """A secret cannot be opened: its key is missing, or its text was changed."""


def encrypt(text: str, keys: Iterable[str] | None = None) -> str:
    """`text` sealed with the first of `keys`, by default those of the settings."""
    key = next(iter(settings.ENCRYPTION_KEYS if keys is None else keys))
    return f"v1:{_key_id(key)}:{Fernet(key).encrypt(text.encode()).decode()}"


def decrypt(sealed: str, keys: Iterable[str] | None = None) -> str:
    """The text that `encrypt` sealed. Raises SecretError if its key is not among `keys` or if it was changed."""
    version, _, rest = sealed.partition(":")
    key_id, _, token = rest.partition(":")
    if version != "v1" or not token:
        raise SecretError("A stored secret is not in the form that StreamWeave writes. Enter the secret again.")
    known = {_key_id(key): key for key in (settings.ENCRYPTION_KEYS if keys is None else keys)}
    if key_id not in known:
        raise SecretError(
            f"A stored secret was encrypted with the key {key_id}, which is not among STREAMWEAVE_ENCRYPTION_KEYS."
            " Add that key again, or enter the secret again."
        )
    try:
        return Fernet(known[key_id]).decrypt(token.encode()).decode()
    except InvalidToken:
        raise SecretError("A stored secret was changed since it was encrypted. Enter the secret again.") from None


def _key_id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]


class Sealed:
    """A secret as the database has it, not opened yet. Shown, it is only its mask."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __repr__(self) -> str:
        return MASK


class _OpenedWhenRead(DeferredAttribute):
    """Opens the secret when somebody reads the attribute, so that a row with a lost key can still be listed."""

    def __get__(self, instance: models.Model | None, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if isinstance(value, Sealed):
            value = cast(EncryptedTextField, self.field).opened(value)
            instance.__dict__[self.field.attname] = value
        return value

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = value


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]  # they are there in the stubs only
    """A text that is encrypted in the database.

    Reading it from an instance gives the text, or raises SecretError. An instance that is saved without its secret
    having been read writes back what was there. Only `isnull` can be asked of it: equal texts are sealed differently.
    """

    description = "Encrypted text"
    descriptor_class = _OpenedWhenRead

    def opened(self, sealed: Sealed) -> Any:
        return decrypt(sealed.token)

    def as_text(self, value: Any) -> str:
        return str(value)

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Sealed | None:
        return None if value is None else Sealed(value)

    def to_python(self, value: Any) -> Any:
        return value if isinstance(value, Sealed) else super().to_python(value)

    def pre_save(self, instance: models.Model, add: bool) -> Any:
        held = instance.__dict__.get(self.attname)
        return held if isinstance(held, Sealed) else super().pre_save(instance, add)

    def get_prep_value(self, value: Any) -> Any:
        if value is None or isinstance(value, Sealed):
            return value and value.token
        return encrypt(self.as_text(value))

    def get_lookup(self, lookup_name: str) -> Any:
        return super().get_lookup(lookup_name) if lookup_name == "isnull" else None


class EncryptedJSONField(EncryptedTextField):
    """Any JSON value, encrypted in the database as one text."""

    description = "Encrypted JSON"

    def opened(self, sealed: Sealed) -> Any:
        return json.loads(decrypt(sealed.token))

    def as_text(self, value: Any) -> str:
        return json.dumps(value)

    def to_python(self, value: Any) -> Any:
        return value
