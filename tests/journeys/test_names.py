"""Names with anything in them, on a server that shows them as they are on its disk."""

from __future__ import annotations

import shutil
import unicodedata
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harvest.demo.servers import SambaServer
from harvest.models import FileRecord, FileTransfer
from harvest.storage.names import decode
from tests.conftest import SMB_PASSWORD, SMB_USER, ShareFolder
from tests.journeys.destinations import Destination
from tests.journeys.lab import Lab, assert_nothing_is_wrong, complaints

NAMES = [
    unicodedata.normalize("NFC", "Zürich é.fid"),
    unicodedata.normalize("NFD", "Zürich é.fid"),
    "🧪 sample 👩‍🔬.raw",
    "قياس ١.dat",
    "試料 一号.dat",
    "reversed \u202egnp.exe",
    "full width ＡＢＣ．raw",
    "invisible\u200bspace\ufeff.raw",
    "line\u2028separator.raw",
    "  leading spaces.raw",
    "100% sure.raw",
    "already%2Fencoded%41.raw",
    "it's; a `name` & $(more) #1 [x] {y} ~ ^ !.raw",
    "-rf",
    "~$lock.docx",
    ".hidden",
    "no extension",
    "dots...in...between.tar.gz",
    "名" * 80 + ".raw",
    "x" * 200 + ".raw",
    "folder with ümlaut/deeper 🧫/file.raw",
    "folder.v2/a.v2.raw",
]
"""What SMB can carry."""

WINDOWS_CANNOT = ["trailing dot.", "trailing space ", "CON", "nul.txt", "COM1.raw", "a/aux/b.raw"]
"""What a disk below Samba can hold, Windows cannot, and Samba shows and opens all the same."""

UNOPENABLE = ["time 12:30.raw", "what?.raw", "star*.raw", 'quote".raw', "less<more>.raw", "pipe|.raw"]
"""What a disk below Samba can hold, and the protocol has no way to ask for."""


@pytest.fixture(scope="module")
def unmangled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    """Samba that shows every name as it is, instead of making up short ones."""
    folder = tmp_path_factory.mktemp("unmangled")
    (folder / "nmr").mkdir()
    shares = {"nmr": folder / "nmr"}
    with SambaServer(folder / "server", shares, {SMB_USER: SMB_PASSWORD}, options={"mangled names": "no"}) as server:
        yield server


@pytest.fixture
def folder(unmangled: SambaServer) -> Iterator[ShareFolder]:
    name = uuid.uuid4().hex
    path = unmangled.shares["nmr"].path / name
    path.mkdir()
    yield ShareFolder(path, "nmr", f"/{name}")
    shutil.rmtree(path)


def content_for(name: str) -> bytes:
    return f"content of {name!r}".encode()


def plant(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content_for(name))


def test_every_name_arrives_exactly_or_encoded_so_that_it_can_be_told_back(
    db: None, unmangled: SambaServer, folder: ShareFolder, destination: Destination
) -> None:
    names = NAMES + WINDOWS_CANNOT
    plant(folder.path, names)
    lab = Lab(unmangled)
    schedule = lab.schedule(lab.instrument(folder), destination)

    run = lab.harvest(schedule)

    assert (run.status, run.files_completed, run.walk_errors) == ("completed", len(names), 0), complaints(run)
    assert set(FileRecord.objects.values_list("source_path", flat=True)) == set(names)
    stored = {
        transfer.record.source_path: transfer.stored_path for transfer in FileTransfer.objects.select_related("record")
    }
    files = destination.files()
    for name in names:
        path = stored[name] or ""
        assert decode(path) == f"Spectrometer/{name}"
        assert files[path] == content_for(name)
    assert len(files) == len(names)
    assert_nothing_is_wrong()
    assert lab.harvest(schedule).files_discovered == 0


def test_names_that_cannot_be_asked_for_are_said_and_the_others_arrive(
    db: None, unmangled: SambaServer, folder: ShareFolder, posix: Destination
) -> None:
    plant(folder.path, [*UNOPENABLE, "fine.raw"])
    lab = Lab(unmangled)
    schedule = lab.schedule(lab.instrument(folder), posix)
    run = lab.harvest(schedule)
    assert posix.files() == {"Spectrometer/fine.raw": content_for("fine.raw")}
    assert run.status == "completed_with_errors"
    for name in UNOPENABLE:
        assert any(name in complaint for complaint in complaints(run)), (name, complaints(run))
    assert_nothing_is_wrong()


def test_made_up_short_names_are_taken_as_the_server_gives_them(
    lab: Lab, share_dir: ShareFolder, posix: Destination
) -> None:
    """By default Samba shows a name that Windows could not hold as a short one, such as TIDBZ4~M.RAW."""
    plant(share_dir.path, UNOPENABLE)
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    run = lab.harvest(schedule)
    assert (run.status, run.files_completed) == ("completed", len(UNOPENABLE)), complaints(run)
    assert sorted(posix.files().values()) == sorted(map(content_for, UNOPENABLE))
    assert lab.harvest(schedule).files_discovered == 0


def test_a_name_too_long_for_the_storage_is_said_and_the_others_arrive(
    db: None, unmangled: SambaServer, folder: ShareFolder, s3: Destination
) -> None:
    deep = "/".join(["k" * 200] * 6) + "/fid"
    plant(folder.path, [deep, "fine.raw"])
    lab = Lab(unmangled)
    run = lab.harvest(lab.schedule(lab.instrument(folder), s3))
    assert s3.files() == {"Spectrometer/fine.raw": content_for("fine.raw")}
    assert (run.status, run.files_completed, run.files_failed) == ("completed_with_errors", 1, 1)
    assert any("too long" in complaint and "1024" in complaint for complaint in complaints(run)), complaints(run)
