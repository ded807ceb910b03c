"""The POSIX kind: links that lead out, disks that fail, and what is on the disk at each moment."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harvest.storage import posix as posix_module
from harvest.storage.base import CHUNK_BYTES, RESERVED, Entry, Fault, StorageError, Unreadable
from harvest.storage.posix import SYNC_ALL_FROM, PosixStorage

NOBODY = 65534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else or mount")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    base.mkdir()
    return base


@pytest.fixture
def storage(base: Path) -> Iterator[PosixStorage]:
    with PosixStorage(str(base)) as storage:
        yield storage


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    return outside


def bring(storage: PosixStorage, path: str, content: bytes, token: str = "t1") -> StorageError | None:
    staged = storage.write(path, token, [content])
    storage.make_durable([staged])
    (error,) = storage.publish([staged])
    return error


# ------------------------------------------------------------------------------------------------------------- links


def test_a_link_to_a_folder_is_not_followed(storage: PosixStorage, base: Path, outside: Path) -> None:
    (base / "run").symlink_to(outside)

    error = bring(storage, "run/fid", b"content")

    assert error is not None
    assert error.fault is Fault.NAME
    assert "link" in str(error)
    for attempt in (storage.stat, lambda path: list(storage.read(path)), storage.delete):
        with pytest.raises(StorageError):
            attempt("run/secret")
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_link_to_a_file_is_not_followed(storage: PosixStorage, base: Path, outside: Path) -> None:
    (base / "fid").symlink_to(outside / "secret")

    with pytest.raises(StorageError) as caught:
        list(storage.read("fid"))
    assert caught.value.fault is Fault.DENIED
    with pytest.raises(StorageError):
        storage.stat("fid")
    error = bring(storage, "fid", b"content")
    assert error is not None
    assert error.fault is Fault.EXISTS
    storage.delete("fid")
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_dangling_link_is_a_taken_name(storage: PosixStorage, base: Path) -> None:
    (base / "fid").symlink_to(base / "nowhere")

    error = bring(storage, "fid", b"content")

    assert error is not None
    assert error.fault is Fault.EXISTS
    assert not (base / "nowhere").exists()


def test_a_walk_reports_links_and_does_not_follow_them(storage: PosixStorage, base: Path, outside: Path) -> None:
    (base / "real").mkdir()
    (base / "real" / "fid").write_bytes(b"x")
    (base / "loop").symlink_to(base)
    (base / "out").symlink_to(outside)
    (base / "real" / "up").symlink_to("..")

    found = list(storage.walk())

    assert [item.path for item in found if isinstance(item, Entry)] == ["real/fid"]
    refused = {item.path: item.error for item in found if isinstance(item, Unreadable)}
    assert sorted(refused) == ["loop", "out", "real/up"]
    assert all(error.fault is Fault.NAME and "symbolic link" in str(error) for error in refused.values())


def test_a_temporary_folder_that_is_a_link_is_not_used(storage: PosixStorage, base: Path, outside: Path) -> None:
    (base / RESERVED).mkdir()
    (base / RESERVED / "tmp").symlink_to(outside)

    with pytest.raises(StorageError):
        storage.write("fid", "t1", [b"content"])

    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_folder_swapped_for_a_link_never_leads_out(storage: PosixStorage, base: Path, outside: Path) -> None:
    """Somebody with rights below the base path exchanges a folder and a link to another place while we work."""
    (base / "run").mkdir()
    (base / "link").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            exchange(base / "run", base / "link")

    swapper = threading.Thread(target=swap)
    swapper.start()
    published = 0
    try:
        for number in range(300):
            staged = storage.write(f"run/{number}", f"t{number}", [b"content"])
            with suppress(StorageError):  # where it is a link again when its name is to be made durable
                published += list(storage.publish([staged])) == [None]
            with suppress(StorageError):
                assert list(storage.read("run/secret")) == [], "it was read through the link"
            with suppress(StorageError):
                storage.delete("run/secret")
    finally:
        done.set()
        swapper.join()

    assert published
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"secret": b"secret"}


def exchange(one: Path, other: Path) -> None:
    """Swap two names in one act: renameat2(2) with RENAME_EXCHANGE."""
    at_working_folder, rename_exchange = -100, 2
    failed = ctypes.CDLL(None).renameat2(
        at_working_folder, bytes(one), at_working_folder, bytes(other), rename_exchange
    )
    assert not failed


def test_the_base_path_itself_may_be_a_link(base: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").symlink_to(base)

    with PosixStorage(str(tmp_path / "archive")) as storage:
        assert bring(storage, "fid", b"content") is None

    assert (base / "fid").read_bytes() == b"content"


# ------------------------------------------------------------------------------------------------------ what is there


def test_what_is_no_file_is_not_taken_for_one(storage: PosixStorage, base: Path) -> None:
    os.mkfifo(base / "pipe")
    (base / "fid").write_bytes(b"x")

    assert [item.path for item in storage.walk() if isinstance(item, Entry)] == ["fid"]
    with pytest.raises(StorageError) as caught:
        storage.stat("pipe")
    assert caught.value.fault is Fault.NOT_FOUND


def test_a_name_that_is_no_text_is_reported(storage: PosixStorage, base: Path) -> None:
    (base / os.fsdecode(b"bad\xff\xfe.raw")).write_bytes(b"x")
    (base / "good.raw").write_bytes(b"x")

    found = list(storage.walk())

    assert [item.path for item in found if isinstance(item, Entry)] == ["good.raw"]
    (unreadable,) = (item for item in found if isinstance(item, Unreadable))
    assert unreadable.error.fault is Fault.NAME
    unreadable.path.encode()  # can be kept and shown


@pytest.mark.parametrize("seconds", [-(2**33), 0, 2**33, 2**62 // 10**9])
def test_any_time_of_change_can_be_told(storage: PosixStorage, base: Path, seconds: int) -> None:
    (base / "fid").write_bytes(b"x")
    os.utime(base / "fid", (seconds, seconds))

    assert storage.stat("fid").modified_at.tzinfo is not None
    assert [storage.stat("fid")] == list(storage.walk())


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every account can reach and list; pytest's own belong to root alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(base: Path, script: str) -> list[str]:
    """The lines that `script` prints, run with a PosixStorage at `base` by an account without rights."""
    prologue = f"""
import os
from harvest.storage.posix import PosixStorage
storage = PosixStorage({str(base)!r})
os.setegid({NOBODY})
os.seteuid({NOBODY})
storage.connect()
"""
    run = subprocess.run([sys.executable, "-c", prologue + script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@only_root
def test_an_unreadable_folder_is_reported_and_the_rest_goes_on(open_to_all: Path) -> None:
    for name in ("a", "closed", "z"):
        (open_to_all / name).mkdir()
        (open_to_all / name / "fid").write_bytes(b"x")
    (open_to_all / "closed").chmod(0o700)

    told = as_nobody(open_to_all, "for item in storage.walk(): print(item.path, getattr(item, 'error', ''))\n")

    assert [line.split(maxsplit=1)[0] for line in sorted(told)] == ["a/fid", "closed", "z/fid"]
    assert "Permission denied" in sorted(told)[1]


@only_root
def test_a_folder_we_may_not_write_to_is_told(open_to_all: Path) -> None:
    told = as_nobody(open_to_all, "for check in storage.check(): print(check.ok, check.name, check.detail)\n")

    assert told[-1].startswith("False write a file")
    assert "permissions" in told[-1]
    assert list(open_to_all.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------- durability


@pytest.mark.parametrize("count", [1, SYNC_ALL_FROM - 1, SYNC_ALL_FROM, 3 * SYNC_ALL_FROM])
def test_what_is_gone_or_not_a_batch_of_any_size_is_made_durable(storage: PosixStorage, count: int) -> None:
    staged = [storage.write(f"run/{number}", f"t{number}", [b"x"]) for number in range(count)]

    storage.make_durable(staged)
    storage.make_durable([])

    assert list(storage.publish(staged)) == [None] * count


def test_a_file_that_vanished_holds_up_nobody_and_is_told_when_it_is_read_back(storage: PosixStorage) -> None:
    gone, kept = (storage.write(f"run/{name}", name, [b"x"]) for name in ("gone", "kept"))
    storage.discard(gone.ref, gone.path)

    storage.make_durable([gone, kept])

    assert b"".join(storage.read_back(kept)) == b"x"
    with pytest.raises(StorageError) as caught:
        list(storage.read_back(gone))
    assert caught.value.fault is Fault.NOT_FOUND


def test_every_folder_that_got_a_name_is_synced_once(storage: PosixStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = [storage.write(f"run/{number % 2}/{number}", f"t{number}", [b"x"]) for number in range(10)]
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink())))

    assert list(storage.publish(staged)) == [None] * 10

    base = storage.base_path
    assert sorted(synced) == [base, f"{base}/run", f"{base}/run/0", f"{base}/run/1"]


def test_a_file_system_without_rename_noreplace_is_linked_to(
    storage: PosixStorage, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OldSystem:
        """NFS answers so."""

        syncfs = posix_module._LIBC.syncfs

        @staticmethod
        def renameat2(*_: object) -> int:
            posix_module.ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(posix_module, "_LIBC", OldSystem)

    assert bring(storage, "run/fid", b"first") is None
    refused = bring(storage, "run/fid", b"second", "t2")

    assert refused is not None
    assert refused.fault is Fault.EXISTS
    assert (base / "run/fid").read_bytes() == b"first"
    assert list(storage.leftovers()) == [("t2", "t2")]
    assert (base / "run/fid").stat().st_nlink == 1


def test_modes_are_what_the_umask_leaves(storage: PosixStorage, base: Path) -> None:
    before = os.umask(0o027)
    try:
        assert bring(storage, "run/fid", b"x") is None
    finally:
        os.umask(before)

    assert stat.S_IMODE((base / "run").stat().st_mode) == 0o750
    assert stat.S_IMODE((base / "run/fid").stat().st_mode) == 0o640


# ---------------------------------------------------------------------------------------------------------- bad disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=20", "small", path], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk_is_told_and_nothing_is_left(small_disk: Path) -> None:
    with PosixStorage(str(small_disk)) as storage:
        with pytest.raises(StorageError, match=r"full after 2,\d+,\d+ bytes; \d+ bytes are free") as caught:
            storage.write("run/fid", "t1", [b"x" * CHUNK_BYTES] * 3)

        assert caught.value.fault is Fault.FULL
        assert caught.value.whole_storage
        assert list(storage.leftovers()) == []
        assert storage.free_bytes() > CHUNK_BYTES


def test_a_disk_without_inodes_is_told(small_disk: Path) -> None:
    with PosixStorage(str(small_disk)) as storage:
        staged = (storage.write(f"{number}", f"t{number}", [b""]) for number in range(30))
        with pytest.raises(StorageError, match="no inode left") as caught:
            list(staged)
    assert caught.value.fault is Fault.FULL


def test_a_read_only_disk_is_told(small_disk: Path) -> None:
    with PosixStorage(str(small_disk)) as storage:
        assert bring(storage, "fid", b"x") is None
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    with PosixStorage(str(small_disk)) as storage:
        with pytest.raises(StorageError) as caught:
            storage.write("other", "t2", [b"x"])
        assert caught.value.fault is Fault.READ_ONLY
        assert b"".join(storage.read("fid")) == b"x"
    checks = PosixStorage(str(small_disk)).check()
    assert "read-only" in checks[-1].detail
    assert not checks[-1].ok
    assert all(check.ok for check in PosixStorage(str(small_disk)).check(write=False))


def test_another_file_system_below_the_base_path_is_told(base: Path, storage: PosixStorage) -> None:
    (base / "run").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "other", base / "run"], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        error = bring(storage, "run/fid", b"x")
    finally:
        subprocess.run(["umount", base / "run"], check=True)

    assert error is not None
    assert error.fault is Fault.CONFIGURATION
    assert "Another file system" in str(error)


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.EIO, Fault.IO),
        (errno.EDQUOT, Fault.FULL),
        (errno.EROFS, Fault.READ_ONLY),
        (errno.EACCES, Fault.DENIED),
        (errno.ESTALE, Fault.NOT_MOUNTED),
        (errno.ETIMEDOUT, Fault.TIMEOUT),
        (errno.ENOSPC, Fault.FULL),
        (errno.EMFILE, Fault.IO),
    ],
)
def test_a_failing_write_is_classified_and_leaves_nothing(
    storage: PosixStorage, base: Path, monkeypatch: pytest.MonkeyPatch, number: int, fault: Fault
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(StorageError) as caught:
        storage.write("run/fid", "t1", [b"x"])
    monkeypatch.undo()

    assert caught.value.fault is fault
    assert caught.value.path == "run/fid"
    assert list(storage.leftovers()) == []
    assert not (base / "run").exists()


def test_an_error_of_the_source_is_not_taken_for_ours(storage: PosixStorage) -> None:
    def source() -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.EIO, "the source's own")

    with pytest.raises(OSError, match="the source's own") as caught:
        storage.write("run/fid", "t1", source())
    assert not isinstance(caught.value, StorageError)


def test_a_disk_that_went_away_is_told(base: Path) -> None:
    storage = PosixStorage(str(base))
    shutil.rmtree(base)

    with pytest.raises(StorageError, match="Mount the disk") as caught:
        storage.connect()
    assert caught.value.fault is Fault.NOT_MOUNTED


def test_a_file_for_a_base_path_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        PosixStorage(str(tmp_path / "file")).connect()
    assert caught.value.fault is Fault.NOT_MOUNTED


def test_a_relative_base_path_is_refused() -> None:
    with pytest.raises(StorageError, match="absolute"):
        PosixStorage("archive")


def test_no_handle_is_left_open(base: Path) -> None:
    def handles() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = handles()
    with PosixStorage(str(base)) as storage:
        for number in range(20):
            assert bring(storage, f"run/{number}/fid", b"x", f"t{number}") is None
            next(iter(storage.walk()))
            with suppress(StorageError):
                storage.stat("missing/file")
        reading = storage.read("run/1/fid")
        next(reading)
        reading.close()  # type: ignore[attr-defined]
    assert handles() == before
