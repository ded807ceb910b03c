"""Clients of the REST API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from rest_framework.test import APIClient

from access.models import User
from streamweave.celery import app
from tests.access.conftest import PASSWORD

HASH = MD5PasswordHasher().encode(PASSWORD, "salt")


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    """Hashing takes long on purpose, and these tests try many passwords."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def api(db: None) -> APIClient:
    """Nobody in particular."""
    return APIClient()


@pytest.fixture
def logged_in(db: None) -> Callable[[User], APIClient]:
    """logged_in(user) asks with an access token of his; `client.tokens` are those of the log-in."""

    def log_in(user: User) -> APIClient:
        User.objects.filter(pk=user.pk).update(password=HASH)
        user.refresh_from_db()
        client = APIClient()
        answer = client.post("/auth/jwt/login", {"username": user.email, "password": PASSWORD})
        assert answer.status_code == 200, answer.content
        client.tokens = answer.json()  # type: ignore[attr-defined]
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {answer.json()['access_token']}")
        return client

    return log_in


@pytest.fixture
def as_admin(admin: User, logged_in: Callable[[User], APIClient]) -> APIClient:
    return logged_in(admin)


@pytest.fixture
def worker() -> Iterator[None]:
    """Tasks are done at once, where they are asked for."""
    app.conf.task_always_eager = app.conf.task_eager_propagates = True
    yield
    app.conf.task_always_eager = app.conf.task_eager_propagates = False
