"""The admin pages of the harvest: what they show, refuse, keep secret and do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin as django_admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from access.models import AuditEvent, User
from harvest.admin.base import MAX_COUNTED, BoundedPaginator
from harvest.models import (
    FileRecord,
    FileTransfer,
    FileVersion,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    RunError,
    RunStatus,
    ServiceAccount,
    State,
    StorageLocation,
    Trigger,
    path_key,
)
from harvest.runs import request
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY, SMB_PASSWORD, SMB_USER

pytestmark = pytest.mark.django_db
Harvest = Callable[[HarvestSchedule], HarvestRun]
MODELS = (
    "serviceaccount",
    "instrument",
    "storagelocation",
    "harvestschedule",
    "harvestrun",
    "filerecord",
    "filetransfer",
)


@pytest.fixture
def pages(db: None) -> Client:
    user = User.objects.create_user("admin@example.org", None, role="admin")
    client = Client()
    client.force_login(user, backend="access.backends.EmailBackend")
    return client


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reminders go nowhere: the sweep would send them again."""
    monkeypatch.setattr("harvest.tasks.work_on.apply_async", lambda *args, **kwargs: None)


def url(model: str, page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:harvest_{model}_{page}", args=args)


def act(pages: Client, model: str, action: str, *rows: Any) -> str:
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    response = pages.post(url(model) + ("?deleted=all" if model in MODELS[:4] else ""), data, follow=True)
    assert response.status_code == 200
    return " ".join(str(message) for message in response.context["messages"])


def errors_of(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200, "it was taken"
    errors: dict[str, list[str]] = response.context["adminform"].form.errors
    return errors


def a_file(instrument: Instrument, location: StorageLocation, run: HarvestRun, number: int) -> FileTransfer:
    path = f"run/{number}.fid"
    seen = {"size_bytes": 1, "source_mtime": datetime(2026, 1, 1, tzinfo=UTC)}
    record = FileRecord.objects.create(
        instrument=instrument, source_path=path, source_path_key=path_key(path), filename=f"{number}.fid", **seen
    )
    return FileTransfer.objects.create(
        record=record,
        version=FileVersion.objects.create(record=record, **seen),
        scheduled_storage=location,
        storage_location=location,
        run=run,
    )


def instrument_data(**changed: Any) -> dict[str, Any]:
    return {
        "name": "TEM",
        "cifs_host": "tem.example.org",
        "cifs_share": "tem",
        "cifs_base_path": "/",
        "enabled": "on",
        "min_age_seconds": 60,
        "unchanged_looks": 0,
        "look_interval_seconds": 30,
        "acquisition_depth": 1,
        "replaced_file": "new_record",
        "max_connections": 2,
        "max_requests_in_flight": 8,
        "quiet_timezone": "UTC",
        "transfer_adapter": "streamweave",
        **changed,
    }


# --- Every page -------------------------------------------------------------------------------------------------------


def test_every_page_opens_without_a_row_and_with_rows(
    pages: Client, schedule: HarvestSchedule, instrument: Instrument, archive: StorageLocation
) -> None:
    run = request(schedule, trigger=Trigger.PERSON)
    RunError.objects.create(run=run, path="a\nb", code="denied", message="No right to read it.")
    transfer = a_file(instrument, archive, run, 1)
    rows = {
        "serviceaccount": instrument.service_account,
        "instrument": instrument,
        "storagelocation": archive,
        "harvestschedule": schedule,
        "harvestrun": run,
        "filerecord": transfer.record,
        "filetransfer": transfer,
    }
    for model in MODELS:
        for query in ("", "?q=nmr"):
            assert pages.get(url(model) + query).status_code == 200
        row = rows[model]
        assert row is not None
        assert pages.get(url(model, "change", row.pk)).status_code == 200
    for model in MODELS[:4]:
        assert pages.get(url(model, "add")).status_code == 200
    for model in MODELS[4:]:
        assert pages.get(url(model, "add")).status_code == 403
    for word in ("pending", "in_progress", "completed", "skipped", "failed"):
        assert pages.get(f"{url('filetransfer')}?status={word}").status_code == 200


def test_nobody_but_administrators_gets_in(db: None) -> None:
    client = Client()
    user = User.objects.create_user("ann@example.org", None)
    client.force_login(user, backend="access.backends.EmailBackend")
    for model in MODELS:
        assert client.get(url(model)).status_code == 302


def test_the_pages_of_the_beat_are_left_out() -> None:
    assert not django_admin.site.is_registered(PeriodicTask)


@pytest.mark.parametrize("model", MODELS)
def test_a_list_costs_the_same_for_one_row_and_for_many(
    pages: Client, schedule: HarvestSchedule, instrument: Instrument, archive: StorageLocation, model: str
) -> None:
    run = request(schedule, trigger=Trigger.PERSON)
    a_file(instrument, archive, run, 0)

    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            response = pages.get(url(model))
        assert response.status_code == 200
        return len(asked)

    queries()  # what is looked up once a process
    few = queries()
    for number in range(1, 12):
        account = ServiceAccount.objects.create(name=f"a{number}", username="u", password="p")
        other = Instrument.objects.create(
            name=f"i{number}", cifs_host="h", cifs_share="s", service_account=account, paused_at=timezone.now()
        )
        location = StorageLocation.objects.create(name=f"s{number}", type="posix", base_path=f"/s{number}")
        its_schedule = HarvestSchedule.objects.create(
            instrument=other, default_storage_location=location, cron_expression="0 1 * * *"
        )
        its_run = request(its_schedule, trigger=Trigger.PERSON)
        a_file(other, location, its_run, number)
    assert queries() == few <= 12


def test_no_more_rows_are_counted_than_can_be_paged_through(pages: Client, archive: StorageLocation) -> None:
    StorageLocation.objects.bulk_create(
        StorageLocation(name=f"s{number}", type="posix", base_path="/s") for number in range(MAX_COUNTED + 50)
    )
    assert BoundedPaginator(StorageLocation.objects.order_by("name"), 50).count == MAX_COUNTED + 1
    with CaptureQueriesContext(connection) as asked:
        assert pages.get(url("storagelocation")).status_code == 200
    counts = [query["sql"] for query in asked if "COUNT(" in query["sql"]]
    assert counts
    assert all(f"LIMIT {MAX_COUNTED + 1}" in sql for sql in counts)


# --- Forms ------------------------------------------------------------------------------------------------------------


def test_a_password_is_taken_kept_and_never_shown(pages: Client) -> None:
    data = {"name": "share", "domain": "", "username": "svc", "password": "hunter2-secret"}
    assert "Give the password" in str(errors_of(pages.post(url("serviceaccount", "add"), data | {"password": ""})))
    assert pages.post(url("serviceaccount", "add"), data).status_code == 302
    account = ServiceAccount.objects.get()
    assert (account.password, account.domain) == ("hunter2-secret", None)

    change = url("serviceaccount", "change", account.pk)
    assert "hunter2" not in pages.get(change).content.decode()
    assert pages.post(change, data | {"username": "other", "password": ""}).status_code == 302
    account = ServiceAccount.objects.get()
    assert (account.username, account.password) == ("other", "hunter2-secret")
    assert pages.post(change, data | {"password": "new one"}).status_code == 302
    assert ServiceAccount.objects.get().password == "new one"
    assert "hunter2" not in json.dumps([event.detail for event in AuditEvent.objects.all()])


def test_a_storage_shows_masks_and_a_mask_sent_back_keeps_the_secret(pages: Client) -> None:
    config = {"bucket": "b", "access_key_id": "key", "secret_access_key": "hunter2-secret"}
    data = {"name": "S3", "type": "s3", "base_path": "x", "enabled": "on"}
    add = {**data, "connection_config": json.dumps(config)}
    assert pages.post(url("storagelocation", "add"), add).status_code == 302
    location = StorageLocation.objects.get()
    change = url("storagelocation", "change", location.pk)
    page = pages.get(change).content.decode()
    assert "hunter2" not in page
    assert "****" in page
    masked = {**config, "bucket": "c", "secret_access_key": "****"}
    assert pages.post(change, {**data, "connection_config": json.dumps(masked)}).status_code == 302
    location.refresh_from_db()
    assert location.config_in_clear == {**config, "bucket": "c"}
    assert location.connection_config == masked


@pytest.mark.parametrize(
    ("changed", "field", "message"),
    [
        ({"type": "ftp"}, "type", "Select a valid choice"),
        ({"base_path": "relative"}, "base_path", "absolute path"),
        ({"connection_config": "{"}, "connection_config", "valid JSON"),
        ({"connection_config": '{"bucket": "b"}'}, "connection_config", "Additional properties are not allowed"),
        ({"type": "s3"}, "connection_config", "is a required property"),
        (
            {"type": "s3", "connection_config": '{"bucket": "b", "access_key_id": "k", "secret_access_key": 4711}'},
            "connection_config",
            "secret_access_key",
        ),
        (
            {"type": "s3", "connection_config": '{"bucket": "b", "access_key_id": "k", "secret_access_key": "****"}'},
            "connection_config",
            "there is none yet",
        ),
        (
            {
                "type": "cifs",
                "connection_config": '{"host": "a:b", "share": "s", "username": "u", "password": "p"}',
            },
            "connection_config",
            "no host",
        ),
        ({"name": "archive"}, "name", "another storage location called “archive”"),
    ],
)
def test_a_wrong_storage_is_refused_at_its_field(
    pages: Client, archive: StorageLocation, changed: dict[str, str], field: str, message: str
) -> None:
    data = {"name": "new", "type": "posix", "base_path": "/data", "connection_config": "", "enabled": "on"}
    errors = errors_of(pages.post(url("storagelocation", "add"), data | changed))
    assert list(errors) == [field]
    assert message in str(errors[field])
    assert "4711" not in str(errors)


def test_a_storage_with_files_does_not_move(
    pages: Client, on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"x")
    harvest(schedule)
    data = {"name": "archive", "type": "posix", "base_path": "/elsewhere", "connection_config": "", "enabled": "on"}
    errors = errors_of(pages.post(url("storagelocation", "change", archive.pk), data))
    assert "make a new storage location" in str(errors["base_path"])


@pytest.mark.parametrize(
    ("changed", "field", "message"),
    [
        ({"name": "NMR"}, "name", "another instrument called “NMR”"),
        ({"cifs_host": "tem:port"}, "cifs_host", "no port"),
        ({"cifs_host": "tem:445:445"}, "cifs_host", "more than one colon"),
        ({"cifs_host": "[tem]:445"}, "cifs_host", "IPv6 address stands in the brackets"),
        ({"cifs_base_path": "a/../b"}, "cifs_base_path", ".."),
        ({"quiet_from": "08:00"}, "quiet_until", "both ends"),
        ({"quiet_timezone": "Europe/Zurch"}, "quiet_timezone", "no time zone"),
        ({"max_connections": "0"}, "max_connections", "greater than or equal to 1"),
        ({"look_interval_seconds": "0"}, "look_interval_seconds", "greater than or equal to 1"),
        ({"transfer_config": "{"}, "transfer_config", "valid JSON"),
    ],
)
def test_a_wrong_instrument_is_refused_at_its_field(
    pages: Client, instrument: Instrument, changed: dict[str, str], field: str, message: str
) -> None:
    errors = errors_of(pages.post(url("instrument", "add"), instrument_data(**changed)))
    assert list(errors) == [field]
    assert message in str(errors[field])


def test_an_instrument_is_added_and_what_is_empty_is_null(pages: Client) -> None:
    assert pages.post(url("instrument", "add"), instrument_data()).status_code == 302
    instrument = Instrument.objects.get()
    assert (instrument.storage_folder, instrument.service_account) == ("TEM", None)
    assert [instrument.description, instrument.location, instrument.pid, instrument.marker_name] == [None] * 4


@pytest.mark.parametrize(
    ("changed", "field", "message"),
    [
        ({"cron_expression": "0 1 * *"}, "cron_expression", "cron has five"),
        ({"cron_expression": "61 1 * * *"}, "cron_expression", "no cron expression"),
        ({"cron_expression": "0 0 30 2 *"}, "cron_expression", "no cron expression"),
        ({"timezone": "Mars/Olympus"}, "timezone", "no time zone"),
    ],
)
def test_a_wrong_schedule_is_refused_at_its_field(
    pages: Client,
    instrument: Instrument,
    archive: StorageLocation,
    changed: dict[str, str],
    field: str,
    message: str,
) -> None:
    data = {
        "instrument": str(instrument.pk),
        "default_storage_location": str(archive.pk),
        "cron_expression": "0 1 * * *",
        "timezone": "UTC",
        "missed_run": "run_once",
        "enabled": "on",
    }
    errors = errors_of(pages.post(url("harvestschedule", "add"), data | changed))
    assert list(errors) == [field]
    assert message in str(errors[field])
    assert not HarvestSchedule.objects.exists()
    assert pages.post(url("harvestschedule", "add"), data).status_code == 302


def test_a_schedule_shows_its_times_in_its_zone_and_in_words(pages: Client, schedule: HarvestSchedule) -> None:
    schedule.timezone = "Asia/Tokyo"
    schedule.save()
    page = pages.get(url("harvestschedule", "change", schedule.pk)).content.decode()
    assert page.count("01:00 JST") == 5
    assert "At 01:00 every day" in page
    schedule.enabled = False
    schedule.save()
    page = pages.get(url("harvestschedule", "change", schedule.pk)).content.decode()
    assert "none while it is not enabled" in page


# --- Deleting ---------------------------------------------------------------------------------------------------------


def test_equipment_is_deleted_and_restored_but_never_for_good(pages: Client, instrument: Instrument) -> None:
    assert pages.post(url("instrument", "delete", instrument.pk), {"post": "yes"}).status_code == 403
    assert "1 instrument deleted" in act(pages, "instrument", "soft_delete", instrument)
    instrument.refresh_from_db()
    assert instrument.deleted_at is not None
    assert "NMR" not in pages.get(url("instrument")).rendered_content  # type: ignore[attr-defined]

    other = Instrument.objects.create(name="NMR", cifs_host="h", cifs_share="s")
    assert "another instrument called “NMR”" in act(pages, "instrument", "restore", instrument)
    other.soft_delete()
    assert "1 instrument restored" in act(pages, "instrument", "restore", instrument)
    assert list(Instrument.objects.alive()) == [instrument]


# --- Actions ----------------------------------------------------------------------------------------------------------


def test_harvest_now_queues_one_run_and_says_what_is_in_the_way(
    pages: Client, schedule: HarvestSchedule, instrument: Instrument
) -> None:
    assert "the run is queued" in act(pages, "harvestschedule", "harvest_now", schedule)
    assert "the run is queued" in act(pages, "instrument", "harvest_now", instrument)
    run = HarvestRun.objects.get()
    assert (run.trigger, run.started_by) == (Trigger.PERSON, User.objects.get())
    Instrument.objects.update(paused_at=timezone.now(), paused_reason="The password is wrong.")
    said = act(pages, "harvestschedule", "harvest_now", schedule)
    assert "paused" in said
    assert "The password is wrong." in said
    bare = Instrument.objects.create(name="TEM", cifs_host="h", cifs_share="s")
    assert "no enabled schedule" in act(pages, "instrument", "harvest_now", bare)


def test_a_dry_run_is_shown_and_writes_nothing(pages: Client, on_share: Path, schedule: HarvestSchedule) -> None:
    (on_share / "a&b.fid").write_bytes(b"x" * 1234)
    data = {"action": "dry_run", "_selected_action": [str(schedule.pk)]}
    response = pages.post(url("harvestschedule"), data)
    assert response.status_code == 200
    page = response.content.decode()
    assert "a&amp;b.fid" in page
    assert "not known yet" in page
    assert "take: 1" in page
    assert not FileRecord.objects.exists()
    assert not HarvestRun.objects.exists()


def test_a_dry_run_of_what_cannot_be_reached_says_why(pages: Client, schedule: HarvestSchedule) -> None:
    data = {"action": "dry_run", "_selected_action": [str(schedule.instrument_id)]}
    page = pages.post(url("instrument"), data).content.decode()
    assert "Nothing listens there" in page


def test_a_paused_instrument_says_why_and_is_resumed(pages: Client, instrument: Instrument) -> None:
    Instrument.objects.update(paused_at=timezone.now(), paused_reason="The password is wrong.")
    assert "The password is wrong." in pages.get(url("instrument")).content.decode()
    assert "1 instrument resumed" in act(pages, "instrument", "resume", instrument)
    instrument.refresh_from_db()
    assert instrument.paused_at is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "it works"),
        ({"cifs_host": "127.0.0.1:1"}, "Nothing listens there"),
        ({"cifs_share": "no-such-share"}, "no such share"),
        ({"cifs_base_path": "/no-such-folder"}, "no such folder"),
    ],
)
def test_the_connection_of_an_instrument_is_tested(
    pages: Client, instrument: Instrument, on_share: Path, fields: dict[str, str], message: str
) -> None:
    for field, value in fields.items():
        setattr(instrument, field, value)
    instrument.save()
    said = act(pages, "instrument", "test_connection", instrument)
    assert message in said
    assert SMB_PASSWORD not in said


def test_a_wrong_password_is_told_apart_and_not_repeated(
    pages: Client, instrument: Instrument, on_share: Path, account: ServiceAccount
) -> None:
    account.password = "hunter2-secret"
    account.save()
    said = act(pages, "instrument", "test_connection", instrument)
    assert "✗ log in" in said
    assert "hunter2" not in said


def test_an_instrument_without_account_says_so(pages: Client) -> None:
    bare = Instrument.objects.create(name="TEM", cifs_host="h", cifs_share="s")
    assert "has no service account" in act(pages, "instrument", "test_connection", bare)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "it works"),
        ({"bucket": "no-such-bucket"}, "The specified bucket does not exist"),
        ({"secret_access_key": "hunter2-secret"}, "✗ log in"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "Nothing answers"),
    ],
)
def test_the_connection_of_a_storage_is_tested(
    pages: Client, weed: Any, bucket: str, config: dict[str, str], message: str
) -> None:
    right = {
        "bucket": bucket,
        "endpoint_url": weed.endpoint_url,
        "access_key_id": S3_ACCESS_KEY,
        "secret_access_key": S3_SECRET_KEY,
    }
    location = StorageLocation.objects.create(name="S3", type="s3", base_path="x", connection_config=right | config)
    said = act(pages, "storagelocation", "test_connection", location)
    assert message in said
    assert "hunter2" not in said
    assert S3_SECRET_KEY not in said


def test_a_lost_key_is_said_where_the_connection_is_tested_and_cured_by_new_secrets(
    pages: Client, settings: Any, archive_dir: Any, samba: Any
) -> None:
    config = {
        "host": f"127.0.0.1:{samba.port}",
        "share": archive_dir.share,
        "username": SMB_USER,
        "password": SMB_PASSWORD,
    }
    location = StorageLocation.objects.create(
        name="SMB", type="cifs", base_path=archive_dir.base_path, connection_config=config
    )
    settings.ENCRYPTION_KEYS = ["A" * 43 + "="]
    assert "STREAMWEAVE_ENCRYPTION_KEYS" in act(pages, "storagelocation", "test_connection", location)
    data = {"name": "SMB", "type": "cifs", "base_path": archive_dir.base_path, "enabled": "on"}
    change = url("storagelocation", "change", location.pk)
    masked = json.dumps(config | {"password": "****"})
    assert "connection_config" in errors_of(pages.post(change, {**data, "connection_config": masked}))
    assert pages.post(change, {**data, "connection_config": json.dumps(config)}).status_code == 302
    assert "it works" in act(pages, "storagelocation", "test_connection", location)


def test_runs_are_cancelled_and_their_files_retried(
    pages: Client, schedule: HarvestSchedule, instrument: Instrument, archive: StorageLocation
) -> None:
    run = request(schedule, trigger=Trigger.PERSON)
    transfer = a_file(instrument, archive, run, 1)
    assert "1 harvest run cancelled" in act(pages, "harvestrun", "cancel", run)
    run.refresh_from_db()
    transfer.refresh_from_db()
    assert (run.status, transfer.state) == (RunStatus.CANCELLED, State.CANCELLED)
    assert "0 harvest runs cancelled" in act(pages, "harvestrun", "cancel", run)
    assert "again: 1." in act(pages, "harvestrun", "retry", run)
    transfer.refresh_from_db()
    assert transfer.state == State.DISCOVERED
    assert set(AuditEvent.objects.values_list("action", flat=True)) == {"harvestrun.cancelled", "harvestrun.retried"}


def test_only_what_stopped_is_retried(
    pages: Client, schedule: HarvestSchedule, instrument: Instrument, archive: StorageLocation
) -> None:
    run = request(schedule, trigger=Trigger.PERSON)
    pending, failed = (a_file(instrument, archive, run, number) for number in (1, 2))
    assert "None of them" in act(pages, "filetransfer", "retry", pending)
    FileTransfer.objects.filter(pk=failed.pk).update(
        given_up=True, error_code="full", error_phase="destination", error_message="The disk is full."
    )
    page = pages.get(url("filetransfer") + "?status=failed").content.decode()
    assert "The disk is full." in page
    assert "run/1.fid" not in page
    shown = pages.get(url("harvestrun", "change", run.pk)).content.decode()
    assert "1 file failed (destination, full): The disk is full." in shown
    assert "again: 1." in act(pages, "filetransfer", "retry", pending, failed)
    failed.refresh_from_db()
    assert (failed.given_up, failed.error_message) == (False, None)
