"""The list of files and a single one, as the original's clients know them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from access.grants import grant, grants_on
from access.models import AuditEvent, User
from harvest.models import FileRecord, FileVersion
from tests.harvest.api.files.conftest import ClientOf, MakeFile, MakeTransfer, completed

pytestmark = pytest.mark.django_db

SEED_KEYS = [
    "id",
    "persistent_id",
    "persistent_id_type",
    "instrument_id",
    "source_path",
    "filename",
    "size_bytes",
    "source_mtime",
    "xxhash",
    "sha256",
    "first_discovered_at",
    "metadata_",
    "owner_id",
]


def queries(ask: Any) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert ask().status_code == 200
    return len(captured)


def test_a_file_is_told_as_the_original_tells_it(asking: APIClient, make_file: MakeFile) -> None:
    file = make_file("20260201_alanine_13C/pdata/1/1r", size_bytes=8192, metadata={"compound": "alanine"})
    (told,) = asking.get("/api/files").json()
    assert list(told)[: len(SEED_KEYS)] == SEED_KEYS
    assert told["id"] == str(file.pk)
    assert told["persistent_id"] == file.persistent_id
    assert told["persistent_id_type"] == "ark"
    assert told["source_path"] == "20260201_alanine_13C/pdata/1/1r"
    assert told["filename"] == "1r"
    assert told["size_bytes"] == 8192
    assert told["source_mtime"] == "2026-03-01T12:00:00Z"
    assert told["xxhash"] is told["sha256"] is told["owner_id"] is None
    assert told["metadata_"] == {"compound": "alanine"}
    assert asking.get(f"/api/files/{file.pk}").json() == told


def test_files_are_listed_newest_first(asking: APIClient, make_file: MakeFile) -> None:
    for name in ("first", "second", "third"):
        make_file(name)
    assert [file["filename"] for file in asking.get("/api/files").json()] == ["third", "second", "first"]


def test_a_user_sees_what_was_granted_and_nothing_else(client_of: ClientOf, ann: User, make_file: MakeFile) -> None:
    shown, hidden = make_file("shown"), make_file("hidden")
    client = client_of(ann)
    assert client.get("/api/files").json() == []
    grant([shown], grantee_type="user", grantee_id=ann.pk)
    assert [file["filename"] for file in client.get("/api/files").json()] == ["shown"]
    assert client.get("/api/files?count=true").headers["X-Total-Count"] == "1"
    assert client.get(f"/api/files/{shown.pk}").status_code == 200
    assert client.get(f"/api/files/{hidden.pk}").status_code == 404


@pytest.mark.parametrize("tail", ["", "/versions", "/transfers", "/download", "/access/explain"])
def test_an_unseen_file_is_like_none_at_all(client_of: ClientOf, ann: User, make_file: MakeFile, tail: str) -> None:
    hidden = make_file("hidden")
    client = client_of(ann)
    answers = [client.get(f"/api/files/{pk}{tail}") for pk in (hidden.pk, uuid.uuid4(), "no-id", "0" * 40)]
    assert {answer.status_code for answer in answers} == {404}
    assert {answer.content for answer in answers} == {b'{"detail":"File not found"}'}
    assert len({tuple(sorted(answer.headers.items())) for answer in answers}) == 1


@pytest.mark.parametrize(
    "path",
    ["", "/{}", "/{}/versions", "/{}/transfers", "/{}/download", "/{}/access", "/{}/access/explain", "/grants"],
)
def test_who_is_not_logged_in_is_told_so(client_of: ClientOf, make_file: MakeFile, path: str) -> None:
    answer = client_of(None).get("/api/files" + path.format(make_file("a").pk))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_file_that_has_not_changed_is_not_sent_again(asking: APIClient, make_file: MakeFile) -> None:
    file = make_file("a")
    etag = asking.get(f"/api/files/{file.pk}").headers["ETag"]
    again = asking.get(f"/api/files/{file.pk}", HTTP_IF_NONE_MATCH=etag)
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    FileRecord.objects.filter(pk=file.pk).update(metadata={"compound": "glucose"})
    changed = asking.get(f"/api/files/{file.pk}", HTTP_IF_NONE_MATCH=etag)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


def test_the_list_costs_one_query_however_long(
    client_of: ClientOf, ann: User, admin: User, make_file: MakeFile
) -> None:
    files = [make_file(f"run/{number}") for number in range(30)]
    grant(files, grantee_type="user", grantee_id=ann.pk)
    for user, more in ((admin, 0), (ann, 1)):  # users are asked first for the instruments that they may see as a whole
        client = client_of(user)
        for query, count in (("limit=2", 1), ("limit=30", 1), ("count=true", 2), ("q=run&status=pending&name=*", 1)):
            assert queries(lambda client=client, query=query: client.get(f"/api/files?{query}")) == count + more
        assert queries(lambda client=client: client.get(f"/api/files/{files[0].pk}")) == 1 + more
        assert queries(lambda client=client: client.get(f"/api/files/{files[0].pk}/versions")) == 2 + more


@pytest.mark.parametrize("ordering", ["", "size_bytes", "-size_bytes", "filename", "-source_mtime"])
def test_pages_follow_each_other_and_leave_nothing_out(asking: APIClient, make_file: MakeFile, ordering: str) -> None:
    names = {f"run/{number}" for number in range(11)}
    for number, name in enumerate(sorted(names)):
        make_file(name, size_bytes=number % 3)
    url, seen = f"/api/files?limit=3&ordering={ordering}", []
    while url:
        answer = asking.get(url)
        page = answer.json()
        assert 0 < len(page) <= 3
        seen += page
        url = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert {file["source_path"] for file in seen} == names
    assert len(seen) == len(names)
    if ordering.endswith("size_bytes"):
        sizes = [file["size_bytes"] for file in seen]
        assert sizes == sorted(sizes, reverse=ordering.startswith("-"))


def test_a_file_tells_of_its_versions(asking: APIClient, make_file: MakeFile, make_transfer: MakeTransfer) -> None:
    file = make_file("a")
    make_transfer(file, **completed("a"))
    FileVersion.objects.create(record=file, number=2, size_bytes=5, source_mtime=file.source_mtime)
    second, first = asking.get(f"/api/files/{file.pk}/versions").json()
    assert (second["number"], second["size_bytes"], second["is_downloadable"]) == (2, 5, False)
    assert (first["number"], first["size_bytes"], first["is_downloadable"]) == (1, 1, True)


# -------------------------------------------------------------------------------------------------------- the owner


def test_an_administrator_gives_a_file_an_owner_who_then_sees_it(
    asking: APIClient, client_of: ClientOf, ann: User, make_file: MakeFile
) -> None:
    file = make_file("a")
    answer = asking.patch(f"/api/files/{file.pk}", {"owner_id": str(ann.pk)}, format="json")
    assert (answer.status_code, answer.json()["owner_id"]) == (200, str(ann.pk))
    assert [row.source for row in grants_on([file])] == ["owner"]
    assert client_of(ann).get(f"/api/files/{file.pk}").json()["owner_id"] == str(ann.pk)
    event = AuditEvent.objects.get(action="file.owner_changed")
    assert event.detail == {"before": {"owner_id": None}, "after": {"owner_id": str(ann.pk)}}
    assert asking.patch(f"/api/files/{file.pk}", {"owner_id": None}, format="json").json()["owner_id"] is None
    assert client_of(ann).get(f"/api/files/{file.pk}").status_code == 404


def test_an_owner_is_given_only_to_a_file_as_it_was_read(asking: APIClient, ann: User, make_file: MakeFile) -> None:
    file = make_file("a")
    url, body = f"/api/files/{file.pk}", {"owner_id": str(ann.pk)}
    etag = asking.get(url).headers["ETag"]
    FileRecord.objects.filter(pk=file.pk).update(metadata={"compound": "glucose"})
    stale = asking.patch(url, body, format="json", HTTP_IF_MATCH=etag)
    assert stale.status_code == 412
    assert "Read it again" in stale.json()["detail"]
    file.refresh_from_db()
    assert file.owner_id is None
    assert grants_on([file]) == []
    fresh = asking.patch(url, body, format="json", HTTP_IF_MATCH=asking.get(url).headers["ETag"])
    assert fresh.status_code == 200
    assert fresh.headers["ETag"] == asking.get(url).headers["ETag"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"owner_id": str(uuid.uuid4())}, "owner_id"),
        ({"owner_id": "ann"}, "owner_id"),
        ({"owner_id": [1]}, "owner_id"),
        ({}, "owner_id"),
        ({"owner_id": None, "filename": "b"}, "filename"),
        ({"owner_id": None, "colour": "red"}, "colour"),
        ([], "non_field_errors"),
    ],
)
def test_nothing_else_about_a_file_can_be_changed(
    asking: APIClient, make_file: MakeFile, change: Any, field: str
) -> None:
    file = make_file("a")
    answer = asking.patch(f"/api/files/{file.pk}", change, format="json")
    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert FileRecord.objects.get(pk=file.pk).updated_at == file.updated_at


def test_users_change_nothing_and_nobody_deletes(
    asking: APIClient, client_of: ClientOf, ann: User, make_file: MakeFile
) -> None:
    file = make_file("a")
    grant([file], grantee_type="user", grantee_id=ann.pk)
    for pk in (file.pk, uuid.uuid4()):
        answer = client_of(ann).patch(f"/api/files/{pk}", {"owner_id": str(ann.pk)}, format="json")
        assert (answer.status_code, answer.json()) == (403, {"detail": "Admin access required"})
    assert asking.patch(f"/api/files/{uuid.uuid4()}", {"owner_id": None}, format="json").status_code == 404
    assert asking.delete(f"/api/files/{file.pk}").status_code == 405
