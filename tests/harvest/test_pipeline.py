"""The way of a file over a real share to real folders: what goes on, what stops, and what is written down."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from access.models import User
from harvest import pipeline, runs, verifying
from harvest.connections import Connections
from harvest.janitor import runs_with_work, take_back
from harvest.models import (
    FileRecord,
    FileTransfer,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    RunStatus,
    State,
    Status,
    StorageLocation,
    Trigger,
)
from harvest.runs import request, retry
from harvest.storage.base import Entry, Fault, Reading, StorageError
from harvest.storage.posix import PosixStorage
from harvest.storage.smb import SmbStorage
from harvest.work import claim, work_on
from hooks.models import HookConfig
from tests.harvest.conftest import stored_files

pytestmark = pytest.mark.django_db
Harvest = Callable[[HarvestSchedule], HarvestRun]


def test_a_file_becomes_available_and_verified(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    content = os.urandom(3_000_000)
    (on_share / "20260115_glucose").mkdir()
    (on_share / "20260115_glucose" / "fid").write_bytes(content)

    run = harvest(schedule)

    assert (run.status, run.files_discovered, run.files_completed) == (RunStatus.COMPLETED, 1, 1)
    assert run.bytes_transferred == len(content)
    transfer = FileTransfer.objects.select_related("record", "version").get()
    assert (transfer.state, transfer.status) == (State.AVAILABLE, Status.COMPLETED)
    assert transfer.checksum_verified
    assert transfer.source_checksum == transfer.dest_checksum == xxhash.xxh64(content).hexdigest()
    assert transfer.record.xxhash == transfer.version.xxhash == transfer.source_checksum
    assert transfer.record.sha256 == hashlib.sha256(content).hexdigest()
    assert transfer.version.frozen_at is not None
    assert not transfer.is_leased
    assert transfer.destination_path == f"{archive.base_path}/NMR/20260115_glucose/fid"
    assert stored_files(archive) == {"NMR/20260115_glucose/fid": content}
    assert list((Path(archive.base_path) / ".streamweave" / "tmp").iterdir()) == []


def test_a_second_run_takes_nothing(on_share: Path, schedule: HarvestSchedule, harvest: Harvest) -> None:
    (on_share / "fid").write_bytes(b"content")
    harvest(schedule)

    again = harvest(schedule)

    assert (again.status, again.files_seen, again.files_discovered) == (RunStatus.COMPLETED, 1, 0)
    assert FileTransfer.objects.count() == 1


def test_a_filter_skips_with_a_reason_and_only_one_row(
    on_share: Path, schedule: HarvestSchedule, harvest: Harvest, archive: StorageLocation
) -> None:
    HookConfig.objects.create(
        name="no temporary files",
        trigger="pre_transfer",
        implementation="builtin",
        builtin_name="file_filter",
        config={"min_size_bytes": 1, "exclude_patterns": ["*.tmp"]},
    )
    (on_share / "scratch.tmp").write_bytes(b"temp data\n")
    (on_share / "empty.txt").write_bytes(b"")
    (on_share / "fid").write_bytes(b"content")

    run = harvest(schedule)
    again = harvest(schedule)

    assert (run.files_completed, run.files_skipped, run.status) == (1, 2, RunStatus.COMPLETED)
    assert (again.files_completed, again.files_skipped) == (0, 2)
    skipped = FileTransfer.objects.select_related("record").get(record__source_path="scratch.tmp")
    assert skipped.status == Status.SKIPPED
    assert "no temporary files" in (skipped.reason or "")
    assert (skipped.record.xxhash, skipped.record.metadata) == (None, {})
    assert set(stored_files(archive)) == {"NMR/fid"}


def test_a_skipped_file_is_taken_when_the_filter_is_gone(
    on_share: Path, schedule: HarvestSchedule, harvest: Harvest
) -> None:
    hook = HookConfig.objects.create(
        name="none",
        trigger="pre_transfer",
        implementation="builtin",
        builtin_name="file_filter",
        config={"exclude_patterns": ["*"]},
    )
    (on_share / "fid").write_bytes(b"content")
    harvest(schedule)
    hook.soft_delete()

    run = harvest(schedule)

    assert (run.files_completed, run.files_skipped) == (1, 0)
    assert FileTransfer.objects.get().reason is None


def test_metadata_and_grants_come_from_hooks(
    on_share: Path, schedule: HarvestSchedule, harvest: Harvest, instrument: Instrument
) -> None:
    chemist = User.objects.create_user("chemist@example.com", "devpass123!")
    HookConfig.objects.create(
        name="who",
        trigger="post_transfer",
        implementation="builtin",
        builtin_name="access_assignment",
        config={"grants": [{"to": "user", "email": "chemist@example.com"}]},
        priority=0,
    )
    HookConfig.objects.create(
        name="what",
        trigger="post_transfer",
        implementation="builtin",
        builtin_name="metadata_enrichment",
        config={"rules": [{"source": "path", "pattern": r"^(?P<date>\d{8})_(?P<compound>[^_/]+)_(?P<nucleus>[^/]+)/"}]},
        instrument=instrument,
        priority=10,
    )
    (on_share / "20260115_glucose_1H").mkdir()
    (on_share / "20260115_glucose_1H" / "fid").write_bytes(b"content")

    harvest(schedule)

    record = FileRecord.objects.get()
    assert record.metadata == {"date": "20260115", "compound": "glucose", "nucleus": "1H"}
    assert list(FileRecord.objects.visible_to(chemist)) == [record]
    assert chemist.has_perm("harvest.view_filerecord", record)


def test_a_failing_filter_holds_its_files_back(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    HookConfig.objects.create(
        name="ask",
        trigger="pre_transfer",
        implementation="http_webhook",
        webhook_url="http://127.0.0.1:9/hook",
        webhook_secret="whsec_" + "A" * 40,
    )
    (on_share / "fid").write_bytes(b"content")

    harvest(schedule)

    transfer = FileTransfer.objects.get()
    assert (transfer.state, transfer.error_phase, transfer.error_code) == (State.DISCOVERED, "hook", "hook_failed")
    assert transfer.next_attempt_at is not None
    assert stored_files(archive) == {}


def test_a_failing_hook_afterwards_never_undoes_a_verified_copy(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    HookConfig.objects.create(
        name="who",
        trigger="post_transfer",
        implementation="builtin",
        builtin_name="access_assignment",
        config={"grants": [{"to": "group", "name": "nobody knows it"}]},
    )
    (on_share / "fid").write_bytes(b"content")

    harvest(schedule)

    transfer = FileTransfer.objects.get()
    assert (transfer.state, transfer.status, transfer.error_code) == (State.ENRICHED, Status.COMPLETED, "hook_failed")
    assert "nobody knows it" in (transfer.error_message or "")
    assert set(stored_files(archive)) == {"NMR/fid"}


def test_a_redirect_goes_elsewhere_and_is_not_found_anew(
    on_share: Path,
    schedule: HarvestSchedule,
    archive: StorageLocation,
    second_archive: StorageLocation,
    harvest: Harvest,
) -> None:
    HookConfig.objects.create(
        name="raw elsewhere",
        trigger="pre_transfer",
        implementation="builtin",
        builtin_name="redirect",
        config={"rules": [{"patterns": ["*.raw"], "storage": "second", "sub_path": "raw/2026"}]},
    )
    (on_share / "a.raw").write_bytes(b"content")
    (on_share / "a.txt").write_bytes(b"text")

    harvest(schedule)
    again = harvest(schedule)

    assert stored_files(archive) == {"NMR/a.txt": b"text"}
    assert stored_files(second_archive) == {"NMR/raw/2026/a.raw": b"content"}
    assert again.files_discovered == 0


def test_a_file_already_there_under_the_name_is_never_replaced(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"content")
    (on_share / "other").write_bytes(b"other")
    there = Path(archive.base_path) / "NMR" / "fid"
    there.parent.mkdir()
    there.write_bytes(b"somebody else's")

    run = harvest(schedule)

    assert run.status == RunStatus.COMPLETED_WITH_ERRORS
    transfer = FileTransfer.objects.get(record__source_path="fid")
    assert (transfer.status, transfer.error_code, transfer.error_phase) == (Status.FAILED, "exists", "destination")
    assert "move it away" in (transfer.error_message or "")
    assert stored_files(archive) == {"NMR/fid": b"somebody else's", "NMR/other": b"other"}

    there.unlink()
    retry(FileTransfer.objects.all())
    work_on(run, seconds=60)
    assert stored_files(archive) == {"NMR/fid": b"content", "NMR/other": b"other"}


def test_a_file_already_there_with_the_same_bytes_is_adopted(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"content")
    harvest(schedule)
    FileTransfer.objects.all().delete()
    FileRecord.objects.all().delete()

    run = harvest(schedule)

    assert (run.status, run.files_completed) == (RunStatus.COMPLETED, 1)
    assert stored_files(archive) == {"NMR/fid": b"content"}


def test_an_emptied_storage_is_filled_anew_after_the_rows_are_deleted(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"content")
    harvest(schedule)
    FileTransfer.objects.all().delete()
    FileRecord.objects.all().delete()
    for path in sorted(Path(archive.base_path).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    harvest(schedule)

    assert stored_files(archive) == {"NMR/fid": b"content"}


def test_nothing_is_written_where_the_disk_is_not_mounted(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"content")
    harvest(schedule)
    (on_share / "new").write_bytes(b"new")
    base = Path(archive.base_path)
    base.rename(base.with_name("unmounted"))
    base.mkdir()

    run = harvest(schedule)

    assert run.status == RunStatus.COMPLETED_WITH_ERRORS
    failed = FileTransfer.objects.get(record__source_path="new")
    assert (failed.error_code, failed.status) == ("not_mounted", Status.FAILED)
    assert list(base.iterdir()) == []

    base.rmdir()
    base.with_name("unmounted").rename(base)
    harvest(schedule)
    assert set(stored_files(archive)) == {"NMR/fid", "NMR/new"}


def test_bytes_damaged_on_the_way_are_found_and_never_published(
    on_share: Path,
    schedule: HarvestSchedule,
    archive: StorageLocation,
    harvest: Harvest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (on_share / "fid").write_bytes(b"content")
    honest = PosixStorage.make_durable

    def flip(self: PosixStorage, staged: Any) -> None:
        honest(self, staged)
        for item in staged:
            (Path(archive.base_path) / ".streamweave" / "tmp" / item.ref).write_bytes(b"cXntent")

    monkeypatch.setattr(PosixStorage, "make_durable", flip)
    run = harvest(schedule)

    transfer = FileTransfer.objects.get()
    assert (transfer.state, transfer.error_code, transfer.status) == (State.READY, "unverified", Status.PENDING)
    assert stored_files(archive) == {}

    monkeypatch.undo()
    FileTransfer.objects.update(next_attempt_at=None)
    work_on(run, seconds=60)
    transfer.refresh_from_db()
    assert (transfer.state, transfer.error_message) == (State.AVAILABLE, None)
    assert stored_files(archive) == {"NMR/fid": b"content"}


def test_a_crash_between_publishing_and_the_database_is_found_out(
    on_share: Path,
    schedule: HarvestSchedule,
    archive: StorageLocation,
    harvest: Harvest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (on_share / "fid").write_bytes(b"content")

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verifying, "_write_down", crash)
    with pytest.raises(KeyboardInterrupt):
        harvest(schedule)
    monkeypatch.undo()
    transfer = FileTransfer.objects.get()
    assert (transfer.state, transfer.is_leased) == (State.CARRIED, True)
    FileTransfer.objects.update(lease_expires_at=timezone.now())
    take_back()

    run = HarvestRun.objects.get()
    work_on(run, seconds=60)
    FileTransfer.objects.update(next_attempt_at=None)
    work_on(run, seconds=60)

    transfer.refresh_from_db()
    assert transfer.state == State.AVAILABLE
    assert stored_files(archive) == {"NMR/fid": b"content"}


def test_left_overs_of_dead_workers_are_cleared(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"content")
    run = harvest(schedule)
    transfer = FileTransfer.objects.get()
    with archive.open() as storage:
        storage.write("NMR/fid2", f"{transfer.pk.hex}-7", [b"half"])
        storage.write("NMR/fid3", "nobody-knows", [b"ours?"])
    temporary = Path(archive.base_path) / ".streamweave" / "tmp"
    assert len(list(temporary.iterdir())) == 2

    harvest(schedule)

    assert run.status == RunStatus.COMPLETED
    assert [path.name for path in temporary.iterdir()] == ["nobody-knows"]


def test_a_refused_log_in_pauses_the_instrument_until_its_credentials_change(
    on_share: Path, schedule: HarvestSchedule, instrument: Instrument, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"content")
    account = instrument.service_account
    assert account is not None
    right, account.password = account.password, "wrong"
    account.save()

    run = harvest(HarvestSchedule.objects.get())
    second = harvest(HarvestSchedule.objects.get())

    assert (run.status, run.error_code) == (RunStatus.FAILED, "authentication")
    assert (second.status, second.error_code) == (RunStatus.FAILED, "paused")
    instrument.refresh_from_db()
    assert instrument.paused_at is not None
    account.password = right
    account.save()
    assert harvest(HarvestSchedule.objects.get()).status == RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("cifs_share", "no-such-share", "no_such_share"),
        ("cifs_base_path", "/no/such/folder", "not_mounted"),
        ("cifs_host", "127.0.0.1:1", "unreachable"),
    ],
)
def test_each_wrong_address_has_its_own_message(
    on_share: Path, schedule: HarvestSchedule, instrument: Instrument, field: str, value: str, code: str
) -> None:
    Instrument.objects.filter(pk=instrument.pk).update(**{field: value})
    run = request(HarvestSchedule.objects.get(), trigger=Trigger.PERSON)

    work_on(run, seconds=60)

    run.refresh_from_db()
    assert run.error_code == code
    assert run.error_message


def test_an_instrument_without_service_account_says_so(
    on_share: Path, schedule: HarvestSchedule, instrument: Instrument, harvest: Harvest
) -> None:
    Instrument.objects.filter(pk=instrument.pk).update(service_account=None)

    run = harvest(HarvestSchedule.objects.get())

    assert (run.status, run.error_code) == (RunStatus.FAILED, "configuration")
    assert "service account" in (run.error_message or "")


def test_one_bad_file_does_not_stop_the_others(
    on_share: Path,
    schedule: HarvestSchedule,
    archive: StorageLocation,
    harvest: Harvest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in "abc":
        (on_share / name).write_bytes(name.encode())
    honest = SmbStorage.read_many

    class Denied(Reading):
        def chunks(self) -> Iterator[bytes]:
            raise StorageError(Fault.DENIED, f"Access to “{self.path}” is denied.", path=self.path)

        def look(self) -> Entry:
            raise AssertionError("nobody looks at what could not be read")

    def read_many(self: SmbStorage, entries: Iterable[Entry]) -> Iterator[Reading]:
        for reading in honest(self, entries):
            yield Denied(reading.path) if reading.path == "b" else reading

    monkeypatch.setattr(SmbStorage, "read_many", read_many)
    harvest(schedule)

    assert set(stored_files(archive)) == {"NMR/a", "NMR/c"}
    denied = FileTransfer.objects.get(record__source_path="b")
    assert (denied.error_phase, denied.error_code, denied.attempts) == ("source", "denied", 1)


def test_a_worker_that_lost_its_lease_writes_nothing(on_share: Path, schedule: HarvestSchedule) -> None:
    (on_share / "fid").write_bytes(b"content")
    run = request(schedule, trigger=Trigger.PERSON)
    runs.begin(run)
    runs.walk(run)
    batch = claim(run)
    assert batch is not None
    FileTransfer.objects.update(lease_expires_at=timezone.now())
    take_back()

    batch.step(batch.transfers, State.ACCEPTED)
    with pytest.raises(pipeline.LeaseLostError):
        batch.write()

    assert FileTransfer.objects.get().state == State.DISCOVERED


def test_a_storage_that_comes_late_gets_the_version_from_the_verified_copy(
    on_share: Path,
    schedule: HarvestSchedule,
    archive: StorageLocation,
    second_archive: StorageLocation,
    harvest: Harvest,
) -> None:
    (on_share / "fid").write_bytes(b"first content")
    harvest(schedule)
    other = HarvestSchedule.objects.create(
        instrument=schedule.instrument, default_storage_location=second_archive, cron_expression="0 2 * * *"
    )
    run = request(other, trigger=Trigger.PERSON)
    runs.begin(run)
    runs.walk(run)
    with (on_share / "fid").open("r+b") as file:
        file.write(b"other content, and longer")

    work_on(run, seconds=60)

    assert stored_files(second_archive) == {"NMR/fid": b"first content"}
    harvest(other)
    assert stored_files(second_archive) == {"NMR/fid": b"first content", "NMR/fid.v2": b"other content, and longer"}


def test_bytes_rewritten_with_their_times_put_back_are_noticed(
    on_share: Path,
    schedule: HarvestSchedule,
    second_archive: StorageLocation,
    harvest: Harvest,
) -> None:
    file = on_share / "fid"
    file.write_bytes(b"first content")
    harvest(schedule)
    times = file.stat()
    with file.open("r+b") as handle:
        handle.write(b"FIRST")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    other = HarvestSchedule.objects.create(
        instrument=schedule.instrument, default_storage_location=second_archive, cron_expression="0 2 * * *"
    )

    harvest(other)

    assert stored_files(second_archive) == {"NMR/fid": b"first content"}


def test_of_two_storages_with_different_bytes_of_one_version_the_second_is_copied_again(
    on_share: Path,
    schedule: HarvestSchedule,
    archive: StorageLocation,
    second_archive: StorageLocation,
    harvest: Harvest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = on_share / "fid"
    file.write_bytes(b"first content")
    other = HarvestSchedule.objects.create(
        instrument=schedule.instrument, default_storage_location=second_archive, cron_expression="0 2 * * *"
    )
    late = request(other, trigger=Trigger.PERSON)
    honest = verifying.verify

    def overtaken(batch: Any, connections: Any, transfers: Any) -> None:
        monkeypatch.setattr(pipeline, "STAGES", stages)
        times = file.stat()
        with file.open("r+b") as handle:
            handle.write(b"FIRST")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        harvest(schedule)
        honest(batch, connections, transfers)

    stages = pipeline.STAGES
    slow = tuple((state, overtaken if state == State.CARRIED else stage) for state, stage in stages)
    monkeypatch.setattr(pipeline, "STAGES", slow)
    work_on(late, seconds=60)
    FileTransfer.objects.update(next_attempt_at=None)
    work_on(late, seconds=60)

    assert stored_files(archive) == {"NMR/fid": b"FIRST content"}
    assert stored_files(second_archive) == {"NMR/fid": b"FIRST content"}
    assert FileTransfer.objects.filter(state=State.AVAILABLE).count() == 2


def test_what_the_whole_destination_cannot_do_is_not_tried_for_every_batch(
    on_share: Path,
    schedule: HarvestSchedule,
    archive: StorageLocation,
    harvest: Harvest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (on_share / "first").write_bytes(b"x")
    harvest(schedule)
    for number in range(5):
        (on_share / str(number)).write_bytes(b"x")
    monkeypatch.setattr("harvest.work.BATCH_FILES", 2)
    tried = []

    def full(self: PosixStorage, path: str, token: str, chunks: Any, **options: Any) -> Any:
        tried.append(path)
        raise StorageError(Fault.FULL, "The disk is full.")

    monkeypatch.setattr(PosixStorage, "write", full)
    run = harvest(schedule)

    assert len(tried) == 1
    assert (run.status, run.files_failed) == (RunStatus.COMPLETED_WITH_ERRORS, 5)
    assert set(FileTransfer.objects.values_list("error_code", flat=True)) == {"full", None}
    monkeypatch.undo()
    assert harvest(schedule).files_completed == 5


def test_a_log_in_refused_under_way_ends_the_run_and_the_files_wait(
    on_share: Path, schedule: HarvestSchedule, instrument: Instrument, harvest: Harvest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (on_share / str(number)).write_bytes(b"x")
    run = request(schedule, trigger=Trigger.PERSON)
    runs.begin(run)
    runs.walk(run)
    account = instrument.service_account
    assert account is not None
    right, account.password = account.password, "changed by the domain"
    account.save()
    run = HarvestRun.objects.get()

    work_on(run, seconds=60)

    run.refresh_from_db()
    assert (run.status, run.error_code) == (RunStatus.FAILED, "paused")
    assert runs_with_work() == []
    account.password = right
    account.save()
    FileTransfer.objects.update(next_attempt_at=None, given_up=False)
    assert runs_with_work() == [run]
    work_on(HarvestRun.objects.get(), seconds=60)
    assert FileTransfer.objects.filter(state=State.AVAILABLE).count() == 3


def test_a_batch_costs_the_same_queries_however_many_files_are_in_it(
    on_share: Path, schedule: HarvestSchedule, harvest: Harvest
) -> None:
    harvest(schedule)
    counted = []
    for count in (5, 50):
        folder = on_share / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / str(number)).write_bytes(bytes(number + 1))
        run = request(schedule, trigger=Trigger.PERSON)
        runs.begin(run)
        runs.walk(run)
        batch = claim(run)
        assert batch is not None
        assert len(batch.transfers) == count
        with Connections(run.instrument) as connections, CaptureQueriesContext(connection) as queries:
            pipeline.advance(batch, connections)
        counted.append(len(queries))
        assert runs.end_if_done(run)
    assert counted[0] == counted[1]


def test_a_stored_file_whose_hooks_failed_stays_completed_and_its_hooks_are_asked_again(
    on_share: Path, schedule: HarvestSchedule, harvest: Harvest
) -> None:
    hook = HookConfig.objects.create(
        name="who",
        trigger="post_transfer",
        implementation="builtin",
        builtin_name="access_assignment",
        config={"grants": [{"to": "group", "name": "nobody knows it"}]},
    )
    (on_share / "fid").write_bytes(b"content")
    first = harvest(schedule)
    stored_at = FileTransfer.objects.get().completed_at
    FileTransfer.objects.update(given_up=True)
    assert runs.end_if_done(first)
    hook.soft_delete()

    run = harvest(schedule)

    transfer = FileTransfer.objects.get()
    assert (transfer.state, transfer.given_up, transfer.completed_at) == (State.AVAILABLE, False, stored_at)
    assert run.files_failed == 0


def test_two_locations_never_share_a_base_path(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "fid").write_bytes(b"content")
    harvest(schedule)
    twin = StorageLocation.objects.create(name="twin", type="posix", base_path=archive.base_path)
    other = HarvestSchedule.objects.create(
        instrument=schedule.instrument, default_storage_location=twin, cron_expression="0 2 * * *"
    )

    assert harvest(other).status == RunStatus.COMPLETED_WITH_ERRORS

    failed = FileTransfer.objects.get(storage_location=twin)
    assert failed.error_code == "not_mounted"
    assert "belongs to the storage location “archive”" in (failed.error_message or "")
    (on_share / "more").write_bytes(b"more")
    assert harvest(schedule).files_completed == 1


def test_a_name_that_is_used_again_is_a_new_file_even_where_its_id_is_used_again(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "test.fid").write_bytes(b"of the first team")
    harvest(schedule)
    (on_share / "test.fid").unlink()
    (on_share / "test.fid").write_bytes(b"of the second")

    harvest(schedule)

    old, new = FileRecord.objects.order_by("generation")
    assert (old.is_current, new.is_current, new.version_number) == (False, True, 1)
    assert old.persistent_id != new.persistent_id
    assert stored_files(archive) == {"NMR/test.fid": b"of the first team", "NMR/test.g2.fid": b"of the second"}
