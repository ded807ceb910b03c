"""The SMB kind on real Samba: instruments that work on their files meanwhile, loops, strange names, lost servers."""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import smbclient
from hypothesis import given
from hypothesis import strategies as st
from smbprotocol import exceptions as smb_errors
from smbprotocol.header import Smb2Flags, SMB2HeaderResponse

from harvest.demo.local_server import await_truth
from harvest.demo.servers import ImpacketServer, SambaServer, Share
from harvest.storage.base import CHUNK_BYTES, RESERVED, Entry, Fault, StorageError, Unreadable
from harvest.storage.smb import SmbStorage, messages
from harvest.storage.smb import connection as connection_module
from harvest.storage.smb import login as login_module
from harvest.storage.smb import session as session_module
from harvest.storage.smb.classify import classify
from harvest.storage.smb.hidden import temporary
from harvest.storage.smb.listing import Listed, MalformedListingError, moment, parse_listing
from harvest.storage.smb.login import SignedConnection
from harvest.storage.smb.walk import DEEPEST, walk

USER, PASSWORD = "svc-nmr", "nmr-Passw0rd"
ORDINARY_ACCOUNT = "daemon"
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else or mount")

Connect = Callable[..., SmbStorage]


@pytest.fixture(scope="module")
def open_to_all() -> Iterator[Path]:
    """A folder that every account can reach; pytest's own belong to root alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def server(open_to_all: Path) -> Iterator[SambaServer]:
    share = open_to_all / "share"
    share.mkdir()
    shares = {
        "nmr": Share(share),
        "locked": Share(share, read_only=True),
        "encrypted": Share(share, options={"smb encrypt": "required"}),
        "raw": Share(share, options={"mangled names": "no"}),
        "dfs": Share(share, options={"msdfs root": "yes"}),
        "ordinary": Share(share, options={"force user": ORDINARY_ACCOUNT}),
    }
    with SambaServer(open_to_all / "server", shares, {USER: PASSWORD}) as server:
        yield server


@pytest.fixture
def folder(server: SambaServer, request: pytest.FixtureRequest) -> Path:
    """An empty folder on every share of the server."""
    path: Path = server.shares["nmr"].path / request.node.name.replace("[", "-").replace("]", "").replace("/", "-")
    path.mkdir()
    return path


@pytest.fixture
def connect(server: SambaServer, folder: Path) -> Iterator[Connect]:
    """Opens storages on the folder, which are closed at the end of the test."""
    opened: list[SmbStorage] = []

    def connect(share: str = "nmr", base_path: str | None = None, **changes: Any) -> SmbStorage:
        config = {"host": server.host, "port": server.port, "share": share, "username": USER, "password": PASSWORD}
        storage = SmbStorage.from_config(folder.name if base_path is None else base_path, {**config, **changes})
        opened.append(storage)
        storage.connect()
        return storage

    yield connect
    for storage in opened:
        storage.close()


@pytest.fixture
def storage(connect: Connect) -> SmbStorage:
    return connect()


@pytest.fixture
def instrument(server: SambaServer, folder: Path) -> Iterator[Instrument]:
    """The other side: a client that works on its own files, with the share modes that Windows programs ask for."""
    instrument = Instrument(server, folder.name)
    yield instrument
    smbclient.reset_connection_cache(fail_on_error=False, connection_cache=instrument.options["connection_cache"])


class Instrument:
    def __init__(self, server: SambaServer, folder: str) -> None:
        self.folder = f"\\\\{server.host}\\nmr\\{folder}"
        self.options: dict[str, Any] = {
            "port": server.port,
            "username": USER,
            "password": PASSWORD,
            "connection_cache": {},
        }

    def path(self, name: str) -> str:
        return f"{self.folder}\\{name}"

    def open(self, name: str, mode: str, **options: Any) -> Any:
        return smbclient.open_file(self.path(name), mode=mode, buffering=0, **options, **self.options)


def bring(storage: SmbStorage, path: str, content: bytes, token: str = "t1") -> StorageError | None:
    (error,) = storage.publish([storage.write(path, token, [content])])
    return error


def entries(storage: SmbStorage) -> list[str]:
    return sorted(item.path for item in storage.walk() if isinstance(item, Entry))


def unreadable(storage: SmbStorage) -> dict[str, StorageError]:
    return {item.path: item.error for item in storage.walk() if isinstance(item, Unreadable)}


# --------------------------------------------------------------------------------------------- beside the instrument


def test_the_instrument_is_not_locked_out_while_we_read(
    storage: SmbStorage, folder: Path, instrument: Instrument
) -> None:
    content = os.urandom(12 * CHUNK_BYTES)
    (folder / "fid").write_bytes(content)

    reading = storage.read("fid")
    received = [next(reading)]
    with instrument.open("fid", "r+b", share_access="r") as file:  # nobody else may write, as programs ask for
        file.write(b"HEADER")
    smbclient.rename(instrument.path("fid"), instrument.path("fid.1"), **instrument.options)
    received += reading

    assert b"".join(received)[CHUNK_BYTES:] == content[CHUNK_BYTES:]
    assert (folder / "fid.1").read_bytes()[:6] == b"HEADER"
    with pytest.raises(StorageError) as caught:
        storage.stat("fid")
    assert caught.value.fault is Fault.NOT_FOUND


def test_a_file_that_is_deleted_while_we_read_is_read_to_its_end(
    storage: SmbStorage, folder: Path, instrument: Instrument
) -> None:
    (folder / "fid").write_bytes(b"x" * 12 * CHUNK_BYTES)

    reading = storage.read("fid")
    first = next(reading)
    smbclient.remove(instrument.path("fid"), **instrument.options)

    assert len(first) + sum(map(len, reading)) == 12 * CHUNK_BYTES
    assert not (folder / "fid").exists()


def test_a_file_that_shrinks_while_we_read_has_changed(storage: SmbStorage, folder: Path) -> None:
    (folder / "fid").write_bytes(b"x" * 12 * CHUNK_BYTES)

    reading = storage.read("fid")
    next(reading)
    os.truncate(folder / "fid", 10)

    with pytest.raises(StorageError, match="shorter") as caught:
        list(reading)
    assert caught.value.fault is Fault.CHANGED
    assert not caught.value.permanent


def test_a_file_that_grows_while_we_read_ends_where_it_ended(storage: SmbStorage, folder: Path) -> None:
    (folder / "fid").write_bytes(b"x" * CHUNK_BYTES)
    before = storage.stat("fid")

    reading = storage.read("fid")
    received = [next(reading)]
    with (folder / "fid").open("ab") as file:
        file.write(b"more")
    received += reading

    assert b"".join(received) == b"x" * CHUNK_BYTES
    assert not storage.stat("fid").same_content_as(before)


def test_a_file_that_the_instrument_keeps_to_itself_is_locked(
    storage: SmbStorage, folder: Path, instrument: Instrument
) -> None:
    (folder / "fid").write_bytes(b"x")

    with instrument.open("fid", "r+b"):
        with pytest.raises(StorageError, match="Another program") as caught:
            list(storage.read("fid"))
        assert caught.value.fault is Fault.LOCKED
        assert not caught.value.permanent
        assert entries(storage) == ["fid"]

    assert b"".join(storage.read("fid")) == b"x"


def test_a_staged_file_is_opened_by_nobody(storage: SmbStorage, instrument: Instrument) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * 4 * CHUNK_BYTES  # less would not be sent before the end is known
        with pytest.raises(smb_errors.SMBOSError, match="0xc0000043"):
            instrument.open(temporary("t1").replace("/", "\\"), "rb", share_access="rwd")
        yield b"y"

    assert storage.write("fid", "t1", chunks()).size_bytes == 4 * CHUNK_BYTES + 1


def test_two_names_that_differ_by_case_are_one(storage: SmbStorage, folder: Path) -> None:
    assert SmbStorage.folds_case
    assert bring(storage, "Sample.raw", b"first") is None

    error = bring(storage, "sample.RAW", b"second", "t2")

    assert error is not None
    assert error.fault is Fault.EXISTS
    assert (folder / "Sample.raw").read_bytes() == b"first"


# ------------------------------------------------------------------------------------------------------------- walking


def test_a_loop_of_links_on_the_server_is_met_once(storage: SmbStorage, folder: Path) -> None:
    """Samba shows a link that it follows as an ordinary folder."""
    (folder / "run" / "1").mkdir(parents=True)
    (folder / "run" / "1" / "fid").write_bytes(b"x")
    (folder / "run" / "1" / "up").symlink_to("..")
    (folder / "run" / "top").symlink_to("..")
    (folder / "same").symlink_to("run")

    found = list(storage.walk())

    assert [item.path for item in found if isinstance(item, Entry)] == ["run/1/fid"]
    refused = {item.path: item.error for item in found if isinstance(item, Unreadable)}
    assert sorted(refused) == ["run/1/up", "run/top", "same"]
    assert all(error.fault is Fault.NAME and "met already" in str(error) for error in refused.values())


def test_a_dfs_link_is_not_followed(connect: Connect, folder: Path, server: SambaServer) -> None:
    (folder / "elsewhere").symlink_to(f"msdfs:{server.host}\\nmr")
    (folder / "fid").write_bytes(b"x")
    storage = connect("dfs")

    assert entries(storage) == ["fid"]
    (error,) = unreadable(storage).values()
    assert error.fault in (Fault.NAME, Fault.CONFIGURATION)
    with pytest.raises(StorageError):
        storage.stat("elsewhere/fid")


def test_a_dfs_share_is_a_share_like_any_other(connect: Connect, folder: Path) -> None:
    storage = connect("dfs")

    assert bring(storage, "run/fid", b"x") is None
    assert b"".join(storage.read("run/fid")) == b"x"
    assert (folder / "run/fid").read_bytes() == b"x"


@only_root
def test_a_folder_we_may_not_read_is_reported_and_the_rest_goes_on(connect: Connect, folder: Path) -> None:
    for name in ("a", "closed", "z"):
        (folder / name).mkdir()
        (folder / name / "fid").write_bytes(b"x")
    (folder / "closed").chmod(0o700)
    (folder / "a" / "secret").write_bytes(b"x")
    (folder / "a" / "secret").chmod(0o600)
    storage = connect("ordinary")

    found = list(storage.walk())

    assert [item.path for item in found if isinstance(item, Entry)] == ["a/fid", "a/secret", "z/fid"]
    (error,) = (item.error for item in found if isinstance(item, Unreadable))
    assert (error.fault, error.path) == (Fault.DENIED, "closed")
    with pytest.raises(StorageError) as caught:
        list(storage.read("a/secret"))
    assert caught.value.fault is Fault.DENIED
    assert not caught.value.whole_storage


def test_names_are_those_that_the_server_gives(connect: Connect, folder: Path) -> None:
    names = ["colon:stream.raw", "trailing dot.", "trailing space ", "new\nline", "CON", "e\u0301", "\u00e9", "測🧪"]
    for name in names:
        (folder / name).write_bytes(name.encode())

    plain, mangled = connect("raw"), connect()

    assert entries(plain) == sorted(names)
    assert sorted(b"".join(mangled.read(path)) for path in entries(mangled)) == sorted(map(str.encode, names))
    for name in names:
        if name in ("colon:stream.raw", "new\nline"):  # what SMB cannot say, the server lists and does not open
            with pytest.raises(StorageError) as caught:
                list(plain.read(name))
            assert caught.value.fault is Fault.NAME
        else:
            assert b"".join(plain.read(name)) == name.encode()


def test_a_path_that_is_too_long_for_the_server_is_told(storage: SmbStorage) -> None:
    path = "/".join(["x" * 200] * 25)

    with pytest.raises(StorageError) as caught:
        storage.stat(path)

    assert caught.value.fault in (Fault.NAME, Fault.NOT_FOUND)


def test_files_and_folders_have_the_times_and_ids_of_the_disk(storage: SmbStorage, folder: Path) -> None:
    (folder / "fid").write_bytes(b"x")
    os.utime(folder / "fid", ns=(0, 1_700_000_000_123_456_700))

    (listed,) = storage.walk()

    assert isinstance(listed, Entry)
    assert listed.modified_at == datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)
    assert listed.file_id == str((folder / "fid").stat().st_ino)
    (folder / "fid").rename(folder / "fid.1")
    assert storage.stat("fid.1").file_id == listed.file_id
    assert storage.clock_offset_seconds() == pytest.approx(0, abs=30)


# -------------------------------------------------------------------------------- listings that nobody should trust


FOLDER, REPARSE = 0x10, 0x400


def line(name: str, **changes: Any) -> Listed:
    defaults: dict[str, Any] = {
        "size_bytes": 1,
        "modified": 133_444_736_000_000_000,
        "changed": 133_444_736_000_000_000,
        "created": 0,
        "attributes": 0x20,
        "reparse_tag": 0,
        "file_id": 0,
    }
    return Listed(name=name, **{**defaults, **changes})


def walk_over(listings: dict[str, list[Listed]]) -> tuple[list[str], dict[str, StorageError]]:
    def list_folder(path: str) -> Iterator[Listed]:
        yield from listings[path]

    def look(path: str) -> Listed:
        above, _, name = path.rpartition("/")
        return next(item for item in listings[above] if item.name == name) if path else line("", attributes=FOLDER)

    found = list(walk(list_folder, look, "", recursive=True))
    return (
        [item.path for item in found if isinstance(item, Entry)],
        {item.path: item.error for item in found if isinstance(item, Unreadable)},
    )


@pytest.mark.parametrize("name", ["a/b", "..\\..\\Windows\\win.ini", "/etc/passwd", "\\x", "nul\0.raw", "half \ud83d"])
def test_a_name_that_would_lead_elsewhere_is_reported_and_never_used(name: str) -> None:
    taken, refused = walk_over({"": [line("."), line(".."), line("good"), line(name), line(name, attributes=0x10)]})

    assert taken == ["good"]
    ((shown, error),) = refused.items()
    assert error.fault is Fault.NAME
    shown.encode()
    assert "\0" not in shown


@pytest.mark.parametrize(
    ("attributes", "tag", "is_taken"),
    [
        (0x20, 0, True),
        (0x20 | REPARSE, 0x80000013, True),  # deduplicated
        (0x20 | REPARSE, 0x80000017, True),  # compressed by the system
        (0x20 | REPARSE, 0x9000001A, True),  # in the cloud
        (0x20 | REPARSE, 0xA000000C, False),  # symbolic link
        (FOLDER | REPARSE, 0xA0000003, False),  # junction
        (FOLDER | REPARSE, 0xA000000C, False),  # symbolic link to a folder
        (FOLDER | REPARSE, 0x8000000A, False),  # DFS link
    ],
)
def test_what_stands_for_itself_is_taken_and_what_leads_elsewhere_is_not(
    attributes: int, tag: int, is_taken: bool
) -> None:
    taken, refused = walk_over({"": [line("fid", attributes=attributes, reparse_tag=tag)]})

    assert (taken, list(refused)) == ((["fid"], []) if is_taken else ([], ["fid"]))


def test_a_loop_without_ids_ends_somewhere() -> None:
    def list_folder(path: str) -> Iterator[Listed]:
        yield line("fid")
        yield line("again", attributes=FOLDER)

    found = list(walk(list_folder, line, "", recursive=True))

    assert sum(isinstance(item, Entry) for item in found) == DEEPEST + 1
    assert [item.error.fault for item in found if isinstance(item, Unreadable)] == [Fault.NAME]


def test_folders_of_two_disks_may_have_one_id() -> None:
    """Each ZFS or Btrfs below a share gives its top folder the same number."""
    folders = [
        line(f"disk{number}", attributes=FOLDER, file_id=34, changed=133_444_736_000_000_000 + number)
        for number in (1, 2)
    ]

    taken, refused = walk_over({"": folders, "disk1": [line("fid")], "disk2": [line("fid")]})

    assert (taken, refused) == (["disk1/fid", "disk2/fid"], {})


def record(name: bytes, *, step: int = 0, size: int = 5, name_length: int | None = None) -> bytes:
    length = len(name) if name_length is None else name_length
    moment = 133_444_736_000_000_000
    fixed = struct.pack("<IIqqqqqqIII4xQ", step, 0, moment, 0, moment, 0, size, 0, 0x20, length, 0, 77)
    return fixed + name


@pytest.mark.parametrize(
    "buffer",
    [
        b"",
        b"short",
        record("a".encode("utf-16-le"), name_length=200),
        record(b"odd"),
        record(b""),
        record("a".encode("utf-16-le"), size=-1),
        record("a".encode("utf-16-le"), step=4) + b"\0" * 100,
        record("a".encode("utf-16-le"), step=0xFFFF_FFF8),
    ],
)
def test_a_listing_that_is_none_is_refused(buffer: bytes) -> None:
    with pytest.raises(MalformedListingError):
        list(parse_listing(buffer))


def test_a_file_that_was_changed_keeps_its_id_and_was_not_created_since(storage: SmbStorage, folder: Path) -> None:
    """Samba invents a time of creation for what was not made through SMB; it lies no later than the last access."""
    (folder / "fid").write_bytes(b"x")
    before = storage.stat("fid")
    (folder / "fid").read_bytes()
    copied_at = datetime.now(UTC)
    with (folder / "fid").open("ab") as file:
        file.write(b"y")
    after = storage.stat("fid")

    assert after.file_id == before.file_id
    assert after.created_at is None or after.created_at <= copied_at
    (folder / "fid").read_bytes()
    again = storage.stat("fid")
    assert again.created_at is None or again.created_at <= copied_at


@given(st.binary(max_size=400))
def test_no_bytes_make_the_reader_of_listings_stumble(buffer: bytes) -> None:
    with suppress(MalformedListingError):
        for listed in parse_listing(record("a".encode("utf-16-le"), step=82) + buffer):
            assert listed.size_bytes >= 0
            assert moment(listed.modified).tzinfo is UTC


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=6))
def test_a_listing_is_read_as_it_was_written(names: list[str]) -> None:
    encoded = [name.encode("utf-16-le", "surrogatepass") for name in names]
    steps = [(80 + len(name) + 7) // 8 * 8 for name in encoded[:-1]] + [0]
    buffer = b"".join(record(name, step=step).ljust(step, b"\0") for name, step in zip(encoded, steps, strict=True))

    listed = list(parse_listing(buffer))

    assert [item.name for item in listed] == names
    assert {moment(item.modified) for item in listed} == {datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)}


# ---------------------------------------------------------------------------------------------------- writing


def test_an_encrypted_share_is_used_encrypted(connect: Connect, folder: Path) -> None:
    storage = connect("encrypted")

    assert bring(storage, "run/fid", b"x" * 3 * CHUNK_BYTES) is None
    assert sum(map(len, storage.read("run/fid"))) == 3 * CHUNK_BYTES


def test_a_read_only_share_is_told_once_for_all_files(connect: Connect, folder: Path) -> None:
    (folder / "fid").write_bytes(b"x")
    storage = connect("locked")

    assert b"".join(storage.read("fid")) == b"x"
    with pytest.raises(StorageError, match="read-only") as caught:
        storage.write("run/fid", "t1", [b"x"])
    assert caught.value.fault is Fault.READ_ONLY
    assert caught.value.whole_storage
    assert all(check.ok for check in storage.check(write=False))
    assert [(check.name, "read-only" in check.detail) for check in storage.check() if not check.ok] == [
        ("write a file", True)
    ]


def test_a_server_without_hard_links_renames(
    storage: SmbStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(path: str, file_id: bytes = messages.RELATED, *, replace: bool = False) -> messages.Request:
        return messages.set_info(254, path.encode("utf-16-le"), file_id)  # what the server does not know

    monkeypatch.setattr(messages, "link", no_link)

    assert bring(storage, "run/fid", b"first") is None
    refused = bring(storage, "run/fid", b"second", "t2")

    assert refused is not None
    assert refused.fault is Fault.EXISTS
    assert (folder / "run/fid").read_bytes() == b"first"
    assert list(storage.leftovers()) == [("t2", "t2")]


def test_our_own_folder_is_hidden(storage: SmbStorage, folder: Path, instrument: Instrument) -> None:
    storage.write("fid", "t1", [b"x"])

    assert smbclient.stat(instrument.path(RESERVED), **instrument.options).st_file_attributes & 0x2


@only_root
def test_a_full_disk_is_told_and_nothing_is_left(connect: Connect, folder: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        storage = connect()
        assert (storage.free_bytes() or 0) <= 2 * CHUNK_BYTES
        with pytest.raises(StorageError, match="no room") as caught:
            storage.write("run/fid", "t1", [b"x" * CHUNK_BYTES] * 3)
        assert caught.value.fault is Fault.FULL
        assert list(storage.leftovers()) == []
        storage.close()
    finally:
        # The server lets go of the folder a moment after the client has.
        await_truth(lambda: subprocess.run(["umount", folder], capture_output=True).returncode == 0, within_seconds=30)


def test_a_file_where_a_folder_is_needed_is_told(storage: SmbStorage, folder: Path) -> None:
    (folder / "run").write_bytes(b"a file")

    error = bring(storage, "run/fid", b"x")

    assert error is not None
    assert error.fault is Fault.NAME
    assert (folder / "run").read_bytes() == b"a file"


# --------------------------------------------------------------------------------------------------- the connection


def test_a_connection_is_never_shared(connect: Connect) -> None:
    """A cache would let the wrong password in on the session that the right one has opened."""
    connect()

    with pytest.raises(StorageError) as caught:
        connect(password="wrong")

    assert caught.value.fault is Fault.AUTHENTICATION
    assert caught.value.permanent


def test_a_domain_goes_before_the_user_name(connect: Connect) -> None:
    assert connect(domain="LAB").address.username == f"LAB\\{USER}"


@pytest.mark.parametrize(
    ("host", "port", "found"),
    [
        ("nas", None, ("nas", 445)),
        ("nas", 4450, ("nas", 4450)),
        ("nas:4451", None, ("nas", 4451)),
        ("nas.example.org:4451", 4450, ("nas.example.org", 4451)),
        ("fe80::1", None, ("fe80::1", 445)),
        ("[fe80::1]", 4450, ("fe80::1", 4450)),
        ("[fe80::1]:4451", None, ("fe80::1", 4451)),
    ],
)
def test_a_host_may_name_its_port(host: str, port: int | None, found: tuple[str, int]) -> None:
    config = {"host": host, "port": port, "share": "s", "username": "u", "password": "p"}
    address = SmbStorage.from_config("/", config).address
    assert (address.host, address.port) == found


@pytest.mark.parametrize("host", ["nas:", "nas:http", "nas:0", "nas:65536", "[fe80::1", "[]:445", ""])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(StorageError) as caught:
        SmbStorage.from_config("/", {"host": host, "share": "s", "username": "u", "password": "p"})
    assert caught.value.fault is Fault.CONFIGURATION


def test_the_password_is_nowhere_to_be_seen(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    storage = connect()
    bring(storage, "fid", b"x")

    assert PASSWORD not in repr(storage.address)
    assert PASSWORD not in caplog.text


def test_an_unsigned_answer_is_not_taken() -> None:
    """Whoever sits between us and the server could otherwise leave out the signature of what was changed."""

    class Session:
        signing_required = True

    connection = SignedConnection(None, "nas")
    connection.session_table[7] = Session()
    answer = SMB2HeaderResponse()
    answer["command"] = 8  # READ

    with pytest.raises(smb_errors.SMBException, match="no signature"):
        connection.verify_signature(answer, 7)

    answer["status"] = 0x103  # PENDING: more is to come
    connection.verify_signature(answer, 7)
    assert not answer["flags"].has_flag(Smb2Flags.SMB2_FLAGS_SIGNED)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[SambaServer]:
    """A server that a test may kill."""
    (tmp_path / "share").mkdir()
    server = SambaServer(tmp_path / "server", {"nmr": tmp_path / "share"}, {USER: PASSWORD})
    with server:
        yield server


def storage_on(server: SambaServer) -> SmbStorage:
    config = {"host": server.host, "port": server.port, "share": "nmr", "username": USER, "password": PASSWORD}
    return SmbStorage.from_config("/", config)


def kill_whole_group(server: SambaServer, number: signal.Signals) -> None:
    assert server.pid is not None
    os.killpg(server.pid, number)


def test_a_lost_server_is_told_and_used_again_when_it_is_back(own_server: SambaServer) -> None:
    (own_server.shares["nmr"].path / "fid").write_bytes(b"x" * 12 * CHUNK_BYTES)
    with storage_on(own_server) as storage:
        reading = storage.read("fid")
        next(reading)
        kill_whole_group(own_server, signal.SIGKILL)
        own_server.stop()

        with pytest.raises(StorageError) as caught:
            list(reading)
        assert caught.value.fault is Fault.UNREACHABLE
        assert not caught.value.permanent
        with pytest.raises(StorageError, match="Nothing listens") as caught:
            storage.stat("fid")
        assert caught.value.whole_storage

        own_server.start()
        assert storage.stat("fid").size_bytes == 12 * CHUNK_BYTES
        assert sum(map(len, storage.read("fid"))) == 12 * CHUNK_BYTES


def test_of_a_batch_only_the_first_waits_for_a_lost_server(
    own_server: SambaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage_on(own_server) as storage:
        staged = [storage.write(f"{number}", f"t{number}", [b"x"]) for number in range(5)]
        own_server.stop()
        tried = []
        log_in = session_module.log_in

        def tried_again(address: Any, **options: Any) -> Any:
            tried.append(address)
            return log_in(address, **options)

        monkeypatch.setattr(session_module, "log_in", tried_again)

        outcomes = list(storage.publish(staged))

    assert [error and error.fault for error in outcomes] == [Fault.UNREACHABLE] * 5
    assert len(tried) <= 1


def test_a_writer_that_lost_its_server_leaves_what_the_next_one_can_discard(own_server: SambaServer) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * 4 * CHUNK_BYTES
        kill_whole_group(own_server, signal.SIGKILL)
        own_server.stop()
        yield b"x" * CHUNK_BYTES

    with storage_on(own_server) as storage:
        with pytest.raises(StorageError) as caught:
            storage.write("fid", "t1", chunks())
        assert caught.value.fault is Fault.UNREACHABLE

        own_server.start()
        assert list(storage.leftovers()) == [("t1", "t1")]
        storage.discard("t1", "fid")
        assert list(storage.leftovers()) == []
        assert list(storage.walk()) == []


@pytest.fixture
def hanging(own_server: SambaServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Call it, and the server answers nothing more while its connections stay open; at the end it goes on."""
    monkeypatch.setenv("SMB_EXPERIMENTAL_TRANSPORT_RECEIVE_TIMEOUT", "1")
    monkeypatch.setattr(connection_module, "SILENCE_SECONDS", 1)
    monkeypatch.setattr(login_module, "CONNECT_SECONDS", 1)
    stopped: list[int] = []

    def hang() -> None:
        stopped.extend(pids_of(own_server))
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    yield hang
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)


def test_a_server_that_hangs_while_we_read_is_given_up(own_server: SambaServer, hanging: Callable[[], None]) -> None:
    (own_server.shares["nmr"].path / "fid").write_bytes(b"x" * 12 * CHUNK_BYTES)
    with storage_on(own_server) as storage:
        reading = storage.read("fid")
        next(reading)
        hanging()

        with pytest.raises(StorageError) as caught:
            list(reading)

    assert caught.value.fault in (Fault.TIMEOUT, Fault.UNREACHABLE)
    assert caught.value.whole_storage


def test_a_server_that_hangs_while_we_write_is_given_up(own_server: SambaServer, hanging: Callable[[], None]) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * CHUNK_BYTES
        hanging()
        yield b"x" * 64 * CHUNK_BYTES

    with storage_on(own_server) as storage:
        with pytest.raises(StorageError) as caught:
            storage.write("fid", "t1", chunks())
        assert caught.value.fault in (Fault.TIMEOUT, Fault.UNREACHABLE)
        with pytest.raises(StorageError) as caught:
            storage.stat("fid")
        assert caught.value.fault is Fault.TIMEOUT


def pids_of(server: SambaServer) -> list[int]:
    """The server's processes: all of its group."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, row.split())) for row in listed.splitlines()]
    return [pid for pid, group in pairs if group == server.pid]


def test_a_handle_of_a_lost_connection_does_not_harm_the_next_one(storage: SmbStorage, folder: Path) -> None:
    (folder / "fid").write_bytes(b"x" * 3 * CHUNK_BYTES)
    reading = storage.read("fid")
    next(reading)
    storage.close()
    storage.connect()
    current = storage._session.connection()

    with pytest.raises(StorageError) as caught:
        list(reading)

    assert caught.value.fault is Fault.UNREACHABLE
    assert storage._session.owns(current)


def test_impackets_server_can_be_read(tmp_path: Path) -> None:
    """It stands in for Samba where that cannot be installed, and speaks SMB 2.0.2 alone."""
    (tmp_path / "share" / "run").mkdir(parents=True)
    (tmp_path / "share" / "run" / "fid").write_bytes(b"x" * 3 * CHUNK_BYTES)
    with ImpacketServer(tmp_path / "server", {"nmr": tmp_path / "share"}, {USER: PASSWORD}) as server:
        config = {"host": server.host, "port": server.port, "share": "nmr", "username": USER, "password": PASSWORD}
        with SmbStorage.from_config("/", config) as storage:
            assert entries(storage) == ["run/fid"]
            assert [storage.stat("run/fid")] == list(storage.walk())
            assert b"".join(storage.read("run/fid", offset=1)) == b"x" * (3 * CHUNK_BYTES - 1)
        assert all(check.ok for check in SmbStorage.from_config("/", config).check(write=False))
        for change, fault in ({"password": "wrong"}, Fault.AUTHENTICATION), ({"share": "none"}, Fault.NO_SUCH_SHARE):
            with pytest.raises(StorageError) as caught:
                SmbStorage.from_config("/", {**config, **change}).connect()
            assert caught.value.fault is fault


# ------------------------------------------------------------------------------------------------------- classifying


def failed_to_connect(cause: OSError) -> ValueError:
    error = ValueError("Failed to connect to 'nas:445'")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "fault", "words"),
    [
        (smb_errors.SMBOSError(0xC0000034, "x"), Fault.NOT_FOUND, "does not exist"),
        (smb_errors.SMBOSError(0xC000003A, "x"), Fault.NOT_FOUND, "does not exist"),
        (smb_errors.SMBOSError(0xC000000F, "x"), Fault.NOT_FOUND, "does not exist"),
        (smb_errors.SMBOSError(0xC0000035, "x"), Fault.EXISTS, "left as it is"),
        (smb_errors.SMBOSError(0xC0000022, "x"), Fault.DENIED, "permissions"),
        (smb_errors.SMBOSError(0xC0000043, "x"), Fault.LOCKED, "Another program"),
        (smb_errors.SMBOSError(0xC0000054, "x"), Fault.LOCKED, "Another program"),
        (smb_errors.SMBOSError(0xC0000033, "x"), Fault.NAME, "cannot hold"),
        (smb_errors.SMBOSError(0xC0000106, "x"), Fault.NAME, "too long"),
        (smb_errors.EndOfFile(), Fault.CHANGED, "shorter"),
        (smb_errors.SMBOSError(0xC0000185, "x"), Fault.IO, "disk"),
        (smb_errors.DiskFull(), Fault.FULL, "no room"),
        (smb_errors.SMBOSError(0xC0000044, "x"), Fault.FULL, "quota"),
        (smb_errors.SMBOSError(0xC00000A2, "x"), Fault.READ_ONLY, "write-protected"),
        # A wrong share comes with errno 2, as if a file were gone.
        (smb_errors.BadNetworkName(), Fault.NO_SUCH_SHARE, "no such share"),
        (smb_errors.SMBOSError(0xC00000CC, "x"), Fault.NO_SUCH_SHARE, "no such share"),
        (smb_errors.SMBOSError(0xC0000225, "x"), Fault.NO_SUCH_SHARE, "no such share"),
        (smb_errors.SMBOSError(0xC000026E, "x"), Fault.NOT_MOUNTED, "Mount"),
        (smb_errors.LogonFailure(), Fault.AUTHENTICATION, "user name or password"),
        (smb_errors.SMBOSError(0xC000006A, "x"), Fault.AUTHENTICATION, "password is wrong"),
        (smb_errors.SMBOSError(0xC0000064, "x"), Fault.AUTHENTICATION, "not know this user"),
        (smb_errors.SMBOSError(0xC0000071, "x"), Fault.AUTHENTICATION, "expired"),
        (smb_errors.SMBOSError(0xC0000234, "x"), Fault.AUTHENTICATION, "locked"),
        (smb_errors.SMBOSError(0xC0000072, "x"), Fault.AUTHENTICATION, "disabled"),
        (smb_errors.SMBAuthenticationError("no credentials"), Fault.AUTHENTICATION, "no credentials"),
        (smb_errors.SMBException("session was authenticated as a guest"), Fault.AUTHENTICATION, "guest"),
        (smb_errors.SMBOSError(0xC00000C9, "x"), Fault.UNREACHABLE, "ended the connection"),
        (smb_errors.SMBOSError(0xC0000203, "x"), Fault.UNREACHABLE, "ended the connection"),
        (smb_errors.SMBOSError(0xC000009A, "x"), Fault.UNREACHABLE, "resources"),
        (smb_errors.SMBOSError(0xC00000B5, "x"), Fault.TIMEOUT, "in time"),
        (smb_errors.SMBOSError(0xC0000257, "x"), Fault.CONFIGURATION, "DFS"),
        (smb_errors.SMBConnectionClosed("SMB socket was closed"), Fault.UNREACHABLE, "lost"),
        (smb_errors.SMBConnectionClosed("Server did not respond within timeout."), Fault.TIMEOUT, "in time"),
        (smb_errors.SMBException("Request requires 1 credits but only 0 credits"), Fault.UNREACHABLE, "hangs"),
        (smb_errors.SMBException("Connection timeout of 15 seconds exceeded"), Fault.TIMEOUT, "in time"),
        (smb_errors.SMBException("Server message signature could not be verified"), Fault.UNREACHABLE, "damaged"),
        (failed_to_connect(socket.gaierror(-2, "unknown")), Fault.UNREACHABLE, "No address"),
        (failed_to_connect(ConnectionRefusedError(111, "refused")), Fault.UNREACHABLE, "Nothing listens"),
        (failed_to_connect(TimeoutError("timed out")), Fault.TIMEOUT, "switched on"),
        (failed_to_connect(OSError(113, "No route to host")), Fault.UNREACHABLE, "No route to host"),
        (ValueError("filedescriptor out of range in select()"), Fault.UNREACHABLE, "select"),
        (KeyError(17), Fault.UNREACHABLE, "KeyError"),
        (ConnectionResetError(104, "reset"), Fault.UNREACHABLE, "reset"),
        (smb_errors.SMBOSError(0xC0000ABC, "x"), Fault.IO, "0xc0000abc"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, Exception) else None,
)
def test_an_error_is_told_by_its_status_and_class(error: Exception, fault: Fault, words: str) -> None:
    told = classify(error, "run/fid", "\\\\nas\\nmr\\run\\fid")

    assert told.fault is fault
    assert words in str(told)
    assert str(told).startswith("\\\\nas\\nmr\\run\\fid: ")
    assert told.path == "run/fid"
