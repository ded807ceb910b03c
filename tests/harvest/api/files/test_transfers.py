"""Transfers, as the original's clients know them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from access.grants import grant
from access.models import User
from harvest.models import FileVersion, HarvestRun, Instrument, StorageLocation
from tests.harvest.api.files.conftest import ClientOf, MakeFile, MakeTransfer, completed

pytestmark = pytest.mark.django_db

SEED_KEYS = [
    "id",
    "file_id",
    "storage_location_id",
    "destination_path",
    "transfer_adapter",
    "status",
    "bytes_transferred",
    "source_checksum",
    "dest_checksum",
    "checksum_verified",
    "started_at",
    "completed_at",
    "error_message",
    "prefect_flow_run_id",
]


def test_a_transfer_is_told_as_the_original_tells_it(
    asking: APIClient,
    make_file: MakeFile,
    make_transfer: MakeTransfer,
    archive: StorageLocation,
    instrument: Instrument,
) -> None:
    instrument.transfer_adapter = "rclone"
    instrument.save()
    run = HarvestRun.objects.create(instrument=instrument, storage_location=archive)
    file = make_file("run/acqus")
    transfer = make_transfer(file, run=run, **completed("NMR/run/acqus", "cea07227a98f977f"))
    (told,) = asking.get("/api/transfers").json()
    assert list(told)[: len(SEED_KEYS)] == SEED_KEYS
    assert {key: told[key] for key in SEED_KEYS} == {
        "id": str(transfer.pk),
        "file_id": str(file.pk),
        "storage_location_id": str(archive.pk),
        "destination_path": f"{archive.base_path}/NMR/run/acqus",
        "transfer_adapter": "rclone",
        "status": "completed",
        "bytes_transferred": 1,
        "source_checksum": "cea07227a98f977f",
        "dest_checksum": "cea07227a98f977f",
        "checksum_verified": True,
        "started_at": None,
        "completed_at": "2026-03-01T12:00:00Z",
        "error_message": None,
        "prefect_flow_run_id": str(run.pk),
    }
    assert asking.get(f"/api/transfers/{transfer.pk}").json() == told


def test_a_skipped_transfer_has_a_reason_and_no_error(
    asking: APIClient, make_file: MakeFile, make_transfer: MakeTransfer
) -> None:
    file = make_file("scratch.tmp")
    make_transfer(file, state="skipped", reason="*.tmp is left out")
    (told,) = asking.get(f"/api/transfers?file_id={file.pk}").json()
    assert (told["status"], told["reason"], told["error_message"]) == ("skipped", "*.tmp is left out", None)
    assert (told["destination_path"], told["dest_checksum"], told["checksum_verified"]) == (None, None, False)


def test_transfers_are_seen_with_their_file(
    client_of: ClientOf, ann: User, make_file: MakeFile, make_transfer: MakeTransfer
) -> None:
    shown, hidden = make_file("shown"), make_file("hidden")
    seen, unseen = make_transfer(shown), make_transfer(hidden)
    client = client_of(ann)
    assert client.get("/api/transfers").json() == []
    grant([shown], grantee_type="user", grantee_id=ann.pk)
    assert [row["id"] for row in client.get("/api/transfers").json()] == [str(seen.pk)]
    assert [row["id"] for row in client.get(f"/api/files/{shown.pk}/transfers").json()] == [str(seen.pk)]
    assert client.get(f"/api/transfers?file_id={hidden.pk}").json() == []
    assert client.get(f"/api/transfers/{seen.pk}").status_code == 200
    answers = [client.get(f"/api/transfers/{pk}") for pk in (unseen.pk, uuid.uuid4(), "no-id")]
    assert {(answer.status_code, answer.content) for answer in answers} == {(404, b'{"detail":"Transfer not found"}')}
    assert client_of(None).get("/api/transfers").status_code == 401
    assert client_of(None).get(f"/api/transfers/{seen.pk}").status_code == 401


def test_transfers_are_found_by_what_is_asked(
    asking: APIClient,
    make_file: MakeFile,
    make_transfer: MakeTransfer,
    archive: StorageLocation,
    second_archive: StorageLocation,
    instrument: Instrument,
) -> None:
    run = HarvestRun.objects.create(instrument=instrument, storage_location=archive)
    first, second = make_file("first"), make_file("second")
    FileVersion.objects.filter(record=first).update(xxhash="ab" * 8, sha256="cd" * 32)
    lease = {"lease_token": uuid.uuid4(), "lease_expires_at": timezone.now() + timedelta(minutes=1)}
    rows = {
        "stored": make_transfer(first, run=run, **completed("first")),
        "busy": make_transfer(first, to=second_archive, **lease),
        "failed": make_transfer(second, given_up=True, error_code="io", error_message="broken"),
    }
    names = {str(row.pk): name for name, row in rows.items()}

    def found(**query: Any) -> list[str]:
        answer = asking.get("/api/transfers", query)
        assert answer.status_code == 200, answer.json()
        return [names[row["id"]] for row in answer.json()]

    assert found() == ["failed", "busy", "stored"]
    assert found(file_id=first.pk) == ["busy", "stored"]
    assert found(instrument_id=instrument.pk) == ["failed", "busy", "stored"]
    assert found(instrument_id=uuid.uuid4()) == []
    assert found(storage_location_id=second_archive.pk) == ["busy"]
    assert found(run_id=run.pk) == ["stored"]
    assert [found(status=word) for word in ("completed", "in_progress", "failed", "pending", "skipped")] == [
        ["stored"],
        ["busy"],
        ["failed"],
        [],
        [],
    ]
    assert found(checksum="ab" * 8) == found(checksum="CD" * 32) == ["busy", "stored"]
    assert found(completed_from="2026-03-01T12:00:00Z") == ["stored"]
    assert found(completed_until="2026-03-01T12:00:00Z") == []
    assert found(created_from=rows["busy"].created_at.isoformat()) == ["failed", "busy"]
    assert found(ordering="created_at") == ["stored", "busy", "failed"]


@pytest.mark.parametrize("query", ["metadata.a=1", "q=a", "completed_from=now", "file_id=acqus"])
def test_what_cannot_be_asked_of_transfers_is_refused_by_name(asking: APIClient, query: str) -> None:
    answer = asking.get(f"/api/transfers?{query}")
    assert (answer.status_code, list(answer.json())) == (400, [query.partition("=")[0]])


def test_the_list_costs_as_many_queries_however_long(
    client_of: ClientOf, ann: User, admin: User, make_file: MakeFile, make_transfer: MakeTransfer
) -> None:
    files = [make_file(f"run/{number}") for number in range(20)]
    for file in files:
        make_transfer(file)
    grant(files, grantee_type="user", grantee_id=ann.pk)
    for user, more in ((admin, 0), (ann, 1)):  # users are asked first for the instruments that they may see as a whole
        # the transfers; their files, instruments and storages
        for query, queries in (("limit=2", 4), ("limit=20", 4), ("limit=20&count=true", 5), ("status=pending", 4)):
            with CaptureQueriesContext(connection) as captured:
                assert client_of(user).get(f"/api/transfers?{query}").json()
            assert len(captured) == queries + more
        with CaptureQueriesContext(connection) as captured:
            assert client_of(user).get(f"/api/files/{files[0].pk}/transfers").json()
        assert len(captured) == 5 + more
