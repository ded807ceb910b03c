"""Stored files read again: what is missing, changed or unknown is found, and nothing else is reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from harvest.fixity import Finding, Problem, reread, stored_count, unknown_files
from harvest.models import FileTransfer, HarvestRun, HarvestSchedule, Instrument, StorageLocation
from harvest.storage.base import Storage
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY, SMB_PASSWORD, SMB_USER

pytestmark = pytest.mark.django_db
Harvest = Callable[[HarvestSchedule], HarvestRun]
FILES = 6


@pytest.fixture
def stored(on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest) -> Path:
    """The folder of FILES stored files, 0.fid to 5.fid."""
    for number in range(FILES):
        (on_share / f"{number}.fid").write_bytes(f"content {number}".encode())
    harvest(schedule)
    return Path(archive.base_path) / "NMR"


def found(location: StorageLocation, **which: object) -> list[Finding]:
    with location.open() as storage:
        return [
            *reread(location=location, storage=storage, **which),  # type: ignore[arg-type]
            *unknown_files(location=location, storage=storage),
        ]


def test_what_is_as_it_was_stored_is_not_reported(stored: Path, archive: StorageLocation) -> None:
    assert stored_count(location=archive) == FILES
    assert found(archive) == []


def test_missing_changed_and_unknown_files_are_told_apart(stored: Path, archive: StorageLocation) -> None:
    (stored / "0.fid").unlink()
    (stored / "1.fid").write_bytes(b"CONTENT 1")  # the same size
    (stored / "2.fid").write_bytes(b"longer than before")
    (stored / "other").write_bytes(b"what is this?")
    findings = {finding.path: finding for finding in found(archive)}
    assert {path: finding.problem for path, finding in findings.items()} == {
        "NMR/0.fid": Problem.MISSING,
        "NMR/1.fid": Problem.CHANGED,
        "NMR/2.fid": Problem.CHANGED,
        "NMR/other": Problem.UNKNOWN,
    }
    transfer = FileTransfer.objects.select_related("record", "version").get(stored_path="NMR/1.fid")
    assert findings["NMR/1.fid"].ark == transfer.record.persistent_id
    assert transfer.version.sha256 in findings["NMR/1.fid"].detail
    assert "18 bytes are there; 9 were verified" in findings["NMR/2.fid"].detail
    assert findings["NMR/other"].ark is None


def test_a_file_stored_while_the_storage_is_walked_is_not_unknown(
    stored: Path, on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    """The listing sees a file that is stored after the walk has begun."""
    (stored / "unknown").mkdir()
    (stored / "unknown" / "a").write_bytes(b"a")
    with archive.open() as storage:
        walk = storage.walk

        def walk_late(top: str = "", *, recursive: bool = True) -> object:
            (on_share / "late.fid").write_bytes(b"late")
            harvest(schedule)
            yield from walk(top, recursive=recursive)

        storage.walk = walk_late  # type: ignore[method-assign,assignment]
        findings = list(unknown_files(location=archive, storage=storage))
    assert (stored / "late.fid").exists()
    assert [finding.path for finding in findings] == ["NMR/unknown/a"]


def test_one_instrument_is_verified_alone(stored: Path, archive: StorageLocation, instrument: Instrument) -> None:
    other = Instrument.objects.create(name="TEM", cifs_host="h", cifs_share="s")
    (stored.parent / "stray").write_bytes(b"x")
    (stored / "stray").write_bytes(b"x")
    (stored / "0.fid").unlink()

    def of(one: Instrument, storage: Storage) -> list[str]:
        read = [finding.path for finding in reread(location=archive, storage=storage, instrument=one)]
        return read + [item.path for item in unknown_files(location=archive, storage=storage, instrument=one)]

    with archive.open() as storage:
        assert of(instrument, storage) == ["NMR/0.fid", "NMR/stray"]
        assert of(other, storage) == []


def test_a_limit_comes_round_to_all_in_time(stored: Path, archive: StorageLocation) -> None:
    read: list[int] = []
    for path in stored.iterdir():
        path.unlink()
    paths: set[str] = set()
    for _ in range(200):
        with archive.open() as storage:
            findings = list(
                reread(location=archive, storage=storage, limit=2, progress=lambda files, _: read.append(files))
            )
        assert len(findings) == 2
        paths.update(finding.path for finding in findings)
        if len(paths) == FILES:
            break
    assert len(paths) == FILES
    assert sum(read) % 2 == 0


def test_no_query_is_asked_for_each_file(stored: Path, archive: StorageLocation) -> None:
    with CaptureQueriesContext(connection) as asked:
        assert found(archive) == []
    assert len(asked) < FILES


@pytest.fixture(params=["cifs", "s3"])
def remote(request: pytest.FixtureRequest) -> StorageLocation:
    """A storage location on a server."""
    if request.param == "cifs":
        samba, folder = request.getfixturevalue("samba"), request.getfixturevalue("archive_dir")
        config = {
            "host": f"{samba.host}:{samba.port}",
            "share": folder.share,
            "username": SMB_USER,
            "password": SMB_PASSWORD,
        }
        base_path = folder.base_path
    else:
        config = {
            "bucket": request.getfixturevalue("bucket"),
            "endpoint_url": request.getfixturevalue("weed").endpoint_url,
            "access_key_id": S3_ACCESS_KEY,
            "secret_access_key": S3_SECRET_KEY,
        }
        base_path = "lab"
    return StorageLocation.objects.create(
        name="remote", type=request.param, base_path=base_path, connection_config=config
    )


def test_names_of_every_sort_are_recognised_on_a_server(
    on_share: Path, schedule: HarvestSchedule, remote: StorageLocation, harvest: Harvest
) -> None:
    schedule.default_storage_location = remote
    schedule.save()
    names = ("Übung é.TXT", "a b&c%20+.fid", "日本/データ.raw", "UPPER/lower.d/x", "%41~1", "empty")
    for name in names:
        (on_share / name).parent.mkdir(parents=True, exist_ok=True)
        (on_share / name).write_bytes(b"" if name == "empty" else name.encode())
    run = harvest(schedule)
    assert run.files_completed == len(names)
    assert found(remote) == []
    gone = FileTransfer.objects.get(record__source_path="%41~1")
    with remote.open() as storage:
        storage.delete(str(gone.stored_path))
    assert [(finding.problem, finding.path) for finding in found(remote)] == [(Problem.MISSING, gone.stored_path)]
    FileTransfer.objects.filter(pk=gone.pk).delete()
    stray = FileTransfer.objects.get(record__source_path="Übung é.TXT")
    FileTransfer.objects.filter(pk=stray.pk).delete()
    assert [(finding.problem, finding.path) for finding in found(remote)] == [(Problem.UNKNOWN, stray.stored_path)]
