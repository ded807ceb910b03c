"""The users as administrators see them, and what everybody sees of himself."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from access.members import add_members
from access.models import AuditEvent, Group, Project, User
from tests.access.conftest import PASSWORD

pytestmark = pytest.mark.django_db
MakeUser = Callable[..., User]
LogIn = Callable[[User], Any]
KEYS = ["id", "email", "is_active", "is_superuser", "is_verified", "role", "deleted_at"]
CIRCLE = ["id", "name", "description", "created_at", "updated_at"]


@pytest.fixture
def lab(make_user: MakeUser) -> tuple[User, Group, Group, Project, Project]:
    """ann is in Core and Bio; in Kinase herself, in Apo through Core."""
    ann, core, bio = make_user("ann"), Group.objects.create(name="Core"), Group.objects.create(name="Bio")
    kinase, apo = Project.objects.create(name="Kinase"), Project.objects.create(name="Apo")
    for to, who in ((core, ann), (bio, ann), (kinase, ann), (apo, core), (kinase, core)):
        add_members(to=to, members=[who])
    return ann, core, bio, kinase, apo


def test_oneself_with_groups_and_projects_through_groups_too(lab: Any, logged_in: LogIn) -> None:
    client = logged_in(lab[0])
    told = client.get("/api/me").json()
    assert list(told) == [*KEYS, "groups", "projects"]
    assert [group["name"] for group in told["groups"]] == ["Core", "Bio"]
    assert [project["name"] for project in told["projects"]] == ["Apo", "Kinase"]
    assert list(told["groups"][0])[:5] == list(told["projects"][0])[:5] == CIRCLE
    lab[1].soft_delete()
    told = client.get("/api/me").json()
    assert [group["name"] for group in told["groups"]] == ["Bio"]
    assert [project["name"] for project in told["projects"]] == ["Kinase"]


def test_oneself_costs_three_queries(lab: Any, logged_in: LogIn, django_assert_num_queries: Any) -> None:
    client = logged_in(lab[0])
    with django_assert_num_queries(3):
        client.get("/api/me")


def test_the_groups_and_own_projects_of_a_user(lab: Any, as_admin: APIClient) -> None:
    url = f"/api/admin/users/{lab[0].pk}"
    assert [row["name"] for row in as_admin.get(f"{url}/groups").json()] == ["Core", "Bio"]
    assert [row["name"] for row in as_admin.get(f"{url}/projects").json()] == ["Kinase"]


def test_users_are_listed_in_order_of_creation(as_admin: APIClient, make_user: MakeUser) -> None:
    make_user("bob"), make_user("ann"), make_user("gone").soft_delete()
    listed = as_admin.get("/api/admin/users").json()
    assert list(listed[0]) == KEYS
    assert [row["email"][:3] for row in listed] == ["adm", "bob", "ann"]
    every = as_admin.get("/api/admin/users?include_deleted=true").json()
    assert [row["email"][:3] for row in every] == ["adm", "bob", "ann", "gon"]
    assert every[-1]["deleted_at"].endswith("Z")
    assert as_admin.get("/api/admin/users?include_deleted=perhaps").status_code == 400
    page = as_admin.get("/api/admin/users?limit=2")
    assert [row["email"][:3] for row in page.json()] == ["adm", "bob"]
    following = page.headers["Link"].partition(">")[0][1:]
    assert [row["email"][:3] for row in as_admin.get(following).json()] == ["ann"]


@pytest.mark.parametrize("count", [1, 30])
def test_the_list_costs_two_queries(
    as_admin: APIClient, make_user: MakeUser, django_assert_num_queries: Any, count: int
) -> None:
    for number in range(count):
        make_user(f"user{number}")
    with django_assert_num_queries(2):
        assert len(as_admin.get("/api/admin/users").json()) == count + 1


def test_a_user_is_deleted_and_restored(as_admin: APIClient, make_user: MakeUser) -> None:
    url = f"/api/admin/users/{make_user('ann').pk}"
    gone = as_admin.delete(url)
    assert (gone.status_code, gone.content) == (204, b"")
    assert as_admin.delete(url).status_code == 404
    assert as_admin.patch(url, {"role": "admin"}, format="json").status_code == 404
    assert as_admin.get(url).json()["deleted_at"] is not None
    restored = as_admin.post(f"{url}/restore")
    assert (restored.status_code, restored.json()["deleted_at"]) == (200, None)
    assert as_admin.post(f"{url}/restore").status_code == 200
    assert list(AuditEvent.objects.filter(action__startswith="user.").values_list("action", flat=True)) == [
        "user.restored",
        "user.deleted",
        "user.logged_in",
    ]


def test_a_user_is_shut_out_and_let_in(as_admin: APIClient, make_user: MakeUser) -> None:
    url = f"/api/admin/users/{make_user('ann').pk}"
    assert as_admin.post(f"{url}/deactivate").json()["is_active"] is False
    assert as_admin.post(f"{url}/activate").json()["is_active"] is True


def test_the_role_is_changed(as_admin: APIClient, make_user: MakeUser) -> None:
    ann = make_user("ann")
    url = f"/api/admin/users/{ann.pk}"
    told = as_admin.patch(url, {"role": "admin", "is_verified": True}, format="json").json()
    assert (told["role"], told["is_superuser"], told["is_verified"]) == ("admin", True, True)
    event = AuditEvent.objects.get(action="user.changed")
    assert event.detail == {
        "before": {"role": "user", "is_verified": False},
        "after": {"role": "admin", "is_verified": True},
    }
    assert as_admin.patch(url, {"email": "Ann.Lee@EXAMPLE.org"}, format="json").json()["email"] == "Ann.Lee@example.org"


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"role": "owner"}, "role"),
        ({"is_active": "perhaps"}, "is_active"),
        ({"email": "nobody"}, "email"),
        ({"email": "ADMIN@example.org"}, "email"),
        ({"is_superuser": True}, "is_superuser"),
        ({"deleted_at": None}, "deleted_at"),
        ({"id": str(uuid.uuid4())}, "id"),
        ({"password": "devpass123!"}, "password"),
        ({"token_version": 3}, "token_version"),
    ],
)
def test_what_cannot_be_changed_is_named(as_admin: APIClient, make_user: MakeUser, data: Any, field: str) -> None:
    ann = make_user("ann")
    before = User.objects.filter(pk=ann.pk).values().get()
    answer = as_admin.patch(f"/api/admin/users/{ann.pk}", data, format="json")
    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert User.objects.filter(pk=ann.pk).values().get() == before


def test_nobody_shuts_himself_or_everybody_out(as_admin: APIClient, admin: User, make_user: MakeUser) -> None:
    url = f"/api/admin/users/{admin.pk}"
    for other in (None, make_user):
        if other:
            other("other", role="admin")
        for answer in (
            as_admin.delete(url),
            as_admin.post(f"{url}/deactivate"),
            as_admin.patch(url, {"role": "user"}, format="json"),
            as_admin.patch(url, {"is_active": False}, format="json"),
        ):
            assert (answer.status_code, list(answer.json())) == (409, ["detail"])
    assert as_admin.get(url).json()["is_superuser"] is True


@pytest.mark.parametrize("pk", [uuid.uuid4(), "1", "nonsense", "é"])
def test_who_is_not_there_is_not_found(as_admin: APIClient, pk: Any) -> None:
    url = f"/api/admin/users/{pk}"
    for answer in (
        as_admin.get(url),
        as_admin.delete(url),
        as_admin.patch(url, {}, format="json"),
        as_admin.post(f"{url}/restore"),
        as_admin.post(f"{url}/deactivate"),
        as_admin.post(f"{url}/activate"),
        as_admin.get(f"{url}/groups"),
        as_admin.get(f"{url}/projects"),
    ):
        assert (answer.status_code, answer.json()) == (404, {"detail": "User not found"})


ROUTES = ("/api/admin/users", "/api/admin/users/{pk}", "/api/groups", "/api/projects/{pk}", "/api/groups/{pk}/members")


@pytest.mark.parametrize("route", ROUTES)
def test_only_administrators_are_told_anything(lab: Any, logged_in: LogIn, api: APIClient, route: str) -> None:
    for pk in (lab[0].pk, lab[1].pk, lab[3].pk, uuid.uuid4(), "nonsense"):
        answer = logged_in(lab[0]).get(route.format(pk=pk))
        assert (answer.status_code, answer.json()) == (403, {"detail": "Admin access required"})
        assert api.get(route.format(pk=pk)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("patch", "", {"role": "admin"}),
        ("delete", "", None),
        ("post", "/deactivate", None),
        ("post", "/restore", None),
    ],
)
def test_a_user_is_changed_only_as_he_was_read(
    as_admin: APIClient, make_user: MakeUser, method: str, path: str, body: Any
) -> None:
    ann = make_user("ann")
    url = f"/api/admin/users/{ann.pk}"
    etag = as_admin.get(url)["ETag"]
    ann.is_verified = True
    ann.save()
    known = AuditEvent.objects.count()
    stale = getattr(as_admin, method)(url + path, body, format="json", headers={"If-Match": etag})
    assert stale.status_code == 412
    ann.refresh_from_db()
    assert (ann.role, ann.is_active, ann.deleted_at) == ("user", True, None)
    assert AuditEvent.objects.count() == known
    fresh = as_admin.get(url)["ETag"]
    done = getattr(as_admin, method)(url + path, body, format="json", headers={"If-Match": fresh})
    assert done.status_code < 300, done.content


def test_one_changes_oneself_only_as_one_was_read(make_user: MakeUser, logged_in: LogIn) -> None:
    ann = make_user("ann")
    client = logged_in(ann)
    etag = client.get("/users/me")["ETag"]
    ann.refresh_from_db()
    ann.is_verified = True
    ann.save()
    body = {"email": "new@example.org", "current_password": PASSWORD}
    assert client.patch("/users/me", body, format="json", headers={"If-Match": etag}).status_code == 412
    ann.refresh_from_db()
    assert ann.email == "ann@example.org"
    etag = client.get("/users/me")["ETag"]
    assert client.patch("/users/me", body, format="json", headers={"If-Match": etag}).status_code == 200
