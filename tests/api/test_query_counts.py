"""A list costs as many queries for many rows as for one, whichever list it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from access import grants, instrument_requests
from access.audit import record
from access.members import add_members
from access.models import ApiToken, Group, Project, User
from harvest.models import (
    FileTransfer,
    FileVersion,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    RunError,
    ServiceAccount,
    StorageLocation,
)
from hooks.models import HookConfig
from tests.api.routes import Route, routes
from tests.api.scene import ADMIN, Scene, add_file, make_scene
from tests.api.test_matrix import url_of

pytestmark = pytest.mark.django_db

AT_MOST = 6
"""Queries, with the one that knows the token's user."""


def _user(number: int) -> User:
    return User.objects.create_user(f"more{number}@example.org", None)


def _run(scene: Scene, number: int) -> Any:
    facts = {
        name: getattr(scene.objects["harvestrun"], name) for name in ("schedule", "instrument", "storage_location")
    }
    return HarvestRun.objects.create(**facts, status="completed", ended_at=timezone.now())


def _schedule(scene: Scene, number: int) -> Any:
    where = {"instrument": scene.objects["instrument"], "default_storage_location": scene.objects["storagelocation"]}
    return HarvestSchedule.objects.create(**where, cron_expression=f"{number} 1 * * *")


def _version(scene: Scene, number: int) -> FileVersion:
    file: Any = scene.objects["file"]
    return FileVersion.objects.create(record=file, number=number + 2, size_bytes=3, source_mtime=file.source_mtime)


def _transfer(scene: Scene, number: int) -> Any:
    to: Any = scene.objects["storagelocation"]
    facts = {"scheduled_storage": to, "storage_location": to, "run": scene.objects["harvestrun"]}
    return FileTransfer.objects.create(record=scene.objects["file"], version=_version(scene, number), **facts)


def _token(scene: Scene, number: int) -> Any:
    user = scene.users[ADMIN]
    return ApiToken.objects.create(
        user=user, name=f"t{number}", token_version=user.token_version, digest=str(number + 1) * 64, hint="x"
    )


MORE: dict[str, Callable[[Scene, int], Any]] = {
    "api/service-accounts": lambda _, n: ServiceAccount.objects.create(name=f"A{n}", username="u", password="p"),
    "api/instruments": lambda scene, n: Instrument.objects.create(
        name=f"I{n}", cifs_host="h", cifs_share="s", service_account=scene.objects["serviceaccount"]
    ),
    "api/storage-locations": lambda _, n: StorageLocation.objects.create(name=f"S{n}", type="posix", base_path="/s"),
    "api/schedules": _schedule,
    "api/hooks": lambda scene, n: HookConfig.objects.create(
        name=f"H{n}",
        trigger="pre_transfer",
        implementation="builtin",
        builtin_name="file_filter",
        instrument=scene.objects["instrument"],
    ),
    "api/runs": _run,
    "api/runs/<str:pk>/files": lambda scene, n: add_file(scene.objects, f"more/{n}"),
    "api/runs/<str:pk>/errors": lambda scene, n: RunError.objects.create(
        run=scene.objects["harvestrun"], path=str(n), code="denied", message="No right to read it."
    ),
    "api/files": lambda scene, n: add_file(scene.objects, f"more/{n}"),
    "api/files/<str:file_id>/versions": _version,
    "api/files/<str:file_id>/transfers": _transfer,
    "api/files/<str:file_id>/access": lambda scene, n: grants.grant(
        [scene.objects["file"]], grantee_type="user", grantee_id=_user(n).pk
    ),
    "api/transfers": lambda scene, n: add_file(scene.objects, f"more/{n}"),
    "api/instruments/<str:pk>/access": lambda scene, n: grants.grant_instrument(
        scene.objects["instrument"], grantee_type="user", grantee_id=_user(n).pk
    ),
    "api/groups": lambda _, n: Group.objects.create(name=f"G{n}"),
    "api/groups/<str:pk>/members": lambda scene, n: add_members(to=_object(scene, "group"), members=[_user(n)]),
    "api/projects": lambda _, n: Project.objects.create(name=f"P{n}"),
    "api/projects/<str:pk>/members": lambda scene, n: add_members(to=_object(scene, "project"), members=[_user(n)]),
    "api/admin/users": lambda _, n: _user(n),
    "api/admin/users/<str:pk>/groups": lambda scene, n: add_members(
        to=Group.objects.create(name=f"G{n}"), members=[_object(scene, "user")]
    ),
    "api/admin/users/<str:pk>/projects": lambda scene, n: add_members(
        to=Project.objects.create(name=f"P{n}"), members=[_object(scene, "user")]
    ),
    "api/tokens": _token,
    "api/audit": lambda scene, n: record("group.seen", by=scene.users[ADMIN], detail={"number": n}),
    "api/instrument-requests": lambda scene, n: instrument_requests.ask(
        user=scene.users["direct"], name=f"N{n}", justification="x"
    ),
}
"""For each list, how a row more comes into it as an administrator sees it."""
FIXED = {"api/hooks/builtins"}


def _object(scene: Scene, name: str) -> Any:
    return scene.objects[name]


@pytest.fixture
def scene(db: None, tmp_path: Path, settings: Any) -> Scene:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return make_scene(str(tmp_path))


def test_every_list_is_counted(scene: Scene) -> None:
    lists = set()
    for route in routes():
        if route.method == "GET" and route.path.startswith("api/") and route.path != "api/health":
            answer = scene.client(ADMIN).get(url_of(route, scene))
            if answer["Content-Type"] == "application/json" and isinstance(answer.json(), list):
                lists.add(route.path)
    assert lists == MORE.keys() | FIXED


@pytest.mark.parametrize("path", MORE)
def test_a_list_costs_the_same_however_long(scene: Scene, path: str) -> None:
    url = url_of(Route(path, "GET"), scene)

    def asked() -> tuple[int, int]:
        with CaptureQueriesContext(connection) as queries:
            answer = scene.client(ADMIN).get(url)
        assert answer.status_code == 200, answer.content
        return len(answer.json()), len(queries)

    for number in range(2):  # of a few kinds a query more is asked where there is any row at all
        MORE[path](scene, number)
    few, cost = asked()
    for number in range(2, 7):
        MORE[path](scene, number)
    assert asked() == (few + 5, cost)
    assert cost <= AT_MOST
