"""Names that a storage cannot hold, encoded so that they can be told back exactly.

A character that a storage refuses becomes `%XX`, once for each byte of its UTF-8 form, as in URLs (RFC 3986 §2.1). A
`%` that is followed by two hexadecimal digits becomes `%25`, every other `%` stays; so what needs no encoding keeps its
name, and `decode(encode(path, rules)) == path` for every path and every set of rules. The same holds for lone
surrogates, which no storage of ours can hold, in the generalised UTF-8 that Python calls surrogatepass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from harvest.storage.base import RESERVED, Fault, StorageError

_CONTROLS = "".join(map(chr, range(0x20)))
_SURROGATES = "\ud800-\udfff"
_HEX_PAIR = re.compile("[0-9A-Fa-f]{2}")
_ENCODED_RUN = re.compile("(?:%[0-9A-Fa-f]{2})+")
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_DEVICE_NAME = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:\.|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rules:
    """What one kind of storage can hold.

    `illegal` matches the characters that no name may contain, `illegal_end` those that none may end with.
    `devices` are names like CON that mean something else there. Lengths are counted by `measure`, in `unit`;
    `path_limit` counts the whole path with the storage's base path, None where only names are limited.
    """

    illegal: re.Pattern[str]
    illegal_end: str
    devices: re.Pattern[str] | None
    measure: Callable[[str], int]
    unit: str
    name_limit: int | None
    path_limit: int | None


def _utf8_bytes(text: str) -> int:
    return len(text.encode())


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


POSIX = Rules(re.compile(f"[/\0{_SURROGATES}]"), "", None, _utf8_bytes, "bytes", 255, None)
"""POSIX.1-2017 §3.170; 255 bytes is what ext4, XFS, Btrfs and tmpfs hold."""

_SMB_ILLEGAL = re.compile(rf'[/<>:"|?*\\{_CONTROLS}{_SURROGATES}]')
SMB = Rules(_SMB_ILLEGAL, ". ", _DEVICE_NAME, _utf16_units, "UTF-16 units", 255, None)
"""[MS-FSCC] §2.1.5 and “Naming Files, Paths, and Namespaces” of the Win32 documentation."""

S3 = Rules(re.compile(rf"[/\\{_CONTROLS}\x7f{_SURROGATES}]"), "", None, _utf8_bytes, "bytes", None, 1024)
"""“Naming Amazon S3 objects” in the Amazon S3 user guide; servers disagree about control characters and backslashes."""

INSTRUMENT_FOLDER = Rules(_SMB_ILLEGAL, ". ", _DEVICE_NAME, _utf8_bytes, "bytes", 255, None)
"""What every kind can hold: an instrument's folder has the same name in all of them."""


def encode(path: str, rules: Rules, *, base_path: str = "") -> str:
    """`path` with every name that `rules` forbid encoded; the same path where they forbid none.

    Raises StorageError(name) where a name or, with `base_path`, the whole path is too long, or a name is empty.
    """
    first, *others = path.split("/")
    encoded = [encode_name(first, rules)]
    if encoded[0].casefold() == RESERVED:  # nothing harvested may get into our own folder
        encoded[0] = _escape(encoded[0][0]) + encoded[0][1:]
    encoded += (encode_name(name, rules) for name in others)
    result = "/".join(encoded)
    _check_length(f"{base_path}/{result}" if base_path else result, "path", rules.path_limit, rules)
    return result


def encode_name(name: str, rules: Rules) -> str:
    """One name of a path, encoded as `encode` does, and a “/” in it as well. Raises StorageError(name)."""
    if not name:
        raise StorageError(Fault.NAME, "A file or folder without a name cannot be stored.")
    if name in (".", ".."):
        return name[:-1] + _escape(".")
    encoded = name
    if "%" in name or rules.illegal.search(name):
        encoded = "".join(
            _escape(character) if rules.illegal.match(character) or _looks_encoded(name, position) else character
            for position, character in enumerate(name)
        )
    if encoded[-1] in rules.illegal_end:
        encoded = encoded[:-1] + _escape(encoded[-1])
    if rules.devices and rules.devices.match(encoded):
        encoded = _escape(encoded[0]) + encoded[1:]
    _check_length(encoded, "name", rules.name_limit, rules)
    return encoded


def decode(path: str) -> str:
    """The path that `encode` made `path` from. Raises ValueError for one that `encode` never makes."""
    return _ENCODED_RUN.sub(_unescape, path)


def split(path: str, *, separators: str = "") -> tuple[str, ...]:
    """The names in `path`. Raises StorageError(name) for a path that names no file below the base path, or a name in
    which one of `separators` would mean another path."""
    parts = tuple(path.split("/"))
    for part in parts:
        if part in ("", ".", "..") or "\0" in part or any(separator in part for separator in separators):
            raise StorageError(Fault.NAME, f"{path!r} does not name a file below the base path.", path=path)
    return parts


def is_token(name: str) -> bool:
    """Whether `name` can name temporary bytes on every storage."""
    return _TOKEN.fullmatch(name) is not None


def check_token(token: str) -> str:
    """`token`, if it can name temporary bytes. Raises ValueError."""
    if not is_token(token):
        raise ValueError(f"{token!r} cannot name temporary bytes: it must match {_TOKEN.pattern}.")
    return token


def _looks_encoded(name: str, position: int) -> bool:
    return name[position] == "%" and _HEX_PAIR.match(name, position + 1) is not None


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _unescape(run: re.Match[str]) -> str:
    return bytes.fromhex(run[0].replace("%", "")).decode("utf-8", "surrogatepass")


def _check_length(text: str, what: str, limit: int | None, rules: Rules) -> None:
    if limit is not None and (length := rules.measure(text)) > limit:
        raise StorageError(
            Fault.NAME,
            f"The {what} is too long for this storage: {length} {rules.unit}, and {limit} are the limit: {text!r}. "
            "Shorten it at the source, or send these files to another storage.",
            path=text,
        )
