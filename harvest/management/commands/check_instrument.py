"""manage.py check_instrument"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from harvest.management.asked import FOUND_WRONG, PlainCommand, chosen
from harvest.models import Instrument
from harvest.probes import probe_instrument
from streamweave.lib.logs import one_line


class Command(PlainCommand):
    help = """Tries an instrument's share step by step: reach the server, log in, open the share and its folder, list.
Writes nothing.

After one refused log-in an instrument is paused, so that its account is never locked; new credentials resume it. If
the old ones are right again, --resume does, once the check has gone well.

Exit status: 0 if every step worked, 1 if one did not (the line says what to do), 2 if there is no such instrument."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="name or id of an instrument")
        parser.add_argument("--all", action="store_true", help="check every enabled instrument")
        parser.add_argument("--resume", action="store_true", help="resume a paused instrument if the check goes well")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = Instrument.objects.alive().select_related("service_account")
        failed = []
        for instrument in chosen(rows.filter(enabled=True) if options["all"] else rows, options, "instrument"):
            self.say(f"{one_line(instrument.name)}{'' if instrument.enabled else ' (disabled)'}")
            checks = probe_instrument(instrument)
            self.say_checks(checks)
            well = all(check.ok for check in checks)
            if not well:
                failed.append(one_line(instrument.name))
            if instrument.paused_at is not None:
                self._say_paused(instrument, well, options["resume"])
        if failed:
            raise CommandError(f"Not as it should be: {', '.join(failed)}.", returncode=FOUND_WRONG)

    def _say_paused(self, instrument: Instrument, well: bool, resume: bool) -> None:
        since = f"  It is paused since {instrument.paused_at:%Y-%m-%d %H:%M} UTC: {instrument.paused_reason}"
        if well and resume:
            instrument.resume()
            self.say(self.style.SUCCESS("  It was paused and is resumed."))
        else:
            self.say(self.style.WARNING(f"{since}{' --resume resumes it.' if well else ''}"))
