"""Many rows in one statement, on every kind of column that the models have."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import DataError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from harvest.models import (
    FileRecord,
    FileTransfer,
    FileVersion,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    RunError,
    State,
    path_key,
)
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


def test_hundreds_of_rows_are_one_statement(schedule: HarvestSchedule) -> None:
    transfers = make(schedule, 300)
    for number, transfer in enumerate(transfers):
        transfer.attempts = number % 7
    with CaptureQueriesContext(connection) as queries:
        assert bulk.write(transfers, ["attempts", "state"]) == 300
    assert len(queries) == 1
    assert FileTransfer.objects.filter(attempts=6).count() == 42
    assert bulk.write([], ["attempts"]) == 0


def test_equal_in_python_is_not_yet_the_same_in_json(schedule: HarvestSchedule) -> None:
    one, two = [transfer.record for transfer in make(schedule, 2)]
    one.metadata, two.metadata = {"value": 1}, {"value": True}
    bulk.write([one, two], ["metadata"])
    assert FileRecord.objects.get(pk=one.pk).metadata["value"] is not True
    assert FileRecord.objects.get(pk=two.pk).metadata["value"] is True


# ------------------------------------------------------------------------------------------------------------ inserting


def new_columns(names: list[str], **other: Any) -> dict[str, Any]:
    return {
        "source_path": names,
        "source_path_key": [path_key(name) for name in names],
        "filename": names,
        "size_bytes": [2**40 + number for number in range(len(names))],
        "source_mtime": [WHEN] * len(names),
        **other,
    }


def test_every_kind_of_value_is_inserted_as_it_is(instrument: Instrument) -> None:
    names = ["tab\t", "line\n\r", "back\\slash \\N {},\"'", "\u202eü長い\U0001f9ea", "", "NULL", "%s %(c0)s"]
    facts = [{"count": 1, "list": [None, "\n"]}, {}, {"true": True}, {"one": 1}, {"ü": 0.1}, {}, {}]
    bulk.insert(
        FileRecord,
        new_columns(names, metadata=facts, xxhash=[None, *["0" * 16] * 6]),
        instrument_id=instrument.pk,
        sha256=None,
    )
    for name, fact in zip(names, facts, strict=True):
        there = FileRecord.objects.get(source_path_key=path_key(name))
        assert (there.source_path, there.filename, there.metadata) == (name, name, fact)
        assert (there.source_mtime, there.size_bytes) == (WHEN, 2**40 + names.index(name))
        assert there.xxhash == (None if name == names[0] else "0" * 16)


def test_fields_that_are_not_given_have_their_defaults(instrument: Instrument) -> None:
    before = timezone.now()
    bulk.insert(FileRecord, new_columns(["a", "b"]), instrument=instrument.pk)

    one, other = FileRecord.objects.order_by("source_path")
    assert one.pk != other.pk
    assert one.persistent_id != other.persistent_id
    assert (one.generation, one.is_current, one.origin, one.metadata, one.owner) == (1, True, "harvested", {}, None)
    assert before <= one.created_at <= one.updated_at <= timezone.now()
    columns = {name: values[0] for name, values in new_columns(["c"]).items()}
    as_django_does = FileRecord.objects.get(pk=FileRecord.objects.create(instrument=instrument, **columns).pk)
    for field in FileRecord._meta.concrete_fields:
        ours, djangos = getattr(one, field.attname), getattr(as_django_does, field.attname)
        assert type(ours) is type(djangos), field.name


def test_a_key_that_the_database_makes_is_left_to_it(schedule: HarvestSchedule) -> None:
    run = HarvestRun.objects.create(
        schedule=schedule, instrument=schedule.instrument, storage_location=schedule.default_storage_location
    )
    bulk.insert(RunError, {"path": ["a", "b"], "message": ["x", "x"]}, run_id=run.pk, code="denied")
    assert [(error.path, error.code) for error in run.errors.all()] == [("a", "denied"), ("b", "denied")]
    assert len({error.pk for error in run.errors.all()}) == 2


def test_rows_that_are_all_alike_are_still_so_many(schedule: HarvestSchedule) -> None:
    run = HarvestRun.objects.create(
        schedule=schedule, instrument=schedule.instrument, storage_location=schedule.default_storage_location
    )
    bulk.insert(RunError, {"path": ["a"] * 3, "code": ["denied"] * 3}, run_id=run.pk, message="x")
    assert run.errors.filter(path="a", code="denied").count() == 3


def test_columns_of_different_lengths_are_refused_and_none_at_all_is_no_work(instrument: Instrument) -> None:
    columns = new_columns(["a", "b"])
    with pytest.raises(ValueError, match="different lengths"):
        bulk.insert(FileRecord, columns | {"filename": ["a"]}, instrument_id=instrument.pk)
    with pytest.raises(ValueError, match="different lengths"):
        bulk.insert(FileRecord, {}, instrument_id=instrument.pk)
    bulk.insert(FileRecord, {"source_path": []}, instrument_id=instrument.pk)
    assert not FileRecord.objects.exists()


@pytest.mark.parametrize(
    "wrong", [{"source_path_key": [path_key("a")] * 2}, {"size_bytes": [1, -1]}, {"filename": ["a", None]}]
)
def test_constraints_hold_for_what_is_inserted(instrument: Instrument, wrong: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        bulk.insert(FileRecord, new_columns(["a", "b"]) | wrong, instrument_id=instrument.pk)
    assert not FileRecord.objects.exists()


@pytest.mark.parametrize("wrong", [{"filename": ["a", "\0"]}, {"xxhash": ["0", "0" * 17]}, {"generation": [1, 2**40]}])
def test_what_does_not_fit_is_refused_and_never_cut_off(instrument: Instrument, wrong: dict[str, Any]) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite takes anything")
    with pytest.raises(DataError), transaction.atomic():
        bulk.insert(FileRecord, new_columns(["a", "b"]) | wrong, instrument_id=instrument.pk)
    assert not FileRecord.objects.exists()


def test_thousands_are_one_statement(instrument: Instrument) -> None:
    columns = new_columns([str(number) for number in range(3000)])
    with CaptureQueriesContext(connection) as queries:
        bulk.insert(FileRecord, columns, instrument_id=instrument.pk)
    assert len(queries) == 1
    assert FileRecord.objects.count() == 3000
