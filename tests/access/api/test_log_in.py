"""Logging in by JWT and by cookie, what ends a log-in, and how often somebody may try."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from access import accounts, tokens
from access.models import Attempt, AuditEvent, TokenFamily, User
from tests.access.api.conftest import HASH
from tests.access.conftest import PASSWORD

pytestmark = pytest.mark.django_db
MakeUser = Callable[..., User]
LogIn = Callable[[User], Any]
WRONG = {"detail": "The e-mail or the password is wrong.", "code": "LOGIN_BAD_CREDENTIALS"}


@pytest.fixture
def ann(make_user: MakeUser) -> User:
    user = make_user("ann")
    User.objects.filter(pk=user.pk).update(password=HASH)
    user.refresh_from_db()
    return user


def log_in(client: APIClient, email: str = "ann@example.org", password: str = PASSWORD, **more: Any) -> Any:
    return client.post("/auth/jwt/login", {"username": email, "password": password}, **more)


def me(token: str, **more: Any) -> Any:
    return APIClient().get("/api/me", HTTP_AUTHORIZATION=f"Bearer {token}", **more)


def test_log_in_gives_tokens_and_no_session(api: APIClient, ann: User) -> None:
    answer = api.post(
        "/auth/jwt/login",
        "username=ANN%40example.org&password=correct-horse-9",
        content_type="application/x-www-form-urlencoded",
    )
    assert answer.status_code == 200
    assert list(answer.json()) == ["access_token", "token_type", "refresh_token"]
    assert answer.json()["token_type"] == "bearer"
    assert not answer.cookies
    assert me(answer.json()["access_token"]).json()["email"] == "ann@example.org"
    assert log_in(api, format="json").status_code == 200
    ann.refresh_from_db()
    assert ann.last_login is not None
    assert AuditEvent.objects.filter(action="user.logged_in", actor=ann, ip="127.0.0.1").count() == 2


@pytest.mark.parametrize("told", [("ann@example.org", "wrong"), ("bob@example.org", PASSWORD)])
def test_whatever_is_wrong_is_answered_alike(api: APIClient, ann: User, told: Any) -> None:
    answer = log_in(api, *told)
    assert (answer.status_code, answer.json()) == (400, WRONG)


def test_who_is_deactivated_or_deleted_is_answered_like_a_wrong_password(api: APIClient, ann: User) -> None:
    for field, value in (("is_active", False), ("deleted_at", timezone.now())):
        User.objects.filter(pk=ann.pk).update(is_active=True, deleted_at=None)
        User.objects.filter(pk=ann.pk).update(**{field: value})
        assert (log_in(api).status_code, log_in(api).json()) == (400, WRONG)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "username"),
        ({"username": "ann@example.org"}, "password"),
        ({"username": "a\x00", "password": "x"}, "username"),
        ({"username": "ann@example.org", "password": "x", "admin": True}, "admin"),
        ({"username": ["a"], "password": {}}, "password"),
    ],
)
def test_what_cannot_be_a_log_in_is_named(api: APIClient, data: Any, field: str) -> None:
    answer = api.post("/auth/jwt/login", data, format="json")
    assert answer.status_code == 400
    assert field in answer.json()


def test_log_in_and_registration_ignore_an_authorization_header(api: APIClient, ann: User) -> None:
    api.credentials(HTTP_AUTHORIZATION="Bearer nonsense")
    assert log_in(api).status_code == 200
    told = {"email": "new@example.org", "password": "devpass123!"}
    assert api.post("/auth/register", told).status_code == 201


def test_who_does_not_say_who_asks_is_told_how(api: APIClient) -> None:
    answer = api.get("/api/me")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert list(answer.json()) == ["detail"]


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer a b", "bearer x", "Bearer \xe4", "Bearer swt_nonsense", "Bearer a.b.c"]
)
def test_a_header_that_holds_no_good_token_is_refused_though_there_is_a_session(
    api: APIClient, ann: User, header: str
) -> None:
    api.force_login(ann, backend="access.backends.EmailBackend")
    assert api.get("/api/me").status_code == 200
    answer = api.get("/api/me", HTTP_AUTHORIZATION=header)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_bearer_header_goes_before_a_cookie(api: APIClient, ann: User, make_user: MakeUser) -> None:
    api.force_login(make_user("bob"), backend="access.backends.EmailBackend")
    token = tokens.log_in(ann).access
    assert api.get("/api/me", HTTP_AUTHORIZATION=f"Bearer {token}").json()["email"] == "ann@example.org"


def forged(**changes: Any) -> dict[str, Any]:
    pair = tokens.log_in(User.objects.get(email="ann@example.org"))
    claims = jwt.decode(pair.access, options={"verify_signature": False})
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"exp": None},
        {"iss": "somebody"},
        {"iss": None},
        {"aud": "somebody"},
        {"aud": None},
        {"token_type": "refresh"},
        {"token_type": None},
        {"sub": str(uuid.uuid4())},
        {"fam": str(uuid.uuid4())},
        {"fam": "1"},
        {"fam": 7},
        {"fam": None},
        {"jti": None},
        {"ver": 99},
        {"ver": None},
        {"nbf": 99999999999},
    ],
    ids=str,
)
def test_a_token_with_a_wrong_claim_is_refused(ann: User, changes: dict[str, Any]) -> None:
    key = django_settings.SIMPLE_JWT["SIGNING_KEY"]
    assert me(jwt.encode(forged(), key, "HS256")).status_code == 200
    assert me(jwt.encode(forged(**changes), key, "HS256")).status_code == 401


def test_a_token_with_another_key_or_algorithm_is_refused(ann: User) -> None:
    key = django_settings.SIMPLE_JWT["SIGNING_KEY"]
    assert key not in (django_settings.SECRET_KEY, "")
    assert me(jwt.encode(forged(), django_settings.SECRET_KEY, "HS256")).status_code == 401
    assert me(jwt.encode(forged(), key * 2, "HS512")).status_code == 401
    assert me(jwt.encode(forged(), key, "HS512")).status_code == 401
    assert me(jwt.encode(forged(), None, "none")).status_code == 401
    assert (
        me(jwt.encode(forged(), key, "HS256", headers={"kid": "../../dev/null", "jku": "http://x"})).status_code == 200
    )


def test_an_access_token_lives_an_hour(ann: User) -> None:
    claims = jwt.decode(tokens.log_in(ann).access, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 3600


def refreshed(token: str) -> Any:
    return APIClient().post("/auth/jwt/refresh", {"refresh_token": token}, format="json")


def test_a_refresh_token_is_good_once_and_a_second_time_ends_the_log_in(ann: User) -> None:
    first = tokens.log_in(ann)
    second = refreshed(first.refresh)
    assert list(second.json()) == ["access_token", "token_type", "refresh_token"]
    assert me(second.json()["access_token"]).status_code == 200
    assert me(first.access).status_code == 200
    stolen = refreshed(first.refresh)
    assert (stolen.status_code, stolen.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert me(second.json()["access_token"]).status_code == 401
    assert refreshed(second.json()["refresh_token"]).status_code == 401
    assert AuditEvent.objects.filter(action="user.token_reused").count() == 1


def test_an_access_token_is_no_refresh_token_and_the_other_way_round(ann: User) -> None:
    pair = tokens.log_in(ann)
    assert refreshed(pair.access).status_code == 401
    assert me(pair.refresh).status_code == 401


def test_log_out_ends_this_log_in_alone(ann: User) -> None:
    here, there = tokens.log_in(ann), tokens.log_in(ann)
    client = APIClient(HTTP_AUTHORIZATION=f"Bearer {here.access}")
    assert client.post("/auth/jwt/logout").status_code == 204
    assert client.post("/auth/jwt/logout").status_code == 401
    assert refreshed(here.refresh).status_code == 401
    assert me(there.access).status_code == 200


def change_password(user: User) -> None:
    user.set_password("another-horse-9")
    user.save()


ENDS: dict[str, Callable[[User], Any]] = {
    "password": change_password,
    "password in bulk": lambda user: User.objects.filter(pk=user.pk).update(password="!"),
    "role": lambda user: accounts.change_user(user, by=User.objects.get(role="admin"), role="admin"),
    "deactivated": lambda user: accounts.deactivate_users(User.objects.filter(pk=user.pk)),
    "deleted": lambda user: user.soft_delete(),
    "deleted in bulk": lambda user: accounts.delete_users(User.objects.filter(pk=user.pk)),
    "everywhere": accounts.log_out_everywhere,
}


@pytest.mark.parametrize("end", ENDS)
def test_what_ends_all_log_ins_ends_them_at_once_and_for_ever(ann: User, admin: User, end: str) -> None:
    pair = tokens.log_in(ann)
    browser = APIClient()
    browser.force_login(ann, backend="access.backends.EmailBackend")
    stale = User.objects.get(pk=ann.pk)
    ENDS[end](User.objects.get(pk=ann.pk))
    stale.is_verified = True
    stale.save(update_fields=["is_verified"])  # by somebody who has read the user before
    User.objects.filter(pk=ann.pk).update(is_active=True, deleted_at=None)
    assert me(pair.access).status_code == 401
    assert refreshed(pair.refresh).status_code == 401
    assert browser.get("/api/me").status_code == 401


def test_a_stale_copy_of_the_user_does_not_bring_back_what_ended(ann: User) -> None:
    stale, pair = User.objects.get(pk=ann.pk), tokens.log_in(ann)
    accounts.log_out_everywhere(ann)
    stale.save()
    assert me(pair.access).status_code == 401


def test_a_changed_address_and_a_password_that_is_only_hashed_anew_end_nothing(
    ann: User, admin: User, settings: Any
) -> None:
    pair = tokens.log_in(ann)
    accounts.change_user(ann, by=admin, email="ann.lee@example.org", is_verified=True)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2SHA1PasswordHasher", *settings.PASSWORD_HASHERS]
    assert User.objects.get(pk=ann.pk).check_password(PASSWORD)
    assert User.objects.get(pk=ann.pk).password != HASH
    assert me(pair.access).status_code == 200


def test_one_query_tells_who_asks(ann: User, django_assert_num_queries: Any) -> None:
    client = APIClient(HTTP_AUTHORIZATION=f"Bearer {tokens.log_in(ann).access}")
    with django_assert_num_queries(1):
        assert client.get("/users/me").status_code == 200


def test_log_ins_that_have_ended_are_forgotten_at_the_next(ann: User) -> None:
    tokens.log_in(ann)
    TokenFamily.objects.update(expires_at=timezone.now())
    tokens.log_in(ann)
    assert TokenFamily.objects.count() == 1


# -------------------------------------------------------------------------------------------------------- by cookie


def test_a_session_needs_the_csrf_token_from_its_log_in_on(ann: User) -> None:
    browser = APIClient(enforce_csrf_checks=True)
    assert log_in_by_cookie(browser).status_code == 403
    assert browser.get("/auth/cookie/login").status_code == 204
    refused = log_in_by_cookie(browser)
    assert (refused.status_code, list(refused.json())) == (403, ["detail"])
    assert log_in_by_cookie(browser, HTTP_X_CSRFTOKEN=browser.cookies["csrftoken"].value).status_code == 204
    assert browser.get("/api/me").json()["email"] == "ann@example.org"
    assert browser.post("/auth/cookie/logout").status_code == 403
    assert browser.post("/auth/cookie/logout", HTTP_X_CSRFTOKEN=browser.cookies["csrftoken"].value).status_code == 204
    assert browser.get("/api/me").status_code == 401


def log_in_by_cookie(browser: APIClient, **headers: str) -> Any:
    return browser.post("/auth/cookie/login", {"username": "ann@example.org", "password": PASSWORD}, **headers)


def test_a_wrong_password_sets_no_session(api: APIClient, ann: User) -> None:
    answer = api.post("/auth/cookie/login", {"username": "ann@example.org", "password": "wrong"})
    assert (answer.status_code, answer.json()) == (400, WRONG)
    assert "sessionid" not in answer.cookies


# ----------------------------------------------------------------------------------------------------- how often


def test_after_too_many_failures_the_right_password_works_from_elsewhere_only(
    api: APIClient, ann: User, settings: Any
) -> None:
    for _ in range(settings.ATTEMPTS_PER_ACCOUNT):
        assert log_in(api, password="wrong").status_code == 400
    refused = log_in(api)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= settings.ATTEMPT_SECONDS + 1
    assert "Try again in" in refused.json()["detail"]
    assert log_in(api, REMOTE_ADDR="192.0.2.7").status_code == 200
    assert log_in(api).status_code == 429
    Attempt.objects.update(at=timezone.now() - timedelta(seconds=settings.ATTEMPT_SECONDS + 1))
    assert log_in(api).status_code == 200


def test_success_forgives_the_failures_before_it(api: APIClient, ann: User, settings: Any) -> None:
    for _ in range(3):
        for _ in range(settings.ATTEMPTS_PER_ACCOUNT - 1):
            log_in(api, password="wrong")
        assert log_in(api).status_code == 200
    assert not Attempt.objects.exists()


def test_an_account_under_attack_from_everywhere_still_opens(api: APIClient, ann: User, settings: Any) -> None:
    settings.ATTEMPTS_PER_ACCOUNT = 2
    for number in range(21):
        assert log_in(api, password="wrong", REMOTE_ADDR=f"192.0.2.{number}").status_code == 400
    assert log_in(api, password="wrong", REMOTE_ADDR="192.0.2.0").status_code == 429
    assert log_in(api, REMOTE_ADDR="198.51.100.1").status_code == 200


def test_one_address_may_try_only_so_many_accounts(api: APIClient, ann: User, settings: Any) -> None:
    settings.ATTEMPTS_PER_ADDRESS = 5
    for number in range(5):
        assert log_in(api, f"user{number}@example.org").status_code == 400
    assert log_in(api).status_code == 429
    assert log_in(api, REMOTE_ADDR="192.0.2.7").status_code == 200


@pytest.mark.parametrize(
    ("remote", "told", "counted"),
    [
        ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "203.0.113.9, 192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "203.0.113.9, 192.0.2.1, 127.0.0.1", "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("", "192.0.2.1", "192.0.2.1"),
        ("", "", ""),
        ("2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "", "192.0.2.1"),
    ],
)
def test_only_trusted_proxies_say_who_asks(api: APIClient, ann: User, remote: str, told: str, counted: str) -> None:
    log_in(api, password="wrong", REMOTE_ADDR=remote, HTTP_X_FORWARDED_FOR=told)
    assert Attempt.objects.get().network == counted


def test_the_log_in_of_the_admin_pages_counts_too(api: APIClient, admin: User, settings: Any) -> None:
    told = {"username": admin.email, "password": "wrong"}
    for _ in range(settings.ATTEMPTS_PER_ACCOUNT):
        assert "Please enter the correct" in api.post("/admin/login/", told).content.decode()
    page = api.post("/admin/login/", {**told, "password": PASSWORD})
    assert page.status_code == 200
    assert "Too many attempts" in page.content.decode()


def test_what_somebody_typed_as_address_is_not_kept(api: APIClient) -> None:
    log_in(api, "my-password-by-mistake")
    assert "mistake" not in Attempt.objects.get().account


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="threads of SQLite's in-memory database share a connection")
def test_simultaneous_guesses_are_counted_one_by_one(ann: User, settings: Any) -> None:
    def guess(_: int) -> int:
        try:
            return log_in(APIClient(), password="wrong").status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(guess, range(20)))
    assert set(answers) <= {400, 429}
    assert answers.count(400) <= settings.ATTEMPTS_PER_ACCOUNT
    assert log_in(APIClient(), REMOTE_ADDR="192.0.2.7").status_code == 200
