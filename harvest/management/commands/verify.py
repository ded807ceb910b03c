"""manage.py verify"""

from __future__ import annotations

import json
import time
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from django.core.management.base import CommandError, CommandParser

from harvest import fixity
from harvest.management.asked import FOUND_WRONG, STOPPED, USAGE, PlainCommand, one_of
from harvest.models import Instrument, StorageLocation
from harvest.probes import sentinel_check
from harvest.storage.base import Fault, StorageError
from streamweave.lib.logs import one_line

LINE_SECONDS = 10


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = 0
    if not 0 < percent <= 100:
        raise ArgumentTypeError(f"{text!r} is no percentage above 0 and up to 100")
    return percent


def _number(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise ArgumentTypeError(f"{text!r} is no number of files")
    return int(text)


class Command(PlainCommand):
    help = """Reads stored files again and compares them with what was verified when they were stored.

Reports what is missing, what changed (size, xxh64 and SHA-256 are compared), what could not be read, and files on the
storage that no harvest has put there. It changes and deletes nothing, and may run beside harvests. With --json each
finding is one JSON object in a line, and so is the summary of each storage at its end.

Exit status: 0 if all is well, 1 if there are findings or a storage could not be reached, 2 if there is no such storage
or instrument."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--storage", metavar="NAME", help="name or id of a storage location (default: all)")
        parser.add_argument("--instrument", metavar="NAME", help="name or id: only its files")
        parser.add_argument("--sample", type=_percent, default=100, metavar="PERCENT", help="read a random part")
        parser.add_argument("--limit", type=_number, metavar="FILES", help="read at most so many of each storage")
        parser.add_argument("--json", action="store_true", help="JSON lines instead of text")

    def handle(self, *args: Any, **options: Any) -> None:
        locations = list(StorageLocation.objects.alive())
        if options["storage"]:
            locations = [one_of(StorageLocation.objects.all(), options["storage"], "storage location")]
        if not locations:
            raise CommandError("There is no storage location yet.", returncode=USAGE)
        instrument = None
        if options["instrument"]:
            instrument = one_of(Instrument.objects.all(), options["instrument"], "instrument")
        try:
            clean = [self._verify(location, instrument, options) for location in locations]
        except KeyboardInterrupt:
            raise CommandError("Stopped before the end.", returncode=STOPPED) from None
        if not all(clean):
            raise CommandError("Not everything is as it was stored; see above.", returncode=FOUND_WRONG)

    def _verify(self, location: StorageLocation, instrument: Instrument | None, options: dict[str, Any]) -> bool:
        """Verify one storage. Whether all is well."""
        counted: Counter[str] = Counter()
        error: StorageError | None = None
        progress = _Progress(self, location, quiet=options["json"])
        try:
            for finding in _findings(location, instrument, options, progress):
                counted[finding.problem] += 1
                progress.clear()
                self._say_finding(location, finding, options)
        except StorageError as stopped:
            error = stopped
        progress.clear()
        self._say_summary(location, counted, progress, error, options)
        return error is None and not counted

    def _say_finding(self, location: StorageLocation, finding: fixity.Finding, options: dict[str, Any]) -> None:
        if options["json"]:
            found = {"problem": finding.problem.value, "path": finding.path, "ark": finding.ark}
            self.say(json.dumps({"storage": location.name, **found, "detail": finding.detail}))
        else:
            ark = f" [{finding.ark}]" if finding.ark else ""
            self.say(
                f"{one_line(location.name)}: {self.style.ERROR(finding.problem.value)} "
                f"{one_line(finding.path)}{ark}: {one_line(finding.detail)}"
            )

    def _say_summary(
        self,
        location: StorageLocation,
        counted: Counter[str],
        progress: _Progress,
        error: StorageError | None,
        options: dict[str, Any],
    ) -> None:
        problems = {problem.value: counted[problem] for problem in fixity.Problem}
        if options["json"]:
            summary = {"storage": location.name, "files": progress.files, "bytes": progress.bytes, **problems}
            self.say(json.dumps({**summary, "error": str(error) if error else None}))
            return
        found = [f"{number:,} {problem}" for problem, number in problems.items() if number]
        told = ", ".join([f"{progress.files:,} files read again ({progress.bytes:,} bytes)", *found])
        well = "" if found or error else ", all is well"
        self.say(f"{one_line(location.name)}: {told}{well}.")
        if error:
            self.say(self.style.ERROR(f"{one_line(location.name)}: stopped: {one_line(str(error))}"))


def _findings(
    location: StorageLocation, instrument: Instrument | None, options: dict[str, Any], progress: _Progress
) -> Iterator[fixity.Finding]:
    """Raises StorageError where the storage cannot be reached or is not the one whose files we know."""
    which: dict[str, Any] = {"location": location, "instrument": instrument}
    with location.open() as storage:
        mounted = sentinel_check(location, storage)
        if not mounted.ok:
            raise StorageError(Fault.NOT_MOUNTED, mounted.detail)
        which["storage"] = storage
        yield from chain(
            fixity.reread(**which, sample_percent=options["sample"], limit=options["limit"], progress=progress),
            fixity.unknown_files(**which),
        )


class _Progress:
    """Counts what is read again; on a terminal it shows it."""

    def __init__(self, command: PlainCommand, location: StorageLocation, *, quiet: bool) -> None:
        self.files = self.bytes = 0
        self._out = command.stdout
        self._name = one_line(location.name)
        self._shown = not quiet and self._out.isatty()
        self._next_at = 0.0

    def __call__(self, files: int, read_bytes: int) -> None:
        self.files += files
        self.bytes += read_bytes
        if self._shown and time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + 0.2
            self._out.write(f"\r\033[K{self._name}: {self.files:,} files, {self.bytes:,} bytes", ending="")
            self._out.flush()

    def clear(self) -> None:
        if self._shown:
            self._out.write("\r\033[K", ending="")
