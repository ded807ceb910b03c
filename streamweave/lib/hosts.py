"""Names and addresses of other machines, as people write them."""

from __future__ import annotations

import ipaddress
import re

_LABEL = re.compile(r"(?!-)[\w-]{1,63}(?<!-)")
"""A part of a name: letters, digits, hyphens, and the underscores that Windows allows."""
_MAX_LENGTH = 253

_NAME = "Write a name such as nmr.example.org or an address such as 192.0.2.7, with :port after it if needed."
_PORT = "A port is a whole number from 1 to 65535."


def why_no_host(text: str) -> str | None:
    """What is wrong with `text` as `name`, `address`, `name:port`, `[IPv6]`, `[IPv6]:port` or a bare IPv6 address (RFC
    3986, section 3.2.2, and RFC 4007 for zones); None if nothing is."""
    if text.startswith("["):
        inside, closed, rest = text[1:].partition("]")
        if not closed or not _is_address(inside, 6):
            return f"“{text}”: an IPv6 address stands in the brackets, as in [2001:db8::7] or [2001:db8::7]:445."
        return _why_no_port(rest) if rest else None
    if text.count(":") > 1:
        if _is_address(text, 6):
            return None
        return f"“{text}” has more than one colon and is no IPv6 address. {_NAME}"
    name, colon, _ = text.partition(":")
    labels = name.removesuffix(".").split(".")
    # What ends in a number is taken for an address by whoever looks it up.
    is_host = _is_address(name, 4) if labels[-1].isdigit() else all(map(_LABEL.fullmatch, labels))
    if not is_host or len(name) > _MAX_LENGTH:
        return f"“{name}” is neither a name nor an address. {_NAME}"
    return _why_no_port(text[len(name) :]) if colon else None


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _why_no_port(text: str) -> str | None:
    digits = text.removeprefix(":")
    good = text.startswith(":") and digits.isascii() and digits.isdigit() and len(digits) <= 5
    return None if good and 0 < int(digits) < 65536 else f"“{text}” is no port. {_PORT}"
