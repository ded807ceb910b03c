"""The sample shares of all four instruments, harvested to each kind of storage; independent tools agree."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash

from harvest.demo import lab as demo
from harvest.demo.local_server import find_program
from harvest.demo.samples import write_samples
from harvest.demo.servers import SambaServer
from harvest.models import FileRecord, FileTransfer, FileVersion, HarvestRun, HarvestSchedule, Instrument, State
from harvest.storage.base import RESERVED
from streamweave.lib import ark
from tests.conftest import ShareFolder
from tests.journeys.conftest import Rclone
from tests.journeys.destinations import Destination
from tests.journeys.lab import Lab, assert_nothing_is_wrong, complaints


@pytest.fixture
def shares(samba: SambaServer, tmp_path: Path) -> Iterator[dict[str, ShareFolder]]:
    """The sample files, in a folder of this test on each of the four shares."""
    write_samples(tmp_path / "samples")
    name = uuid.uuid4().hex
    folders = {share: ShareFolder(samba.shares[share].path / name, share, f"/{name}") for share in demo.SHARES}
    for share, folder in folders.items():
        shutil.move(tmp_path / "samples" / share, folder.path)
    yield folders
    for folder in folders.values():
        shutil.rmtree(folder.path)


@pytest.fixture
def instruments(lab: Lab, shares: dict[str, ShareFolder]) -> dict[str, Instrument]:
    """The demonstration's instruments, by share; the electron microscope is switched on here."""
    return {
        share: lab.instrument(shares[share], name=name, location=location)
        for name, _, location, share, _, _ in demo.INSTRUMENTS
    }


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_of_manifests(destination: Destination) -> list[dict[str, Any]]:
    manifests = [text for name, text in destination.reserved().items() if name.startswith("manifests/")]
    return [json.loads(line) for text in manifests for line in text.splitlines()]


def test_every_file_of_four_shares_arrives_verified_and_a_second_run_takes_nothing(
    lab: Lab,
    instruments: dict[str, Instrument],
    shares: dict[str, ShareFolder],
    destination: Destination,
    rclone: Rclone,
) -> None:
    schedules = {share: lab.schedule(instrument, destination) for share, instrument in instruments.items()}
    originals = {share: content_of(folder.path) for share, folder in shares.items()}
    assert {share: len(files) for share, files in originals.items()}["nmr"] == 10

    for share, schedule in schedules.items():
        run = lab.harvest(schedule)
        files = originals[share]
        assert run.status == "completed", complaints(run)
        assert (run.files_seen, run.files_discovered, run.files_completed) == (len(files),) * 3
        assert (run.files_skipped, run.files_failed, run.walk_errors) == (0, 0, 0)
        assert run.bytes_transferred == sum(map(len, files.values()))
        instruments[share].refresh_from_db()
        assert instruments[share].last_harvested_at == run.ended_at

    expected = {
        f"{instruments[share].name}/{path}": content for share in shares for path, content in originals[share].items()
    }
    assert destination.files() == expected
    for share, folder in shares.items():
        _assert_rows_tell_the_truth(instruments[share], originals[share])
        # `rclone check` reads both sides whole, by its own clients, and fails for anything missing, added or different.
        source = f"smb:{share}{folder.base_path}"
        said = rclone("check", "--download", source, f"{destination.rclone_path}/{instruments[share].storage_folder}")
        assert f"{len(originals[share])} matching files" in said
    assert_nothing_is_wrong()
    _assert_manifests_could_restore_the_rows(destination, expected)

    _assert_second_run_takes_nothing(lab, list(schedules.values()), destination)
    assert {share: content_of(folder.path) for share, folder in shares.items()} == originals


def _assert_rows_tell_the_truth(instrument: Instrument, files: dict[str, bytes]) -> None:
    records = {record.source_path: record for record in FileRecord.objects.filter(instrument=instrument)}
    assert records.keys() == files.keys()
    for path, content in files.items():
        record = records[path]
        assert record.filename == path.split("/")[-1]
        assert record.size_bytes == len(content)
        assert record.xxhash == xxhash.xxh64_hexdigest(content)
        assert record.sha256 == hashlib.sha256(content).hexdigest()
        assert ark.is_valid(record.persistent_id), record.persistent_id
    for transfer in FileTransfer.objects.filter(record__instrument=instrument).select_related("storage_location"):
        assert transfer.state == State.AVAILABLE
        assert transfer.checksum_verified
        assert transfer.destination_path is not None
        assert transfer.destination_path.startswith(transfer.storage_location.base_path)


def _assert_manifests_could_restore_the_rows(destination: Destination, expected: dict[str, bytes]) -> None:
    lines = lines_of_manifests(destination)
    assert {line["stored_path"] for line in lines} == expected.keys()
    assert len(lines) == len(expected)
    arks = dict(FileRecord.objects.values_list("persistent_id", "source_path"))
    for line in lines:
        content = expected[line["stored_path"]]
        assert line["sha256"] == hashlib.sha256(content).hexdigest()
        assert (line["size_bytes"], line["version"], line["generation"]) == (len(content), 1, 1)
        assert arks[line["ark"]] == line["source_path"]
        assert line["stored_path"] == f"{line['instrument']}/{line['source_path']}"


def _assert_second_run_takes_nothing(lab: Lab, schedules: list[HarvestSchedule], destination: Destination) -> None:
    tables = (FileRecord, FileVersion, FileTransfer)
    rows, traces = [list(table.objects.order_by("pk").values()) for table in tables], destination.traces()
    for schedule in schedules:
        run = lab.harvest(schedule)
        assert run.status == "completed", complaints(run)
        assert run.files_seen > 0
        assert (run.files_discovered, run.files_completed, run.files_skipped, run.bytes_transferred) == (0, 0, 0, 0)
    assert [list(table.objects.order_by("pk").values()) for table in tables] == rows
    assert destination.traces() == traces
    assert HarvestRun.objects.count() == 2 * len(schedules)


def test_nothing_but_published_files_lies_at_a_base_path(
    lab: Lab, instruments: dict[str, Instrument], destination: Destination
) -> None:
    lab.harvest(lab.schedule(instruments["nmr"], destination))
    assert {path.split("/")[0] for path in destination.everything()} == {instruments["nmr"].storage_folder, RESERVED}
    reserved = {name.split("/")[0] for name in destination.reserved()}
    assert reserved - {"capabilities.json"} == {"sentinel", "manifests"}, "temporary files are left over"


def test_two_schedules_of_one_instrument_share_records_and_arks(
    lab: Lab, instruments: dict[str, Instrument], posix: Destination, s3: Destination
) -> None:
    first, second = (lab.schedule(instruments["nmr"], to) for to in (posix, s3))
    lab.harvest(first)
    arks = dict(FileRecord.objects.values_list("source_path", "persistent_id"))
    assert len(arks) == 10

    run = lab.harvest(second)

    assert (run.status, run.files_discovered, run.files_completed) == ("completed", 10, 10), complaints(run)
    assert dict(FileRecord.objects.values_list("source_path", "persistent_id")) == arks
    assert FileVersion.objects.count() == 10
    assert FileTransfer.objects.stored().count() == 20
    for record in FileRecord.objects.all():
        assert set(record.transfers.values_list("storage_location", flat=True)) == {posix.location.pk, s3.location.pk}
    assert posix.files() == s3.files()
    for schedule in (first, second):
        assert lab.harvest(schedule).files_discovered == 0
    assert_nothing_is_wrong()


def test_two_schedules_of_one_instrument_may_take_turns_file_by_file(
    lab: Lab, instruments: dict[str, Instrument], posix: Destination, cifs: Destination
) -> None:
    """Both are discovered before either is carried, as when they are due at the same time."""
    both = [lab.discover(lab.schedule(instruments["nmr"], to)) for to in (posix, cifs)]
    for run in both:
        assert lab.finish(run).files_completed == 10, complaints(run)
    assert FileRecord.objects.count() == FileVersion.objects.count() == 10
    assert posix.files() == cifs.files()
    assert_nothing_is_wrong()


def test_xxhsum_accepts_our_sums_on_the_share_and_on_the_storage(
    lab: Lab,
    instruments: dict[str, Instrument],
    shares: dict[str, ShareFolder],
    posix: Destination,
    tmp_path: Path,
) -> None:
    program = find_program("xxhsum")
    assert program, "xxhsum is not installed: apt-get install xxhash"
    lab.harvest(lab.schedule(instruments["hplc"], posix))
    records = FileRecord.objects.order_by("source_path")
    sums = tmp_path / "sums.xxh64"
    sums.write_text("".join(f"{record.xxhash}  {record.source_path}\n" for record in records))

    for folder in (shares["hplc"].path, tmp_path / "archive" / instruments["hplc"].storage_folder):
        command = [program, "--check", "--strict", str(sums)]
        checked = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert checked.stdout.count(": OK\n") == len(records) == 24
