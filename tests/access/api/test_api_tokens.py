"""Personal API tokens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from access import accounts, api_tokens
from access.models import ApiToken, AuditEvent, User

pytestmark = pytest.mark.django_db
MakeUser = Callable[..., User]
LogIn = Callable[[User], Any]


@pytest.fixture
def ann(make_user: MakeUser) -> User:
    return make_user("ann")


def with_token(text: str) -> APIClient:
    return APIClient(HTTP_AUTHORIZATION=f"Bearer {text}")


def make(user: User, name: str = "script", **more: Any) -> APIClient:
    return with_token(api_tokens.make(user=user, name=name, **more)[1])


def test_a_token_is_shown_once_and_only_its_digest_kept(ann: User, logged_in: LogIn) -> None:
    client = logged_in(ann)
    made = client.post("/api/tokens", {"name": "backup"}, format="json")
    assert made.status_code == 201
    text = made.json()["token"]
    assert text.startswith("swt_")
    row = ApiToken.objects.get()
    assert text not in str(vars(row)) + str(AuditEvent.objects.values_list("detail", flat=True))
    (listed,) = client.get("/api/tokens").json()
    assert listed == {name: value for name, value in made.json().items() if name != "token"}
    assert (listed["name"], listed["read_only"], listed["last_used_at"]) == ("backup", True, None)
    assert text.startswith(listed["hint"])
    assert with_token(text).get("/api/me").json()["email"] == ann.email


def test_a_read_only_token_changes_nothing(ann: User, admin: User) -> None:
    reader, writer = make(admin, "r"), make(admin, "w", read_only=False)
    assert reader.get("/api/groups").status_code == 200
    answer = reader.post("/api/groups", {"name": "Core"}, format="json")
    assert (answer.status_code, answer.json()) == (
        403,
        {"detail": "This API token may only read. Use one with full access."},
    )
    assert reader.post("/auth/logout-everywhere").status_code == 403
    assert writer.post("/api/groups", {"name": "Core"}, format="json").status_code == 201


def test_a_token_makes_no_tokens_and_ends_none(ann: User) -> None:
    client = make(ann, read_only=False)
    assert client.post("/api/tokens", {"name": "more"}, format="json").status_code == 403
    assert client.delete(f"/api/tokens/{ApiToken.objects.get().pk}").status_code == 403
    assert client.post("/auth/jwt/logout").status_code == 400


def test_a_token_gives_no_more_rights_than_its_user_has(ann: User) -> None:
    answer = make(ann, read_only=False).get("/api/groups")
    assert (answer.status_code, answer.json()) == (403, {"detail": "Admin access required"})


def test_a_revoked_token_is_no_good(ann: User, logged_in: LogIn) -> None:
    client, script = logged_in(ann), make(ann)
    token = client.get("/api/tokens").json()[0]
    assert client.delete(f"/api/tokens/{token['id']}").status_code == 204
    assert client.delete(f"/api/tokens/{token['id']}").status_code == 404
    answer = script.get("/api/me")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert client.get("/api/tokens").json() == []
    assert client.post("/api/tokens", {"name": "script"}, format="json").status_code == 201


def test_nobody_sees_or_ends_anothers_tokens(ann: User, admin: User, logged_in: LogIn) -> None:
    make(ann)
    client = logged_in(admin)
    assert client.get("/api/tokens").json() == []
    for pk in (ApiToken.objects.get().pk, "nonsense"):
        assert client.delete(f"/api/tokens/{pk}").json() == {"detail": "API token not found"}


def test_a_token_ends_with_its_time(ann: User) -> None:
    client = make(ann, expires_at=timezone.now() + timedelta(hours=1))
    assert client.get("/api/me").status_code == 200
    ApiToken.objects.update(expires_at=timezone.now())
    assert client.get("/api/me").status_code == 401


@pytest.mark.parametrize(
    "end",
    [
        lambda user, admin: accounts.log_out_everywhere(user),
        lambda user, admin: accounts.change_user(user, by=admin, role="admin"),
        lambda user, admin: accounts.deactivate_users(User.objects.filter(pk=user.pk)),
        lambda user, admin: accounts.delete_users(User.objects.filter(pk=user.pk)),
        lambda user, admin: User.objects.filter(pk=user.pk).update(password="!"),
    ],
    ids=["everywhere", "role", "deactivated", "deleted", "password"],
)
def test_tokens_end_with_all_log_ins_and_do_not_come_back(ann: User, admin: User, end: Any, logged_in: LogIn) -> None:
    client = make(ann)
    end(ann, admin)
    User.objects.filter(pk=ann.pk).update(is_active=True, deleted_at=None)
    assert client.get("/api/me").status_code == 401
    assert logged_in(User.objects.get(pk=ann.pk)).get("/api/tokens").json() == []


def test_use_is_noted_once_a_minute(ann: User, django_assert_num_queries: Any) -> None:
    client = make(ann)
    with django_assert_num_queries(2):
        client.get("/users/me")
    first = ApiToken.objects.get().last_used_at
    assert first is not None
    with django_assert_num_queries(1):
        client.get("/users/me")
    assert ApiToken.objects.get().last_used_at == first
    ApiToken.objects.update(last_used_at=first - timedelta(minutes=2))
    client.get("/users/me")
    assert ApiToken.objects.get().last_used_at > first


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a", "read_only": "perhaps"}, "read_only"),
        ({"name": "a", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "a", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "a", "token": "swt_mine"}, "token"),
        ({"name": "script"}, "detail"),
    ],
)
def test_what_cannot_be_a_token_is_named(ann: User, logged_in: LogIn, data: Any, field: str) -> None:
    client = logged_in(ann)
    api_tokens.make(user=User.objects.get(pk=ann.pk), name="script")
    answer = client.post("/api/tokens", data, format="json")
    assert (answer.status_code, list(answer.json())) == (400, [field])
