"""Every route, with every method, for every persona: who is let in, who is told what.

`RULES` says for each route whose business it is. A route without a rule, or a rule without a route, fails.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse

from tests.api.routes import ID_IN_PATH, METHODS, Route, routes
from tests.api.scene import ADMIN, ANONYMOUS, DEACTIVATED, NOT_SEEING, PERSONAS, SEEING, Scene, absent, make_scene

pytestmark = pytest.mark.django_db

NOT_ADMIN = {"detail": "Admin access required"}
LET_IN = {200, 201, 202, 204, 302, 304, 400, 409, 503}
"""An answer to somebody who may ask, though what he asks may be wrong or not possible."""


class Rule(Enum):
    """Whose business a route is."""

    ANYONE = auto()
    """Nobody needs to be logged in; a token, even a bad one, makes no difference where none is asked for."""
    USER = auto()
    """Everybody who is logged in; the answer holds what is theirs."""
    SEEN = auto()
    """Those who see the file; for all others it does not exist."""
    OWN = auto()
    """The one whose it is (`direct`), and for some things administrators; for all others it does not exist."""
    ADMINISTRATOR = auto()
    """Administrators; nobody else learns whether it exists."""


ANYONE, USER, SEEN, OWN, ADMINISTRATOR = Rule

RULES: dict[str, dict[str, Rule]] = {
    "": {"GET": ANYONE},
    "docs": {"GET": ANYONE},
    "health": {"GET": ANYONE},
    "openapi.json": {"GET": ANYONE},
    "api/audit": {"GET": ADMINISTRATOR},
    "api/files": {"GET": USER},
    "api/files/<str:file_id>": {"GET": SEEN, "PATCH": ADMINISTRATOR},
    "api/files/<str:file_id>/access": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/files/<str:file_id>/access/<str:grant_id>": {"DELETE": ADMINISTRATOR},
    "api/files/<str:file_id>/access/explain": {"GET": SEEN},
    "api/files/<str:file_id>/download": {"GET": SEEN},
    "api/files/<str:file_id>/transfers": {"GET": SEEN},
    "api/files/<str:file_id>/versions": {"GET": SEEN},
    "api/files/grants": {"POST": ADMINISTRATOR, "DELETE": ADMINISTRATOR},
    "api/transfers": {"GET": USER},
    "api/transfers/<str:transfer_id>": {"GET": SEEN},
    "api/health": {"GET": ADMINISTRATOR},
    "api/hooks": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/hooks/<str:pk>": {"GET": ADMINISTRATOR, "PATCH": ADMINISTRATOR, "DELETE": ADMINISTRATOR},
    "api/hooks/<str:pk>/restore": {"POST": ADMINISTRATOR},
    "api/hooks/<str:pk>/try": {"POST": ADMINISTRATOR},
    "api/hooks/builtins": {"GET": ADMINISTRATOR},
    "api/instrument-requests": {"GET": USER, "POST": USER},
    "api/instrument-requests/<str:pk>": {"GET": OWN, "PATCH": ADMINISTRATOR},
    "api/instruments": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/instruments/<str:pk>": {"GET": ADMINISTRATOR, "PATCH": ADMINISTRATOR, "DELETE": ADMINISTRATOR},
    "api/instruments/<str:pk>/access": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/instruments/<str:pk>/access/<str:grant_id>": {"DELETE": ADMINISTRATOR},
    "api/instruments/<str:pk>/harvest": {"POST": ADMINISTRATOR},
    "api/instruments/<str:pk>/restore": {"POST": ADMINISTRATOR},
    "api/instruments/<str:pk>/resume": {"POST": ADMINISTRATOR},
    "api/instruments/<str:pk>/test": {"POST": ADMINISTRATOR},
    "api/runs": {"GET": ADMINISTRATOR},
    "api/runs/<str:pk>": {"GET": ADMINISTRATOR},
    "api/runs/<str:pk>/cancel": {"POST": ADMINISTRATOR},
    "api/runs/<str:pk>/errors": {"GET": ADMINISTRATOR},
    "api/runs/<str:pk>/files": {"GET": ADMINISTRATOR},
    "api/runs/<str:pk>/retry": {"POST": ADMINISTRATOR},
    "api/schedules": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/schedules/<str:pk>": {"GET": ADMINISTRATOR, "PATCH": ADMINISTRATOR, "DELETE": ADMINISTRATOR},
    "api/schedules/<str:pk>/preview": {"GET": ADMINISTRATOR},
    "api/schedules/<str:pk>/restore": {"POST": ADMINISTRATOR},
    "api/schedules/<str:pk>/trigger": {"POST": ADMINISTRATOR},
    "api/service-accounts": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/service-accounts/<str:pk>": {"GET": ADMINISTRATOR, "PATCH": ADMINISTRATOR, "DELETE": ADMINISTRATOR},
    "api/service-accounts/<str:pk>/restore": {"POST": ADMINISTRATOR},
    "api/storage-locations": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/storage-locations/<str:pk>": {"GET": ADMINISTRATOR, "PATCH": ADMINISTRATOR, "DELETE": ADMINISTRATOR},
    "api/storage-locations/<str:pk>/restore": {"POST": ADMINISTRATOR},
    "api/storage-locations/<str:pk>/test": {"POST": ADMINISTRATOR},
    "api/admin/invitations": {"POST": ADMINISTRATOR},
    "api/admin/users": {"GET": ADMINISTRATOR},
    "api/admin/users/<str:pk>": {"GET": ADMINISTRATOR, "PATCH": ADMINISTRATOR, "DELETE": ADMINISTRATOR},
    "api/admin/users/<str:pk>/activate": {"POST": ADMINISTRATOR},
    "api/admin/users/<str:pk>/deactivate": {"POST": ADMINISTRATOR},
    "api/admin/users/<str:pk>/groups": {"GET": ADMINISTRATOR},
    "api/admin/users/<str:pk>/projects": {"GET": ADMINISTRATOR},
    "api/admin/users/<str:pk>/restore": {"POST": ADMINISTRATOR},
    "api/groups": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/groups/<str:pk>": {"GET": ADMINISTRATOR, "PATCH": ADMINISTRATOR, "DELETE": ADMINISTRATOR},
    "api/groups/<str:pk>/members": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/groups/<str:pk>/members/<str:member_id>": {"DELETE": ADMINISTRATOR},
    "api/groups/<str:pk>/restore": {"POST": ADMINISTRATOR},
    "api/me": {"GET": USER},
    "api/projects": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/projects/<str:pk>": {"GET": ADMINISTRATOR, "PATCH": ADMINISTRATOR, "DELETE": ADMINISTRATOR},
    "api/projects/<str:pk>/members": {"GET": ADMINISTRATOR, "POST": ADMINISTRATOR},
    "api/projects/<str:pk>/members/<str:member_id>": {"DELETE": ADMINISTRATOR},
    "api/projects/<str:pk>/restore": {"POST": ADMINISTRATOR},
    "api/tokens": {"GET": USER, "POST": USER},
    "api/tokens/<str:pk>": {"DELETE": OWN},
    "auth/cookie/login": {"GET": ANYONE, "POST": ANYONE},
    "auth/cookie/logout": {"POST": USER},
    "auth/forgot-password": {"POST": ANYONE},
    "auth/jwt/login": {"POST": ANYONE},
    "auth/jwt/logout": {"POST": USER},
    "auth/jwt/refresh": {"POST": ANYONE},
    "auth/logout-everywhere": {"POST": USER},
    "auth/register": {"POST": ANYONE},
    "auth/request-verify-token": {"POST": ANYONE},
    "auth/reset-password": {"POST": ANYONE},
    "auth/verify": {"POST": ANYONE},
    "users/me": {"GET": USER, "PATCH": USER},
    "prefect/api/flow_runs/<str:pk>": {"GET": ADMINISTRATOR},
    "prefect/runs/flow-run/<uuid:object_id>": {"GET": ANYONE},  # leads to a page that asks for a log-in
}

OBJECTS = {
    "api/files": "file",
    "api/groups": "group",
    "api/hooks": "hookconfig",
    "api/instrument-requests": "instrumentrequest",
    "api/instruments": "instrument",
    "api/projects": "project",
    "api/runs": "harvestrun",
    "api/schedules": "harvestschedule",
    "api/service-accounts": "serviceaccount",
    "api/storage-locations": "storagelocation",
    "api/tokens": "apitoken",
    "api/transfers": "transfer",
    "api/admin/users": "user",
    "prefect/api/flow_runs": "harvestrun",
    "prefect/runs/flow-run": "harvestrun",
}
"""What the first id of a path below it is the id of. Further ids are those of BELOW."""
BELOW = {
    ("api/files", "grant_id"): "filegrant",
    ("api/instruments", "grant_id"): "instrumentgrant",
    ("api/groups", "member_id"): "user",
    ("api/projects", "member_id"): "user",
}

RULE_OF = {Route(path, method): rule for path, methods in RULES.items() for method, rule in methods.items()}
ALL = [route for route in routes() if route in RULE_OF]
WITH_ID = [route for route in ALL if ID_IN_PATH.search(route.path) and "<uuid:" not in route.path]


@pytest.fixture
def scene(db: None, tmp_path: Path) -> Scene:
    return make_scene(str(tmp_path))


def test_every_route_has_a_rule_and_every_rule_a_route() -> None:
    there = set(routes())
    assert {str(route) for route in there - RULE_OF.keys()} == set(), "routes that nobody has decided about"
    assert {str(route) for route in RULE_OF.keys() - there} == set(), "rules about routes that are not there"


@pytest.mark.parametrize("route", ALL, ids=str)
def test_each_persona_is_answered_by_the_rule(scene: Scene, route: Route) -> None:
    rule = RULE_OF[route]
    url = url_of(route, scene)
    wrong = {}
    for persona in PERSONAS:  # administrators last, since they may delete it
        answer = ask(scene, persona, route.method, url)
        if said := CHECKS[rule](persona, route, answer):
            wrong[persona] = said
    assert wrong == {}


@pytest.mark.parametrize("route", [route for route in WITH_ID if RULE_OF[route] is Rule.SEEN], ids=str)
def test_what_one_does_not_see_is_answered_as_what_does_not_exist(scene: Scene, route: Route) -> None:
    unseen = scene.unseen if OBJECTS[base_of(route.path)] == "file" else scene.unseen.transfers.get()
    for persona in (*NOT_SEEING, *SEEING):
        for method in (*METHODS, "HEAD", "OPTIONS"):
            there, none, no_id = (
                ask(scene, persona, method, url_of(route, scene, first=pk))
                for pk in (str(unseen.pk), absent(), "no-id")
            )
            assert told(there) == told(none) == told(no_id), (persona, method)
            if method == route.method:
                assert there.status_code == 404, persona


@pytest.mark.parametrize("route", [route for route in WITH_ID if RULE_OF[route] is Rule.ADMINISTRATOR], ids=str)
def test_only_administrators_learn_whether_something_exists(scene: Scene, route: Route) -> None:
    for persona in ("stranger", "direct", ANONYMOUS):
        there = ask(scene, persona, route.method, url_of(route, scene))
        assert told(there) == told(ask(scene, persona, route.method, url_of(route, scene, first=absent())))
        assert told(there) == told(ask(scene, persona, route.method, url_of(route, scene, first="no-id")))


@pytest.mark.parametrize("route", WITH_ID, ids=str)
def test_an_id_of_nothing_is_never_an_error_of_ours(scene: Scene, route: Route) -> None:
    for pk in (absent(), "no-id", "%00", "é" * 40, "1" * 300):
        answer = ask(scene, ADMIN, route.method, url_of(route, scene, first=pk))
        assert answer.status_code in (400, 404), (pk, answer.content)


@pytest.mark.parametrize("persona", [*NOT_SEEING, *SEEING, ADMIN])
def test_lists_and_counts_hold_what_one_sees(scene: Scene, persona: str) -> None:
    """The file as well as its transfer, by every way of asking, and nothing of the other one."""
    client, seen = scene.client(persona), int(persona not in NOT_SEEING)
    for url, expected in (
        ("/api/files?count=true", seen + (persona == ADMIN)),
        ("/api/transfers?count=true", seen + (persona == ADMIN)),
        (f"/api/files?count=true&instrument_id={scene.id_of('instrument')}", seen),
        (f"/api/files?count=true&instrument_id={scene.unseen.instrument_id}", int(persona == ADMIN)),
    ):
        answer = client.get(url)
        assert (len(answer.json()), answer.headers["X-Total-Count"]) == (expected, str(expected)), url
    of_unseen = client.get(f"/api/transfers?file_id={scene.unseen.pk}")
    of_absent = client.get(f"/api/transfers?file_id={absent()}")
    if persona != ADMIN:
        assert told(of_unseen) == told(of_absent)


# -------------------------------------------------------------------------------------------------------- the rules


def _in(persona: str, route: Route, answer: Any) -> str | None:
    return None if answer.status_code in LET_IN else _said(answer)


def _nobody(answer: Any) -> str | None:
    """401, with a word on how to log in."""
    is_so = answer.status_code == 401 and list(answer.json()) == ["detail"] and answer["WWW-Authenticate"] == "Bearer"
    return None if is_so else _said(answer)


def _nothing(answer: Any) -> str | None:
    return None if answer.status_code == 404 and list(answer.json()) == ["detail"] else _said(answer)


def _anyone(persona: str, route: Route, answer: Any) -> str | None:
    return _in(persona, route, answer)


def _user(persona: str, route: Route, answer: Any) -> str | None:
    return _nobody(answer) if persona in (ANONYMOUS, DEACTIVATED) else _in(persona, route, answer)


def _seen(persona: str, route: Route, answer: Any) -> str | None:
    return _nothing(answer) if persona in NOT_SEEING else _user(persona, route, answer)


def _own(persona: str, route: Route, answer: Any) -> str | None:
    if persona in ("direct", ANONYMOUS, DEACTIVATED) or (persona == ADMIN and answer.status_code != 404):
        return _user(persona, route, answer)
    return _nothing(answer)


def _administrator(persona: str, route: Route, answer: Any) -> str | None:
    if persona in (ADMIN, ANONYMOUS, DEACTIVATED):
        return _user(persona, route, answer)
    return None if (answer.status_code, _json(answer)) == (403, NOT_ADMIN) else _said(answer)


CHECKS: dict[Rule, Callable[[str, Route, Any], str | None]] = {
    Rule.ANYONE: _anyone,
    Rule.USER: _user,
    Rule.SEEN: _seen,
    Rule.OWN: _own,
    Rule.ADMINISTRATOR: _administrator,
}


# -------------------------------------------------------------------------------------------------------- asking


def base_of(path: str) -> str:
    """The path before its first id."""
    return path.partition("/<")[0]


def url_of(route: Route, scene: Scene, first: str | None = None) -> str:
    """The route's address; its first id is `first`, or that of the scene's object."""
    names = iter(ID_IN_PATH.findall(route.path))
    own = first or (scene.id_of(OBJECTS[base_of(route.path)]) if ID_IN_PATH.search(route.path) else "")
    base = base_of(route.path)
    ids = [own if number == 0 else scene.id_of(BELOW[base, name]) for number, name in enumerate(names)]
    return "/" + ID_IN_PATH.sub(lambda _: ids.pop(0), route.path)


def ask(scene: Scene, persona: str, method: str, url: str) -> Any:
    client = scene.client(persona)
    body = {} if method in ("POST", "PUT", "PATCH") else None
    return client.generic(method, url, "{}" if body is not None else "", content_type="application/json")


def told(answer: HttpResponse) -> tuple[int, bytes, dict[str, str]]:
    """All that a client gets."""
    return answer.status_code, answer.content, dict(answer.headers)


def _json(answer: Any) -> Any:
    return answer.json() if answer["Content-Type"].startswith("application/json") else None


def _said(answer: Any) -> str:
    body = b"" if answer.streaming else answer.content[:200]
    return f"{answer.status_code} {body.decode(errors='replace')}"
