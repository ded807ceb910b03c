"""Runs: what is due, one at a time, missed and doubled slots, ending, cancelling, retrying."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from harvest import runs
from harvest.janitor import runs_with_work
from harvest.models import (
    FileTransfer,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    MissedRun,
    RunStatus,
    State,
    Trigger,
)
from harvest.work import claim, work_on

pytestmark = pytest.mark.django_db
Harvest = Callable[[HarvestSchedule], HarvestRun]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def set_decided(schedule: HarvestSchedule, text: str) -> None:
    HarvestSchedule.objects.filter(pk=schedule.pk).update(decided_until=at(text))


def test_a_slot_makes_one_run_however_many_ask(schedule: HarvestSchedule) -> None:
    set_decided(schedule, "2026-03-01 12:00")
    now = at("2026-03-02 01:00:20")

    first = runs.decide_due(now)
    second = runs.decide_due(now)
    third = runs.decide_due(now, schedule.pk)

    assert [run.scheduled_for for run in first] == [at("2026-03-02 01:00")]
    assert first[0].trigger == Trigger.SCHEDULE
    assert (second, third) == ([], [])
    assert HarvestRun.objects.count() == 1


def test_two_that_ask_at_the_same_time_make_one_run(schedule: HarvestSchedule) -> None:
    set_decided(schedule, "2026-03-01 12:00")
    now = at("2026-03-02 01:00:20")
    seen_by_both = HarvestSchedule.objects.get()

    assert runs.decide_due(now)
    assert runs._decide(seen_by_both, now) is None


def test_before_its_slot_nothing_is_due(schedule: HarvestSchedule) -> None:
    set_decided(schedule, "2026-03-01 12:00")
    assert runs.decide_due(at("2026-03-02 00:59:59")) == []


def test_missed_slots_are_caught_up_with_one_run(schedule: HarvestSchedule) -> None:
    set_decided(schedule, "2026-03-01 12:00")

    (run,) = runs.decide_due(at("2026-03-04 08:00"))

    assert (run.scheduled_for, run.missed_slots, run.trigger) == (at("2026-03-04 01:00"), 2, Trigger.CATCH_UP)
    assert run.status == RunStatus.QUEUED
    assert runs.decide_due(at("2026-03-04 08:01")) == []


def test_missed_slots_may_be_left_out(schedule: HarvestSchedule) -> None:
    schedule.missed_run = MissedRun.SKIP
    schedule.save()
    set_decided(schedule, "2026-03-01 12:00")

    (run,) = runs.decide_due(at("2026-03-04 08:00"))

    assert (run.status, run.scheduled_for) == (RunStatus.MISSED, at("2026-03-04 01:00"))
    assert run.ended_at is not None


@pytest.mark.parametrize("off", ["schedule", "instrument", "storage"])
def test_what_is_disabled_or_deleted_does_not_run(schedule: HarvestSchedule, off: str) -> None:
    set_decided(schedule, "2026-03-01 12:00")
    if off == "schedule":
        HarvestSchedule.objects.update(enabled=False)
    elif off == "instrument":
        Instrument.objects.update(deleted_at=timezone.now())
    else:
        schedule.default_storage_location.enabled = False
        schedule.default_storage_location.save()

    assert runs.decide_due(at("2026-03-04 08:00")) == []


def test_enabled_again_it_does_not_make_up_for_the_time_it_was_off(schedule: HarvestSchedule) -> None:
    set_decided(schedule, "2026-03-01 12:00")
    schedule = HarvestSchedule.objects.get()
    schedule.enabled = False
    schedule.save()
    schedule = HarvestSchedule.objects.get()
    schedule.enabled = True
    schedule.save()

    assert runs.decide_due(timezone.now()) == []


def test_every_slot_of_the_night_in_which_summer_time_ends_runs_once(schedule: HarvestSchedule) -> None:
    schedule.cron_expression, schedule.timezone = "30 2 * * *", "Europe/Zurich"
    schedule.save()
    set_decided(schedule, "2026-10-24 12:00")
    zone = ZoneInfo("Europe/Zurich")
    now, slots = at("2026-10-24 12:00"), []
    while now < at("2026-10-26 12:00"):
        now += timedelta(minutes=10)
        slots += [run.scheduled_for for run in runs.decide_due(now) if run.scheduled_for]
        HarvestRun.objects.open().update(status=RunStatus.COMPLETED, ended_at=now)

    local = [slot.astimezone(zone) for slot in slots]
    assert [(slot.day, slot.hour, slot.minute) for slot in local] == [(25, 2, 30), (26, 2, 30)]


def test_a_slot_that_summer_time_leaps_over_runs_after_the_gap(schedule: HarvestSchedule) -> None:
    schedule.cron_expression, schedule.timezone = "30 2 * * *", "Europe/Zurich"
    schedule.save()
    set_decided(schedule, "2026-03-28 12:00")

    (run,) = runs.decide_due(at("2026-03-29 01:02"))

    assert run.scheduled_for == at("2026-03-29 01:00")


def test_a_second_trigger_queues_exactly_one_follow_up(schedule: HarvestSchedule) -> None:
    first = runs.request(schedule, trigger=Trigger.PERSON)
    assert runs.begin(first)

    second = runs.request(schedule, trigger=Trigger.PERSON)
    third = runs.request(schedule, trigger=Trigger.PERSON)

    assert second.pk != first.pk
    assert third.pk == second.pk
    assert not runs.begin(second)
    HarvestRun.objects.filter(pk=first.pk).update(status=RunStatus.COMPLETED, ended_at=timezone.now())
    assert runs.begin(second)


def test_the_database_forbids_two_running_at_once(schedule: HarvestSchedule) -> None:
    runs.begin(runs.request(schedule, trigger=Trigger.PERSON))
    with pytest.raises(IntegrityError), transaction.atomic():
        HarvestRun.objects.create(
            instrument=schedule.instrument,
            storage_location=schedule.default_storage_location,
            status=RunStatus.RUNNING,
        )


def test_two_schedules_of_one_pair_run_one_after_the_other(schedule: HarvestSchedule) -> None:
    other = HarvestSchedule.objects.create(
        instrument=schedule.instrument,
        default_storage_location=schedule.default_storage_location,
        cron_expression="0 13 * * *",
    )
    first = runs.request(schedule, trigger=Trigger.PERSON)
    second = runs.request(other, trigger=Trigger.PERSON)

    assert runs.begin(first)
    assert not runs.begin(second)


def test_each_schedule_has_a_periodic_task_that_follows_it(schedule: HarvestSchedule) -> None:
    task = schedule.periodic_task
    assert task is not None
    assert (task.task, task.crontab.hour, task.enabled) == ("harvest.tasks.harvest_due", "1", True)

    schedule.cron_expression = "0 0 13 * 5"
    schedule.save()
    task.refresh_from_db()
    # Celery's crontab means something else by this one; the task then only asks, every minute, what is due.
    assert (task.crontab, task.interval.every) == (None, 1)

    schedule.soft_delete()
    task.refresh_from_db()
    assert not task.enabled


def test_a_bad_cron_expression_is_never_saved(schedule: HarvestSchedule) -> None:
    schedule.cron_expression = "every night"
    with pytest.raises(ValueError, match="five"):
        schedule.save()


def test_quiet_hours_are_kept(on_share: Path, schedule: HarvestSchedule, instrument: Instrument) -> None:
    instrument.quiet_from, instrument.quiet_until, instrument.quiet_timezone = time(22), time(6), "Europe/Zurich"

    night = datetime(2026, 1, 10, 23, 30, tzinfo=ZoneInfo("Europe/Zurich"))
    morning = datetime(2026, 1, 11, 5, 59, tzinfo=ZoneInfo("Europe/Zurich"))
    end = datetime(2026, 1, 11, 6, 0, tzinfo=ZoneInfo("Europe/Zurich"))
    assert runs.quiet_until(instrument, night) == end
    assert runs.quiet_until(instrument, morning) == end
    assert runs.quiet_until(instrument, end) is None

    instrument.quiet_from, instrument.quiet_until = time(0), time(23, 59, 59, 999999)
    instrument.quiet_timezone = "UTC"
    instrument.save()
    (on_share / "fid").write_bytes(b"content")
    run = runs.request(HarvestSchedule.objects.get(), trigger=Trigger.PERSON)
    assert work_on(run, seconds=10) is False
    run.refresh_from_db()
    assert (run.status, FileTransfer.objects.count()) == (RunStatus.QUEUED, 0)


def test_an_instrument_gets_no_more_connections_than_it_allows(
    on_share: Path, schedule: HarvestSchedule, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harvest.work.BATCH_FILES", 200)
    Instrument.objects.update(max_connections=1)
    for number in range(300):
        (on_share / f"{number:03}").write_bytes(b"x")
    run = runs.request(HarvestSchedule.objects.get(), trigger=Trigger.PERSON)
    runs.begin(run)
    runs.walk(run)

    first = claim(run)
    assert first is not None
    assert len(first.transfers) == 200
    assert claim(run) is None
    first.release()
    assert claim(run) is not None


def test_a_cancelled_run_stops_and_can_be_taken_up_again(
    on_share: Path, schedule: HarvestSchedule, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"content")
    run = runs.request(schedule, trigger=Trigger.PERSON)
    runs.begin(run)
    runs.walk(run)

    assert runs.cancel(run)

    transfer = FileTransfer.objects.get()
    assert (run.status, transfer.state) == (RunStatus.CANCELLED, State.CANCELLED)
    assert not runs.cancel(run)
    assert runs.retry(FileTransfer.objects.all()) == 1
    work_on(run, seconds=10)
    transfer.refresh_from_db()
    assert transfer.state == State.AVAILABLE


def test_a_waiting_file_does_not_keep_its_run_open_and_is_looked_at_by_the_sweep(
    on_share: Path, schedule: HarvestSchedule, instrument: Instrument, harvest: Harvest
) -> None:
    Instrument.objects.update(min_age_seconds=3600)
    (on_share / "fid").write_bytes(b"content")

    run = harvest(HarvestSchedule.objects.get())

    assert (run.status, run.files_discovered, run.files_waiting) == (RunStatus.COMPLETED, 1, 1)
    transfer = FileTransfer.objects.get()
    assert "3600 s ago" in (transfer.waiting_reason or "")
    assert transfer.next_attempt_at is not None
    assert runs_with_work() == []

    Instrument.objects.update(min_age_seconds=0)
    assert runs_with_work(timezone.now() + timedelta(hours=2)) == [run]
    FileTransfer.objects.update(next_attempt_at=None)
    work_on(HarvestRun.objects.get(), seconds=10)
    transfer.refresh_from_db()
    run.refresh_from_db()
    assert (transfer.state, transfer.waiting_reason) == (State.AVAILABLE, None)
    assert run.files_completed == 1


def test_an_unreachable_share_is_tried_again_and_then_fails(schedule: HarvestSchedule) -> None:
    run = runs.request(schedule, trigger=Trigger.PERSON)
    for attempt in range(1, runs.MAX_WALKS + 1):
        work_on(run, seconds=10)
        run.refresh_from_db()
        assert run.attempts == attempt
        HarvestRun.objects.update(next_attempt_at=None)

    assert (run.status, run.error_code) == (RunStatus.FAILED, "unreachable")
    assert run.ended_at is not None


def test_a_walk_that_kills_its_worker_is_not_begun_for_ever(schedule: HarvestSchedule) -> None:
    run = runs.request(schedule, trigger=Trigger.PERSON)
    runs.begin(run)
    for _ in range(runs.MAX_WALKS):
        assert runs._lease_walk(run) is not None
        HarvestRun.objects.update(lease_expires_at=timezone.now())

    assert runs._lease_walk(run) is None
    assert (run.status, run.error_code) == (RunStatus.FAILED, "worker_lost")


def test_an_unforeseen_error_of_a_walk_is_written_down(
    on_share: Path, schedule: HarvestSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("nobody thought of it")

    monkeypatch.setattr(runs, "discover", fail)
    run = runs.request(schedule, trigger=Trigger.PERSON)

    work_on(run, seconds=10)

    run.refresh_from_db()
    assert (run.status, run.error_code) == (RunStatus.RUNNING, "internal")
    assert "nobody thought of it" in (run.error_message or "")
    assert run.next_attempt_at is not None


def test_the_lease_of_a_walk_is_renewed_while_folders_are_listed(
    on_share: Path, schedule: HarvestSchedule, settings: Any
) -> None:
    settings.LEASE_SECONDS = 0
    for number in range(30):
        (on_share / str(number) / "empty").mkdir(parents=True)
    run = runs.request(schedule, trigger=Trigger.PERSON)
    runs.begin(run)

    with CaptureQueriesContext(connection) as queries:
        runs.walk(run)

    renewals = [query for query in queries if query["sql"].startswith("UPDATE") and "lease_expires_at" in query["sql"]]
    assert len(renewals) > 60
