"""The servers of the demonstration and of the tests: they start, stand beside each other, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis
import smbclient
from botocore.exceptions import ClientError
from smbprotocol.exceptions import AccessDenied, LogonFailure

from harvest.demo.local_server import GRPC_OFFSET, LocalServer, ServerError, await_truth, free_ports, is_free
from harvest.demo.servers import ImpacketServer, SambaServer, SeaweedServer, Share
from tests.conftest import SMB_PASSWORD, SMB_USER, ShareFolder
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

USERS = {"svc-nmr": "nmr-secret", "svc-uplc": "uplc-secret", "svc orbitrap": "orbitrap-secret"}

Make = Callable[[Path], LocalServer]


def make_samba(folder: Path) -> SambaServer:
    share = folder / "nmr"
    (share / "20260115_glucose_1H").mkdir(parents=True, exist_ok=True)
    (share / "20260115_glucose_1H" / "fid").write_bytes(b"free induction decay")
    return SambaServer(folder / "samba", {"nmr": share, "locked": Share(share, read_only=True)}, USERS)


def make_impacket(folder: Path) -> ImpacketServer:
    return ImpacketServer(folder / "impacket", make_samba(folder).shares, USERS)


def make_weed(folder: Path) -> SeaweedServer:
    return SeaweedServer(folder / "weed", access_key="lab", secret_key="lab-secret", buckets=["instruments"])


def make_postgres(folder: Path) -> PostgresServer:
    return PostgresServer(folder / "postgresql")


def make_redis(folder: Path) -> RedisServer:
    return RedisServer(folder / "redis", appendonly=True)


every_server = pytest.mark.parametrize("make", [make_samba, make_impacket, make_weed, make_postgres, make_redis])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other accounts can reach; pytest's own can not be."""
    with tempfile.TemporaryDirectory(prefix="streamweave-servers-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as servers:
        yield servers


def members_of_group(group: int) -> list[int]:
    """The living processes of a process group; those of a session that PostgreSQL's children open are its own."""
    living = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            living.append(int(entry.parent.name))
    return living


class SmbLogin:
    """What one log-in can do on one server; every attempt opens a connection of its own."""

    def __init__(self, server: SambaServer | ImpacketServer, username: str, password: str) -> None:
        self.server = server
        self.session = {"username": username, "password": password, "port": server.port}

    def _path(self, path: str) -> str:
        return rf"\\{self.server.host}\{path}"

    def listing(self, path: str) -> dict[str, int]:
        connections: dict[str, object] = {}
        try:
            entries = smbclient.scandir(self._path(path), connection_cache=connections, **self.session)
            return {entry.name: entry.smb_info.end_of_file for entry in entries}
        finally:
            smbclient.reset_connection_cache(connection_cache=connections, fail_on_error=False)

    def read(self, path: str) -> bytes:
        connections: dict[str, object] = {}
        try:
            with smbclient.open_file(
                self._path(path), "rb", share_access="rwd", connection_cache=connections, **self.session
            ) as file:
                content: bytes = file.read()
                return content
        finally:
            smbclient.reset_connection_cache(connection_cache=connections, fail_on_error=False)

    def write(self, path: str, content: bytes) -> None:
        connections: dict[str, object] = {}
        try:
            with smbclient.open_file(self._path(path), "wb", connection_cache=connections, **self.session) as file:
                file.write(content)
        finally:
            smbclient.reset_connection_cache(connection_cache=connections, fail_on_error=False)


# ------------------------------------------------------------------------------------------------- every server


@every_server
def test_a_server_answers_until_it_is_stopped_and_leaves_no_process_and_no_port(make: Make, folder: Path) -> None:
    server = make(folder)
    with server:
        assert server.is_running
        socket.create_connection((server.host, server.port), timeout=5).close()
        pid, ports = server.pid, list(server._ports)
        assert pid is not None
        assert pid in members_of_group(pid)
    assert server.pid is None
    assert all(is_free(port) for port in ports)
    assert await_truth(lambda: members_of_group(pid) == [], within_seconds=10)
    server.stop()  # a second time does no harm


@every_server
def test_two_of_a_kind_run_beside_each_other(make: Make, folder: Path, stack: ExitStack) -> None:
    first, second = (stack.enter_context(make(folder / name)) for name in ("first", "second"))
    assert not set(first._ports) & set(second._ports)
    assert first.is_running
    assert second.is_running


@every_server
def test_a_second_start_answers_on_the_same_port(make: Make, folder: Path) -> None:
    with make(folder) as server:
        port = server.port
    with make(folder) as server:
        assert server.port == port


@every_server
def test_a_killed_server_starts_again(make: Make, folder: Path) -> None:
    server = make(folder)
    try:
        server.start()
        server.kill()
        assert not server.is_running
        server.start()
        assert server.is_running
    finally:
        server.stop()


def test_a_port_that_is_taken_is_refused_with_its_number(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"Redis cannot listen on port {port}"):
            RedisServer(folder, port=port).start()


def test_a_given_port_is_the_one_it_listens_on(folder: Path) -> None:
    [port] = free_ports(1)
    with RedisServer(folder, port=port) as server:
        assert server.port == port
        assert redis.Redis.from_url(server.url).ping()


def test_a_server_that_ends_at_once_shows_the_end_of_its_log(folder: Path) -> None:
    share = folder / "nmr"
    share.mkdir()
    server = SambaServer(folder / "samba", {"nmr": share}, USERS, options={"server role": "no such role"})
    with pytest.raises(ServerError, match=r"(?s)Samba did not take|Samba ended at once.*server\.log"):
        server.start()
    assert not server.is_running


def test_a_server_that_does_not_answer_is_ended(folder: Path) -> None:
    class Mute(RedisServer):
        def _answers(self) -> bool:
            return False

    server = Mute(folder)
    server.start_within_seconds = 0.5
    with pytest.raises(ServerError, match=r"(?s)Redis did not answer on port \d+ within 0.5 s.*Ready to accept"):
        server.start()
    assert not server.is_running
    assert is_free(server.port)


def test_what_is_not_installed_is_named_with_its_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RedisServer, "programs", ("no-such-redis",))
    assert not RedisServer.available()
    with pytest.raises(ServerError, match=r"Redis is not installed on this machine\. On Debian: apt-get install"):
        RedisServer(folder).start()


START_AND_DIE = """
import os, signal, sys
from pathlib import Path
from tests.servers.redis import RedisServer
server = RedisServer(Path(sys.argv[1])).start()
print(server.pid, flush=True)
if sys.argv[2] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
server.stop()
"""


def test_what_a_killed_run_left_behind_is_ended_by_the_next_start(folder: Path) -> None:
    left = subprocess.run([sys.executable, "-c", START_AND_DIE, str(folder), "die"], stdout=subprocess.PIPE, text=True)
    left_pid = int(left.stdout)
    assert members_of_group(left_pid) == [left_pid]
    with RedisServer(folder) as server:
        assert server.pid != left_pid
        assert members_of_group(left_pid) == []


def test_a_folder_that_another_run_serves_from_is_refused(folder: Path) -> None:
    command = [sys.executable, "-c", START_AND_DIE, str(folder), "stay"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        other_pid = int(other.stdout.readline())
        with pytest.raises(ServerError, match=rf"Redis in .* runs already \(process {other_pid}, started by"):
            RedisServer(folder).start()
        assert members_of_group(other_pid) == [other_pid]
        other.communicate("")
    assert other.returncode == 0
    assert members_of_group(other_pid) == []


def test_a_stranger_with_a_remembered_process_id_is_left_alone(folder: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        memory = {"ports": [], "pid": stranger.pid, "owner": 0, "started_ticks": {str(stranger.pid): 1}}
        (folder / "server.json").write_text(json.dumps(memory))
        with RedisServer(folder):
            assert stranger.poll() is None
        os.kill(stranger.pid, signal.SIGTERM)


def test_free_ports_are_different_and_free_ten_thousand_above_as_well() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(is_free(port) and is_free(port + GRPC_OFFSET) for port in ports)
    assert not set(ports) & {port + GRPC_OFFSET for port in ports}


# --------------------------------------------------------------------------------------------------------- SMB


@pytest.mark.parametrize("make", [make_samba, make_impacket])
def test_every_user_logs_in_with_their_own_password_only(
    make: Callable[[Path], SambaServer | ImpacketServer], folder: Path
) -> None:
    with make(folder) as server:
        for user, password in USERS.items():
            assert "20260115_glucose_1H" in SmbLogin(server, user, password).listing("nmr")
        for user, password in (("svc-nmr", "uplc-secret"), ("svc-nmr", "x"), ("stranger", "nmr-secret"), ("root", "x")):
            with pytest.raises((LogonFailure, OSError), match=r"logon is invalid|0xc000006d"):
                SmbLogin(server, user, password).listing("nmr")


@pytest.mark.parametrize("make", [make_samba, make_impacket])
def test_a_share_lists_sizes_and_reads(make: Callable[[Path], SambaServer | ImpacketServer], folder: Path) -> None:
    with make(folder) as server:
        login = SmbLogin(server, "svc-nmr", "nmr-secret")
        assert login.listing(r"nmr\20260115_glucose_1H") == {"fid": 20}
        assert login.read(r"nmr\20260115_glucose_1H\fid") == b"free induction decay"


def test_samba_writes_where_a_share_is_not_read_only(folder: Path) -> None:
    with make_samba(folder) as server:
        login = SmbLogin(server, "svc-uplc", "uplc-secret")
        login.write(r"nmr\written", b"by us")
        assert (folder / "nmr" / "written").read_bytes() == b"by us"
        assert (folder / "nmr" / "written").stat().st_uid == os.geteuid()
        with pytest.raises((AccessDenied, OSError), match=r"ACCESS_DENIED|0xc0000022"):
            login.write(r"locked\refused", b"")
        assert not (folder / "nmr" / "refused").exists()


def test_impacket_refuses_to_write(folder: Path) -> None:
    with make_impacket(folder) as server:
        with pytest.raises((AccessDenied, OSError, ValueError)):
            SmbLogin(server, "svc-nmr", "nmr-secret").write(r"nmr\refused", b"")
        assert not (folder / "nmr" / "refused").exists()


def test_impacket_logs_no_password_hash(folder: Path) -> None:
    with make_impacket(folder) as server:
        SmbLogin(server, "svc-nmr", "nmr-secret").listing("nmr")
    assert "svc-nmr" not in server.log_path.read_text()


def test_samba_starts_from_a_folder_with_a_very_long_path(folder: Path) -> None:
    deep = folder / ("d" * 100)
    with make_samba(deep) as server:
        assert "20260115_glucose_1H" in SmbLogin(server, "svc-nmr", "nmr-secret").listing("nmr")
        state = server._state
        assert deep not in state.parents
    assert not state.exists()


def test_samba_takes_further_options_for_a_share_and_for_the_server(folder: Path) -> None:
    share = folder / "nmr"
    share.mkdir()
    (share / "secret.txt").write_text("x")
    shares = {"nmr": Share(share, options={"veto files": "/secret.txt/"})}
    with SambaServer(folder / "samba", shares, USERS, options={"server max protocol": "SMB2_02"}) as server:
        assert SmbLogin(server, "svc-nmr", "nmr-secret").listing("nmr") == {}
        assert "server max protocol = SMB2_02" in server.config_path.read_text()


@pytest.mark.parametrize("name", ["", "a]b", "line\nbreak", 'quote"d', "@group", "*"])
def test_a_user_name_that_would_change_sambas_configuration_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(ValueError, match="cannot name a share or user"):
        SambaServer(folder, {"nmr": folder}, {name: "x"})


# ------------------------------------------------------------------------------------- SeaweedFS and databases


def test_seaweed_keeps_objects_over_a_restart_and_a_kill(folder: Path) -> None:
    server = make_weed(folder)
    try:
        server.start()
        server.client().put_object(Bucket="instruments", Key="20260115_glucose_1H/fid", Body=b"decay")
        for end in (server.stop, server.kill):
            end()
            server.start()
            stored = server.client().get_object(Bucket="instruments", Key="20260115_glucose_1H/fid")
            assert stored["Body"].read() == b"decay"
    finally:
        server.stop()


def test_seaweed_knows_only_its_buckets_and_its_keys(folder: Path) -> None:
    with make_weed(folder) as server:
        assert [bucket["Name"] for bucket in server.client().list_buckets()["Buckets"]] == ["instruments"]
        with pytest.raises(ClientError, match="NoSuchBucket"):
            server.client().put_object(Bucket="elsewhere", Key="a", Body=b"")
        right = server.client()
        server.secret_key = "wrong"
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            server.client().put_object(Bucket="instruments", Key="a", Body=b"")
        with pytest.raises(ClientError, match="BadDigest"):
            right.put_object(Bucket="instruments", Key="a", Body=b"x", ChecksumCRC32="AAAAAA==")


def test_seaweed_leaves_no_socket_in_the_temporary_folder(folder: Path, stack: ExitStack) -> None:
    server = make_weed(folder)
    stack.callback(server.stop)

    def sockets() -> list[Path]:
        ports = [port + GRPC_OFFSET for port in server._ports]
        return [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock")]

    for end in (server.stop, server.kill):
        server.start()
        assert sockets()
        end()
        assert sockets() == []


def test_seaweeds_keys_are_readable_by_its_owner_only(folder: Path) -> None:
    with make_weed(folder) as server:
        assert server.config_path.stat().st_mode & 0o777 == 0o600


def test_postgresql_keeps_its_rows_over_a_restart(folder: Path) -> None:
    server = make_postgres(folder)
    try:
        server.start()
        with psycopg.connect(server.url) as session:
            session.execute("CREATE TABLE run AS SELECT 7 AS files")
        server.stop()
        server.start()
        with psycopg.connect(server.url) as session:
            assert session.execute("SELECT files FROM run").fetchone() == (7,)
    finally:
        server.stop()


def test_redis_keeps_what_it_was_told_when_it_is_append_only(folder: Path) -> None:
    server = make_redis(folder)
    try:
        server.start()
        with redis.Redis.from_url(server.url) as client:
            client.set("queue", "waiting")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("queue") == b"waiting"
    finally:
        server.stop()


# ------------------------------------------------------------------------------------- the fixtures of all tests


def test_a_share_folder_is_reached_through_the_shared_samba(samba: SambaServer, share_dir: ShareFolder) -> None:
    (share_dir.path / "fid").write_bytes(b"decay")
    login = SmbLogin(samba, SMB_USER, SMB_PASSWORD)
    assert login.listing(share_dir.share + share_dir.base_path.replace("/", "\\")) == {"fid": 5}


def test_a_bucket_is_empty_and_takes_objects(weed: SeaweedServer, bucket: str) -> None:
    assert weed.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    weed.client().put_object(Bucket=bucket, Key="a", Body=b"x")


def test_the_shared_redis_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
