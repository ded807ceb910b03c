"""Keys, and the files that keep them for set-ups that nobody gave any."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")


def new_key() -> str:
    """A new random key for secrets at rest: 32 bytes in URL-safe base64."""
    return Fernet.generate_key().decode()


def is_key(text: str) -> bool:
    """Whether `text` has the form of such a key."""
    return _KEY.fullmatch(text) is not None


def derived(secret: str, purpose: str) -> str:
    """A key of 32 bytes in hexadecimal digits that follows from `secret` and tells nothing about it (HKDF, RFC 5869).

    Keys for different purposes tell nothing about each other either.
    """
    return HKDF(hashes.SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret.encode()).hex()


def read_or_make(path: Path, make: Callable[[], str]) -> str:
    """The text in the file at `path`; if there is no such file, what `make` gives, kept there for the next time.

    Only the owner may read the file. Of several processes that come at once, one makes the file and all read the same:
    it is written under another name first and linked to its own, which fails if another was faster. Raises OSError if
    the folder cannot be written.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, hidden = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(make() + "\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was faster: its file counts
                os.link(hidden, path)
        finally:
            Path(hidden).unlink()
    return path.read_text(encoding="utf-8").strip()
