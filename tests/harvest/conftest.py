"""An instrument, its storage and its schedule, on real servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harvest.models import HarvestRun, HarvestSchedule, Instrument, ServiceAccount, StorageLocation, Trigger
from harvest.runs import request
from harvest.work import work_on
from tests.conftest import SMB_PASSWORD, SMB_USER, ShareFolder


@pytest.fixture
def account(db: None) -> ServiceAccount:
    return ServiceAccount.objects.create(name="account", username=SMB_USER, password=SMB_PASSWORD)


@pytest.fixture
def instrument(account: ServiceAccount) -> Instrument:
    """An instrument that takes files at once; nothing answers at its address."""
    return Instrument.objects.create(
        name="NMR", cifs_host="127.0.0.1:1", cifs_share="nmr", service_account=account, min_age_seconds=0
    )


@pytest.fixture
def on_share(instrument: Instrument, samba: Any, share_dir: ShareFolder) -> Path:
    """The folder of `instrument` on a real share."""
    instrument.cifs_host, instrument.cifs_base_path = f"127.0.0.1:{samba.port}", share_dir.base_path
    instrument.save()
    return share_dir.path


@pytest.fixture
def archive(db: None, tmp_path: Path) -> StorageLocation:
    folder = tmp_path / "archive"
    folder.mkdir()
    return StorageLocation.objects.create(name="archive", type="posix", base_path=str(folder))


@pytest.fixture
def second_archive(db: None, tmp_path: Path) -> StorageLocation:
    folder = tmp_path / "second"
    folder.mkdir()
    return StorageLocation.objects.create(name="second", type="posix", base_path=str(folder))


@pytest.fixture
def schedule(instrument: Instrument, archive: StorageLocation) -> HarvestSchedule:
    return HarvestSchedule.objects.create(
        instrument=instrument, default_storage_location=archive, cron_expression="0 1 * * *"
    )


@pytest.fixture
def harvest() -> Callable[[HarvestSchedule], HarvestRun]:
    """Harvest by a schedule in this process, as a worker would."""

    def harvest(schedule: HarvestSchedule) -> HarvestRun:
        run = request(schedule, trigger=Trigger.PERSON)
        work_on(run, seconds=60)
        run.refresh_from_db()
        return run

    return harvest


def stored_files(location: StorageLocation) -> dict[str, bytes]:
    """Every visible file below a POSIX location, by its path."""
    base = Path(location.base_path)
    files = (path for path in base.rglob("*") if path.is_file())
    return {
        path.relative_to(base).as_posix(): path.read_bytes()
        for path in files
        if path.relative_to(base).parts[0] != ".streamweave"
    }
