"""Cron expressions, evaluated by cron's own rules (crontab(5)) in a time zone of their own.

Five fields: minute, hour, day of month, month, day of week. Where both days are restricted, either matches. At a
change to summer time a slot that does not exist runs right after the gap; one that exists twice runs once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError


class CronError(ValueError):
    """The expression or time zone is not one; the message says what is wrong with it."""


def validate(expression: str, zone: str = "UTC") -> None:
    """Raises CronError unless `expression` has five fields of cron, names some time, and `zone` is an IANA zone."""
    if zone not in available_timezones():
        raise CronError(f"“{zone}” is no time zone; use a name such as Europe/Zurich or UTC.")
    if len(expression.split()) != 5:
        raise CronError(
            f"“{expression}” has {len(expression.split())} fields; cron has five: minute, hour, day of month, month, "
            "day of week. An example: 0 1 * * * (every night at one)."
        )
    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise CronError(f"“{expression}” is no cron expression that ever matches: {error or 'no such day'}.") from None


def slots(expression: str, zone: str, after: datetime) -> Iterator[datetime]:
    """The times strictly after `after` (aware) at which `expression` is due, in UTC, without end."""
    local = after.astimezone(ZoneInfo(zone))
    for slot in CronSim(expression, local):
        yield slot.astimezone(UTC)


def next_slots(expression: str, zone: str, after: datetime, count: int = 5) -> list[datetime]:
    """The next `count` times after `after` at which `expression` is due, in UTC."""
    return list(islice(slots(expression, zone, after), count))


def explain(expression: str) -> str:
    """The expression in words."""
    return CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)).explain()
