"""Keys for rows that are written together."""

from __future__ import annotations

import os
import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION, _VARIANT = 7 << 76, 0b10 << 62


def ordered(count: int, at: datetime) -> list[UUID]:
    """`count` new UUIDs in ascending order, as if made a microsecond apart from `at` on.

    They are of version 7 (RFC 9562, section 5.7; the microseconds as in section 6.2, method 3; 62 random bits). Rows of
    neighbouring keys lie together in an index: a thousand of them touch a few of its pages, random ones a page each.
    """
    first = (at - _EPOCH) // timedelta(microseconds=1)
    made = []
    for microseconds, chance in enumerate(struct.unpack(f"{count}Q", os.urandom(8 * count)), start=first):
        milliseconds, rest = divmod(microseconds, 1000)
        fraction = rest * 4096 // 1000
        made.append(UUID(int=milliseconds << 80 | _VERSION | fraction << 64 | _VARIANT | chance >> 2))
    return made
