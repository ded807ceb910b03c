"""Where files go, and what secrets and folders of equipment look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.db import connection

from harvest.destinations import wanted_path
from harvest.models import (
    FileRecord,
    FileTransfer,
    FileVersion,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    ServiceAccount,
    StorageLocation,
)
from harvest.storage.posix import PosixStorage
from tests.harvest.conftest import stored_files

pytestmark = pytest.mark.django_db
Harvest = Callable[[HarvestSchedule], HarvestRun]


@pytest.mark.parametrize(
    ("path", "generation", "number", "wanted"),
    [
        ("a/fid", 1, 1, "NMR/a/fid"),
        ("a/fid", 1, 2, "NMR/a/fid.v2"),
        ("a/x.tar.gz", 1, 3, "NMR/a/x.tar.v3.gz"),
        ("a/.hidden", 1, 2, "NMR/a/.hidden.v2"),
        ("a.b/1r", 2, 1, "NMR/a.b/1r.g2"),
        ("a/fid.raw", 2, 2, "NMR/a/fid.g2.v2.raw"),
    ],
)
def test_versions_lie_beside_each_other(path: str, generation: int, number: int, wanted: str) -> None:
    record = FileRecord(source_path=path, generation=generation)
    assert wanted_path(FileTransfer(record=record, version=FileVersion(number=number)), "NMR") == wanted


def test_a_name_that_a_version_would_take_is_left_to_its_file(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"first")
    (on_share / "fid.v2").write_bytes(b"a file of that very name")
    harvest(schedule)
    with (on_share / "fid").open("r+b") as file:
        file.write(b"second content")

    harvest(schedule)

    assert stored_files(archive) == {
        "NMR/fid": b"first",
        "NMR/fid.v2": b"a file of that very name",
        "NMR/fid~2.v2": b"second content",
    }


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("Bruker AVANCE III 600 MHz NMR", "Bruker AVANCE III 600 MHz NMR"),
        ("Gerät 3", "Gerät 3"),
        ("../../etc", "..%2F..%2Fetc"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".streamweave", "%2Estreamweave"),
        ("CON", "%43ON"),
        ("trailing. ", "trailing.%20"),
    ],
)
def test_an_instruments_folder_is_its_name_wherever_that_is_legal(name: str, folder: str) -> None:
    instrument = Instrument.objects.create(name=name, cifs_host="h", cifs_share="s")
    made = instrument.storage_folder
    assert "/" not in made
    assert made not in {".", "..", ".streamweave"}
    if name == folder:
        assert made == name
    else:
        assert made != name


def test_the_folder_is_fixed_and_never_shared() -> None:
    first = Instrument.objects.create(name="NMR", cifs_host="h", cifs_share="s")
    first.name = "renamed"
    first.save()
    first.soft_delete()
    second = Instrument.objects.create(name="nmr", cifs_host="h", cifs_share="s")
    third = Instrument.objects.create(name="NMR", cifs_host="h", cifs_share="s")

    assert (first.storage_folder, second.storage_folder, third.storage_folder) == ("NMR", "nmr (2)", "NMR (3)")


def s3_config(**more: object) -> dict[str, object]:
    return {
        "bucket": "instruments",
        "region": "us-east-1",
        "endpoint_url": "http://127.0.0.1:1",
        "access_key_id": "devkey",
        "secret_access_key": "canary-secret",
        **more,
    }


def test_secrets_are_masked_kept_and_never_in_clear_in_the_database() -> None:
    location = StorageLocation.objects.create(name="s3", type="s3", base_path="x", connection_config=s3_config())
    account = ServiceAccount.objects.create(name="a", username="u", password="canary-password")

    location = StorageLocation.objects.get(pk=location.pk)
    assert location.connection_config["secret_access_key"] == "****"
    assert location.config_in_clear["secret_access_key"] == "canary-secret"
    assert ServiceAccount.objects.get(pk=account.pk).password == "canary-password"

    location.connection_config = s3_config(secret_access_key="****", region="eu-west-1")
    location.save()
    location = StorageLocation.objects.get(pk=location.pk)
    assert location.config_in_clear["secret_access_key"] == "canary-secret"
    assert location.config_in_clear["region"] == "eu-west-1"

    location.connection_config = s3_config(secret_access_key="another")
    location.save()
    assert StorageLocation.objects.get(pk=location.pk).config_in_clear["secret_access_key"] == "another"

    for table in ("harvest_storagelocation", "harvest_serviceaccount"):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            assert "canary" not in str(cursor.fetchall())


@pytest.mark.parametrize(
    ("fields", "where", "says"),
    [
        ({"type": "tape"}, "type", "posix"),
        ({"type": "s3", "connection_config": {"bucket": "b"}}, "connection_config", "access_key_id"),
        ({"type": "s3", "connection_config": s3_config(bucket=7)}, "connection_config", "bucket"),
        ({"type": "cifs", "connection_config": {"host": "h", "shear": "s"}}, "connection_config", "shear"),
    ],
)
def test_a_bad_config_names_the_field(fields: dict[str, object], where: str, says: str) -> None:
    location = StorageLocation(**{"name": "x", "base_path": "/x", **fields})
    with pytest.raises(ValidationError) as caught:
        location.full_clean()
    assert says in str(caught.value.message_dict[where])


def test_a_storage_that_holds_files_cannot_be_moved(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"content")
    harvest(schedule)
    archive.base_path = "/elsewhere"
    with pytest.raises(ValidationError) as caught:
        archive.full_clean()
    assert "make a new storage location" in str(caught.value.message_dict["base_path"])


def test_case_only_twins_are_both_kept_where_case_is_folded(
    on_share: Path,
    schedule: HarvestSchedule,
    archive: StorageLocation,
    harvest: Harvest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PosixStorage, "folds_case", True)
    (on_share / "Sample.raw").write_bytes(b"first")
    harvest(schedule)
    (on_share / "Sample.raw").rename(on_share / "sample.raw")
    (on_share / "sample.raw").write_bytes(b"second")

    harvest(schedule)

    assert stored_files(archive) == {"NMR/Sample.raw": b"first", "NMR/sample~2.raw": b"second"}
