"""The API is asked whatever its description allows, and what it does not: no answer is an error of ours, and every one
is as described."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from streamweave.wsgi import application
from tests.api.scene import Scene, make_scene
from tests.api.test_matrix import BELOW, OBJECTS

pytestmark = pytest.mark.django_db

FOR_USERS = "^/(auth|users)/|^/api/(files|transfers|me|tokens|instrument-requests)(/|$)"
schema: Any = schemathesis.openapi.from_wsgi("/openapi.json", application)
# A refusal does not look at what is asked: the many ways to ask it, some fifteen for each operation, are left out.
refusing: Any = schemathesis.openapi.from_wsgi("/openapi.json", application)
refusing.config.phases.coverage.enabled = False


@pytest.fixture
def scene(db: None, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # ours take their time
    monkeypatch.setattr("harvest.health.PING_SECONDS", 0.01)  # no worker is there to answer
    for signal in (request_started, request_finished):  # they would close the connection that the test's rows are in
        signal.disconnect(close_old_connections)
    yield make_scene(str(tmp_path))
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def no_error_of_ours(context: Any, response: Any, case: Any) -> None:
    """503 says that something is out of reach; where it is described it may be."""
    assert response.status_code < 500 or response.status_code == 503, response.text


CHECKS = [
    no_error_of_ours,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


bounded = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("persona", ["admin"])
@schema.parametrize()
@settings(bounded, max_examples=10)
def test_an_administrator_is_answered_as_described(scene: Scene, persona: str, case: Any) -> None:
    ask(scene, persona, case)


@pytest.mark.parametrize("persona", ["direct"])
@schema.include(path_regex=FOR_USERS).parametrize()
@settings(bounded, max_examples=10)
def test_a_user_is_answered_as_described(scene: Scene, persona: str, case: Any) -> None:
    ask(scene, persona, case)


@pytest.mark.matrix
@pytest.mark.parametrize("persona", ["direct"])
@refusing.exclude(path_regex=FOR_USERS).parametrize()
@settings(bounded, max_examples=1)
def test_a_user_is_refused_as_described(scene: Scene, persona: str, case: Any) -> None:
    ask(scene, persona, case)


def ask(scene: Scene, persona: str, case: Any) -> None:
    case.path_parameters = {**(case.path_parameters or {}), **known_ids(scene, case)}
    case.call_and_validate(headers={"Authorization": f"Bearer {scene.tokens[persona]}"}, checks=CHECKS)


def known_ids(scene: Scene, case: Any) -> dict[str, str]:
    """The ids of rows that are there, for most of the questions; made-up ones would only ever lead to 404."""
    made_up = str(case.path_parameters or "")
    if sum(made_up.encode()) % 5 == 0:
        return {}
    names = [part[1:-1] for part in case.operation.path.split("/") if part.startswith("{")]
    base = case.operation.path.partition("/{")[0].lstrip("/")
    return {name: scene.id_of(BELOW.get((base, name)) or OBJECTS[base]) for name in names}
