"""Granting the sight of files, one by one and by whole folders, and explaining it."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from access.grants import grant, grant_instrument, grants_on
from access.members import add_members
from access.models import AuditEvent, Group, Project, User
from harvest.api.files import bulk
from harvest.models import FileRecord, HarvestRun, Instrument, StorageLocation
from tests.harvest.api.files.conftest import ClientOf, MakeFile, MakeTransfer

pytestmark = pytest.mark.django_db
SEED_KEYS = ["id", "file_id", "grantee_type", "grantee_id", "granted_at"]


def post(client: APIClient, file: FileRecord, **grant: Any) -> Any:
    return client.post(f"/api/files/{file.pk}/access", grant, format="json")


@pytest.fixture
def circles(ann: User) -> dict[str, User | Group | Project]:
    """Whoever can hold a grant; ann is in all of them, in the project by her group."""
    group, project = Group.objects.create(name="Core"), Project.objects.create(name="Study")
    add_members(to=group, members=[ann])
    add_members(to=project, members=[group])
    return {"user": ann, "group": group, "project": project}


@pytest.mark.parametrize("kind", ["user", "group", "project"])
def test_a_grant_shows_the_file_until_it_is_taken_back(
    asking: APIClient, client_of: ClientOf, make_file: MakeFile, ann: User, circles: dict[str, Any], kind: str
) -> None:
    file, client = make_file("a"), client_of(ann)
    answer = post(asking, file, grantee_type=kind, grantee_id=str(circles[kind].pk))
    told = answer.json()
    assert (answer.status_code, list(told)[:5]) == (201, SEED_KEYS)
    assert (told["file_id"], told["grantee_type"], told["grantee_id"]) == (str(file.pk), kind, str(circles[kind].pk))
    assert told["granted_at"].endswith("Z")
    assert told["expires_at"] is None
    assert client.get(f"/api/files/{file.pk}").status_code == 200
    assert asking.get(f"/api/files/{file.pk}/access").json() == [told]
    assert asking.delete(f"/api/files/{file.pk}/access/{told['id']}").status_code == 204
    assert asking.get(f"/api/files/{file.pk}/access").json() == []
    assert client.get(f"/api/files/{file.pk}").json() == {"detail": "File not found"}
    assert [event.action for event in AuditEvent.objects.order_by("at")][-2:] == ["grant.added", "grant.removed"]


def test_a_grant_that_stands_is_answered_again(asking: APIClient, make_file: MakeFile, ann: User) -> None:
    file = make_file("a")
    first = post(asking, file, grantee_type="user", grantee_id=str(ann.pk))
    again = post(asking, file, grantee_type="user", grantee_id=str(ann.pk))
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(grants_on([file])) == 1


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"grantee_type": "user"}, "grantee_id"),
        ({"grantee_type": "robot", "grantee_id": str(uuid.UUID(int=1))}, "grantee_type"),
        ({"grantee_type": "user", "grantee_id": "ann@example.org"}, "grantee_id"),
        ({"grantee_type": "user", "grantee_id": str(uuid.UUID(int=1))}, "grantee_id"),
        ({"grantee_type": "project", "grantee_id": None}, "grantee_id"),
        ({"grantee_type": "user", "grantee_id": str(uuid.UUID(int=1)), "id": "x"}, "id"),
        ({"grantee_type": "user", "grantee_id": str(uuid.UUID(int=1)), "level": 9}, "level"),
    ],
)
def test_a_grant_to_nobody_is_refused(asking: APIClient, make_file: MakeFile, wanted: Any, field: str) -> None:
    file = make_file("a")
    answer = post(asking, file, **wanted)
    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert grants_on([file]) == []


def test_grants_are_the_administrators_business_alone(
    client_of: ClientOf, make_file: MakeFile, ann: User, asking: APIClient
) -> None:
    file = make_file("a")
    grant([file], grantee_type="user", grantee_id=ann.pk)
    row, client = grants_on([file])[0].id, client_of(ann)
    for pk in (file.pk, uuid.uuid4(), "no-id"):
        for answer in (
            client.get(f"/api/files/{pk}/access"),
            client.post(f"/api/files/{pk}/access", {}, format="json"),
            client.delete(f"/api/files/{pk}/access/{row}"),
            client.post("/api/files/grants?q=a", {}, format="json"),
            client.delete("/api/files/grants?q=a"),
            client.get(f"/api/files/{pk}/access/explain?user_id={uuid.uuid4()}"),
        ):
            assert (answer.status_code, answer.json()) == (403, {"detail": "Admin access required"})
        if pk != file.pk:
            assert asking.get(f"/api/files/{pk}/access").json() == {"detail": "File not found"}
    assert len(grants_on([file])) == 1


def test_a_grant_is_taken_back_from_its_own_file_only(asking: APIClient, make_file: MakeFile, ann: User) -> None:
    file, other = make_file("a"), make_file("b")
    grant([file], grantee_type="user", grantee_id=ann.pk)
    row = grants_on([file])[0].id
    for path in (f"{other.pk}/access/{row}", f"{file.pk}/access/{uuid.uuid4()}", f"{file.pk}/access/no-id"):
        assert asking.delete(f"/api/files/{path}").status_code == 404
    assert len(grants_on([file])) == 1


def test_the_grants_of_a_file_cost_the_same_however_many(asking: APIClient, make_file: MakeFile) -> None:
    file = make_file("a")
    counted = []
    for number in range(4):
        grant([file], grantee_type="group", grantee_id=Group.objects.create(name=str(number)).pk)
        with CaptureQueriesContext(connection) as captured:
            assert len(asking.get(f"/api/files/{file.pk}/access").json()) == number + 1
        counted.append(len(captured))
    assert len(set(counted)) == 1
    assert counted[0] <= 4


def test_a_grant_ends_when_it_says(
    asking: APIClient, client_of: ClientOf, make_file: MakeFile, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, client = make_file("a"), client_of(ann)
    soon, later = (timezone.now() + timedelta(hours=hours) for hours in (1, 2))
    holder = {"grantee_type": "user", "grantee_id": str(ann.pk)}
    first = post(asking, file, **holder, expires_at=soon.isoformat())
    assert first.status_code == 201
    assert first.json()["expires_at"] == soon.isoformat().replace("+00:00", "Z")
    (why,) = client.get(f"/api/files/{file.pk}/access/explain").json()["reasons"]
    assert why["expires_at"] == first.json()["expires_at"]
    longer = post(asking, file, **holder, expires_at=later.isoformat()).json()
    assert (longer["id"], longer["expires_at"]) == (first.json()["id"], later.isoformat().replace("+00:00", "Z"))
    assert post(asking, file, **holder, expires_at=soon.isoformat()).json() == longer
    wrong = post(asking, file, **holder, expires_at="2020-01-01T00:00:00Z")
    assert (wrong.status_code, list(wrong.json())) == (400, ["expires_at"])

    monkeypatch.setattr(timezone, "now", lambda: later)
    assert client.get(f"/api/files/{file.pk}").status_code == 404
    assert client.get(f"/api/files/{file.pk}/access/explain").status_code == 404
    told = asking.get(f"/api/files/{file.pk}/access/explain?user_id={ann.pk}").json()
    assert (told["visible"], told["reasons"]) == (False, [])


def test_a_grant_on_an_instrument_explains_its_files(
    asking: APIClient, client_of: ClientOf, make_file: MakeFile, ann: User, circles: dict[str, Any]
) -> None:
    file = make_file("a")
    grant_instrument(file.instrument, grantee_type="project", grantee_id=circles["project"].pk)
    assert asking.get(f"/api/files/{file.pk}/access").json() == []
    (why,) = client_of(ann).get(f"/api/files/{file.pk}/access/explain").json()["reasons"]
    assert (why["via"], why["instrument_id"]) == ("project_through_group", str(file.instrument_id))
    assert [row["id"] for row in asking.get(f"/api/files?project_id={circles['project'].pk}").json()] == [str(file.pk)]


# --------------------------------------------------------------------------------------------------- whole folders


def seen(client: APIClient) -> list[str]:
    return sorted(file["source_path"] for file in client.get("/api/files").json())


@pytest.mark.parametrize("kind", ["user", "group", "project"])
def test_a_whole_folder_is_granted_and_taken_back(
    asking: APIClient,
    client_of: ClientOf,
    make_file: MakeFile,
    ann: User,
    circles: dict[str, Any],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk, "SET_FILES", 3)
    folder = [make_file(f"glucose/{number}") for number in range(7)]
    make_file("alanine/1")
    holder = {"grantee_type": kind, "grantee_id": str(circles[kind].pk)}
    grant(folder[:2], grantee_type=kind, grantee_id=circles[kind].pk)

    url = "/api/files/grants?path=glucose/"
    day = (timezone.now() + timedelta(days=1)).isoformat()
    assert asking.post(f"{url}&dry_run=true", {**holder, "expires_at": day}, format="json").json()["changed"] == 5
    dry = asking.post(f"{url}&dry_run=true", holder, format="json")
    assert (dry.status_code, dry.json()) == (200, {"files": 7, "changed": 5, "dry_run": True})
    assert len(seen(client_of(ann))) == 2
    assert asking.post(url, holder, format="json").json() == {"files": 7, "changed": 5, "dry_run": False}
    assert seen(client_of(ann)) == [f"glucose/{number}" for number in range(7)]
    assert asking.post(url, holder, format="json").json() == {"files": 7, "changed": 0, "dry_run": False}

    url = f"/api/files/grants?q=glucose&grantee_type={kind}&grantee_id={circles[kind].pk}"
    assert asking.delete(f"{url}&dry_run=true").json() == {"files": 7, "changed": 7, "dry_run": True}
    assert len(seen(client_of(ann))) == 7
    assert asking.delete(url).json() == {"files": 7, "changed": 7, "dry_run": False}
    assert seen(client_of(ann)) == []


def test_what_a_run_brought_is_granted(
    asking: APIClient,
    make_file: MakeFile,
    make_transfer: MakeTransfer,
    instrument: Instrument,
    archive: StorageLocation,
    ann: User,
    client_of: ClientOf,
) -> None:
    run = HarvestRun.objects.create(instrument=instrument, storage_location=archive)
    make_transfer(make_file("new"), run=run)
    make_transfer(make_file("old"))
    holder = {"grantee_type": "user", "grantee_id": str(ann.pk)}
    assert asking.post(f"/api/files/grants?run_id={run.pk}", holder, format="json").json()["changed"] == 1
    assert seen(client_of(ann)) == ["new"]
    assert asking.post(f"/api/files/grants?instrument_id={instrument.pk}", holder, format="json").json()["files"] == 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "detail"),
        ("dry_run=true", "detail"),
        ("path=", "path"),
        ("pth=glucose", "pth"),
        ("path=a&dry_run=perhaps", "dry_run"),
        ("path=a&limit=5", "limit"),
        ("path=a&path=b", "path"),
    ],
)
def test_a_slip_never_means_all_files(
    asking: APIClient, make_file: MakeFile, ann: User, query: str, field: str
) -> None:
    file = make_file("a")
    holder = {"grantee_type": "user", "grantee_id": str(ann.pk)}
    for answer in (
        asking.post(f"/api/files/grants?{query}", holder, format="json"),
        asking.delete(f"/api/files/grants?{query}&grantee_type=user&grantee_id={ann.pk}"),
    ):
        assert (answer.status_code, list(answer.json())) == (400, [field])
    assert grants_on([file]) == []


def test_sets_are_granted_all_or_not_at_all(
    asking: APIClient, make_file: MakeFile, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "SET_FILES", 2)
    files = [make_file(str(number)) for number in range(5)]
    given: list[Any] = []

    def breaking(some: list[Any], **to: Any) -> int:
        given.append(some)
        if len(given) == 3:
            raise RuntimeError("the power fails")
        return grant(some, **to)

    monkeypatch.setattr(bulk, "grant", breaking)
    holder = {"grantee_type": "user", "grantee_id": str(ann.pk)}
    with pytest.raises(RuntimeError):
        asking.post("/api/files/grants?name=*", holder, format="json")
    assert len(given) == 3
    assert grants_on(files) == []


# ------------------------------------------------------------------------------------------------------------- why


def test_everybody_may_ask_why_they_see_a_file(
    client_of: ClientOf, make_file: MakeFile, ann: User, circles: dict[str, Any]
) -> None:
    file, client = make_file("a"), client_of(ann)
    url = f"/api/files/{file.pk}/access/explain"
    assert client.get(url).json() == {"detail": "File not found"}
    for kind, holder in circles.items():
        grant([file], grantee_type=kind, grantee_id=holder.pk)
    ids = {row.grantee_type: str(row.id) for row in grants_on([file])}
    add_members(to=circles["project"], members=[ann])
    told = client.get(url).json()
    assert (told["file_id"], told["user_id"], told["visible"]) == (str(file.pk), str(ann.pk), True)
    assert sorted((why["via"], why["grant_id"], why["group_id"], why["project_id"]) for why in told["reasons"]) == [
        ("group", ids["group"], str(circles["group"].pk), None),
        ("project", ids["project"], None, str(circles["project"].pk)),
        ("project_through_group", ids["project"], str(circles["group"].pk), str(circles["project"].pk)),
        ("user", ids["user"], None, None),
    ]
    assert client.get(f"{url}?user_id={ann.pk}").json() == told


def test_administrators_may_ask_about_anybody(
    asking: APIClient, make_file: MakeFile, admin: User, ann: User, circles: dict[str, Any]
) -> None:
    file = make_file("a")
    url = f"/api/files/{file.pk}/access/explain"
    assert asking.get(f"{url}?user_id={ann.pk}").json() == {
        "file_id": str(file.pk),
        "user_id": str(ann.pk),
        "visible": False,
        "reasons": [],
    }
    grant([file], grantee_type="project", grantee_id=circles["project"].pk)
    (why,) = asking.get(f"{url}?user_id={ann.pk}").json()["reasons"]
    assert why["via"] == "project_through_group"
    circles["group"].soft_delete()
    assert asking.get(f"{url}?user_id={ann.pk}").json()["visible"] is False
    assert [why["via"] for why in asking.get(url).json()["reasons"]] == ["administrator"]
    for wrong in ("no-id", uuid.uuid4()):
        assert asking.get(f"{url}?user_id={wrong}").json() == {"user_id": ["There is no such user."]}


def test_an_explanation_costs_the_same_however_many_reasons(
    client_of: ClientOf, make_file: MakeFile, ann: User
) -> None:
    file, counted = make_file("a"), set()
    for number in range(4):
        group = Group.objects.create(name=str(number))
        add_members(to=group, members=[ann])
        grant([file], grantee_type="group", grantee_id=group.pk)
        with CaptureQueriesContext(connection) as captured:
            assert len(client_of(ann).get(f"/api/files/{file.pk}/access/explain").json()["reasons"]) == number + 1
        counted.add(len(captured))
    assert len(counted) == 1
