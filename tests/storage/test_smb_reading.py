"""Reading over SMB, many requests under way: every dialect and protection, files that change, readings given up."""

from __future__ import annotations

import os
import signal
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import smbclient

from harvest.demo.local_server import await_truth
from harvest.demo.servers import SambaServer, Share
from harvest.storage.base import CHUNK_BYTES, Entry, Fault, Storage, StorageError
from harvest.storage.smb import SmbStorage
from harvest.storage.smb import connection as connection_module
from harvest.storage.smb import read as read_module
from harvest.storage.smb import read_many as read_many_module
from tests.conftest import SMB_PASSWORD, SMB_USER, ShareFolder

Open = Callable[..., SmbStorage]


def storage_on(server: SambaServer, share: str, base_path: str = "/") -> SmbStorage:
    config = {"host": server.host, "port": server.port, "share": share}
    return SmbStorage.from_config(base_path, {**config, "username": SMB_USER, "password": SMB_PASSWORD})


@pytest.fixture(params=["pipelined", "plain"])
def storage(
    samba: SambaServer, share_dir: ShareFolder, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SmbStorage]:
    monkeypatch.setattr(SmbStorage, "pipelined", request.param == "pipelined")
    with storage_on(samba, share_dir.share, share_dir.base_path) as storage:
        yield storage


def plant(folder: Path, contents: dict[str, bytes]) -> None:
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def found(storage: Storage, top: str = "") -> list[Entry]:
    return sorted((item for item in storage.walk(top) if isinstance(item, Entry)), key=lambda one: one.path)


def read_all(storage: Storage, entries: list[Entry]) -> dict[str, bytes | StorageError]:
    """What the chunks of each said, in order."""
    told: dict[str, bytes | StorageError] = {}
    for reading in storage.read_many(entries):
        try:
            told[reading.path] = b"".join(bytes(chunk) for chunk in reading.chunks())
        except StorageError as error:
            told[reading.path] = error
    assert list(told) == [entry.path for entry in entries]
    return told


SIZES = (
    *(0, 1, 8192, 65535, 65536, 65537),
    *(read_many_module.SMALL_BYTES - 1, read_many_module.SMALL_BYTES, read_many_module.SMALL_BYTES + 1),
    *(read_module.PIECE_BYTES - 1, read_module.PIECE_BYTES, read_module.PIECE_BYTES + 1),
    *(4 * read_module.PIECE_BYTES, 3 * CHUNK_BYTES + 17),
)


def of_all_sizes() -> dict[str, bytes]:
    noise = os.urandom(max(SIZES))
    return {f"run/{number:02}/{size}": noise[:size] for number, size in enumerate(SIZES)}


# ------------------------------------------------------------------------------------------- dialects and protections


SERVERS = {
    "SMB 2.0.2, signed (HMAC-SHA256), one request at a time: the server has no multi-credit operations": (
        {"server max protocol": "SMB2_02"},
        "open",
    ),
    "SMB 2.1, signed (HMAC-SHA256), up to": ({"server max protocol": "SMB2_10"}, "open"),
    "SMB 3.0, signed (AES-CMAC), up to": ({"server max protocol": "SMB3_00"}, "open"),
    "SMB 3.0, encrypted (AES-128-CCM), up to": ({"server max protocol": "SMB3_00"}, "encrypted"),
    "SMB 3.0.2, signed (AES-CMAC), up to": ({"server max protocol": "SMB3_02"}, "open"),
    "SMB 3.1.1, signed (HMAC-SHA256), up to": ({"server smb3 signing algorithms": "HMAC-SHA256"}, "open"),
    "SMB 3.1.1, signed (AES-CMAC), up to": ({"server smb3 signing algorithms": "AES-128-CMAC"}, "open"),
    "SMB 3.1.1, signed (AES-GMAC), up to": ({}, "open"),
    "SMB 3.1.1, encrypted (AES-128-GCM), up to": ({}, "encrypted"),
    "SMB 3.1.1, encrypted (AES-256-GCM), up to": ({"server smb3 encryption algorithms": "AES-256-GCM"}, "encrypted"),
    "SMB 3.1.1, encrypted (AES-128-CCM), up to": ({"server smb3 encryption algorithms": "AES-128-CCM"}, "encrypted"),
    "SMB 3.1.1, encrypted (AES-256-CCM), up to": ({"server smb3 encryption algorithms": "AES-256-CCM"}, "encrypted"),
}


def read_on(tmp_path: Path, options: dict[str, str], share: str) -> str:
    """Everything that reading does, against a server with those `options`; what it says of the connection."""
    (tmp_path / "share").mkdir()
    contents = of_all_sizes() | {f"many/some file {number}": b"%d" % number for number in range(1500)}
    plant(tmp_path / "share", contents)
    shares = {
        "open": Share(tmp_path / "share"),
        "encrypted": Share(tmp_path / "share", options={"smb encrypt": "required"}),
    }
    with (
        SambaServer(tmp_path / "server", shares, {SMB_USER: SMB_PASSWORD}, options=options) as server,
        storage_on(server, share) as storage,
    ):
        entries = found(storage)
        assert [entry.path for entry in entries] == sorted(contents)
        assert read_all(storage, entries[-40:]) == {entry.path: contents[entry.path] for entry in entries[-40:]}
        assert storage.stat(entries[-1].path).same_content_as(entries[-1])
        assert b"".join(storage.read(entries[-1].path, offset=5)) == contents[entries[-1].path][5:]
        return storage.describe()


@pytest.mark.parametrize(("described", "options", "share"), [(said, *how) for said, how in SERVERS.items()])
def test_every_dialect_and_protection_is_read(
    tmp_path: Path, described: str, options: dict[str, str], share: str
) -> None:
    assert read_on(tmp_path, options, share).startswith(described)


@pytest.mark.parametrize("most", [1, 2, 5, 20])
def test_a_server_that_grants_few_credits_is_read(tmp_path: Path, most: int) -> None:
    assert "up to" in read_on(tmp_path, {"smb2 max credits": str(most)}, "open")


def test_a_person_can_have_smbprotocol_do_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmbStorage, "pipelined", False)

    said = read_on(tmp_path, {}, "encrypted")

    assert said == "SMB 3.1.1, encrypted (AES-128-GCM), one request at a time: as the settings say"


# -------------------------------------------------------------------------------------------------------- many files


def test_files_of_every_size_are_read_as_they_are(storage: SmbStorage, share_dir: ShareFolder) -> None:
    contents = of_all_sizes()
    plant(share_dir.path, contents)

    for reading, entry in zip(storage.read_many(found(storage)), found(storage), strict=True):
        pieces = [bytes(piece) for piece in reading.chunks()]
        assert b"".join(pieces) == contents[reading.path]
        assert all(0 < len(piece) <= CHUNK_BYTES for piece in pieces)
        assert reading.look().same_content_as(entry)
        assert reading.look().path == reading.path == entry.path


def test_five_thousand_small_files_are_read_as_they_are(samba: SambaServer, share_dir: ShareFolder) -> None:
    noise = os.urandom(1 << 16)
    contents = {f"{n % 7}/{n % 91}/{n}": noise[n : n + n % 4099] for n in range(5000)}
    plant(share_dir.path, contents)

    with storage_on(samba, share_dir.share, share_dir.base_path) as storage:
        storage.requests_in_flight = 32
        # Straight from the walk, so that both have requests under way on one connection.
        entries = (item for item in storage.walk() if isinstance(item, Entry))
        told = {one.path: b"".join(bytes(chunk) for chunk in one.chunks()) for one in storage.read_many(entries)}

    assert told == contents


@pytest.mark.parametrize("size_bytes", [100, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("change", [-50, -1, 1, 50, CHUNK_BYTES])
def test_a_file_of_another_size_than_told_has_changed_and_the_others_go_on(
    storage: SmbStorage, share_dir: ShareFolder, size_bytes: int, change: int
) -> None:
    plant(share_dir.path, {f"{number}": b"x" * size_bytes for number in range(4)})
    entries = found(storage)
    (share_dir.path / "1").write_bytes(b"x" * (size_bytes + change))

    told = read_all(storage, entries)

    error = told.pop("1")
    assert isinstance(error, StorageError)
    assert error.fault is Fault.CHANGED
    assert error.path == "1"
    assert told == dict.fromkeys(("0", "2", "3"), b"x" * size_bytes)


def test_a_file_that_shrinks_while_it_is_read_has_changed(storage: SmbStorage, share_dir: ShareFolder) -> None:
    plant(share_dir.path, {"0": b"x" * 12 * CHUNK_BYTES, "1": b"y"})
    readings = storage.read_many(found(storage))
    chunks = next(readings).chunks()
    next(chunks)

    os.truncate(share_dir.path / "0", CHUNK_BYTES)

    with pytest.raises(StorageError) as caught:
        list(chunks)
    assert caught.value.fault is Fault.CHANGED
    assert [bytes(chunk) for chunk in next(readings).chunks()] == [b"y"]


def test_a_file_that_changes_after_its_bytes_were_read_is_seen(storage: SmbStorage, share_dir: ShareFolder) -> None:
    plant(share_dir.path, {"0": b"x" * 12 * CHUNK_BYTES})
    (entry,) = found(storage)

    for reading in storage.read_many([entry]):
        chunks = reading.chunks()
        next(chunks)
        with (share_dir.path / "0").open("r+b") as file:  # the same size, another time
            file.write(b"header")
        assert sum(map(len, chunks)) > 0
        assert not reading.look().same_content_as(entry)


def test_what_cannot_be_read_is_told_in_its_turn_and_the_others_go_on(
    samba: SambaServer, storage: SmbStorage, share_dir: ShareFolder
) -> None:
    names = ["fine", "gone", "large gone", "large kept", "large locked", "locked", "zfine"]
    plant(share_dir.path, {name: name.encode() * (40_000 if "large" in name else 1) for name in names})
    entries = found(storage)
    (share_dir.path / "gone").unlink()
    (share_dir.path / "large gone").unlink()
    options: dict[str, Any] = {"port": samba.port, "username": SMB_USER, "password": SMB_PASSWORD}
    options["connection_cache"] = {}
    folder = f"\\\\{samba.host}\\{share_dir.share}{share_dir.base_path.replace('/', chr(92))}"

    with (
        smbclient.open_file(f"{folder}\\locked", mode="r+b", buffering=0, **options),
        smbclient.open_file(f"{folder}\\large locked", mode="r+b", buffering=0, **options),
    ):
        told = read_all(storage, entries)
    smbclient.reset_connection_cache(connection_cache=options["connection_cache"])

    faults = {name: error.fault for name, error in told.items() if isinstance(error, StorageError)}
    assert faults == {
        "gone": Fault.NOT_FOUND,
        "large gone": Fault.NOT_FOUND,
        "large locked": Fault.LOCKED,
        "locked": Fault.LOCKED,
    }
    assert told["fine"] == b"fine"
    assert told["large kept"] == b"large kept" * 40_000
    assert told["zfine"] == b"zfine"


# ------------------------------------------------------------------------------------- readings that are given up


def is_open_nowhere(samba: SambaServer, share_dir: ShareFolder, name: str) -> bool:
    """Whether the file can be opened for oneself alone, which it cannot while somebody else has it open."""
    options: dict[str, Any] = {"port": samba.port, "username": SMB_USER, "password": SMB_PASSWORD}
    options["connection_cache"] = {}
    path = f"\\\\{samba.host}\\{share_dir.share}{share_dir.base_path.replace('/', chr(92))}\\{name}"
    try:
        smbclient.open_file(path, mode="r+b", buffering=0, **options).close()
    except OSError:
        return False
    finally:
        smbclient.reset_connection_cache(connection_cache=options["connection_cache"])
    return True


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_reading_that_is_given_up_disturbs_nothing_that_follows(
    samba: SambaServer, storage: SmbStorage, share_dir: ShareFolder, taken: int
) -> None:
    contents = {f"{n:02}": os.urandom(3 * CHUNK_BYTES if n % 5 == 0 else 5000 + n) for n in range(30)}
    plant(share_dir.path, contents)
    entries = found(storage)

    for _ in range(3):
        readings = storage.read_many(entries)
        for reading, _ in zip(readings, range(taken), strict=False):
            next(reading.chunks())
        readings.close()
        assert storage.stat("07").size_bytes == 5007
        assert [entry.path for entry in found(storage)] == sorted(contents)

    assert read_all(storage, entries) == contents
    single = storage.read("05")
    next(single)
    single.close()
    for name in ("00", "05", "10"):
        await_truth(lambda name=name: is_open_nowhere(samba, share_dir, name), within_seconds=10)


def test_files_that_are_not_read_are_passed_over(storage: SmbStorage, share_dir: ShareFolder) -> None:
    contents = {f"{n:02}": os.urandom(CHUNK_BYTES if n % 3 == 0 else 100) for n in range(20)}
    plant(share_dir.path, contents)

    told = {}
    for number, reading in enumerate(storage.read_many(found(storage))):
        if number % 2:
            told[reading.path] = b"".join(bytes(chunk) for chunk in reading.chunks())

    assert told == {path: content for path, content in contents.items() if int(path) % 2}


def test_everything_else_can_be_done_between_two_pieces(storage: SmbStorage, share_dir: ShareFolder) -> None:
    contents = {f"{n}/fid": os.urandom(6 * CHUNK_BYTES if n == 1 else 300) for n in range(9)}
    plant(share_dir.path, contents)
    entries = found(storage)

    walking = storage.walk()
    told = {}
    for reading in storage.read_many(entries):
        content = b""
        for chunk in reading.chunks():
            content += chunk
            assert storage.stat("3/fid").size_bytes == 300
            assert b"".join(storage.read("4/fid")) == contents["4/fid"]
        told[reading.path] = content
        assert isinstance(next(walking), Entry)
        assert [item.path for item in storage.walk("5")] == ["5/fid"]

    assert told == contents
    assert list(walking) == []


# ---------------------------------------------------------------------------------------------------- listings


def test_a_listing_of_many_entries_takes_little_memory(samba: SambaServer, share_dir: ShareFolder) -> None:
    names = [f"{number % 3}/measurement {number:06}.raw" for number in range(20_000)]
    plant(share_dir.path, dict.fromkeys(names[:3], b""))
    for name in names:
        os.close(os.open(share_dir.path / name, os.O_CREAT))

    with storage_on(samba, share_dir.share, share_dir.base_path) as storage:
        tracemalloc.start()
        try:
            seen = sum(1 for _ in storage.walk())
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert seen == len(names)
        assert peak_bytes < 2 * CHUNK_BYTES
        assert [entry.path for entry in found(storage)] == sorted(names)


def open_in(server: SambaServer) -> Iterator[str]:
    """What the server's processes have open."""
    for pid in pids_of(server):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield str(handle.readlink())


def test_a_walk_that_pauses_holds_no_folder_open(
    samba: SambaServer, storage: SmbStorage, share_dir: ShareFolder
) -> None:
    """Windows lets nobody rename a folder in which a folder is open."""
    plant(share_dir.path, {f"run/{number}/fid": b"" for number in range(60)})
    walking = storage.walk()
    next(walking)
    connection = storage._session.connection()
    connection.ask(connection_module.messages.echo())  # all that was sent before is answered

    assert not any(path.startswith(str(share_dir.path)) for path in open_in(samba))
    walking.close()
    assert len(found(storage)) == 60


# -------------------------------------------------------------------------------------------------- lost and found


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[SambaServer]:
    """A server that a test may kill."""
    (tmp_path / "share").mkdir()
    with SambaServer(tmp_path / "server", {"nmr": tmp_path / "share"}, {SMB_USER: SMB_PASSWORD}) as server:
        yield server


def pids_of(server: SambaServer) -> list[int]:
    """The server's processes: all of its group."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, row.split())) for row in listed.splitlines()]
    return [pid for pid, group in pairs if group == server.pid]


def kill_newest_process(server: SambaServer) -> None:
    """The one that serves the newest connection."""
    newest = max(pids_of(server))
    assert newest != server.pid
    os.kill(newest, signal.SIGKILL)
    await_truth(lambda: not Path(f"/proc/{newest}/fd/0").exists(), within_seconds=10)


@pytest.mark.parametrize("size_bytes", [100, 12 * CHUNK_BYTES])
def test_a_connection_lost_while_reading_is_told_by_all_that_follow_and_made_anew(
    own_server: SambaServer, size_bytes: int
) -> None:
    contents = {f"{number:02}": b"x" * size_bytes for number in range(20)}
    plant(own_server.shares["nmr"].path, contents)

    with storage_on(own_server, "nmr") as storage:
        entries = found(storage)
        readings = storage.read_many(entries)
        next(next(readings).chunks())
        kill_newest_process(own_server)

        faults = set()
        for reading in readings:
            try:
                assert b"".join(bytes(chunk) for chunk in reading.chunks()) == contents[reading.path]
            except StorageError as error:
                faults.add((error.fault, error.path == reading.path))

        assert faults == {(Fault.UNREACHABLE, True)}
        assert read_all(storage, entries[:3]) == {path: contents[path] for path in list(contents)[:3]}


def test_a_connection_that_ended_while_nobody_used_it_is_made_anew_at_once(own_server: SambaServer) -> None:
    plant(own_server.shares["nmr"].path, {"fid": b"x"})

    with storage_on(own_server, "nmr") as storage:
        kill_newest_process(own_server)
        assert storage.stat("fid").size_bytes == 1
