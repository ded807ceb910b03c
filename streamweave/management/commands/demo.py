"""manage.py demo: the demonstration laboratory, with everything it needs, in one command."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from harvest.demo import lab
from harvest.demo.report import incomplete, outcome_of, table
from harvest.demo.samples import write_samples
from harvest.demo.servers import ImpacketServer, SambaServer, SeaweedServer, ServerError, Share
from harvest.models import HarvestRun, HarvestSchedule
from harvest.tasks import trigger
from streamweave.supervisor import Supervisor, SupervisorError

HARVEST_SECONDS = 600


class Command(BaseCommand):
    help = (
        "Runs the demonstration laboratory: sample shares on an SMB server, an S3 server, web server, worker and beat; "
        "harvests every enabled schedule, prints what came of it, and serves until Ctrl-C. Everything it writes is "
        "below --directory; started again, it goes on where it was. Exit status 0 if every file that should be stored "
        "is stored and verified (or without a first harvest, if it could be started), 1 otherwise."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--directory", type=Path, default=Path("var/demo"), help="default: %(default)s")
        parser.add_argument("--port", type=int, default=8000, help="of the web server (default: %(default)s)")
        parser.add_argument("--once", action="store_true", help="stop after the table")
        parser.add_argument(
            "--harvest", action=argparse.BooleanOptionalAction, default=True, help="make a first harvest (default: yes)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        signal.signal(signal.SIGINT, _interrupt)
        signal.signal(signal.SIGTERM, _interrupt)
        directory = options["directory"].absolute()
        try:
            with ExitStack() as started:
                self._run(directory, started, options)
        except (ServerError, SupervisorError) as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            self._say("Stopped.")

    def _run(self, directory: Path, started: ExitStack, options: dict[str, Any]) -> None:
        writable, endpoints = self._start_servers(directory, started)
        call_command("migrate", verbosity=0, interactive=False)
        lab.seed(endpoints)
        supervisor = started.enter_context(Supervisor(port=options["port"]))
        supervisor.wait_ready()
        complete = not options["harvest"] or self._harvest(directory, writable)
        if options["once"]:
            if not complete:
                raise CommandError("Not every file that should be there is there and verified; see above.")
            return
        self._say(f"\nOpen {supervisor.url}")
        self._say(f"  administrator  {lab.ADMIN[0]}  {lab.ADMIN[1]}")
        for email in lab.USERS:
            self._say(f"  user           {email}  {lab.USER_PASSWORD}")
        self._say(f"Logs: {supervisor.log_path}. Ctrl-C stops everything.")
        while True:
            signal.pause()

    def _start_servers(self, directory: Path, started: ExitStack) -> tuple[bool, lab.Endpoints]:
        """The lab's servers; whether its SMB server can be written to, and where they are."""
        posix = directory / "storage" / "posix-archive"
        archive = directory / "storage" / "smb-archive"
        (archive / "archive").mkdir(parents=True, exist_ok=True)
        posix.mkdir(parents=True, exist_ok=True)
        write_samples(directory / "shares")
        shares = {
            **{name: Share(directory / "shares" / name) for name in lab.SHARES},
            "archive": Share(archive),
        }
        writable = SambaServer.available()
        kind = SambaServer if writable else ImpacketServer
        if not writable:
            self._say("Samba is not installed: impacket serves the shares, read-only; nothing is stored over SMB.")
        smb = started.enter_context(kind(directory / "samba", shares, lab.SMB_USERS))
        s3 = started.enter_context(
            SeaweedServer(
                directory / "storage" / "s3", access_key=lab.S3_KEYS[0], secret_key=lab.S3_KEYS[1], buckets=[lab.BUCKET]
            )
        )
        return writable, lab.Endpoints(f"{smb.host}:{smb.port}", s3.endpoint_url, posix)

    def _harvest(self, directory: Path, writable: bool) -> bool:
        """Harvest by every enabled schedule; whether everything that should be stored is."""
        schedules = HarvestSchedule.objects.active().select_related("instrument", "default_storage_location")
        if not writable:
            schedules = schedules.exclude(default_storage_location__type="cifs")
        asked_at = time.monotonic()
        runs = [trigger(schedule) for schedule in schedules]
        self._follow(runs)
        outcomes = [outcome_of(run, directory / "shares") for run in runs]
        self._say("\n" + table(outcomes))
        self._say(f"{len(runs)} harvests in {time.monotonic() - asked_at:.1f} s")
        wrong = [line for outcome in outcomes for line in incomplete(outcome)]
        for line in wrong:
            self.stderr.write(line)
        return not wrong

    def _follow(self, runs: list[HarvestRun]) -> None:
        """Print how the runs get on until all have ended."""
        deadline = time.monotonic() + HARVEST_SECONDS
        shown: list[str] = []
        while time.monotonic() < deadline:
            for run in runs:
                run.refresh_from_db()
            now = timezone.now()
            parts = []
            for run in runs:
                done = run.files_completed + run.files_skipped + run.files_failed
                seconds = ((run.ended_at or now) - run.started_at).total_seconds() if run.started_at else 0
                parts.append(
                    f"{run.instrument.cifs_share}→{run.storage_location.type} {done}/{run.files_discovered}"
                    f" {run.status} {seconds:.0f} s"
                )
            line = "  |  ".join(parts)
            if sys.stdout.isatty():
                self.stdout.write(f"\r\033[K{line}", ending="")
                self.stdout.flush()
            elif [part.rpartition(" ")[0] for part in parts] != shown:
                shown = [part.rpartition(" ")[0] for part in parts]
                self._say(line)
            if all(run.ended_at for run in runs):
                return
            time.sleep(0.25)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _interrupt(*args: object) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the stopping
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
