"""What the measurements stand on: a memory file system, servers on loopback, fresh destinations."""

from __future__ import annotations

import base64
import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harvest.demo.servers import SambaServer, SeaweedServer, Share
from harvest.storage.base import RESERVED
from tests.bench.data import found_in
from tests.bench.processes import BenchError
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import DelayProxy
from tests.servers.redis import RedisServer

USER, PASSWORD = "svc-bench", "bench-Passw0rd"
ACCESS_KEY, SECRET_KEY = "benchkey", "benchsecret"
SOURCE, ARCHIVE = "source", "archive"
"""The shares: what is harvested, and where copies over SMB go."""
ONE_WAY_SECONDS = 0.001
GIB = 1 << 30
MEMORY = Path("/dev/shm")
_PREFIX = "streamweave-harvests-"


class DurablePostgres(PostgresServer):
    """PostgreSQL as it is installed: it keeps what it has acknowledged."""

    def _command(self) -> list[str]:
        kept = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "wal_level": "replica"}
        return [*super()._command(), *(f"--{name}={value}" for name, value in kept.items())]


@dataclass(frozen=True)
class Destination:
    """An empty place for copies: as the product is told of it, as rclone is, and how to look at what is there."""

    kind: str
    name: str
    base_path: str
    config: dict[str, Any]
    rclone: str
    folder: Path | None
    """Where it lies on this machine, if it does."""
    found: Callable[[], tuple[int, int]]
    """How many files are there, and their bytes."""
    remove: Callable[[], None]


class Stage:
    """The servers, each started when it is first asked for. Use it as a context manager."""

    def __init__(self, memory: Path, disk: Path) -> None:
        self.memory, self.disk = memory, disk
        self._servers = ExitStack()
        self._numbers = itertools.count()
        for folder in (memory / SOURCE, memory / ARCHIVE):
            folder.mkdir()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: Any) -> None:
        self._servers.close()

    @cached_property
    def postgres(self) -> DurablePostgres:
        return self._servers.enter_context(DurablePostgres(self.memory / "postgresql"))

    @cached_property
    def redis(self) -> RedisServer:
        return self._servers.enter_context(RedisServer(self.memory / "redis", appendonly=True))

    @cached_property
    def samba(self) -> SambaServer:
        shares = {SOURCE: Share(self.memory / SOURCE, read_only=True), ARCHIVE: Share(self.memory / ARCHIVE)}
        return self._servers.enter_context(SambaServer(self.memory / "samba", shares, {USER: PASSWORD}))

    @cached_property
    def weed(self) -> SeaweedServer:
        return self._servers.enter_context(
            SeaweedServer(self.memory / "weed", access_key=ACCESS_KEY, secret_key=SECRET_KEY)
        )

    @cached_property
    def proxy(self) -> DelayProxy:
        """A way to Samba that takes a millisecond longer in each direction."""
        proxy = DelayProxy(self.memory / "proxy", self.samba.port, delay_seconds=ONE_WAY_SECONDS)
        return self._servers.enter_context(proxy)

    @property
    def smb_pids(self) -> dict[str, int]:
        """The servers that stand between a source and its copy, by name."""
        started = self.__dict__.keys() & {"samba", "weed", "proxy"}
        names = {"samba": "smbd", "weed": "weed", "proxy": "proxy"}
        return {names[name]: getattr(self, name).pid for name in sorted(started)}

    def smb_port(self, *, delayed: bool = False) -> int:
        return self.proxy.port if delayed else self.samba.port

    @contextmanager
    def destination(self, kind: str) -> Iterator[Destination]:
        """A fresh destination, removed at the end: posix, disk (posix, not in memory), cifs or s3."""
        found = {"posix": self._posix, "disk": self._on_disk, "cifs": self._cifs, "s3": self._s3}[kind](
            f"{kind}{next(self._numbers)}"
        )
        try:
            yield found
        finally:
            found.remove()

    def _posix(self, name: str) -> Destination:
        return self._folder(name, self.memory)

    def _on_disk(self, name: str) -> Destination:
        return self._folder(name, self.disk)

    @staticmethod
    def _folder(name: str, parent: Path) -> Destination:
        folder = parent / name
        folder.mkdir()
        return Destination(
            kind="posix",
            name=name,
            base_path=str(folder),
            config={},
            rclone=str(folder),
            folder=folder,
            found=lambda: found_in(folder),
            remove=lambda: shutil.rmtree(folder),
        )

    def _cifs(self, name: str) -> Destination:
        folder = self.memory / ARCHIVE / name
        folder.mkdir()
        login = {"username": USER, "password": PASSWORD}
        return Destination(
            kind="cifs",
            name=name,
            base_path=f"/{name}",
            config={"host": self.samba.host, "port": self.samba.port, "share": ARCHIVE, **login},
            rclone=f"bencharchive:{ARCHIVE}/{name}",
            folder=folder,
            found=lambda: found_in(folder),
            remove=lambda: shutil.rmtree(folder),
        )

    def _s3(self, name: str) -> Destination:
        client = self.weed.client()
        client.create_bucket(Bucket=name)

        def found() -> tuple[int, int]:
            files = size_bytes = 0
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
                for item in page.get("Contents", []):
                    if not item["Key"].startswith(RESERVED):
                        files += 1
                        size_bytes += item["Size"]
            return files, size_bytes

        return Destination(
            kind="s3",
            name=name,
            base_path="/",
            config={
                "bucket": name,
                "endpoint_url": self.weed.endpoint_url,
                "access_key_id": ACCESS_KEY,
                "secret_access_key": SECRET_KEY,
            },
            rclone=f"benchs3:{name}",
            folder=None,
            found=found,
            remove=lambda: _drop_bucket(client, name),
        )


def _drop_bucket(client: Any, name: str) -> None:
    client.delete_bucket(Bucket=name)  # with all that is in it: SeaweedFS allows that


@contextmanager
def rooms(disk: Path) -> Iterator[tuple[Path, Path]]:
    """A folder in memory and one on the disk below `disk`, both removed at the end. Raises BenchError where the machine
    has no memory file system."""
    if not os.path.ismount(MEMORY):
        raise BenchError(f"There is no memory file system at {MEMORY}. Mount one: mount -t tmpfs tmpfs {MEMORY}")
    disk.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=MEMORY) as memory,
        tempfile.TemporaryDirectory(prefix="run-", dir=disk) as on_disk,
    ):
        Path(memory).chmod(0o755)  # the account that runs PostgreSQL must reach its folder in there
        yield Path(memory), Path(on_disk)


def require_room(needed_bytes: int, needed_files: int) -> None:
    """Raises BenchError where less is left of the memory file system, or of the memory that it stands on."""
    told = os.statvfs(MEMORY)
    free_bytes = min(told.f_bavail * told.f_frsize, _available_bytes())
    if free_bytes < needed_bytes or told.f_favail < needed_files:
        left = "".join(f"\n{path} was left by a run that was killed; remove it." for path in _left_behind())
        raise BenchError(
            f"{MEMORY} and the memory behind it have room for {free_bytes / GIB:.1f} GiB in {told.f_favail:,} files; "
            f"{needed_bytes / GIB:.1f} GiB in {needed_files:,} are needed. Choose rows with ONLY=, or free some.{left}"
        )


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise BenchError("/proc/meminfo does not say how much memory is available.")


def _left_behind() -> list[Path]:
    return [
        path
        for path in MEMORY.glob(f"{_PREFIX}*-*")
        if not Path("/proc", path.name.removeprefix(_PREFIX).partition("-")[0]).exists()
    ]


def environment(stage: Stage, *, concurrency: int) -> dict[str, str]:
    """The settings of the product, as an installation with servers has them."""
    data = stage.memory / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    return {
        "DATABASE_URL": stage.postgres.url,
        "CELERY_BROKER_URL": stage.redis.url,
        "STREAMWEAVE_DATA_DIR": str(data),
        "SECRET_KEY": secrets.token_urlsafe(50),
        "STREAMWEAVE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "DJANGO_SETTINGS_MODULE": "streamweave.settings",
        "WORKER_CONCURRENCY": str(concurrency),
        "EMAIL_URL": "",
    }
