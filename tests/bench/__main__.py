"""`make bench`: the product beside rclone and others, in turn, and whether it is as fast as it has to be.

`make bench` measures the rows that fit into twelve minutes, `make bench FULL=1` the others, `ONLY=a,b` those that are
named. `WRITE=1` puts the newest rounds of all rows into docs/performance.md. The raw rounds are kept below
var/bench. Exit status 0 where every target is met, 1 where one is missed, 2 where nothing could be measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from django.db import DatabaseError

from harvest.demo.local_server import ServerError, find_program
from tests.bench import report
from tests.bench.processes import BenchError
from tests.bench.report import say
from tests.bench.rounds import Outcome
from tests.servers.postgres import PostgresServer

if TYPE_CHECKING:
    from tests.bench.rows import Bench, Row

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "var" / "bench"
PAGE = ROOT / "docs" / "performance.md"
DATABASE_BYTES = 1 << 30
LAST_BEGIN_SECONDS = 10.5 * 60
"""In a run without FULL or ONLY, rows that are not begun by then are left out, and named as missed."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="the rows that take long, instead of the others")
    parser.add_argument("--only", default="", help="names of rows, separated by commas")
    parser.add_argument("--rounds", type=int, help="how many instead of a row's own number; for trying things out")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "streamweave.settings")
    try:
        return _measure(given)
    except (BenchError, ServerError) as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say(f"Stopped. What was measured is below {KEPT}.")
        return 130


def _interrupt(*args: object) -> NoReturn:
    """Stop, and let every server be stopped: a second Ctrl-C must not interrupt that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _measure(given: argparse.Namespace) -> int:
    from tests.bench.stage import Stage, environment, require_room, rooms

    begun = time.monotonic()
    with ExitStack() as stack:
        memory, disk = stack.enter_context(rooms(KEPT))
        stage = stack.enter_context(Stage(memory, disk))
        os.environ |= environment(stage, concurrency=os.cpu_count() or 1)
        import django

        django.setup()
        from tests.bench.product import Product
        from tests.bench.rows import ROWS, Bench

        rows = _chosen(ROWS, given)
        require_room(DATABASE_BYTES + max(row.room_bytes for row in rows), max(row.room_files for row in rows))
        product = stack.enter_context(Product(stage))
        bench = Bench(stage, product)
        folder = KEPT / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}"
        _introduce(bench, folder)
        outcomes = []
        for row in rows:
            late = not given.full and not given.only and time.monotonic() - begun > LAST_BEGIN_SECONDS
            outcomes.append(_outcome(row, bench, given.rounds or row.count, folder, late=late))
    if given.write:
        table = report.markdown(report.newest(KEPT, [row.name for row in ROWS]))
        PAGE.write_text(report.put_between_markers(PAGE.read_text(), table))
    return _verdict(outcomes, [row.name for row in ROWS if row not in rows], time.monotonic() - begun)


def _chosen(rows: Sequence[Row], given: argparse.Namespace) -> list[Row]:
    """Raises BenchError for a name that no row has."""
    names = [name.strip() for name in given.only.split(",") if name.strip()]
    if unknown := set(names) - {row.name for row in rows}:
        known = ", ".join(row.name for row in rows)
        raise BenchError(f"There is no row {', '.join(sorted(unknown))}. Choose among {known}.")
    return [row for row in rows if (row.name in names if names else row.only_full == given.full)]


def _introduce(bench: Bench, folder: Path) -> None:
    from tests.bench.product import LIMITS

    cores = os.cpu_count()
    say(f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, {_version('rclone', 'version')}")
    say(f"Samba {_version('smbd', '--version')}; {_version('postgres', '--version')} (fsync on, in memory)")
    say(f"SMB signed; limits of the instrument lifted: {', '.join(f'{key}={value}' for key, value in LIMITS.items())}")
    say(f"Celery with {cores} processes, started before the clock; three hooks; raw rounds in {folder}")
    say(f"The source: {bench.warm_up()}")


def _version(program: str, option: str) -> str:
    path = PostgresServer._program(program) if program == "postgres" else find_program(program)
    answer = subprocess.run([str(path), option], capture_output=True, text=True)
    return answer.stdout.partition("\n")[0].strip()


def _outcome(row: Row, bench: Bench, count: int, folder: Path, *, late: bool) -> Outcome:
    """Measure a row; what was measured before something went wrong is kept."""
    outcome = Outcome(row.name, row.work, row.targets, count, measured_at=datetime.now(UTC).isoformat())
    if late:
        outcome.error = f"not measured, for the time was over: make bench ONLY={row.name}"
        say(f"\n{row.name}: {outcome.error}")
        return outcome
    begun = time.monotonic()
    try:
        with closing(row.rounds(bench, count, outcome.remarks.append)) as rounds:
            for each in rounds:
                outcome.rounds.append(each)
                report.keep(outcome, folder)
    except (BenchError, ServerError, DatabaseError) as error:
        outcome.error = str(error)
    report.keep(outcome, folder)
    say("\n" + "\n".join(report.lines(outcome)))
    say(f"  (took {time.monotonic() - begun:.0f} s)")
    return outcome


def _verdict(outcomes: Sequence[Outcome], left: Sequence[str], seconds: float) -> int:
    missed = [text for outcome in outcomes for text in outcome.missed()]
    say(f"\n{seconds / 60:.1f} minutes. Raw rounds are below {KEPT}.")
    if left:
        say(f"Not measured this time (FULL=1 or ONLY=): {', '.join(left)}")
    say("\n  ".join(["Missed:", *missed]) if missed else "All targets met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
