"""Schedules over the API, and the runs that they begin."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask
from rest_framework.test import APIClient

from access.models import AuditEvent, User
from harvest.models import HarvestRun, HarvestSchedule, Instrument, RunStatus, StorageLocation

pytestmark = pytest.mark.django_db

KEYS = [
    *("id", "instrument_id", "default_storage_location_id", "cron_expression", "prefect_deployment_id"),
    *("enabled", "created_at", "updated_at", "deleted_at"),
]


@pytest.fixture
def data(instrument: Instrument, archive: StorageLocation) -> dict[str, Any]:
    return {
        "instrument_id": str(instrument.pk),
        "default_storage_location_id": str(archive.pk),
        "cron_expression": "0 */6 * * *",
        "enabled": True,
    }


def test_a_schedule_is_told_with_the_keys_of_the_original_first(admin: APIClient, data: dict[str, Any]) -> None:
    made = admin.post("/api/schedules", data, format="json")
    assert made.status_code == 201, made.content
    told = made.json()
    assert list(told)[: len(KEYS)] == KEYS
    assert told["instrument_id"] == data["instrument_id"]
    assert PeriodicTask.objects.filter(harvest_schedule=told["id"], enabled=True).exists()
    assert admin.get("/api/schedules").json() == [told]
    assert admin.get(f"/api/schedules/{told['id']}")["ETag"] == made["ETag"]


def test_schedules_of_one_instrument_have_one_deployment_which_a_patch_keeps(
    admin: APIClient, data: dict[str, Any]
) -> None:
    first, second = (admin.post("/api/schedules", data, format="json").json() for _ in range(2))
    other = Instrument.objects.create(name="MS", cifs_host="ms", cifs_share="ms")
    third = admin.post("/api/schedules", {**data, "instrument_id": str(other.pk)}, format="json").json()
    assert first["prefect_deployment_id"] == second["prefect_deployment_id"] != third["prefect_deployment_id"]
    changed = admin.patch(f"/api/schedules/{first['id']}", {"cron_expression": "0 */12 * * *"}, format="json").json()
    assert changed["prefect_deployment_id"] == first["prefect_deployment_id"]
    assert changed["cron_expression"] == "0 */12 * * *"
    assert changed["updated_at"] > first["updated_at"]
    assert PeriodicTask.objects.get(harvest_schedule=first["id"]).crontab.hour == "*/12"


def test_the_list_costs_one_query_whatever_its_length(admin: APIClient, data: dict[str, Any]) -> None:
    for _ in range(5):
        admin.post("/api/schedules", data, format="json")
    with CaptureQueriesContext(connection) as queries:
        assert len(admin.get("/api/schedules").json()) == 5
    assert len(queries) == 1


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"cron_expression": "every night"}, "cron_expression"),
        ({"cron_expression": "* * *"}, "cron_expression"),
        ({"cron_expression": "61 * * * *"}, "cron_expression"),
        ({"cron_expression": "0 0 31 2 *"}, "cron_expression"),
        ({"cron_expression": "0 0 * * * *"}, "cron_expression"),
        ({"cron_expression": ""}, "cron_expression"),
        ({"cron_expression": None}, "cron_expression"),
        ({"cron_expression": "0 " * 100}, "cron_expression"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"missed_run": "panic"}, "missed_run"),
        ({"instrument_id": str(uuid4())}, "instrument_id"),
        ({"instrument_id": None}, "instrument_id"),
        ({"default_storage_location_id": "x"}, "default_storage_location_id"),
        ({"default_storage_location_id": str(uuid4())}, "default_storage_location_id"),
        ({"prefect_deployment_id": str(uuid4())}, "prefect_deployment_id"),
        ({"periodic_task": 1}, "periodic_task"),
        ({"decided_until": "2026-01-01T00:00:00Z"}, "decided_until"),
    ],
)
def test_a_wrong_schedule_is_refused_by_its_field_when_made_and_when_changed(
    admin: APIClient, schedule: HarvestSchedule, data: dict[str, Any], changed: dict[str, Any], field: str
) -> None:
    for response in (
        admin.post("/api/schedules", {**data, **changed}, format="json"),
        admin.patch(f"/api/schedules/{schedule.pk}", changed, format="json"),
    ):
        assert response.status_code == 400, response.content
        assert list(response.json()) == [field]
    assert HarvestSchedule.objects.count() == PeriodicTask.objects.filter(harvest_schedule__isnull=False).count() == 1


def test_a_schedule_keeps_its_instrument(admin: APIClient, schedule: HarvestSchedule) -> None:
    url = f"/api/schedules/{schedule.pk}"
    assert admin.patch(url, {"instrument_id": str(schedule.instrument_id)}, format="json").status_code == 200
    other = Instrument.objects.create(name="MS", cifs_host="ms", cifs_share="ms")
    refused = admin.patch(url, {"instrument_id": str(other.pk)}, format="json")
    assert refused.status_code == 400
    assert "another schedule" in refused.json()["instrument_id"][0]


def test_deleting_one_stops_it_and_restoring_starts_it_again(admin: APIClient, schedule: HarvestSchedule) -> None:
    assert admin.delete(f"/api/schedules/{schedule.pk}").status_code == 204
    assert not PeriodicTask.objects.get(harvest_schedule=schedule).enabled
    assert admin.get("/api/schedules").json() == []
    assert admin.post(f"/api/schedules/{schedule.pk}/trigger").status_code == 404
    assert admin.post(f"/api/schedules/{schedule.pk}/restore").status_code == 200
    assert PeriodicTask.objects.get(harvest_schedule=schedule).enabled


# -------------------------------------------------------------------------------------------------------------- trigger


def test_a_triggered_run_is_written_down_and_the_workers_are_reminded(
    admin: APIClient, administrator: User, schedule: HarvestSchedule, on_redis: str
) -> None:
    answer = admin.post(f"/api/schedules/{schedule.pk}/trigger")
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert list(told)[:2] == ["flow_run_id", "schedule_id"]
    assert told["warning"] is None
    run = HarvestRun.objects.get()
    assert told["flow_run_id"] == told["run_id"] == str(run.pk)
    assert told["schedule_id"] == str(schedule.pk)
    assert (run.started_by, run.trigger, run.status) == (administrator, "person", RunStatus.QUEUED)
    with redis.Redis.from_url(on_redis) as client:
        assert str(run.pk).encode() in b"".join(client.lrange("celery", 0, -1))
    event = AuditEvent.objects.get(action="harvestschedule.triggered")
    assert event.detail == {"run": str(run.pk)}
    again = admin.post(f"/api/schedules/{schedule.pk}/trigger").json()
    assert again["run_id"] == str(run.pk)


@pytest.mark.timeout(60)
def test_a_run_stays_queued_and_is_told_with_a_warning_while_the_broker_is_down(
    admin: APIClient, schedule: HarvestSchedule, without_broker: None
) -> None:
    answer = admin.post(f"/api/schedules/{schedule.pk}/trigger")
    assert answer.status_code == 200
    assert "broker" in answer.json()["warning"]
    run = HarvestRun.objects.get()
    assert answer.json()["flow_run_id"] == str(run.pk)
    assert run.status == RunStatus.QUEUED
    (begun,) = admin.post(f"/api/instruments/{schedule.instrument_id}/harvest").json()
    assert begun["run_id"] == str(run.pk)
    assert "broker" in begun["warning"]


def test_where_nothing_could_be_written_the_answer_is_503(
    admin: APIClient, schedule: HarvestSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("the connection to the server was lost")

    monkeypatch.setattr("harvest.runs.request", lost)
    answer = admin.post(f"/api/schedules/{schedule.pk}/trigger")
    assert answer.status_code == 503
    assert list(answer.json()) == ["detail"]
    assert "server was lost" not in answer.content.decode()


@pytest.mark.parametrize(
    ("model", "values", "why"),
    [
        (Instrument, {"enabled": False}, "disabled"),
        (Instrument, {"paused_at": "2026-01-01T00:00:00Z", "paused_reason": "Wrong password."}, "Wrong password."),
        (StorageLocation, {"enabled": False}, "disabled"),
    ],
)
def test_what_stands_against_a_harvest_is_a_conflict_that_says_so(
    admin: APIClient, schedule: HarvestSchedule, model: Any, values: dict[str, Any], why: str
) -> None:
    model.objects.update(**values)
    refused = admin.post(f"/api/schedules/{schedule.pk}/trigger")
    assert refused.status_code == 409
    assert why in refused.json()["detail"]
    assert not HarvestRun.objects.exists()


# -------------------------------------------------------------------------------------------------------------- preview


def test_a_preview_tells_the_next_times_in_utc(admin: APIClient, schedule: HarvestSchedule) -> None:
    HarvestSchedule.objects.update(cron_expression="30 1 * * *", timezone="Asia/Kolkata")
    told = admin.get(f"/api/schedules/{schedule.pk}/preview?count=3").json()
    assert len(told["next_runs"]) == 3
    assert all(time.endswith("T20:00:00Z") for time in told["next_runs"])
    assert told["next_runs"] == sorted(told["next_runs"])
    assert datetime.fromisoformat(told["next_runs"][0]) > schedule.created_at
    assert (told["active"], told["timezone"]) == (True, "Asia/Kolkata")
    assert told["in_words"]
    Instrument.objects.update(enabled=False)
    told = admin.get(f"/api/schedules/{schedule.pk}/preview").json()
    assert (told["active"], len(told["next_runs"])) == (False, 5)


@pytest.mark.parametrize("count", ["0", "101", "-1", "x", "1.5", "9" * 5000, ""])
def test_a_preview_of_a_wrong_number_of_times_is_refused(
    admin: APIClient, schedule: HarvestSchedule, count: str
) -> None:
    response = admin.get(f"/api/schedules/{schedule.pk}/preview", {"count": count})
    assert response.status_code == 400
    assert list(response.json()) == ["count"]


@pytest.mark.parametrize("cron", ["0 1 * * *", "0 0 1 * MON"])
def test_two_rows_of_the_beat_with_one_timing_stand_in_no_schedule_s_way(
    admin: APIClient, schedule: HarvestSchedule, data: dict[str, Any], cron: str
) -> None:
    """Two schedules that are made at the same moment may leave two."""
    for _ in range(2):
        CrontabSchedule.objects.create(minute="0", hour="1", timezone="UTC")
        IntervalSchedule.objects.create(every=1, period=IntervalSchedule.MINUTES)
    made = admin.post("/api/schedules", {**data, "cron_expression": cron}, format="json")
    assert made.status_code == 201, made.content
