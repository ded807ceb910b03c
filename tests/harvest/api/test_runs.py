"""Runs over the API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from access.models import AuditEvent
from harvest.models import FileTransfer, HarvestRun, HarvestSchedule, RunError, RunStatus, State, StorageLocation
from hooks.models import HookConfig

pytestmark = pytest.mark.django_db
Harvest = Callable[[HarvestSchedule], HarvestRun]


def a_run(schedule: HarvestSchedule, **values: Any) -> HarvestRun:
    ended = {} if values.get("status") in (None, "queued", "running") else {"ended_at": timezone.now()}
    return HarvestRun.objects.create(
        schedule=schedule,
        instrument=schedule.instrument,
        storage_location=schedule.default_storage_location,
        **ended,
        **values,
    )


@pytest.fixture
def harvested(on_share: Path, schedule: HarvestSchedule, harvest: Harvest) -> HarvestRun:
    """A run with two files stored and one skipped."""
    HookConfig.objects.create(
        name="No temporary files", trigger="pre_transfer", implementation="builtin", builtin_name="file_filter",
        config={"exclude_patterns": ["*.tmp"]},
    )  # fmt: skip
    for name in ("a.fid", "b.fid", "c.tmp"):
        (on_share / name).write_bytes(b"x" * 10)
    return harvest(schedule)


def test_a_run_tells_what_became_of_its_files(admin: APIClient, harvested: HarvestRun) -> None:
    told = admin.get(f"/api/runs/{harvested.pk}").json()
    assert told["status"] == "completed"
    counted = ("files_seen", "files_discovered", "files_completed", "files_skipped", "files_failed", "files_waiting")
    assert [told[key] for key in counted] == [3, 3, 2, 1, 0, 0]
    assert told["bytes_transferred"] == 20
    assert told["problems"] == []
    (left_out,) = told["other_ends"]
    assert (left_out["kind"], left_out["files"], left_out["path"]) == ("left out", 1, "c.tmp")
    files = admin.get(f"/api/runs/{harvested.pk}/files").json()
    assert {one["source_path"]: one["status"] for one in files} == {
        "a.fid": "completed",
        "b.fid": "completed",
        "c.tmp": "skipped",
    }
    transfer = FileTransfer.objects.get(record__source_path="c.tmp")
    (skipped,) = admin.get(f"/api/runs/{harvested.pk}/files?status=skipped").json()
    assert (skipped["file_id"], skipped["transfer_id"]) == (str(transfer.record_id), str(transfer.pk))
    assert "No temporary files" in skipped["reason"]


def test_lists_are_newest_first_and_their_queries_do_not_grow(
    admin: APIClient, schedule: HarvestSchedule, harvested: HarvestRun
) -> None:
    runs = [harvested, *(a_run(schedule, status="completed") for _ in range(5))]
    with CaptureQueriesContext(connection) as queries:
        told = admin.get("/api/runs").json()
    assert [one["id"] for one in told] == [str(run.pk) for run in reversed(runs)]
    assert len(queries) == 1
    with CaptureQueriesContext(connection) as queries:
        assert len(admin.get(f"/api/runs/{harvested.pk}/files").json()) == 3
    assert len(queries) == 2


def test_pages_of_runs_lead_on_to_the_end(admin: APIClient, schedule: HarvestSchedule) -> None:
    runs = [a_run(schedule, status="completed") for _ in range(5)]
    url, seen = "/api/runs?limit=2", []
    while url:
        page = admin.get(url)
        seen += [one["id"] for one in page.json()]
        url = page["Link"].partition(">")[0].removeprefix("<") if "Link" in page else ""
    assert seen == [str(run.pk) for run in reversed(runs)]


def test_runs_are_found_by_what_they_are(
    admin: APIClient, schedule: HarvestSchedule, second_archive: StorageLocation
) -> None:
    old = a_run(schedule, status="failed", error_message="x")
    HarvestRun.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=3))
    new = a_run(schedule, trigger="person")

    def found(query: dict[str, str]) -> set[str]:
        return {one["id"] for one in admin.get("/api/runs", query).json()}

    both = {str(old.pk), str(new.pk)}
    assert found({"instrument_id": str(schedule.instrument_id)}) == both
    assert found({"schedule_id": str(schedule.pk)}) == both
    assert found({"storage_location_id": str(second_archive.pk)}) == set()
    assert found({"status": "failed"}) == {str(old.pk)}
    assert found({"trigger": "person"}) == {str(new.pk)}
    yesterday = (timezone.now() - timedelta(days=1)).isoformat()
    assert found({"since": yesterday}) == {str(new.pk)}
    assert found({"until": yesterday}) == {str(old.pk)}


@pytest.mark.parametrize(
    "query",
    ["status=happy", "instrument_id=x", "schedule_id=1", "since=yesterday", "trigger=moon", "limit=-1", "cursor=e30"],
)
def test_a_wrong_filter_is_refused_by_its_name(admin: APIClient, query: str) -> None:
    response = admin.get(f"/api/runs?{query}")
    assert response.status_code == 400
    assert list(response.json()) == [query.partition("=")[0]]


def test_what_could_not_be_read_is_listed_in_the_order_in_which_it_was_met(
    admin: APIClient, schedule: HarvestSchedule
) -> None:
    run = a_run(schedule)
    for path in ("b", "a"):
        RunError.objects.create(run=run, path=path, code="denied", message="No.")
    first = admin.get(f"/api/runs/{run.pk}/errors?limit=1")
    assert [one["path"] for one in first.json()] == ["b"]
    second = admin.get(first["Link"].partition(">")[0].removeprefix("<"))
    assert [one["path"] for one in second.json()] == ["a"]
    assert list(second.json()[0]) == ["path", "code", "message", "at"]
    (cause,) = admin.get(f"/api/runs/{run.pk}").json()["problems"]
    assert (cause["kind"], cause["files"]) == ("could not be read", 2)


def test_an_open_run_is_cancelled_and_an_ended_one_is_not(admin: APIClient, schedule: HarvestSchedule) -> None:
    run = a_run(schedule)
    cancelled = admin.post(f"/api/runs/{run.pk}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["status"] == "cancelled"
    assert cancelled.json()["ended_at"] is not None
    assert AuditEvent.objects.get().action == "harvestrun.cancelled"
    again = admin.post(f"/api/runs/{run.pk}/cancel")
    assert again.status_code == 409
    assert "cancelled" in again.json()["detail"]
    assert AuditEvent.objects.count() == 1


def test_failed_files_of_a_run_go_on_their_way_again(
    admin: APIClient, harvested: HarvestRun, without_broker: None
) -> None:
    FileTransfer.objects.filter(state=State.SKIPPED).update(state=State.READY, given_up=True, error_code="io")
    told = admin.post(f"/api/runs/{harvested.pk}/retry")
    assert told.status_code == 200
    assert told.json() == {"run_id": str(harvested.pk), "files": 1}
    assert not FileTransfer.objects.filter(given_up=True).exists()
    assert AuditEvent.objects.get().detail == {"files": 1}
    assert admin.post(f"/api/runs/{harvested.pk}/retry").json()["files"] == 0


@pytest.mark.parametrize("pk", ["no-uuid", str(uuid4())])
def test_what_is_not_there_is_the_same_404_everywhere(admin: APIClient, pk: str) -> None:
    answers = [
        *(admin.get(f"/api/runs/{pk}{rest}") for rest in ("", "/files", "/errors")),
        *(admin.post(f"/api/runs/{pk}/{action}") for action in ("cancel", "retry")),
    ]
    assert {(one.status_code, one.content) for one in answers} == {(404, b'{"detail":"Harvest run not found"}')}


def test_nobody_else_sees_runs(stranger: APIClient, schedule: HarvestSchedule) -> None:
    run = a_run(schedule)
    for pk in (run.pk, uuid4(), "no-uuid"):
        answers = [stranger.get("/api/runs"), *(stranger.get(f"/api/runs/{pk}{x}") for x in ("", "/files", "/errors"))]
        answers += [stranger.post(f"/api/runs/{pk}/{action}") for action in ("cancel", "retry")]
        assert {one.status_code for one in answers} == {403}
    assert HarvestRun.objects.get().status == RunStatus.QUEUED
    assert APIClient().get("/api/runs").status_code == 401


@pytest.mark.parametrize("query", ["colour=red", "status=failed&status=queued", "status=failed&status="])
def test_what_a_list_does_not_know_is_refused_by_name(admin: APIClient, query: str) -> None:
    refused = admin.get(f"/api/runs?{query}")
    assert refused.status_code == 400
    assert list(refused.json()) == [query.partition("=")[0]]
