"""A laboratory for journeys: rows on real servers, and the harvest as a worker does it, in this process."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from harvest import janitor, runs, work
from harvest.demo.servers import SambaServer
from harvest.models import (
    FileRecord,
    FileTransfer,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    ServiceAccount,
    StorageLocation,
    Trigger,
)
from tests.conftest import SMB_PASSWORD, SMB_USER, ShareFolder
from tests.journeys.destinations import Destination

ROUNDS = 20
"""How often an open run is looked after before it counts as one that never ends."""


class Lab:
    def __init__(self, samba: SambaServer) -> None:
        self.samba = samba
        self.account = ServiceAccount.objects.create(name="harvester", username=SMB_USER, password=SMB_PASSWORD)

    def instrument(self, folder: ShareFolder, *, name: str = "Spectrometer", **fields: Any) -> Instrument:
        """An instrument that writes to `folder`. Its files count as complete at once, unless `fields` say otherwise."""
        return Instrument.objects.create(
            name=name,
            cifs_host=f"{self.samba.host}:{self.samba.port}",
            cifs_share=folder.share,
            cifs_base_path=folder.base_path,
            service_account=self.account,
            **{"min_age_seconds": 0, "max_bytes_per_second": None, **fields},
        )

    def schedule(self, instrument: Instrument, to: Destination | StorageLocation) -> HarvestSchedule:
        location = to.location if isinstance(to, Destination) else to
        return HarvestSchedule.objects.create(
            instrument=instrument, default_storage_location=location, cron_expression="0 1 * * *"
        )

    # ------------------------------------------------------------------------------------------------- harvesting

    def harvest(self, schedule: HarvestSchedule) -> HarvestRun:
        """A whole run: asked for, walked, its files taken as far as they go. What must be tried again is tried again
        at once; what waits for the instrument is left waiting."""
        return self.finish(runs.request(schedule, trigger=Trigger.COMMAND))

    def discover(self, schedule: HarvestSchedule) -> HarvestRun:
        """The beginning of a run: the share is walked, and no file has been touched yet."""
        run = runs.request(schedule, trigger=Trigger.COMMAND)
        assert runs.begin(run)
        assert runs.walk(run), run.error_message
        return run

    def finish(self, run: HarvestRun) -> HarvestRun:
        """Work on a run until it ends."""
        for _ in range(ROUNDS):
            run = self.fresh(run)
            while work.work_on(run, seconds=60):
                pass
            run.refresh_from_db()
            if run.ended_at is not None:
                return run
            self._hurry(FileTransfer.objects.filter(waiting_reason=None))
            self._hurry(HarvestRun.objects.all())
        standing = [(transfer.state, transfer.error_message) for transfer in run.transfers.unfinished()]
        raise AssertionError(f"The run does not end: {run.status}, {run.error_message}; {standing}")

    def wait_and_sweep(self) -> None:
        """Some time passes, so that whatever waits is due, and the sweep reminds workers of it."""
        self._hurry(FileTransfer.objects.all())
        self._hurry(HarvestRun.objects.all())
        janitor.take_back()
        for run in janitor.runs_with_work():
            work.work_on(self.fresh(run), seconds=60)

    @staticmethod
    def _hurry(rows: QuerySet[Any]) -> None:
        rows.filter(next_attempt_at__isnull=False).update(next_attempt_at=timezone.now() - timedelta(seconds=1))

    @staticmethod
    def fresh(run: HarvestRun) -> HarvestRun:
        """As a task gets it: nothing known of it but its id."""
        return HarvestRun.objects.select_related("instrument__service_account", "storage_location").get(pk=run.pk)


def record_at(path: str, **which: Any) -> FileRecord:
    """The current record of `path`."""
    return FileRecord.objects.get(source_path=path, is_current=True, **which)


def transfer_of(path: str, *, version: int = 1, **which: Any) -> FileTransfer:
    """The transfer of a version of the current record of `path`."""
    record = {"record__source_path": path, "record__is_current": True}
    return FileTransfer.objects.select_related("record", "version").get(version__number=version, **record, **which)


def complaints(run: HarvestRun) -> list[str]:
    """Whatever went wrong in a run, for the message of a failed assertion."""
    said = [run.error_message] if run.error_message else []
    said += [str(error) for error in run.errors.all()]
    for transfer in run.transfers.select_related("record"):
        said += [f"{transfer.record.source_path}: {transfer.error_message}"] if transfer.error_message else []
    return said


def assert_nothing_is_wrong(transfers: Iterable[FileTransfer] | None = None) -> None:
    """What must hold at any time, of all rows: verified where completed, one record and one ARK a file, sums alike."""
    records = list(FileRecord.objects.all())
    assert len({record.persistent_id for record in records}) == len(records)
    current = [(record.instrument_id, record.source_path) for record in records if record.is_current]
    assert len(set(current)) == len(current)
    for transfer in FileTransfer.objects.stored().select_related("version", "record"):
        version, record = transfer.version, transfer.record
        assert transfer.checksum_verified
        assert transfer.source_checksum == transfer.dest_checksum == version.xxhash
        assert transfer.bytes_transferred == version.size_bytes
        if record.version_number == version.number:
            assert (record.xxhash, record.sha256) == (version.xxhash, version.sha256)
            assert (record.size_bytes, record.source_mtime) == (version.size_bytes, version.source_mtime)
