"""Whatever changes something through the API leaves an event that says who, what, before and after, and no secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from access.models import AuditEvent
from harvest.models import FileTransfer, HarvestRun, HarvestSchedule, Instrument
from tests.api.routes import Route, routes
from tests.api.scene import Scene, make_scene
from tests.api.test_matrix import OBJECTS, base_of, url_of

pytestmark = pytest.mark.django_db

CANARY = "C4nary-in-the-mine"
S3 = {"bucket": "b", "access_key_id": "id", "secret_access_key": CANARY, "endpoint_url": "http://127.0.0.1:9"}

Body = dict[str, Any] | Callable[[Scene], dict[str, Any]]


def _grant(scene: Scene) -> dict[str, Any]:
    return {"grantee_type": "user", "grantee_id": str(scene.users["stranger"].pk)}


CHANGES: dict[str, tuple[Body, str]] = {
    "POST api/service-accounts": ({"name": "New", "username": "u", "password": CANARY}, "serviceaccount.created"),
    "PATCH api/service-accounts/<str:pk>": ({"password": CANARY}, "serviceaccount.changed"),
    "DELETE api/service-accounts/<str:pk>": ({}, "serviceaccount.deleted"),
    "POST api/service-accounts/<str:pk>/restore": ({}, "serviceaccount.restored"),
    "POST api/instruments": ({"name": "New", "cifs_host": "h", "cifs_share": "s"}, "instrument.created"),
    "PATCH api/instruments/<str:pk>": ({"description": "changed"}, "instrument.changed"),
    "DELETE api/instruments/<str:pk>": ({}, "instrument.deleted"),
    "POST api/instruments/<str:pk>/restore": ({}, "instrument.restored"),
    "POST api/instruments/<str:pk>/resume": ({}, "instrument.resumed"),
    "POST api/instruments/<str:pk>/harvest": ({}, "harvestschedule.triggered"),
    "POST api/storage-locations": (
        {"name": "New", "type": "s3", "base_path": "x", "connection_config": S3},
        "storagelocation.created",
    ),
    "PATCH api/storage-locations/<str:pk>": ({"name": "Renamed"}, "storagelocation.changed"),
    "DELETE api/storage-locations/<str:pk>": ({}, "storagelocation.deleted"),
    "POST api/storage-locations/<str:pk>/restore": ({}, "storagelocation.restored"),
    "POST api/schedules": (
        lambda scene: {
            "instrument_id": scene.id_of("instrument"),
            "default_storage_location_id": scene.id_of("storagelocation"),
            "cron_expression": "0 5 * * *",
        },
        "harvestschedule.created",
    ),
    "PATCH api/schedules/<str:pk>": ({"cron_expression": "0 7 * * *"}, "harvestschedule.changed"),
    "DELETE api/schedules/<str:pk>": ({}, "harvestschedule.deleted"),
    "POST api/schedules/<str:pk>/restore": ({}, "harvestschedule.restored"),
    "POST api/schedules/<str:pk>/trigger": ({}, "harvestschedule.triggered"),
    "POST api/runs/<str:pk>/cancel": ({}, "harvestrun.cancelled"),
    "POST api/runs/<str:pk>/retry": ({}, "harvestrun.retried"),
    "POST api/hooks": (
        {"name": "New", "trigger": "pre_transfer", "implementation": "builtin", "builtin_name": "file_filter"},
        "hookconfig.created",
    ),
    "PATCH api/hooks/<str:pk>": ({"config": {"min_size_bytes": 5}}, "hookconfig.changed"),
    "DELETE api/hooks/<str:pk>": ({}, "hookconfig.deleted"),
    "POST api/hooks/<str:pk>/restore": ({}, "hookconfig.restored"),
    "PATCH api/files/<str:file_id>": (
        lambda scene: {"owner_id": str(scene.users["stranger"].pk)},
        "file.owner_changed",
    ),
    "POST api/files/<str:file_id>/access": (_grant, "grant.added"),
    "DELETE api/files/<str:file_id>/access/<str:grant_id>": ({}, "grant.removed"),
    "POST api/instruments/<str:pk>/access": (_grant, "grant.added"),
    "DELETE api/instruments/<str:pk>/access/<str:grant_id>": ({}, "grant.removed"),
    "POST api/groups": ({"name": "New"}, "group.created"),
    "PATCH api/groups/<str:pk>": ({"description": "changed"}, "group.changed"),
    "DELETE api/groups/<str:pk>": ({}, "group.deleted"),
    "POST api/groups/<str:pk>/restore": ({}, "group.restored"),
    "POST api/groups/<str:pk>/members": (
        lambda scene: {"user_id": str(scene.users["stranger"].pk)},
        "member.added",
    ),
    "DELETE api/groups/<str:pk>/members/<str:member_id>": ({}, "member.removed"),
    "POST api/projects": ({"name": "New"}, "project.created"),
    "PATCH api/projects/<str:pk>": ({"description": "changed"}, "project.changed"),
    "DELETE api/projects/<str:pk>": ({}, "project.deleted"),
    "POST api/projects/<str:pk>/restore": ({}, "project.restored"),
    "POST api/projects/<str:pk>/members": (
        lambda scene: {"member_type": "user", "member_id": str(scene.users["stranger"].pk)},
        "member.added",
    ),
    "DELETE api/projects/<str:pk>/members/<str:member_id>": ({}, "member.removed"),
    "PATCH api/admin/users/<str:pk>": ({"role": "admin"}, "user.changed"),
    "DELETE api/admin/users/<str:pk>": ({}, "user.deleted"),
    "POST api/admin/users/<str:pk>/restore": ({}, "user.restored"),
    "POST api/admin/users/<str:pk>/deactivate": ({}, "user.deactivated"),
    "POST api/admin/users/<str:pk>/activate": ({}, "user.activated"),
    "POST api/admin/invitations": ({"email": "new@example.org"}, "user.invited"),
    "POST api/tokens": ({"name": "New"}, "api_token.created"),
    "POST api/instrument-requests": ({"name": "New", "justification": "x"}, "instrumentrequest.created"),
    "PATCH api/instrument-requests/<str:pk>": ({"status": "approved"}, "instrumentrequest.answered"),
    "PATCH users/me": ({"password": f"{CANARY}-2", "current_password": CANARY}, "user.changed"),
    "POST auth/register": ({"email": "new@example.org", "password": CANARY}, "user.registered"),
    "POST auth/jwt/login": ({"username": "admin@example.org", "password": CANARY}, "user.logged_in"),
    "POST auth/cookie/login": ({"username": "admin@example.org", "password": CANARY}, "user.logged_in"),
    "POST auth/jwt/logout": ({}, "user.logged_out"),
    "POST auth/logout-everywhere": ({}, "user.logged_out_everywhere"),
}
"""Method and path, what is sent, and the action of the event."""

ELSEWHERE = {
    "POST api/files/grants": "in a test of its own below: it is asked with a query",
    "DELETE api/files/grants": "in a test of its own below: it is asked with a query",
    "DELETE api/tokens/<str:pk>": "in a test of its own below: only its owner may",
    "POST api/instruments/<str:pk>/test": "changes nothing",
    "POST api/storage-locations/<str:pk>/test": "changes nothing",
    "POST api/hooks/<str:pk>/try": "changes nothing",
    "POST auth/jwt/refresh": "goes on with a log-in that has its event",
    "POST auth/cookie/logout": "ends only what is in the browser",
    "POST auth/forgot-password": "sends a mail",
    "POST auth/request-verify-token": "sends a mail",
    "POST auth/reset-password": "needs the code of a mail; tested with registration",
    "POST auth/verify": "needs the code of a mail; tested with registration",
}


@pytest.fixture
def scene(db: None, tmp_path: Path, settings: Any) -> Scene:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.REGISTRATION = "open"
    return make_scene(str(tmp_path), password=CANARY)


def test_nothing_that_changes_something_is_left_out() -> None:
    unsafe = {str(route) for route in routes() if route.method != "GET"}
    assert unsafe - CHANGES.keys() - ELSEWHERE.keys() == set()
    assert (CHANGES.keys() | ELSEWHERE.keys()) - unsafe == set()


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_leaves_an_event(scene: Scene, what: str) -> None:
    body, action = CHANGES[what]
    method, path = what.split(" ")
    _prepare(scene, method, path)
    known = set(AuditEvent.objects.values_list("pk", flat=True))
    sent = body(scene) if callable(body) else body
    url = url_of(Route(path, method), scene)
    client = _acting(scene, path)
    answer = client.generic(method, url, json.dumps(sent), content_type="application/json")
    assert 200 <= answer.status_code < 300, answer.content
    events = AuditEvent.objects.exclude(pk__in=known)
    assert action in set(events.values_list("action", flat=True))
    event = events.filter(action=action).get()
    if path != "auth/register":
        assert event.actor_id == scene.users["admin"].pk
    assert event.is_as_signed()
    _says_no_secret()
    if what.startswith("PATCH"):
        assert event.detail["before"] != {} or event.detail["after"] != {}
        assert set(event.detail) >= {"before", "after"}


def test_a_change_that_is_refused_leaves_none(scene: Scene) -> None:
    known = AuditEvent.objects.count()
    answer = scene.client("admin").patch(
        f"/api/instruments/{scene.id_of('instrument')}", {"name": "", "description": "x"}, format="json"
    )
    assert answer.status_code == 400
    assert AuditEvent.objects.count() == known


def test_grants_by_the_folder_are_events(scene: Scene) -> None:
    client, stranger = scene.client("admin"), scene.users["stranger"]
    query = f"instrument_id={scene.id_of('instrument')}"
    body = {"grantee_type": "user", "grantee_id": str(stranger.pk)}
    assert client.post(f"/api/files/grants?{query}", body, format="json").status_code == 200
    answer = client.delete(f"/api/files/grants?{query}&grantee_type=user&grantee_id={stranger.pk}")
    assert answer.status_code == 200, answer.content
    events = AuditEvent.objects.filter(actor=scene.users["admin"])
    assert {"grant.added", "grant.removed"} <= set(events.values_list("action", flat=True))


def test_revoking_ones_token_is_an_event(scene: Scene) -> None:
    answer = scene.client("direct").delete(f"/api/tokens/{scene.id_of('apitoken')}")
    assert answer.status_code == 204
    assert AuditEvent.objects.filter(action="api_token.revoked", actor=scene.users["direct"]).exists()


@pytest.mark.parametrize("email", ["admin@example.org", "nobody@example.org"])
def test_a_log_in_that_fails_is_an_event_without_the_password(scene: Scene, email: str) -> None:
    answer = APIClient().post("/auth/jwt/login", {"username": email, "password": f"{CANARY}-wrong"})
    assert answer.status_code == 400
    event = AuditEvent.objects.get(action="user.log_in_failed")
    assert (event.actor_id, event.ip) == (None, "127.0.0.1")
    _says_no_secret()


def _prepare(scene: Scene, method: str, path: str) -> None:
    """What has to be so before it can be done."""
    subject: Any = scene.objects.get(OBJECTS.get(base_of(path), ""))
    match path.rpartition("/")[2]:
        case "restore":
            subject.soft_delete()
        case "activate":
            type(subject).objects.filter(pk=subject.pk).update(is_active=False)
        case "resume":
            type(subject).objects.filter(pk=subject.pk).update(paused_at=timezone.now(), paused_reason="x")
        case "retry":
            FileTransfer.objects.update(given_up=True, attempts=5)
    if method == "DELETE":  # what is in use is not deleted
        HarvestRun.objects.update(status="cancelled", ended_at=timezone.now())
        HarvestSchedule.objects.exclude(pk=subject and subject.pk).soft_delete()
        Instrument.objects.exclude(pk=subject and subject.pk).soft_delete()


def _acting(scene: Scene, path: str) -> APIClient:
    return APIClient() if path in ("auth/register", "auth/jwt/login", "auth/cookie/login") else scene.client("admin")


def _says_no_secret() -> None:
    said = str(list(AuditEvent.objects.values_list("detail", flat=True)))
    assert "C4nary" not in said
    assert "s3cr3t-canary" not in said
