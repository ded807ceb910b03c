"""Groups and projects, their members, and grants on whole instruments."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from access.members import add_members
from access.models import AuditEvent, Group, Project, User
from harvest.models import FileRecord

pytestmark = pytest.mark.django_db
MakeUser = Callable[..., User]
MakeFiles = Callable[[int], list[FileRecord]]
KEYS = ["id", "name", "description", "created_at", "updated_at"]
KINDS = pytest.mark.parametrize("kind", ["groups", "projects"])


@KINDS
def test_they_are_made_changed_deleted_and_restored(as_admin: APIClient, kind: str) -> None:
    made = as_admin.post(f"/api/{kind}", {"name": "Core", "description": "A core"}, format="json")
    assert (made.status_code, list(made.json())[:5]) == (201, KEYS)
    url = f"/api/{kind}/{made.json()['id']}"
    changed = as_admin.patch(url, {"description": "Updated"}, format="json").json()
    assert (changed["name"], changed["description"]) == ("Core", "Updated")
    assert changed["updated_at"] > made.json()["updated_at"]
    assert changed["created_at"] == made.json()["created_at"]
    assert as_admin.get(url).json() == changed
    other = as_admin.post(f"/api/{kind}", {"name": "Bio"}, format="json").json()
    assert other["description"] is None
    assert [row["name"] for row in as_admin.get(f"/api/{kind}").json()] == ["Core", "Bio"]
    assert as_admin.delete(url).status_code == 204
    for answer in (as_admin.get(url), as_admin.delete(url), as_admin.get(f"{url}/members")):
        assert (answer.status_code, answer.json()) == (404, {"detail": f"{kind[:-1].capitalize()} not found"})
    assert [row["name"] for row in as_admin.get(f"/api/{kind}").json()] == ["Bio"]
    assert len(as_admin.get(f"/api/{kind}?include_deleted=true").json()) == 2
    assert as_admin.post(f"{url}/restore").json()["deleted_at"] is None
    assert {f"{kind[:-1]}.{done}" for done in ("created", "changed", "deleted", "restored")} <= set(
        AuditEvent.objects.values_list("action", flat=True)
    )


@KINDS
@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": " core "}, "name"),
        ({"name": "Other", "auth_group": 1}, "auth_group"),
        ({"name": "Other", "deleted_at": None}, "deleted_at"),
        ({"name": "Other", "id": str(uuid.uuid4())}, "id"),
    ],
)
def test_what_is_wrong_is_named(as_admin: APIClient, kind: str, data: Any, field: str) -> None:
    as_admin.post(f"/api/{kind}", {"name": "Core"}, format="json")
    answer = as_admin.post(f"/api/{kind}", data, format="json")
    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert len(as_admin.get(f"/api/{kind}").json()) == 1


@KINDS
def test_a_name_taken_meanwhile_stands_against_restoring(as_admin: APIClient, kind: str) -> None:
    first = as_admin.post(f"/api/{kind}", {"name": "Core"}, format="json").json()
    as_admin.delete(f"/api/{kind}/{first['id']}")
    as_admin.post(f"/api/{kind}", {"name": "core"}, format="json")
    answer = as_admin.post(f"/api/{kind}/{first['id']}/restore")
    assert (answer.status_code, list(answer.json())) == (409, ["detail"])


def test_members_of_a_group(as_admin: APIClient, make_user: MakeUser) -> None:
    ann, bob, group = make_user("ann"), make_user("bob"), Group.objects.create(name="Core")
    url = f"/api/groups/{group.pk}/members"
    for user in (bob, ann):
        answer = as_admin.post(url, {"user_id": str(user.pk)}, format="json")
        assert answer.status_code == 201
        assert list(answer.json().items()) == [
            ("group_id", str(group.pk)),
            ("user_id", str(user.pk)),
            ("email", user.email),
        ]
    assert as_admin.post(url, {"user_id": str(ann.pk)}, format="json").status_code == 409
    assert [row["email"][:3] for row in as_admin.get(url).json()] == ["bob", "ann"]
    assert as_admin.delete(f"{url}/{bob.pk}").status_code == 204
    assert [row["email"][:3] for row in as_admin.get(url).json()] == ["ann"]
    for pk in (bob.pk, uuid.uuid4(), "nonsense"):
        answer = as_admin.delete(f"{url}/{pk}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Member not found"})


def test_members_of_a_project_are_users_and_groups(as_admin: APIClient, make_user: MakeUser) -> None:
    ann, group = make_user("ann"), Group.objects.create(name="Core")
    project = Project.objects.create(name="Kinase")
    url = f"/api/projects/{project.pk}/members"
    for kind, one, email in (("group", group, None), ("user", ann, ann.email)):
        told = as_admin.post(url, {"member_type": kind, "member_id": str(one.pk)}, format="json")
        assert told.status_code == 201
        assert list(told.json()) == ["id", "project_id", "member_type", "member_id", "email"]
        assert list(told.json().values())[1:] == [str(project.pk), kind, str(one.pk), email]
    listed = as_admin.get(url).json()
    assert [row["email"] for row in listed] == [None, ann.email]
    for one in (ann, group):
        assert as_admin.delete(f"{url}/{one.pk}").status_code == 204
    assert as_admin.get(url).json() == []


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "member_type"),
        ({"member_type": "team", "member_id": str(uuid.uuid4())}, "member_type"),
        ({"member_type": "user", "member_id": "nonsense"}, "member_id"),
        ({"member_type": "user", "member_id": str(uuid.uuid4())}, "member_id"),
        ({"member_type": "project", "member_id": str(uuid.uuid4())}, "member_type"),
        ({"member_type": "user", "member_id": str(uuid.uuid4()), "email": "a@example.org"}, "email"),
    ],
)
def test_who_cannot_be_a_member_is_named(as_admin: APIClient, data: Any, field: str) -> None:
    project = Project.objects.create(name="Kinase")
    answer = as_admin.post(f"/api/projects/{project.pk}/members", data, format="json")
    assert answer.status_code == 400
    assert field in answer.json()


def test_who_is_deleted_joins_nothing_and_is_not_listed(as_admin: APIClient, make_user: MakeUser) -> None:
    ann, group = make_user("ann"), Group.objects.create(name="Core")
    add_members(to=group, members=[ann])
    ann.soft_delete()
    url = f"/api/groups/{group.pk}/members"
    assert as_admin.get(url).json() == []
    answer = as_admin.post(url, {"user_id": str(ann.pk)}, format="json")
    assert (answer.status_code, list(answer.json())) == (400, ["user_id"])


@pytest.mark.parametrize("count", [1, 30])
def test_lists_cost_a_constant_number_of_queries(
    as_admin: APIClient, make_user: MakeUser, django_assert_num_queries: Any, count: int
) -> None:
    group, project = Group.objects.create(name="Core"), Project.objects.create(name="Kinase")
    users = [make_user(f"user{number}") for number in range(count)]
    add_members(to=group, members=users)
    add_members(to=project, members=[*users, group])
    with django_assert_num_queries(3):
        assert len(as_admin.get(f"/api/groups/{group.pk}/members").json()) == count
    with django_assert_num_queries(3):
        assert len(as_admin.get(f"/api/projects/{project.pk}/members").json()) == count + 1
    with django_assert_num_queries(2):
        as_admin.get("/api/groups")


# ---------------------------------------------------------------------------------------------------- whole instruments


def test_an_instrument_is_granted_with_its_files_to_come(
    as_admin: APIClient, admin: User, make_user: MakeUser, make_files: MakeFiles
) -> None:
    ann, files = make_user("ann"), make_files(2)
    instrument = files[0].instrument
    FileRecord.objects.filter(pk=files[1].pk).delete()
    url = f"/api/instruments/{instrument.pk}/access"
    told = {"grantee_type": "user", "grantee_id": str(ann.pk)}
    made = as_admin.post(url, told, format="json")
    assert made.status_code == 201
    assert list(made.json())[:5] == ["id", "instrument_id", "grantee_type", "grantee_id", "granted_at"]
    assert (made.json()["granted_by"], made.json()["expires_at"]) == (str(admin.pk), None)
    assert as_admin.post(url, told, format="json").status_code == 200
    FileRecord.objects.bulk_create(files[1:])
    assert FileRecord.objects.visible_to(ann).count() == 2
    assert as_admin.get(url).json() == [made.json()]
    assert as_admin.delete(f"{url}/{made.json()['id']}").status_code == 204
    assert as_admin.delete(f"{url}/{made.json()['id']}").status_code == 404
    assert not FileRecord.objects.visible_to(ann).exists()
    assert [event.action for event in AuditEvent.objects.filter(object_type="harvest.instrument")] == [
        "grant.removed",
        "grant.added",
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"grantee_type": "team"}, "grantee_type"),
        ({"grantee_id": str(uuid.uuid4())}, "grantee_id"),
        ({"grantee_id": "nonsense"}, "grantee_id"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"source": "owner"}, "source"),
        ({"granted_by": None}, "granted_by"),
    ],
)
def test_a_grant_that_cannot_be_is_named(
    as_admin: APIClient, make_user: MakeUser, make_files: MakeFiles, changes: Any, field: str
) -> None:
    told = {"grantee_type": "user", "grantee_id": str(make_user("ann").pk)} | changes
    url = f"/api/instruments/{make_files(1)[0].instrument_id}/access"
    answer = as_admin.post(url, told, format="json")
    assert (answer.status_code, list(answer.json())) == (400, [field])


@pytest.mark.parametrize("pk", [uuid.uuid4(), "nonsense"])
def test_an_instrument_that_is_not_there(as_admin: APIClient, pk: Any) -> None:
    answer = as_admin.get(f"/api/instruments/{pk}/access")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Instrument not found"})
