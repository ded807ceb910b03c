"""Hooks over the API."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from access.models import AuditEvent, FileUserObjectPermission, User
from harvest.models import FileRecord, FileTransfer, HarvestRun, HarvestSchedule, Instrument
from hooks.builtins import BUILTINS
from hooks.models import HookConfig

pytestmark = pytest.mark.django_db
Harvest = Callable[[HarvestSchedule], HarvestRun]

KEYS = [
    *("id", "name", "description", "trigger", "implementation", "builtin_name", "script_path", "webhook_url"),
    *("config", "instrument_id", "priority", "enabled", "deleted_at"),
]
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


def a_filter(**changed: Any) -> dict[str, Any]:
    return {
        "name": "No temporary files",
        "trigger": "pre_transfer",
        "implementation": "builtin",
        "builtin_name": "file_filter",
        "config": {"exclude_patterns": ["*.tmp"]},
        **changed,
    }


def a_webhook(**changed: Any) -> dict[str, Any]:
    return {
        "name": "Ask the lab",
        "trigger": "pre_transfer",
        "implementation": "http_webhook",
        "webhook_url": "https://hooks.example.org/files",
        "webhook_secret": SECRET,
        **changed,
    }


def made(admin: APIClient, data: dict[str, Any]) -> dict[str, Any]:
    answer = admin.post("/api/hooks", data, format="json")
    assert answer.status_code == 201, answer.content
    told: dict[str, Any] = answer.json()
    return told


def test_a_hook_is_told_with_the_keys_of_the_original_first_and_with_nulls(admin: APIClient) -> None:
    told = made(admin, a_filter(config=None))
    assert list(told)[: len(KEYS)] == KEYS
    nulls = ("description", "script_path", "webhook_url", "config", "instrument_id", "deleted_at")
    assert all(told[key] is None for key in nulls)
    assert (told["priority"], told["enabled"]) == (0, True)
    assert admin.get(f"/api/hooks/{told['id']}").json() == told


def test_hooks_are_listed_in_order_of_creation_by_one_query(admin: APIClient, instrument: Instrument) -> None:
    for number, priority in enumerate((5, 0, 3)):
        made(admin, a_filter(name=str(number), priority=priority, instrument_id=str(instrument.pk)))
    with CaptureQueriesContext(connection) as queries:
        told = admin.get("/api/hooks").json()
    assert [one["name"] for one in told] == ["0", "1", "2"]
    assert len(queries) == 1


def test_a_config_is_changed_as_a_whole(admin: APIClient) -> None:
    url = f"/api/hooks/{made(admin, a_filter())['id']}"
    changed = admin.patch(url, {"config": {"min_size_bytes": 1}}, format="json")
    assert changed.status_code == 200, changed.content
    assert changed.json()["config"] == {"min_size_bytes": 1}
    event = AuditEvent.objects.get(action="hookconfig.changed")
    assert event.detail["after"] == {"config": {"min_size_bytes": 1}}
    assert event.detail["before"] == {"config": {"exclude_patterns": ["*.tmp"]}}


def test_a_webhooks_secret_is_written_and_never_told(admin: APIClient) -> None:
    told = made(admin, a_webhook())
    assert "webhook_secret" not in told
    hook = HookConfig.objects.get()
    assert hook.webhook_secret == SECRET
    url = f"/api/hooks/{hook.pk}"
    assert admin.patch(url, {"name": "renamed"}, format="json").status_code == 200
    assert HookConfig.objects.get().webhook_secret == SECRET
    assert SECRET not in admin.get(url).content.decode() + str(list(AuditEvent.objects.values_list("detail")))
    to_builtin = {**a_filter(), "webhook_url": None, "webhook_secret": None}
    assert admin.patch(url, to_builtin, format="json").status_code == 200
    assert HookConfig.objects.get().webhook_secret is None


def test_deleted_hooks_are_restored(admin: APIClient) -> None:
    url = f"/api/hooks/{made(admin, a_filter())['id']}"
    assert admin.delete(url).status_code == 204
    assert admin.get("/api/hooks").json() == []
    assert len(admin.get("/api/hooks?include_deleted=true").json()) == 1
    assert admin.post(f"{url}/restore").json()["deleted_at"] is None
    assert len(admin.get("/api/hooks").json()) == 1


def test_the_builtins_are_told_with_their_schemas(admin: APIClient, stranger: APIClient) -> None:
    told = admin.get("/api/hooks/builtins").json()
    assert {one["name"]: one["trigger"] for one in told} == {name: kind.trigger for name, kind in BUILTINS.items()}
    assert all(one["config_schema"]["type"] == "object" for one in told)
    assert stranger.get("/api/hooks/builtins").status_code == 403


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (a_filter(colour="red"), "colour"),
        (a_filter(name=""), "name"),
        (a_filter(trigger="sometimes"), "trigger"),
        (a_filter(trigger="post_transfer"), "trigger"),
        (a_filter(implementation="magic"), "implementation"),
        (a_filter(builtin_name="magic"), "builtin_name"),
        (a_filter(builtin_name=None), "builtin_name"),
        (a_filter(script_path="x.py"), "script_path"),
        (a_filter(webhook_url="https://example.org"), "webhook_url"),
        (a_filter(webhook_secret=SECRET), "webhook_secret"),
        (a_filter(config={"colour": "red"}), "config"),
        (a_filter(config={"exclude_patterns": "*.tmp"}), "config"),
        (a_filter(config=[]), "config"),
        (a_filter(config="text"), "config"),
        (a_filter(config={"exclude_patterns": ["\x00"] * 70000}), "config"),
        (a_filter(priority="high"), "priority"),
        (a_filter(priority=10**20), "priority"),
        (a_filter(instrument_id="x"), "instrument_id"),
        (a_filter(instrument_id=str(uuid4())), "instrument_id"),
        (a_filter(last_error="none"), "last_error"),
        (a_filter(last_run_at=None), "last_run_at"),
        (a_webhook(webhook_url="ftp://example.org"), "webhook_url"),
        (a_webhook(webhook_url="text"), "webhook_url"),
        (a_webhook(webhook_secret="short"), "webhook_secret"),
        (a_webhook(webhook_secret=None), "webhook_secret"),
        ({**a_filter(), "implementation": "python_script", "builtin_name": None, "script_path": "../x"}, "script_path"),
    ],
)
def test_a_wrong_hook_is_refused_by_its_field(admin: APIClient, data: dict[str, Any], field: str) -> None:
    answer = admin.post("/api/hooks", data, format="json")
    assert answer.status_code == 400, answer.content
    assert field in answer.json()
    assert not HookConfig.objects.exists()


def test_nobody_but_superusers_says_which_script_is_run(stranger: APIClient, admin: APIClient) -> None:
    url = f"/api/hooks/{made(admin, a_filter())['id']}"
    script = {"implementation": "python_script", "builtin_name": None, "script_path": "x.py"}
    assert stranger.patch(url, script, format="json").status_code == 403
    assert HookConfig.objects.get().script_path is None


# ------------------------------------------------------------------------------------------------------ trying it out


@pytest.fixture
def harvested(on_share: Path, schedule: HarvestSchedule, harvest: Harvest) -> None:
    for name in ("20260115_glucose/fid", "20260210_ethanol/fid", "20260210_ethanol/scratch.tmp"):
        path = on_share / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"##TITLE= one\n")
    harvest(schedule)


def tried(admin: APIClient, hook: dict[str, Any], **asked: Any) -> dict[str, dict[str, Any]]:
    answer = admin.post(f"/api/hooks/{hook['id']}/try", asked, format="json")
    assert answer.status_code == 200, answer.content
    return {one["source_path"]: one for one in answer.json()}


@pytest.mark.usefixtures("harvested")
def test_a_filter_is_tried_on_files_that_are_here_without_effect(admin: APIClient) -> None:
    hook = made(admin, a_filter(enabled=False))
    before = list(FileTransfer.objects.order_by("pk").values())
    found = tried(admin, hook)
    assert {path: one["verdict"] for path, one in found.items()} == {
        "20260115_glucose/fid": "accept",
        "20260210_ethanol/fid": "accept",
        "20260210_ethanol/scratch.tmp": "skip",
    }
    assert "*.tmp" in found["20260210_ethanol/scratch.tmp"]["reason"]
    assert list(FileTransfer.objects.order_by("pk").values()) == before
    assert HookConfig.objects.get().last_run_at is None


@pytest.mark.usefixtures("harvested")
def test_metadata_is_found_and_not_kept(admin: APIClient) -> None:
    config = {
        "rules": [
            {"source": "path", "pattern": r"(?P<date>\d{8})_(?P<compound>[^/]+)"},
            {"source": "content", "pattern": "##TITLE= (?P<title>.*)"},
        ]
    }
    hook = made(
        admin,
        a_filter(trigger="post_transfer", builtin_name="metadata_enrichment", config=config),
    )
    record = FileRecord.objects.get(source_path="20260115_glucose/fid")
    found = tried(admin, hook, file_ids=[str(record.pk)])
    assert list(found) == ["20260115_glucose/fid"]
    told = found["20260115_glucose/fid"]
    assert told["metadata"] == {"date": "20260115", "compound": "glucose", "title": "one"}
    assert told["verdict"] is None
    record.refresh_from_db()
    assert record.metadata == {}


@pytest.mark.usefixtures("harvested")
def test_grants_are_told_and_not_given(admin: APIClient) -> None:
    User.objects.create_user("chemist@example.org", None)
    config = {"grants": [{"to": "user", "email": "chemist@example.org"}]}
    hook = made(admin, a_filter(trigger="post_transfer", builtin_name="access_assignment", config=config))
    found = tried(admin, hook, limit=1)
    assert len(found) == 1
    (told,) = found.values()
    assert told["grants"] == [{"grantee_type": "user", "grantee": "chemist@example.org"}]
    assert not FileUserObjectPermission.objects.exists()


@pytest.mark.usefixtures("harvested")
@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 51}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"file_ids": []}, "file_ids"),
        ({"file_ids": ["x"]}, "file_ids"),
        ({"file_ids": [str(uuid4())]}, "file_ids"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_trial_is_refused_by_its_field(admin: APIClient, asked: dict[str, Any], field: str) -> None:
    hook = made(admin, a_filter())
    answer = admin.post(f"/api/hooks/{hook['id']}/try", asked, format="json")
    assert answer.status_code == 400
    assert list(answer.json()) == [field]


def test_a_hook_that_fails_says_so_in_the_trial(
    admin: APIClient, harvested: None, settings: Any, tmp_path: Path
) -> None:
    settings.HOOK_SCRIPT_DIR = tmp_path
    (tmp_path / "broken.py").write_text("raise SystemExit('no')\n")
    hook = made(
        admin,
        {**a_filter(config=None), "implementation": "python_script", "builtin_name": None, "script_path": "broken.py"},
    )
    assert {one["verdict"] for one in tried(admin, hook).values()} == {"hold"}
    assert HookConfig.objects.get().last_error is None
