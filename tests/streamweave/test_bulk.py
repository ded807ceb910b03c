"""Many rows in one statement, on every kind of column that the models have."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from django.db import DataError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from harvest.models import FileRecord, FileTransfer, FileVersion, HarvestSchedule, State, path_key
from streamweave.lib import bulk
from tests.harvest.conftest import account, archive, instrument, schedule

__all__ = ["account", "archive", "instrument", "schedule"]

WHEN = datetime(2026, 1, 15, 12, 0, 0, 123456, tzinfo=UTC)


def make(schedule: HarvestSchedule, count: int) -> list[FileTransfer]:
    transfers = []
    for number in range(count):
        seen = {"size_bytes": 1, "source_mtime": WHEN}
        record = FileRecord.objects.create(
            instrument=schedule.instrument,
            source_path=str(number),
            source_path_key=path_key(str(number)),
            filename=str(number),
            **seen,
        )
        version = FileVersion.objects.create(record=record, **seen)
        storage = schedule.default_storage_location
        transfers.append(
            FileTransfer.objects.create(
                record=record, version=version, scheduled_storage=storage, storage_location=storage
            )
        )
    return transfers


def test_every_kind_of_value_arrives(schedule: HarvestSchedule) -> None:
    first, second = make(schedule, 2)
    first.state, second.state = State.READY, State.ACCEPTED
    first.attempts, second.attempts = 3, 0
    first.given_up, second.given_up = True, False
    first.error_message, second.error_message = "It's “odd”\\ %s {} \u202e", None
    first.next_attempt_at, second.next_attempt_at = WHEN, None
    first.lease_token, second.lease_token = uuid.uuid4(), None
    first.lease_expires_at, second.lease_expires_at = WHEN, None
    first.bytes_transferred, second.bytes_transferred = 2**40, None
    fields = ["state", "attempts", "given_up", "error_message", "next_attempt_at", "lease_token", "lease_expires_at"]
    before = second.updated_at

    assert bulk.write([first, second], [*fields, "bytes_transferred"]) == 2

    for written in (first, second):
        there = FileTransfer.objects.get(pk=written.pk)
        for field in [*fields, "bytes_transferred"]:
            assert getattr(there, field) == getattr(written, field), field
    assert FileTransfer.objects.get(pk=second.pk).updated_at > before


def test_a_column_of_nulls_and_json_arrive(schedule: HarvestSchedule) -> None:
    transfers = make(schedule, 2)
    records = [transfer.record for transfer in transfers]
    records[0].metadata = {"nucleus": "13C", "count": 2, "list": [None, "ü"]}
    versions = [transfer.version for transfer in transfers]
    for version in versions:
        version.enriched_at = version.source_file_id = None

    bulk.write(records, ["metadata", "owner"])
    bulk.write(versions, ["enriched_at", "source_file_id", "proposed_grants"])

    assert FileRecord.objects.get(pk=records[0].pk).metadata == {"nucleus": "13C", "count": 2, "list": [None, "ü"]}
    assert FileRecord.objects.filter(metadata__nucleus="13C").count() == 1


def test_only_rows_that_are_as_expected_are_written(schedule: HarvestSchedule) -> None:
    mine, other = make(schedule, 2)
    token = uuid.uuid4()
    FileTransfer.objects.filter(pk=mine.pk).update(lease_token=token, lease_expires_at=WHEN)
    mine.attempts = other.attempts = 5

    assert bulk.write([mine, other], ["attempts"], where={"lease_token": token}) == 1
    assert bulk.write([mine, other], ["attempts"], where={"lease_token": None, "given_up": False}) == 1
    assert bulk.write([mine, other], ["attempts"], where={"lease_token": uuid.uuid4()}) == 0


def test_what_the_database_forbids_is_refused_and_never_cut_off(schedule: HarvestSchedule) -> None:
    (transfer,) = make(schedule, 1)
    if connection.vendor == "postgresql":
        transfer.error_code = "x" * 41
        with pytest.raises(DataError), transaction.atomic():
            bulk.write([transfer], ["error_code"])
    transfer.state = State.VERIFIED
    with pytest.raises(IntegrityError), transaction.atomic():
        bulk.write([transfer], ["state"])


def test_hundreds_of_rows_are_one_statement_and_thousands_few(
    schedule: HarvestSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfers = make(schedule, 300)
    for number, transfer in enumerate(transfers):
        transfer.attempts = number % 7
    with CaptureQueriesContext(connection) as queries:
        assert bulk.write(transfers, ["attempts"]) == 300
    assert len(queries) == 1

    monkeypatch.setattr(bulk, "MAX_PARAMETERS", 200)
    with CaptureQueriesContext(connection) as queries:
        assert bulk.write(transfers, ["attempts"]) == 300
    assert len(queries) == 3
    assert bulk.write([], ["attempts"]) == 0
