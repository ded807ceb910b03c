"""Among many files no list reads the whole table of them: what the planner of PostgreSQL intends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from rest_framework.test import APIClient

from harvest.models import FileRecord
from tests.bench.crowd import Crowd, build, queries_of, scanned_tables

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite tells its plans otherwise"),
]
BIG = {"harvest_filerecord", "harvest_filetransfer", "harvest_fileversion"}


@pytest.fixture(scope="module")
def crowd(django_db_setup: Any, django_db_blocker: Any) -> Iterator[Crowd]:
    """50,000 files, of which one user sees 500; built once, and rolled back."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield build(files=50_000, visible=500, users=60, circles=10, grants=2500)
        transaction.set_rollback(True)


def client_of(user: Any) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


def pages(client: APIClient, url: str, count: int) -> list[str]:
    """The addresses of the first pages of a list."""
    found = []
    while url and len(found) < count:
        found.append(url)
        url = client.get(url).headers.get("Link", "").partition(">")[0].removeprefix("<")
    return found


FILTERS = [
    "instrument_id={instrument}",
    "q=sample77+spectrum",
    "name=*77.raw",
    "path=20260301_sample77/",
    "metadata.compound=c77",
    "min_size_bytes=100&max_size_bytes=105",
    "modified_from=2026-03-01T11:59:00Z",
    "discovered_until=2026-03-01T12:01:00Z",
    "checksum=0123456789abcdef",
    "ark=ark:/99999/fk40000000000000077",
    "status=completed",
    "ordering=size_bytes",
    "ordering=-filename",
    "count=true",
]


@pytest.mark.parametrize("who", ["heavy", "light", "admin"])
@pytest.mark.parametrize("what", ["first", "deep", "one", "transfers", "transfers of one", *FILTERS])
def test_no_page_reads_all_files(crowd: Crowd, who: str, what: str) -> None:
    client = client_of(getattr(crowd, who))
    first = client.get("/api/files?limit=2").json()[1]["id"]
    url = {
        "first": "/api/files?limit=50",
        "deep": pages(client, "/api/files?limit=5", 4)[-1],
        "one": f"/api/files/{first}",
        "transfers": "/api/transfers?limit=50",
        "transfers of one": f"/api/transfers?file_id={first}",
    }.get(what) or f"/api/files?limit=50&{what.format(instrument=crowd.instrument.pk)}"
    queries = queries_of(lambda: client.get(url))
    assert 1 <= len(queries) <= 5
    if who == "admin" and what == "count=true":
        queries = queries[1:]  # it reads any 10,001 files, in whatever order they lie
    assert not scanned_tables(queries) & BIG


def test_the_test_would_see_a_whole_table_being_read(crowd: Crowd) -> None:
    queries = queries_of(lambda: FileRecord.objects.filter(origin="nowhere").exists())
    assert scanned_tables(queries) == {"harvest_filerecord"}
