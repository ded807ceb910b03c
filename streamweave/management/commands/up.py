"""`manage.py up`: everything that one machine needs, in one command."""

from __future__ import annotations

import signal
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser

from streamweave.supervisor import Supervisor, SupervisorError


class Command(BaseCommand):
    help = (
        "Runs the web server, one worker and beat until Ctrl-C or SIGTERM, after bringing the database and the static"
        " files up to date. Exit status 0 when it was stopped, 1 when it could not start."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
        parser.add_argument("--workers", type=int, help="worker processes (default: the setting WORKER_CONCURRENCY)")
        parser.add_argument(
            "--dev", action="store_true", help="start anew when the source changes, show errors in full"
        )
        parser.add_argument("--verbose", action="store_true", help="print what the three print; --dev does so too")

    def handle(self, *args: Any, **options: Any) -> None:
        supervisor = Supervisor(
            host=options["host"],
            port=options["port"],
            workers=options["workers"],
            dev=options["dev"],
            echo=self.stdout.write if options["verbose"] or options["dev"] else None,
        )
        signal.signal(signal.SIGINT, _interrupt)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            with supervisor:
                supervisor.wait_ready()
                self.stdout.write(f"StreamWeave answers at {supervisor.url} and logs to {supervisor.log_path}.")
                self.stdout.write("Ctrl-C stops it.")
                self.stdout.flush()
                while True:
                    signal.pause()
        except SupervisorError as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            self.stdout.write("Stopped.")


def _interrupt(*args: object) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the stopping
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
