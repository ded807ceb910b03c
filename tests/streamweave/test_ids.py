"""Keys in ascending order."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from streamweave.lib import ids

AT = datetime(2026, 1, 15, 12, 0, 0, 999_500, tzinfo=UTC)


def test_they_are_of_version_7_and_tell_their_time() -> None:
    (first,) = ids.ordered(1, AT)
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert datetime.fromtimestamp((first.int >> 80) / 1000, UTC) == AT.replace(microsecond=999_000)


def test_they_ascend_across_the_turn_of_a_millisecond_and_are_never_the_same() -> None:
    made = ids.ordered(5000, AT)
    assert made == sorted(made)
    later = ids.ordered(10, AT + timedelta(microseconds=5000))
    assert made[-1] < later[0]
    assert len({*made, *ids.ordered(5000, AT)}) == 10_000
    assert ids.ordered(0, AT) == []
