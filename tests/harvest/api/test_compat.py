"""What clients of the original ask about runs, in its words."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from access.models import User
from harvest.api.compat import STATES
from harvest.models import HarvestRun, HarvestSchedule, RunStatus

pytestmark = pytest.mark.django_db


def told(admin: APIClient, schedule: HarvestSchedule, **values: Any) -> dict[str, str]:
    if values["status"] not in ("queued", "running"):
        values["ended_at"] = timezone.now()
    run = HarvestRun.objects.create(
        schedule=schedule,
        instrument=schedule.instrument,
        storage_location=schedule.default_storage_location,
        **values,
    )
    answer = admin.get(f"/prefect/api/flow_runs/{run.pk}")
    assert answer.status_code == 200
    assert list(answer.json()) == ["id", "state"]
    assert answer.json()["id"] == str(run.pk)
    state: dict[str, str] = answer.json()["state"]
    return state


@pytest.mark.parametrize(
    ("values", "kind", "name"),
    [
        ({"status": "queued"}, "SCHEDULED", "Scheduled"),
        ({"status": "running"}, "PENDING", "Pending"),
        ({"status": "running", "next_attempt_at": "2026-01-01T00:00:00Z"}, "SCHEDULED", "AwaitingRetry"),
        (
            {"status": "running", "lease_token": uuid4(), "lease_expires_at": "2026-01-01T00:00:00Z"},
            "RUNNING",
            "Running",
        ),
        ({"status": "running", "walked_at": "2026-01-01T00:00:00Z"}, "RUNNING", "Running"),
        ({"status": "completed", "files_skipped": 2}, "COMPLETED", "Completed"),
        ({"status": "completed_with_errors", "files_failed": 1}, "COMPLETED", "CompletedWithErrors"),
        ({"status": "failed", "error_code": "unreachable"}, "FAILED", "Failed"),
        ({"status": "failed", "error_code": "worker_lost"}, "CRASHED", "Crashed"),
        ({"status": "cancelled"}, "CANCELLED", "Cancelled"),
        ({"status": "missed"}, "CANCELLED", "Missed"),
    ],
)
def test_a_run_is_told_in_the_words_of_prefect(
    admin: APIClient, schedule: HarvestSchedule, values: dict[str, Any], kind: str, name: str
) -> None:
    assert told(admin, schedule, **values) == {"type": kind, "name": name}


def test_every_status_has_its_word() -> None:
    assert set(STATES) == set(RunStatus)


def test_it_is_for_administrators_and_knows_only_runs(admin: APIClient, stranger: APIClient) -> None:
    for pk in (uuid4(), "no-uuid"):
        assert admin.get(f"/prefect/api/flow_runs/{pk}").json() == {"detail": "Harvest run not found"}
        assert stranger.get(f"/prefect/api/flow_runs/{pk}").status_code == 403
        assert APIClient().get(f"/prefect/api/flow_runs/{pk}").status_code == 401


def test_the_page_of_a_flow_run_is_the_page_of_the_run(administrator: User, schedule: HarvestSchedule) -> None:
    run = HarvestRun.objects.create(
        schedule=schedule, instrument=schedule.instrument, storage_location=schedule.default_storage_location
    )
    pages = Client()
    pages.force_login(administrator, backend="access.backends.EmailBackend")
    page = pages.get(f"/prefect/runs/flow-run/{run.pk}", follow=True)
    assert page.status_code == 200
    assert str(run.pk) in page.redirect_chain[0][0]
