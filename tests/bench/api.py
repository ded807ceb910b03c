"""`make bench-api`: what lists of files cost among a million, on a private PostgreSQL; told as ratios.

`python -m tests.bench.api [files]`, by default 1,000,000 with 2,000 users, 200 groups, 200 projects and 50,000 grants.
A second database has 10,000 files and all the rest alike. Each round asks both for the same, one after the other, so
that what else the machine does slows both down. The exit status is 1 where a target is missed.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES, FEW_FILES, VISIBLE = 1_000_000, 10_000, 10_000
PEOPLE = {"users": 2_000, "circles": 200, "grants": 50_000}
ROUNDS = 15
GREATEST_GROWTH = 3
"""Each list costs among all files at most so many times what it costs among few."""
LEAST_GAIN = {"20 files": 20, f"{VISIBLE:,} files": 0.75}
"""Guardian's function takes at least so many times as long as ours, for who sees so many. Of many files both read as
much, and are alike but for noise."""


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
    many = built("many", files)
    few = built("few", FEW_FILES)
    try:
        return 0 if all([lists_keep_their_cost(few, many), ours_beats_guardian(many)]) else 1
    finally:
        for place in (few, many):
            place.connection.close()


@dataclass(frozen=True)
class Place:
    """A database and what is in it."""

    connection: Any
    crowd: Any

    def enter(self) -> None:
        """From here on the product asks this database."""
        from django.db import connections

        connections["default"] = self.connection


def built(name: str, files: int) -> Place:
    from django.contrib.contenttypes.models import ContentType
    from django.core.management import call_command
    from django.db import connections

    from tests.bench.crowd import build

    say(f"{files:,} files …")
    with connections["default"].cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection = connections.create_connection("default")
    connection.settings_dict = {**connection.settings_dict, "NAME": name}
    connections["default"].close()
    connections["default"] = connection
    ContentType.objects.clear_cache()
    call_command("migrate", verbosity=0)
    crowd = build(files=files, visible=VISIBLE, **PEOPLE)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    return Place(connection, crowd)


def lists_keep_their_cost(few: Place, many: Place) -> bool:
    """Prints what each list costs as a multiple of the same among few files; whether all is as promised."""
    from tests.bench.crowd import queries_of, scanned_tables

    asking = {place: requests_of(place) for place in (few, many)}
    say(
        f"\nA user who may see {VISIBLE:,} files: {ROUNDS} rounds, the median and in brackets the middle half.\n\n"
        f"| list | queries | cost, as a multiple of that among {FEW_FILES:,} files | ms |\n|---|---|---|---|"
    )
    kept = True
    for what in asking[many]:
        queries, both = [], [asking[place][what] for place in (few, many)]
        for place, ask in zip((few, many), both, strict=True):
            place.enter()
            queries.append(queries_of(ask))
        scans = "harvest_filerecord" in scanned_tables(queries[-1])
        seconds = interleaved([within(place, ask) for place, ask in zip((few, many), both, strict=True)])
        growth = [among_many / among_few for among_few, among_many in zip(*seconds, strict=True)]
        problems = ["reads the whole table"] if scans else []
        problems += ["more queries"] if len(queries[0]) != len(queries[1]) else []
        problems += [f"more than {GREATEST_GROWTH}"] if statistics.median(growth) > GREATEST_GROWTH else []
        kept &= not problems
        told = f"| {what} | {len(queries[1])} | {spread(growth)} | {statistics.median(seconds[1]) * 1000:.0f} |"
        say(f"{told} {'MISSED: ' + ', '.join(problems) if problems else ''}".rstrip())
    return kept


def within(place: Place, ask: Callable[[], Any]) -> Callable[[], Any]:
    def asking() -> None:
        place.enter()
        ask()

    return asking


def requests_of(place: Place) -> dict[str, Callable[[], Any]]:
    """What is asked for, by its name in the table."""
    from rest_framework.test import APIClient

    place.enter()
    client = APIClient()
    client.force_authenticate(place.crowd.heavy)

    def following(url: str, pages: int) -> str:
        for _ in range(pages):
            url = client.get(url).headers["Link"].partition(">")[0].removeprefix("<")
        return url

    one = client.get("/api/files?limit=1").json()[0]["id"]
    short = "/api/files?limit=50"
    urls = {
        "first page of 50": short,
        "first page of 1,000": "/api/files",
        "a page of 1,000 deep in (9,000 on)": following("/api/files", 9),
        "a page of 50 deep in (9,000 on)": following("/api/files", 9) + "&limit=50",
        "largest first": f"{short}&ordering=-size_bytes",
        "largest first, 1,000": "/api/files?ordering=-size_bytes",
        "by name": f"{short}&ordering=filename",
        "of an instrument": f"{short}&instrument_id={place.crowd.instrument.pk}",
        "by words in the path": f"{short}&q=sample+spectrum1",
        "by the name's end": f"{short}&name=*7.raw",
        "below a folder": f"{short}&path=20260301_sample1",
        "by metadata": f"{short}&metadata.compound=c100",
        "of some size": f"{short}&min_size_bytes=1000&max_size_bytes=50000",
        "changed in a week": f"{short}&modified_from=2026-02-20T00:00:00Z&modified_until=2026-02-27T00:00:00Z",
        "stored": f"{short}&status=completed",
        "one file": f"/api/files/{one}",
        "first transfers": "/api/transfers?limit=50",
    }

    def ask(url: str) -> Any:
        answer = client.get(url)
        assert answer.status_code == 200, f"{url}: {answer.status_code}"
        return answer

    return {what: lambda url=url: ask(url) for what, url in urls.items()}


def ours_beats_guardian(place: Place) -> bool:
    """Prints how many times longer guardian's own function takes for the same page; whether that is enough."""
    from django.db.models import Q
    from django.http import QueryDict
    from guardian.shortcuts import get_objects_for_user

    from harvest.api.files.filters import FileConditions
    from harvest.api.files.listing import FileListing
    from harvest.api.files.views import FileList
    from harvest.models import FileRecord

    no_conditions = FileConditions.read(QueryDict())

    def ours(user: Any) -> list[Any]:
        return FileListing(user, no_conditions).page(Q(), FileList.ordering, 50)

    def theirs(user: Any) -> list[Any]:
        return list(get_objects_for_user(user, "harvest.view_filerecord", FileRecord)[:50])

    place.enter()
    say("\nThe first page of 50 by guardian's get_objects_for_user, as a multiple of ours:\n")
    say("| who sees | cost |\n|---|---|")
    kept = True
    for who, user in (("20 files", place.crowd.light), (f"{VISIBLE:,} files", place.crowd.heavy)):
        same = ours(user) == theirs(user)
        seconds = interleaved([lambda user=user: ours(user), lambda user=user: theirs(user)])
        gain = [guardians / our for our, guardians in zip(*seconds, strict=True)]
        enough = same and statistics.median(gain) >= LEAST_GAIN[who]
        kept &= enough
        say(f"| {who} | {spread(gain)} |{'' if same else ' OTHER FILES'}{'' if enough else ' MISSED'}")
    return kept


def interleaved(asks: Sequence[Callable[[], Any]]) -> list[list[float]]:
    """The seconds of each of `asks`, in ROUNDS of all of them after one that warms up."""
    taken: list[list[float]] = [[] for _ in asks]
    for turn in range(ROUNDS + 1):
        for seconds, ask in zip(taken, asks, strict=True):
            begun = time.perf_counter()
            ask()
            if turn:
                seconds.append(time.perf_counter() - begun)
    return taken


def spread(values: Sequence[float]) -> str:
    """The median, and where the middle half lies."""
    lower, middle, upper = statistics.quantiles(values, n=4)
    return f"{middle:.1f} ({lower:.1f}–{upper:.1f})"


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what it is for


if __name__ == "__main__":
    sys.exit(main())
