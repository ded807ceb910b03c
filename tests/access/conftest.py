"""People and files for the tests of rights."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from access.models import User
from harvest.models import FileRecord, Instrument, path_key

PASSWORD = "correct-horse-9"


@pytest.fixture
def make_user(db: None) -> Callable[..., User]:
    """make_user("ann") is ann@example.org; further arguments are the user's fields."""

    def make(name: str, **fields: object) -> User:
        return User.objects.create_user(f"{name}@example.org", None, **fields)

    return make


@pytest.fixture
def admin(make_user: Callable[..., User]) -> User:
    user = make_user("admin", role="admin")
    user.set_password(PASSWORD)
    user.save()
    return user


@pytest.fixture
def make_files(db: None) -> Callable[[int], list[FileRecord]]:
    """make_files(3) are three files of one instrument, owned by nobody."""

    def make(count: int) -> list[FileRecord]:
        instrument = Instrument.objects.create(name="NMR", cifs_host="nmr.example.org", cifs_share="data")
        paths = [f"run/{number}.fid" for number in range(count)]
        return FileRecord.objects.bulk_create(
            FileRecord(
                instrument=instrument,
                source_path=path,
                source_path_key=path_key(path),
                filename=path.rpartition("/")[2],
                size_bytes=1,
                source_mtime=datetime(2026, 1, 1, tzinfo=UTC),
            )
            for path in paths
        )

    return make
