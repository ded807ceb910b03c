"""Making oneself an account, the mails about it, and what is one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from rest_framework.test import APIClient

from access import mails, tokens
from access.models import AuditEvent, User
from tests.access.conftest import PASSWORD

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("worker")]
MakeUser = Callable[..., User]
LogIn = Callable[[User], Any]
NEW = {"email": "New.User@Example.org", "password": "devpass123!"}


def register(client: APIClient, **changes: Any) -> Any:
    return client.post("/auth/register", NEW | changes, format="json")


def code_in(message: Any) -> str:
    """The second paragraph of each of our mails."""
    return str(message.body).split("\n\n")[1].strip()


def test_registration_answers_with_the_user(api: APIClient) -> None:
    answer = register(api)
    assert answer.status_code == 201
    user = User.objects.get()
    assert list(answer.json().items()) == [
        ("id", str(user.pk)),
        ("email", "New.User@example.org"),
        ("is_active", True),
        ("is_superuser", False),
        ("is_verified", False),
        ("role", "user"),
        ("deleted_at", None),
    ]
    told = {"username": "new.user@example.org", "password": "devpass123!"}
    assert api.post("/auth/jwt/login", told).status_code == 200
    assert AuditEvent.objects.filter(action="user.registered", actor=user).count() == 1
    assert not mail.outbox


@pytest.mark.parametrize("password", ["devpass123!", "testpassword123", "k7#mPq2x"])
def test_sensible_passwords_of_eight_characters_suffice(api: APIClient, password: str) -> None:
    assert register(api, password=password).status_code == 201


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"password": "k7#mPq2"}, "password"),
        ({"password": "password"}, "password"),
        ({"password": "8467302915"}, "password"),
        ({"password": "New.User@example.org"}, "password"),
        ({"password": "x" * 257}, "password"),
        ({"password": None}, "password"),
        ({"email": "nobody"}, "email"),
        ({"email": ""}, "email"),
        ({"email": f"{'a' * 250}@example.org"}, "email"),
        ({"email": ["a@example.org"]}, "email"),
        ({"role": "admin"}, "role"),
        ({"is_superuser": True}, "is_superuser"),
        ({"is_active": True}, "is_active"),
        ({"is_verified": True}, "is_verified"),
        ({"deleted_at": None}, "deleted_at"),
        ({"id": "x"}, "id"),
        ({"token_version": 0}, "token_version"),
        ({"invitation": "nonsense"}, "invitation"),
    ],
)
def test_what_cannot_be_registered_is_named(api: APIClient, changes: dict[str, Any], field: str) -> None:
    answer = register(api, **changes)
    assert answer.status_code == 400
    assert list(answer.json()) == [field]
    assert not User.objects.exists()


@pytest.mark.parametrize("body", ["[]", "7", "null", "{", '"x"'])
def test_a_body_that_is_no_object_is_refused(api: APIClient, body: str) -> None:
    assert api.generic("POST", "/auth/register", body, "application/json").status_code == 400


def test_an_address_is_registered_once_whatever_its_case(api: APIClient) -> None:
    register(api)
    answer = register(api, email="NEW.user@example.org")
    assert (answer.status_code, list(answer.json())) == (400, ["email"])
    assert User.objects.count() == 1


def test_registration_may_be_closed(api: APIClient, settings: Any) -> None:
    settings.REGISTRATION = "OFF"
    assert register(api).status_code == 403
    assert not User.objects.exists()


def test_registration_may_be_for_domains_whose_addresses_are_confirmed(api: APIClient, settings: Any) -> None:
    settings.REGISTRATION, settings.REGISTRATION_DOMAINS, settings.VERIFY_EMAIL = "DOMAIN", ["example.org"], True
    assert list(register(api, email="new@sub.example.org").json()) == ["email"]
    assert list(register(api, email="new@notexample.org").json()) == ["email"]
    assert register(api).status_code == 201
    told = {"username": NEW["email"], "password": NEW["password"]}
    assert api.post("/auth/jwt/login", told).status_code == 400
    (message,) = mail.outbox
    assert message.to == ["New.User@example.org"]
    assert api.post("/auth/verify", {"token": code_in(message)}).json()["is_verified"] is True
    assert api.post("/auth/jwt/login", told).status_code == 200
    assert api.post("/auth/verify", {"token": code_in(message)}).status_code == 400


def test_where_addresses_are_confirmed_nobody_learns_who_has_an_account(
    api: APIClient, make_user: MakeUser, settings: Any
) -> None:
    settings.VERIFY_EMAIL = True
    taken = make_user("taken", is_verified=True)
    answers = [register(api, email=email) for email in ("fresh@example.org", taken.email)]
    assert [answer.status_code for answer in answers] == [201, 201]
    first, second = ({**answer.json(), "id": "", "email": ""} for answer in answers)
    assert first == second
    assert User.objects.count() == 2
    assert [message.subject for message in mail.outbox] == [
        "Confirm your address for StreamWeave",
        "You have an account on StreamWeave already",
    ]


def test_by_invitation(api: APIClient, as_admin: APIClient, settings: Any) -> None:
    settings.REGISTRATION = "INVITE"
    assert list(register(api).json()) == ["invitation"]
    answer = as_admin.post("/api/admin/invitations", {"email": NEW["email"]})
    assert answer.status_code == 201
    code = answer.json()["invitation"]
    (message,) = mail.outbox
    assert list(register(api, email="other@example.org", invitation=code).json()) == ["invitation"]
    registered = register(api, invitation=code_in(message))
    assert (registered.status_code, registered.json()["is_verified"]) == (201, True)
    assert list(register(api, invitation=code).json()) == ["email"]
    assert as_admin.post("/api/admin/invitations", {"email": NEW["email"]}).status_code == 400


def test_registrations_are_limited_by_address(api: APIClient, settings: Any) -> None:
    settings.ATTEMPTS_PER_ADDRESS = 3
    answers = [register(api, email=f"user{number}@example.org").status_code for number in range(4)]
    assert answers == [201, 201, 201, 429]
    assert register(api, email="user4@example.org", REMOTE_ADDR="x").status_code in (400, 429)


# ------------------------------------------------------------------------------------------------- codes from mails


def test_a_forgotten_password_is_set_anew(api: APIClient, make_user: MakeUser) -> None:
    ann = make_user("ann")
    pair = tokens.log_in(ann)
    for email in ("ANN@example.org", "nobody@example.org"):
        answer = api.post("/auth/forgot-password", {"email": email})
        assert (answer.status_code, answer.content) == (202, b"")
    (message,) = mail.outbox
    told = {"token": code_in(message), "password": "horse-battery-4"}
    assert list(api.post("/auth/reset-password", told | {"password": "short"}).json()) == ["password"]
    assert api.post("/auth/reset-password", told).json()["email"] == ann.email
    assert api.post("/auth/reset-password", told).status_code == 400
    assert api.get("/api/me", HTTP_AUTHORIZATION=f"Bearer {pair.access}").status_code == 401
    assert api.post("/auth/jwt/login", {"username": ann.email, "password": "horse-battery-4"}).status_code == 200


def test_who_is_shut_out_gets_no_mail_and_cannot_use_an_old_one(api: APIClient, make_user: MakeUser) -> None:
    ann = make_user("ann")
    api.post("/auth/forgot-password", {"email": ann.email})
    User.objects.filter(pk=ann.pk).update(is_active=False)
    api.post("/auth/forgot-password", {"email": ann.email})
    api.post("/auth/request-verify-token", {"email": ann.email})
    (message,) = mail.outbox
    told = {"token": code_in(message), "password": "horse-battery-4"}
    assert api.post("/auth/reset-password", told).status_code == 400
    User.objects.filter(pk=ann.pk).update(is_active=True)
    assert api.post("/auth/reset-password", told).status_code == 400


@pytest.mark.parametrize("route", ["/auth/verify", "/auth/reset-password"])
@pytest.mark.parametrize("code", ["x", ".", "7.y", f"{'0' * 32}.x", "é", "a:b:c"])
def test_a_code_that_is_none_is_refused(api: APIClient, route: str, code: str) -> None:
    answer = api.post(route, {"token": code, **({"password": "horse-battery-4"} if "reset" in route else {})})
    assert (answer.status_code, list(answer.json())) == (400, ["detail"])


def test_codes_serve_one_purpose_each(api: APIClient, make_user: MakeUser) -> None:
    ann = make_user("ann")
    api.post("/auth/request-verify-token", {"email": ann.email})
    api.post("/auth/forgot-password", {"email": ann.email})
    verify, reset = map(code_in, mail.outbox)
    assert api.post("/auth/reset-password", {"token": verify, "password": "horse-battery-4"}).status_code == 400
    assert api.post("/auth/verify", {"token": reset}).status_code == 400
    User.objects.filter(pk=ann.pk).update(email="other@example.org")
    assert api.post("/auth/verify", {"token": verify}).status_code == 400


def test_mails_are_limited(api: APIClient, make_user: MakeUser, settings: Any) -> None:
    ann = make_user("ann")
    answers = [api.post("/auth/forgot-password", {"email": ann.email}).status_code for _ in range(12)]
    assert answers == [202] * settings.ATTEMPTS_PER_ACCOUNT + [429] * 2
    assert len(mail.outbox) == settings.ATTEMPTS_PER_ACCOUNT


def test_no_mail_goes_to_an_address_nobody_has(db: None) -> None:
    assert [mails.send(kind, "nobody@example.org") for kind in ("reset", "verify", "registered")] == [False] * 3


# ------------------------------------------------------------------------------------------------------------ oneself


def test_one_changes_ones_address_and_password_with_the_password(make_user: MakeUser, logged_in: LogIn) -> None:
    ann = make_user("ann", is_verified=True)
    client = logged_in(ann)
    assert client.get("/users/me").json()["email"] == ann.email
    for told, field in (
        ({"email": "ann.lee@example.org"}, "current_password"),
        ({"email": "ann.lee@example.org", "current_password": "wrong"}, "current_password"),
        ({"password": "short", "current_password": PASSWORD}, "password"),
        ({"role": "admin", "current_password": PASSWORD}, "role"),
        ({"is_verified": True, "current_password": PASSWORD}, "is_verified"),
        ({"owner": 1, "current_password": PASSWORD}, "owner"),
    ):
        answer = client.patch("/users/me", told, format="json")
        assert (answer.status_code, list(answer.json())) == (400, [field])
    told = {"email": "ann.lee@example.org", "current_password": PASSWORD}
    changed = client.patch("/users/me", told, format="json").json()
    assert (changed["email"], changed["is_verified"]) == ("ann.lee@example.org", False)
    told = {"password": "horse-battery-4", "current_password": PASSWORD}
    assert client.patch("/users/me", told, format="json").status_code == 200
    assert client.get("/users/me").status_code == 401
    event = AuditEvent.objects.filter(action="user.changed").order_by("at").last()
    assert event is not None
    assert event.detail == {"before": {"password": "****"}, "after": {"password": "****"}}


def test_nobody_takes_anothers_address(make_user: MakeUser, logged_in: LogIn) -> None:
    make_user("bob")
    client = logged_in(make_user("ann"))
    told = {"email": "BOB@example.org", "current_password": PASSWORD}
    assert list(client.patch("/users/me", told, format="json").json()) == ["email"]


def test_passwords_are_not_guessed_through_ones_own_page(make_user: MakeUser, logged_in: LogIn, settings: Any) -> None:
    client = logged_in(make_user("ann"))
    answers = [
        client.patch("/users/me", {"current_password": "x"}, format="json").status_code
        for _ in range(settings.ATTEMPTS_PER_ACCOUNT + 1)
    ]
    assert answers == [400] * settings.ATTEMPTS_PER_ACCOUNT + [429]
