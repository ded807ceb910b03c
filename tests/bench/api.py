"""`make bench-api`: what lists of files cost among a million, on a private PostgreSQL; told as ratios.

`python -m tests.bench.api [files]`, by default 1,000,000 with 2,000 users, 200 groups, 200 projects and 50,000 grants.
"""

from __future__ import annotations

import base64
import os
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILES, FEW_FILES, VISIBLE = 1_000_000, 10_000, 10_000
PEOPLE = {"users": 2_000, "circles": 200, "grants": 50_000}
ROUNDS = 7
GREATEST_GROWTH, LEAST_GAIN = 3, 20
"""The list, in pages of the default size, costs among all files at most so many times what it costs among few;
guardian's, for who sees few, at least so many times ours."""
LIST = ("first page of 1,000", "a page deep in (9,000 on)")


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that PostgreSQL is stopped then, too
    files = int(sys.argv[1].replace(",", "").replace("_", "")) if len(sys.argv) > 1 else FILES
    with tempfile.TemporaryDirectory(prefix="streamweave-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the account that runs PostgreSQL must reach its folder in there
        (folder / "data").mkdir(mode=0o700)
        from tests.servers.postgres import PostgresServer

        with PostgresServer(folder / "postgresql") as server:
            os.environ |= {
                "DATABASE_URL": server.url,
                "STREAMWEAVE_DATA_DIR": str(folder / "data"),
                "SECRET_KEY": secrets.token_urlsafe(50),
                "STREAMWEAVE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                "DJANGO_SETTINGS_MODULE": "streamweave.settings",
                "ALLOWED_HOSTS": "testserver",
                "LOG_LEVEL": "ERROR",
            }
            import django

            django.setup()
            return measure(files)


def measure(files: int) -> int:
    """Prints the tables; 0 where all that is promised holds."""
    from django.core.management import call_command
    from django.db import connection

    from tests.bench.crowd import build

    call_command("migrate", verbosity=0)
    say(f"{FEW_FILES:,} files …")
    few = measured(build(files=FEW_FILES, visible=VISIBLE, **PEOPLE))
    call_command("flush", interactive=False, verbosity=0)
    say(f"{files:,} files …")
    crowd = build(files=files, visible=VISIBLE, **PEOPLE)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    many = measured(crowd)
    say(f"\nA user who may see {VISIBLE:,} files, through {connection.vendor}, median of {ROUNDS}:\n")
    say(f"{'':<28}{'queries':>8}{'whole table':>13}{f'cost / {FEW_FILES:,}':>16}{'ms':>9}")
    kept = True
    for what, (seconds, queries, scans) in many.items():
        growth = seconds / few[what][0]
        kept &= not scans and queries == few[what][1] and (what not in LIST or growth <= GREATEST_GROWTH)
        say(f"{what:<28}{queries:>8}{'read' if scans else '–':>13}{growth:>15.1f}x{seconds * 1000:>9.1f}")
    return 0 if against_guardian(crowd) and kept else 1


def measured(crowd: Any) -> dict[str, tuple[float, int, bool]]:
    """For each request its seconds, its queries, and whether they read the table of files from end to end."""
    from rest_framework.test import APIClient

    from tests.bench.crowd import queries_of, scanned_tables

    client = APIClient()
    client.force_authenticate(crowd.heavy)

    def following(url: str, pages: int) -> str:
        for _ in range(pages):
            url = client.get(url).headers["Link"].partition(">")[0].removeprefix("<")
        return url

    one = client.get("/api/files?limit=1").json()[0]["id"]
    requests = {
        "first page of 50": "/api/files?limit=50",
        "first page of 1,000": "/api/files",
        "a page deep in (9,000 on)": following("/api/files", 9),
        "by instrument": f"/api/files?limit=50&instrument_id={crowd.instrument.pk}",
        "by words in the path": "/api/files?limit=50&q=sample+spectrum1",
        "by metadata": "/api/files?limit=50&metadata.compound=c100",
        "largest first": "/api/files?limit=50&ordering=-size_bytes",
        "one file": f"/api/files/{one}",
        "first transfers": "/api/transfers?limit=50",
    }
    found = {}
    for what, url in requests.items():
        queries = queries_of(lambda url=url: client.get(url))
        seconds = median_seconds(lambda url=url: client.get(url))
        found[what] = (seconds, len(queries), "harvest_filerecord" in scanned_tables(queries))
    return found


def against_guardian(crowd: Any) -> bool:
    """Prints how many times longer guardian's own function takes for the same page; whether that is enough."""
    from guardian.shortcuts import get_objects_for_user

    from harvest.models import FileRecord

    say(f"\nA page of 50 by guardian's get_objects_for_user, against visible_to:\n\n{'':<28}{'guardian / ours':>17}")
    gains = {}
    for who, user in (("20 files", crowd.light), (f"{VISIBLE:,} files", crowd.heavy)):
        by_guardian = get_objects_for_user(user, "harvest.view_filerecord", FileRecord)
        ours = median_seconds(lambda user=user: list(FileRecord.objects.visible_to(user)[:50]))
        theirs = median_seconds(lambda found=by_guardian: list(found.all()[:50]))
        same = {row.pk for row in FileRecord.objects.visible_to(user)[:50]} == {
            row.pk for row in by_guardian.all()[:50]
        }
        gains[who] = theirs / ours
        say(f"{who:<28}{gains[who]:>16.1f}x  {'the same files' if same else 'OTHER FILES'}")
    return gains["20 files"] >= LEAST_GAIN


def median_seconds(ask: Callable[[], Any]) -> float:
    """The median of ROUNDS, after one that warms up."""
    ask()
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what it is for


if __name__ == "__main__":
    sys.exit(main())
