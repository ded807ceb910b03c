"""The Range header: which bytes of a representation are asked for (RFC 9110, section 14)."""

from __future__ import annotations

import re

_RANGES = re.compile(r"bytes=[ \t]*(?P<first>[0-9]*)-(?P<last>[0-9]*)[ \t]*", re.IGNORECASE | re.ASCII)
_BEYOND = 10**18
"""More bytes than any file has."""


class UnsatisfiableRangeError(Exception):
    """The range begins behind the end; answered with 416."""


def span_of(header: str | None, length: int) -> range | None:
    """The positions that the Range header asks for, of `length` bytes; None where all of them are to be sent.

    All are sent without a header, and where a server may ignore it: another unit, several ranges, no valid form
    (section 14.2). Raises UnsatisfiableRangeError.
    """
    match = _RANGES.fullmatch(header or "")
    if match is None:
        return None
    first, last = (_number(match[name]) for name in ("first", "last"))
    if first is None:
        return _suffix(last, length)
    if last is not None and last < first:
        return None
    if first >= length:
        raise UnsatisfiableRangeError
    return range(first, length if last is None else min(last + 1, length))


def _suffix(asked: int | None, length: int) -> range | None:
    """The last `asked` bytes. Of an empty file there are none to tell in a Content-Range, so it is sent as a whole."""
    if asked is None:
        return None
    if asked == 0:
        raise UnsatisfiableRangeError
    return range(max(length - asked, 0), length) if length else None


def _number(digits: str) -> int | None:
    if not digits:
        return None
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= 18 else _BEYOND  # Python refuses to read some thousand digits
