"""manage.py check_storage"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from harvest.management.asked import FOUND_WRONG, PlainCommand, chosen
from harvest.models import StorageLocation
from harvest.probes import probe_storage
from streamweave.lib.logs import one_line


class Command(PlainCommand):
    help = """Tries a storage location step by step: reach it, log in, list, write a small file, read it back, give it
its final name without replacing another, delete it, and see that it is the right disk. Leaves nothing behind.

Exit status: 0 if every step worked, 1 if one did not (the line says what to do), 2 if there is no such storage."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="name or id of a storage location")
        parser.add_argument("--all", action="store_true", help="check every storage location")

    def handle(self, *args: Any, **options: Any) -> None:
        failed = []
        for location in chosen(StorageLocation.objects.alive(), options, "storage location"):
            self.say(f"{one_line(location.name)}{'' if location.enabled else ' (disabled)'}")
            checks = probe_storage(location)
            self.say_checks(checks)
            if not all(check.ok for check in checks):
                failed.append(one_line(location.name))
        if failed:
            raise CommandError(f"Not as it should be: {', '.join(failed)}.", returncode=FOUND_WRONG)
