"""The deep health: what works, what does not, and what does not even answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from rest_framework.test import APIClient

from harvest import health
from harvest.models import StorageLocation
from harvest.storage.posix import PosixStorage
from streamweave import broker
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY
from tests.harvest.api.conftest import with_broker

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).parents[3]


def beat_reminded(seconds_ago: float) -> None:
    every, _ = IntervalSchedule.objects.get_or_create(every=30, period=IntervalSchedule.SECONDS)
    values = {"last_run_at": timezone.now() - timedelta(seconds=seconds_ago), "interval": every}
    PeriodicTask.objects.update_or_create(name="sweep", defaults={"task": "harvest.tasks.sweep", **values})


def test_everything_is_told_and_what_does_not_work_says_why(
    admin: APIClient, archive: StorageLocation, weed: Any, on_redis: str
) -> None:
    config = {"bucket": "instruments", "endpoint_url": f"http://127.0.0.1:{weed.port}", "access_key_id": S3_ACCESS_KEY}
    for name, secret in (("S3", S3_SECRET_KEY), ("closed", "wrong-secret")):
        StorageLocation.objects.create(
            name=name, type="s3", base_path="x", connection_config={**config, "secret_access_key": secret}
        )
    StorageLocation.objects.create(name="gone", type="posix", base_path="/nowhere/at/all")
    StorageLocation.objects.create(name="off", type="posix", base_path="/nowhere/either", enabled=False)
    beat_reminded(seconds_ago=20)
    answer = admin.get("/api/health")
    assert answer.status_code == 200
    told = answer.json()
    assert list(told) == ["status", "database", "broker", "workers", "beat", "storages"]
    assert told["status"] == "degraded"
    assert told["database"]["ok"]
    assert told["database"]["latency_ms"] >= 0
    assert told["broker"]["ok"]
    assert not told["workers"]["ok"]
    assert told["beat"]["ok"]
    assert {one["name"]: one["ok"] for one in told["storages"]} == {
        "archive": True,
        "S3": True,
        "closed": False,
        "gone": False,
    }
    assert all(one["latency_ms"] is not None for one in told["storages"])
    assert "wrong-secret" not in answer.content.decode()


def test_a_broker_that_is_down_is_told(admin: APIClient, without_broker: None) -> None:
    told = admin.get("/api/health").json()
    assert not told["broker"]["ok"]
    assert not told["workers"]["ok"]


def test_a_beat_that_has_stopped_is_told(admin: APIClient) -> None:
    assert not admin.get("/api/health").json()["beat"]["ok"]
    beat_reminded(seconds_ago=3600)
    told = admin.get("/api/health").json()["beat"]
    assert not told["ok"]
    assert "3,60" in told["detail"]


@pytest.mark.timeout(60)
def test_a_storage_that_hangs_does_not_hang_the_answer_and_is_not_asked_twice(
    admin: APIClient, archive: StorageLocation, second_archive: StorageLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SECONDS", 0.5)
    hang, asked = threading.Event(), []
    check = PosixStorage.check

    def hanging(storage: PosixStorage, **kwargs: Any) -> Any:
        if storage.base_path == archive.base_path:
            asked.append(storage)
            hang.wait(30)
        return check(storage, **kwargs)

    monkeypatch.setattr(PosixStorage, "check", hanging)
    try:
        for _ in range(2):
            told = {one["name"]: one for one in admin.get("/api/health").json()["storages"]}
            assert not told["archive"]["ok"]
            assert told["archive"]["latency_ms"] is None
            assert "has not answered" in told["archive"]["detail"]
            assert told["second"]["ok"]
        assert len(asked) == 1
    finally:
        hang.set()
    deadline = time.monotonic() + 20
    while not admin.get("/api/health").json()["storages"][0]["ok"]:
        assert time.monotonic() < deadline


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["embedded", "redis"])
def test_a_worker_that_runs_is_named(
    admin: APIClient, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    url, options = f"{broker.SCHEME}://localhost", broker.transport_options(tmp_path / "broker")
    if kind == "redis":
        url, options = redis_url.removesuffix("/0") + "/1", {"socket_timeout": 5}
    environment = {"STREAMWEAVE_DATA_DIR": str(tmp_path), "CELERY_BROKER_URL": "" if kind == "embedded" else url}
    alone = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-c", "1", "-n", "testing@here"]
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "streamweave", "worker", *alone]
    with (tmp_path / "log").open("w") as output:
        worker = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output)
    try:
        with with_broker(monkeypatch, url, options):
            deadline = time.monotonic() + 60
            while not (told := admin.get("/api/health").json()["workers"])["ok"]:
                assert worker.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, told
            assert told["detail"] == "testing@here"
    finally:
        worker.terminate()
        worker.wait(30)


def test_it_is_for_administrators(stranger: APIClient) -> None:
    assert stranger.get("/api/health").status_code == 403
    assert APIClient().get("/api/health").status_code == 401
