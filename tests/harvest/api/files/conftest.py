"""Files, who may see them, and clients that ask for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from rest_framework.test import APIClient

from access.models import User
from harvest.models import FileRecord, FileTransfer, FileVersion, Instrument, StorageLocation, path_key

FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC)
MakeFile = Callable[..., FileRecord]
MakeTransfer = Callable[..., FileTransfer]
ClientOf = Callable[[User | None], APIClient]


@pytest.fixture
def ann(db: None) -> User:
    return User.objects.create_user("ann@example.org")


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("admin@example.org")


@pytest.fixture
def client_of() -> ClientOf:
    """A client in which this user is logged in, or nobody."""

    def make(user: User | None) -> APIClient:
        client = APIClient()
        client.force_authenticate(user)
        return client

    return make


@pytest.fixture
def asking(client_of: ClientOf, admin: User) -> APIClient:
    """The administrator's client."""
    return client_of(admin)


@pytest.fixture
def make_file(instrument: Instrument) -> MakeFile:
    """make_file("run/fid") is a file of `instrument` with one version, discovered a minute after the one before."""
    numbers = count()

    def make(path: str, **fields: Any) -> FileRecord:
        number = next(numbers)
        facts = {"size_bytes": 1, "source_mtime": FIRST, **fields}
        file = FileRecord.objects.create(
            **{
                "instrument": instrument,
                "source_path": path,
                "source_path_key": path_key(path),
                "filename": path.rpartition("/")[2],
                "first_discovered_at": FIRST + timedelta(minutes=number),
                **facts,
            }
        )
        mirrored = ("size_bytes", "source_mtime", "xxhash", "sha256")
        FileVersion.objects.create(record=file, **{name: facts[name] for name in mirrored if name in facts})
        return file

    return make


@pytest.fixture
def make_transfer(archive: StorageLocation) -> MakeTransfer:
    """make_transfer(file) is a transfer of its newest version, as far as the fields say."""

    def make(file: FileRecord, **fields: Any) -> FileTransfer:
        to = fields.pop("to", archive)
        version = file.versions.order_by("-number")[0]
        transfer: FileTransfer = FileTransfer.objects.create(
            record=file, version=version, scheduled_storage=to, storage_location=to, **fields
        )
        return transfer

    return make


def completed(path: str, checksum: str = "0123456789abcdef") -> dict[str, Any]:
    """What a transfer needs to be one that is completed."""
    return {
        "state": "available",
        "checksum_verified": True,
        "source_checksum": checksum,
        "dest_checksum": checksum,
        "stored_path": path,
        "stored_path_key": path_key(path),
        "completed_at": FIRST,
        "bytes_transferred": 1,
    }
