"""The servers that tests ask for by name; each is started when the first one asks, and serves until the last."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harvest.demo.servers import SambaServer, SeaweedServer
from tests.servers.redis import RedisServer

SHARES = ("nmr", "hplc", "ms", "tem", "archive")
SMB_USER, SMB_PASSWORD = "svc-harvest", "harvest-Passw0rd"
S3_ACCESS_KEY, S3_SECRET_KEY = "devkey", "devsecret1"


@dataclass(frozen=True)
class ShareFolder:
    """A folder of one test on an SMB share: where it is on the disk, and how a client names it."""

    path: Path
    share: str
    base_path: str


@pytest.fixture(scope="session")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    """Samba with the shares of SHARES, for SMB_USER with SMB_PASSWORD."""
    folder = tmp_path_factory.mktemp("samba")
    shares = {name: folder / "shares" / name for name in SHARES}
    for path in shares.values():
        path.mkdir(parents=True)
    with SambaServer(folder / "server", shares, {SMB_USER: SMB_PASSWORD}) as server:
        yield server


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """SeaweedFS with S3_ACCESS_KEY, S3_SECRET_KEY and the bucket `instruments`."""
    with SeaweedServer(
        tmp_path_factory.mktemp("weed"),
        access_key=S3_ACCESS_KEY,
        secret_key=S3_SECRET_KEY,
        buckets=["instruments"],
    ) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis of our own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def share_dir(samba: SambaServer) -> Iterator[ShareFolder]:
    """An empty folder on the share `nmr`, as an instrument's."""
    yield from _share_folder(samba, "nmr")


@pytest.fixture
def archive_dir(samba: SambaServer) -> Iterator[ShareFolder]:
    """An empty folder on the share `archive`, as a storage location's."""
    yield from _share_folder(samba, "archive")


@pytest.fixture
def bucket(weed: SeaweedServer) -> Iterator[str]:
    """A bucket with nothing in it."""
    name = f"test-{uuid.uuid4().hex}"
    weed.client().create_bucket(Bucket=name)
    yield name
    weed.client().delete_bucket(Bucket=name)  # with all that is in it: SeaweedFS allows that


def _share_folder(samba: SambaServer, share: str) -> Iterator[ShareFolder]:
    name = uuid.uuid4().hex
    path = samba.shares[share].path / name
    path.mkdir()
    yield ShareFolder(path=path, share=share, base_path=f"/{name}")
    shutil.rmtree(path)
