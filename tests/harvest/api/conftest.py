"""Clients of the API, and brokers other than the embedded one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu.pools
import pytest
from rest_framework.test import APIClient

from access.models import User
from streamweave import celery_app


def client_of(user: User | None) -> APIClient:
    client = APIClient()
    if user is not None:
        client.force_authenticate(user)
    return client


@pytest.fixture
def administrator(db: None) -> User:
    return User.objects.create_user("admin@example.org", None, role="admin")


@pytest.fixture
def admin(administrator: User) -> APIClient:
    return client_of(administrator)


@pytest.fixture
def stranger(db: None) -> APIClient:
    return client_of(User.objects.create_user("user@example.org", None))


@contextmanager
def with_broker(monkeypatch: pytest.MonkeyPatch, url: str, options: dict[str, Any]) -> Iterator[None]:
    """The Celery application of this process talks to another broker."""

    def forget_connections() -> None:
        # kombu keeps its pools for each address, closed ones too.
        kombu.pools.reset()
        celery_app._pool = None
        celery_app.amqp._producer_pool = None

    with monkeypatch.context() as patch:
        patch.setenv("CELERY_BROKER_URL", url)
        patch.setitem(celery_app.conf, "broker_transport_options", options)
        forget_connections()
        try:
            yield
        finally:
            forget_connections()


@pytest.fixture
def on_redis(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[str]:
    with with_broker(monkeypatch, redis_url, {"socket_timeout": 5}):
        yield redis_url


@pytest.fixture
def without_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody listens at the broker's address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
        options = {"socket_connect_timeout": 1, "max_retries": 0, "interval_start": 0, "interval_max": 0}
        with with_broker(monkeypatch, url, options):
            yield
