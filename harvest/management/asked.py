"""What commands have in common: rows found by the words that a person gives, and help that keeps its paragraphs."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

from harvest.models import HarvestSchedule
from harvest.storage.base import Check
from streamweave.lib.logs import one_line

USAGE = 2
"""Exit status where what was asked for does not exist or makes no sense; nothing was done then."""
FOUND_WRONG = 1
STOPPED = 130


class PlainCommand(BaseCommand):
    """A command whose help text is shown as it is written."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def say_checks(self, checks: list[Check]) -> None:
        for check in checks:
            style, mark = (self.style.SUCCESS, "✓") if check.ok else (self.style.ERROR, "✗")
            self.say(f"  {style(mark)} {check.name}: {one_line(check.detail)}")


def one_of(rows: QuerySet[Any], word: str, what: str) -> Any:
    """The row of `rows` whose name or id is `word`. Raises CommandError, which lists what there is."""
    found = rows.filter(pk=UUID(word)) if _is_uuid(word) else rows.filter(name=word)
    row = found.first() or (None if _is_uuid(word) else rows.filter(name__iexact=word).first())
    if row is None:
        known = "\n".join(f"  {one_line(name)}" for name in rows.values_list("name", flat=True).order_by("name"))
        there = f"There are:\n{known}" if known else "There is none yet."
        raise CommandError(f"There is no {what} “{word}”. {there}", returncode=USAGE)
    return row


def one_schedule(word: str) -> HarvestSchedule:
    """The schedule whose id is `word`. Raises CommandError, which lists what there is."""
    rows = HarvestSchedule.objects.alive().select_related("instrument", "default_storage_location")
    row = rows.filter(pk=word).first() if _is_uuid(word) else None
    if row is None:
        known = "\n".join(f"  {schedule.pk}  {one_line(str(schedule))}" for schedule in rows)
        there = f"There are:\n{known}" if known else "There is none yet."
        raise CommandError(f"There is no schedule “{word}”. {there}", returncode=USAGE)
    return row


def chosen(rows: QuerySet[Any], options: dict[str, Any], what: str) -> list[Any]:
    """The rows named in `options["names"]`, or all with `options["all"]`."""
    if options["all"] == bool(options["names"]):
        raise CommandError(f"Name each {what}, or give --all; not both.", returncode=USAGE)
    if options["all"]:
        return list(rows)
    return [one_of(rows, name, what) for name in options["names"]]


def _is_uuid(word: str) -> bool:
    try:
        UUID(word)
    except ValueError:
        return False
    return True
