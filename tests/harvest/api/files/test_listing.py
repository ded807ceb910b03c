"""The lists say the same in whichever of its forms a list is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from access.grants import grant
from access.members import add_members
from access.models import Group, User
from harvest.api.files import listing
from harvest.models import FileRecord, StorageLocation
from tests.harvest.api.files.conftest import ClientOf, MakeFile, MakeTransfer, completed

pytestmark = pytest.mark.django_db

QUERIES = [
    "",
    "ordering=first_discovered_at",
    "ordering=-size_bytes",
    "ordering=filename",
    "instrument_id={instrument}",
    "q=run+a",
    "name=*1",
    "min_size_bytes=1&max_size_bytes=2",
    "is_current=true",
    "status=completed",
    "status=completed&storage_location_id={storage}",
    "status=completed&q=b",
    "status=pending",
    "path=run/a",
    "metadata.compound=glucose",
    "metadata.compound=glucose&name=*1&status=completed",
]


@pytest.fixture(params=["gathered", "joined", "at a glance"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "joined":
        monkeypatch.setattr(listing, "MANY_FILES", 0)
    if request.param == "at a glance":
        monkeypatch.setattr(listing, "SOME_FILES", 0)
        monkeypatch.setattr(listing, "LOOKED_AT", 2)  # of which some, all, or none are seen
    return str(request.param)


@pytest.fixture
def files(make_file: MakeFile, make_transfer: MakeTransfer, ann: User) -> list[FileRecord]:
    """Every file but each third one is seen by Ann, some by a grant of her own, some by her group's, some by both."""
    made = []
    for number in range(15):
        facts: dict[str, Any] = {"metadata": {"compound": "glucose"}} if number % 2 else {}
        made.append(make_file(f"run/{'ab'[number % 2]}{number}", size_bytes=number % 4, **facts))
        make_transfer(made[-1], **(completed(f"files/{number}") if number % 5 else {}))
    group = Group.objects.create(name="chemistry")
    add_members(to=group, members=[ann])
    grant([made[n] for n in range(15) if n % 3 == 1], grantee_type="user", grantee_id=ann.pk)
    grant([made[n] for n in range(15) if n % 3 == 2 or n in (1, 4)], grantee_type="group", grantee_id=group.pk)
    return made


def all_pages(client: APIClient, url: str) -> list[str]:
    """The names, or the files' ids, of all that is listed, in pages of two."""
    found = []
    while url:
        answer = client.get(url)
        assert answer.status_code == 200
        assert len(found) < 50
        found += [row.get("filename") or row["file_id"] for row in answer.json()]
        url = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_a_user_sees_his_part_of_what_an_administrator_sees(
    form: str,
    query: str,
    files: list[FileRecord],
    archive: StorageLocation,
    client_of: ClientOf,
    ann: User,
    admin: User,
) -> None:
    url = f"/api/files?limit=2&{query.format(instrument=files[0].instrument_id, storage=archive.pk)}"
    everything = all_pages(client_of(admin), url)
    seen = {file.filename for number, file in enumerate(files) if number % 3}
    assert everything
    assert all_pages(client_of(ann), url) == [name for name in everything if name in seen]
    assert client_of(ann).get(f"{url}&count=true").headers["X-Total-Count"] == str(len(seen & set(everything)))


@pytest.mark.parametrize("query", ["", "status=completed", "ordering=created_at"])
def test_the_same_is_true_of_transfers(
    form: str, query: str, files: list[FileRecord], client_of: ClientOf, ann: User, admin: User
) -> None:
    url = f"/api/transfers?limit=2&{query}"
    seen = {str(file.pk) for number, file in enumerate(files) if number % 3}
    everything = all_pages(client_of(admin), url)
    assert all_pages(client_of(ann), url) == [file for file in everything if file in seen]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no such form")
@pytest.mark.parametrize(
    ("query", "queries"), [("limit=2", 2), ("limit=2&status=completed", 2), ("limit=2&name=*1", 2), ("limit=10", 3)]
)
def test_a_short_page_costs_one_query_where_the_newest_files_fill_it(
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    queries: int,
    files: list[FileRecord],
    client_of: ClientOf,
    ann: User,
) -> None:
    monkeypatch.setattr(listing, "SOME_FILES", 1)
    monkeypatch.setattr(listing, "LOOKED_AT", 2)
    monkeypatch.setattr(listing, "SHORT", 12)
    with CaptureQueriesContext(connection) as captured:
        assert client_of(ann).get(f"/api/files?{query}").json()
    # which instruments she may see as a whole, and the page; and once more where all of them had to be looked at
    assert len(captured) == queries
    assert ("INTERSECT" in captured[1]["sql"]) is ("name" not in query)
