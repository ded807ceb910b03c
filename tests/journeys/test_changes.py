"""What happens to files on the instrument between, before and during harvests: nothing of it costs a byte."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from access.grants import grant
from access.models import User
from harvest import runs
from harvest.models import FileRecord, FileTransfer, FileVersion, ReplacedFile, State, StorageLocation
from harvest.transfer import Pacer
from hooks.models import HookConfig
from tests.conftest import ShareFolder
from tests.journeys.destinations import Destination
from tests.journeys.instrument_pc import InstrumentPC
from tests.journeys.lab import Lab, assert_nothing_is_wrong, complaints, record_at, transfer_of

WRITTEN_AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
FIRST, SECOND = b"first free induction decay", b"second one, longer than the first"
MEGABYTE = 1 << 20

DuringReading = Callable[[Callable[[], object]], None]


def put(folder: ShareFolder, path: str, content: bytes, *, minute: int = 0) -> Path:
    """Write a file in place, as if the instrument had done so at that minute."""
    target = folder.path / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    when = (WRITTEN_AT + timedelta(minutes=minute)).timestamp()
    os.utime(target, (when, when))
    return target


def replace(folder: ShareFolder, path: str, content: bytes, *, minute: int = 1) -> None:
    """Put another file under the same name, while the first one is still there."""
    put(folder, f"{path}.new", content, minute=minute).replace(folder.path / path)


@pytest.fixture
def during_reading(monkeypatch: pytest.MonkeyPatch) -> DuringReading:
    """Does something once, in the middle of reading a file: its first bytes have come, its handle is open."""

    def install(act: Callable[[], object]) -> None:
        todo = [act]

        def act_once(self: Pacer, *passed: object) -> None:
            if todo:
                todo.pop()()

        monkeypatch.setattr(Pacer, "__call__", act_once)

    return install


# ------------------------------------------------------------------------------------------- changed and replaced


def test_a_file_that_changed_is_stored_as_a_second_version_beside_the_first(
    lab: Lab, share_dir: ShareFolder, destination: Destination
) -> None:
    schedule = lab.schedule(lab.instrument(share_dir), destination)
    put(share_dir, "20260115/test.fid", FIRST)
    lab.harvest(schedule)
    ark = record_at("20260115/test.fid").persistent_id

    put(share_dir, "20260115/test.fid", SECOND, minute=5)
    run = lab.harvest(schedule)

    assert (run.files_discovered, run.files_completed) == (1, 1), complaints(run)
    record = record_at("20260115/test.fid")
    assert (record.persistent_id, record.generation, record.version_number) == (ark, 1, 2)
    assert FileRecord.objects.count() == 1
    assert [version.size_bytes for version in record.versions.order_by("number")] == [len(FIRST), len(SECOND)]
    assert destination.files() == {
        "Spectrometer/20260115/test.fid": FIRST,
        "Spectrometer/20260115/test.v2.fid": SECOND,
    }
    assert_nothing_is_wrong()
    assert lab.harvest(schedule).files_discovered == 0


def test_a_third_version_and_a_name_without_extension(lab: Lab, share_dir: ShareFolder, posix: Destination) -> None:
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    for minute, content in enumerate((b"a", b"bb", b"ccc")):
        put(share_dir, "fid", content, minute=minute)
        lab.harvest(schedule)
    assert posix.files() == {"Spectrometer/fid": b"a", "Spectrometer/fid.v2": b"bb", "Spectrometer/fid.v3": b"ccc"}
    assert_nothing_is_wrong()


def test_an_instrument_may_write_the_very_name_of_our_second_version(
    lab: Lab, share_dir: ShareFolder, destination: Destination
) -> None:
    schedule = lab.schedule(lab.instrument(share_dir), destination)
    put(share_dir, "test.fid", FIRST)
    put(share_dir, "test.v2.fid", b"the instrument's own")
    lab.harvest(schedule)
    put(share_dir, "test.fid", SECOND, minute=5)
    run = lab.harvest(schedule)
    assert (run.status, run.files_completed) == ("completed", 1), complaints(run)
    assert destination.files() == {
        "Spectrometer/test.fid": FIRST,
        "Spectrometer/test.v2.fid": b"the instrument's own",
        f"Spectrometer/{Path(transfer_of('test.fid', version=2).stored_path or '').name}": SECOND,
    }


def test_a_file_that_was_replaced_is_a_new_record_that_nobody_of_the_old_one_sees(
    lab: Lab, share_dir: ShareFolder, destination: Destination
) -> None:
    chemist = User.objects.create_user("chemist@example.com", "devpass123!")
    schedule = lab.schedule(lab.instrument(share_dir), destination)
    put(share_dir, "test.fid", FIRST)
    lab.harvest(schedule)
    old = record_at("test.fid")
    grant([old], grantee_type="user", grantee_id=chemist.pk)

    replace(share_dir, "test.fid", SECOND)
    run = lab.harvest(schedule)

    assert (run.files_discovered, run.files_completed) == (1, 1), complaints(run)
    new = record_at("test.fid")
    assert new.pk != old.pk
    assert new.persistent_id != old.persistent_id
    assert (new.generation, new.version_number) == (2, 1)
    assert list(FileRecord.objects.visible_to(chemist)) == [old]
    old.refresh_from_db()
    assert (old.is_current, old.size_bytes) == (False, len(FIRST))
    assert set(destination.files().values()) == {FIRST, SECOND}
    assert destination.files()["Spectrometer/test.fid"] == FIRST
    assert_nothing_is_wrong()
    assert lab.harvest(schedule).files_discovered == 0


def test_a_replaced_file_is_a_new_version_where_the_instrument_says_so(
    lab: Lab, share_dir: ShareFolder, posix: Destination
) -> None:
    schedule = lab.schedule(lab.instrument(share_dir, replaced_file=ReplacedFile.NEW_VERSION), posix)
    put(share_dir, "test.fid", FIRST)
    lab.harvest(schedule)
    replace(share_dir, "test.fid", SECOND)
    lab.harvest(schedule)
    record = FileRecord.objects.get()
    assert (record.generation, record.version_number) == (1, 2)
    assert posix.files() == {"Spectrometer/test.fid": FIRST, "Spectrometer/test.v2.fid": SECOND}


def test_a_renamed_file_is_a_new_record_and_the_old_copy_stays(
    lab: Lab, share_dir: ShareFolder, instrument_pc: InstrumentPC, posix: Destination
) -> None:
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    put(share_dir, "before.fid", FIRST)
    lab.harvest(schedule)
    instrument_pc.rename("before.fid", "after.fid")
    run = lab.harvest(schedule)
    assert (run.status, run.files_seen, run.files_completed) == ("completed", 1, 1), complaints(run)
    assert record_at("after.fid").persistent_id != record_at("before.fid").persistent_id
    assert posix.files() == {"Spectrometer/before.fid": FIRST, "Spectrometer/after.fid": FIRST}


# ----------------------------------------------------------------------------------------------- while it is read


def test_a_file_that_grew_since_it_was_listed_waits_and_is_then_taken_whole(
    lab: Lab, share_dir: ShareFolder, instrument_pc: InstrumentPC, destination: Destination
) -> None:
    put(share_dir, "test.fid", FIRST)
    run = lab.discover(lab.schedule(lab.instrument(share_dir), destination))
    instrument_pc.append("test.fid", SECOND)

    run = lab.finish(run)

    _assert_waits_for_change(destination)
    assert (run.status, run.files_completed, run.files_failed, run.files_waiting) == ("completed", 0, 0, 1)
    lab.wait_and_sweep()
    _assert_one_whole_version(destination, FIRST + SECOND)


def test_a_file_that_grows_while_it_is_read_is_never_taken_by_half(
    lab: Lab,
    share_dir: ShareFolder,
    instrument_pc: InstrumentPC,
    destination: Destination,
    during_reading: DuringReading,
) -> None:
    beginning = os.urandom(3 * MEGABYTE + 17)
    put(share_dir, "test.fid", beginning)
    during_reading(lambda: instrument_pc.append("test.fid", SECOND))

    lab.harvest(lab.schedule(lab.instrument(share_dir), destination))

    _assert_waits_for_change(destination)
    lab.wait_and_sweep()
    _assert_one_whole_version(destination, beginning + SECOND)


def test_a_file_that_is_cut_while_it_is_read_is_taken_as_it_is_afterwards(
    lab: Lab, share_dir: ShareFolder, destination: Destination, during_reading: DuringReading
) -> None:
    target = put(share_dir, "test.fid", os.urandom(5 * MEGABYTE))
    during_reading(lambda: os.truncate(target, 100))
    schedule = lab.schedule(lab.instrument(share_dir), destination)
    lab.harvest(schedule)
    assert destination.files() == {}
    assert not FileTransfer.objects.stored().exists()
    lab.wait_and_sweep()
    lab.harvest(schedule)
    _assert_one_whole_version(destination, target.read_bytes())


def test_a_file_that_is_rewritten_while_it_is_read_is_taken_as_it_is_afterwards(
    lab: Lab, share_dir: ShareFolder, posix: Destination, during_reading: DuringReading
) -> None:
    """The size stays the same; only the time tells."""
    put(share_dir, "test.fid", os.urandom(3 * MEGABYTE))
    after = os.urandom(3 * MEGABYTE)
    during_reading(lambda: put(share_dir, "test.fid", after, minute=1))
    lab.harvest(lab.schedule(lab.instrument(share_dir), posix))
    _assert_waits_for_change(posix)
    lab.wait_and_sweep()
    _assert_one_whole_version(posix, after)


def test_while_we_read_the_instrument_may_write_and_rename_its_files(
    lab: Lab,
    share_dir: ShareFolder,
    instrument_pc: InstrumentPC,
    posix: Destination,
    during_reading: DuringReading,
) -> None:
    content = os.urandom(3 * MEGABYTE)
    put(share_dir, "test.fid", content)
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    during_reading(lambda: instrument_pc.rename("test.fid", "done.fid"))

    run = lab.harvest(schedule)

    # It was opened under its old name and is what was discovered there; the new name is another file's.
    assert (run.status, run.files_completed, run.files_failed) == ("completed", 1, 0), complaints(run)
    assert posix.files() == {"Spectrometer/test.fid": content}
    lab.harvest(schedule)
    assert posix.files() == {"Spectrometer/test.fid": content, "Spectrometer/done.fid": content}
    assert_nothing_is_wrong()


def _assert_waits_for_change(destination: Destination) -> None:
    transfer = FileTransfer.objects.get()
    assert "changed on the instrument" in (transfer.waiting_reason or "")
    assert transfer.next_attempt_at is not None
    assert (transfer.status, transfer.attempts, transfer.error_message) == ("pending", 0, None)
    assert destination.files() == {}
    assert not [name for name in destination.reserved() if name.startswith("tmp/")]


def _assert_one_whole_version(destination: Destination, content: bytes) -> None:
    assert destination.files() == {"Spectrometer/test.fid": content}
    assert FileVersion.objects.count() == FileTransfer.objects.count() == 1
    assert FileTransfer.objects.get().state == State.AVAILABLE
    assert_nothing_is_wrong()


# ---------------------------------------------------------------------------------------------- vanished and locked


def test_a_file_that_vanished_before_it_was_copied_is_no_failure_and_is_taken_when_it_is_back(
    lab: Lab, share_dir: ShareFolder, destination: Destination
) -> None:
    put(share_dir, "stays.fid", FIRST)
    target = put(share_dir, "goes.fid", SECOND)
    schedule = lab.schedule(lab.instrument(share_dir), destination)
    run = lab.discover(schedule)
    target.unlink()

    run = lab.finish(run)

    assert (run.status, run.files_completed, run.files_skipped, run.files_failed) == ("completed", 1, 1, 0)
    transfer = transfer_of("goes.fid")
    assert (transfer.state, transfer.status) == (State.VANISHED, "skipped")
    assert "gone" in (transfer.reason or "")
    assert destination.files() == {"Spectrometer/stays.fid": FIRST}

    put(share_dir, "goes.fid", SECOND)
    run = lab.harvest(schedule)
    assert (run.status, run.files_completed) == ("completed", 1), complaints(run)
    assert FileTransfer.objects.count() == 2
    assert destination.files() == {"Spectrometer/stays.fid": FIRST, "Spectrometer/goes.fid": SECOND}
    assert_nothing_is_wrong()


def test_a_file_that_the_instrument_holds_is_left_alone_until_it_lets_go(
    lab: Lab, share_dir: ShareFolder, instrument_pc: InstrumentPC, posix: Destination
) -> None:
    put(share_dir, "free.fid", FIRST)
    put(share_dir, "held.fid", SECOND)
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    with instrument_pc.holding("held.fid"):
        run = lab.harvest(schedule)
        assert (run.status, run.files_completed, run.files_failed, run.files_waiting) == ("completed", 1, 0, 1)
        transfer = transfer_of("held.fid")
        assert "Locked" in (transfer.waiting_reason or "")
        assert transfer.next_attempt_at is not None
        assert transfer.status == "pending"
        for _ in range(10):  # longer than any number of attempts
            lab.wait_and_sweep()
        transfer.refresh_from_db()
        assert (transfer.attempts, transfer.given_up) == (0, False)
        assert posix.files() == {"Spectrometer/free.fid": FIRST}
    lab.wait_and_sweep()
    assert posix.files() == {"Spectrometer/free.fid": FIRST, "Spectrometer/held.fid": SECOND}
    assert_nothing_is_wrong()


# ------------------------------------------------------------------------------------------------- names and filters


def test_names_that_differ_in_case_only_both_arrive(lab: Lab, share_dir: ShareFolder, destination: Destination) -> None:
    put(share_dir, "Sample.raw", FIRST)
    put(share_dir, "sample.raw", SECOND)
    put(share_dir, "SAMPLE.RAW", b"third")
    schedule = lab.schedule(lab.instrument(share_dir), destination)
    run = lab.harvest(schedule)
    assert (run.status, run.files_completed) == ("completed", 3), complaints(run)
    names = [transfer.stored_path for transfer in FileTransfer.objects.all()]
    assert destination.files() == {
        transfer_of("Sample.raw").stored_path: FIRST,
        transfer_of("sample.raw").stored_path: SECOND,
        transfer_of("SAMPLE.RAW").stored_path: b"third",
    }
    if destination.location.folds_case:
        assert len({(name or "").casefold() for name in names}) == 3
    else:
        assert set(names) == {"Spectrometer/Sample.raw", "Spectrometer/sample.raw", "Spectrometer/SAMPLE.RAW"}
    assert lab.harvest(schedule).files_discovered == 0


def test_filtered_files_have_a_record_and_exactly_one_skipped_transfer_for_ever(
    lab: Lab, share_dir: ShareFolder, posix: Destination
) -> None:
    config = {"min_size_bytes": 1, "exclude_patterns": ["*.tmp", "*.lock", "~*"]}
    hook = HookConfig.objects.create(
        name="Skip zero-byte and temp files",
        trigger="pre_transfer",
        implementation="builtin",
        builtin_name="file_filter",
        config=config,
    )
    put(share_dir, "fid", FIRST)
    put(share_dir, "scratch.tmp", b"temp data\n")
    put(share_dir, "empty.txt", b"")
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    for number in range(3):
        run = lab.harvest(schedule)
        assert (run.status, run.files_skipped, run.files_failed) == ("completed", 2, 0), complaints(run)
        assert run.files_completed == (1 if number == 0 else 0)
        assert (FileRecord.objects.count(), FileTransfer.objects.count()) == (3, 3)
        for path, size in (("scratch.tmp", 10), ("empty.txt", 0)):
            record, transfer = record_at(path), transfer_of(path)
            assert (record.size_bytes, record.xxhash, record.sha256, record.metadata) == (size, None, None, {})
            assert record.persistent_id.startswith("ark:/99999/fk4")
            assert (transfer.state, transfer.status) == (State.SKIPPED, "skipped")
            assert (transfer.reason or "").startswith(hook.name)
    assert posix.files() == {"Spectrometer/fid": FIRST}

    # Whoever changes the rule gets the files with the next run, on the same rows.
    HookConfig.objects.update(enabled=False)
    assert lab.harvest(schedule).files_completed == 2
    assert (FileRecord.objects.count(), FileTransfer.objects.count()) == (3, 3)
    assert posix.files()["Spectrometer/empty.txt"] == b""
    assert_nothing_is_wrong()


# --------------------------------------------------------------------------------------------- from a verified copy


def test_a_second_storage_gets_the_version_that_the_source_has_no_more(
    lab: Lab, share_dir: ShareFolder, posix: Destination, s3: Destination
) -> None:
    instrument = lab.instrument(share_dir)
    first, second = lab.schedule(instrument, posix), lab.schedule(instrument, s3)
    put(share_dir, "test.fid", FIRST)
    lab.harvest(first)
    run = lab.discover(second)
    put(share_dir, "test.fid", SECOND, minute=5)

    run = lab.finish(run)

    assert (run.status, run.files_completed) == ("completed", 1), complaints(run)
    assert s3.files() == {"Spectrometer/test.fid": FIRST}
    assert_nothing_is_wrong()
    lab.harvest(second)
    assert s3.files() == {"Spectrometer/test.fid": FIRST, "Spectrometer/test.v2.fid": SECOND}
    lab.harvest(first)
    assert posix.files() == s3.files()
    assert (FileRecord.objects.count(), FileVersion.objects.count(), FileTransfer.objects.count()) == (1, 2, 4)
    assert_nothing_is_wrong()


def test_a_second_storage_gets_the_file_that_is_gone_from_the_source(
    lab: Lab, share_dir: ShareFolder, posix: Destination, s3: Destination
) -> None:
    instrument = lab.instrument(share_dir)
    target = put(share_dir, "test.fid", FIRST)
    lab.harvest(lab.schedule(instrument, posix))
    run = lab.discover(lab.schedule(instrument, s3))
    target.unlink()
    assert lab.finish(run).files_completed == 1
    assert s3.files() == posix.files() == {"Spectrometer/test.fid": FIRST}
    assert_nothing_is_wrong()


def test_a_source_that_was_rewritten_with_its_old_times_does_not_pass_for_the_same_version(
    lab: Lab, share_dir: ShareFolder, posix: Destination, s3: Destination
) -> None:
    instrument = lab.instrument(share_dir)
    put(share_dir, "test.fid", FIRST)
    lab.harvest(lab.schedule(instrument, posix))
    put(share_dir, "test.fid", FIRST[::-1])
    run = lab.harvest(lab.schedule(instrument, s3))
    assert run.files_completed == 1, complaints(run)
    assert s3.files() == {"Spectrometer/test.fid": FIRST}
    assert_nothing_is_wrong()


def test_where_no_copy_of_an_older_version_exists_its_transfer_is_superseded(
    lab: Lab, share_dir: ShareFolder, tmp_path: Path, posix: Destination, s3: Destination
) -> None:
    instrument = lab.instrument(share_dir)
    put(share_dir, "test.fid", FIRST)
    lab.harvest(lab.schedule(instrument, posix))
    run = lab.discover(lab.schedule(instrument, s3))
    put(share_dir, "test.fid", SECOND, minute=5)
    (tmp_path / "archive/Spectrometer/test.fid").write_bytes(FIRST[::-1])  # and the copy is damaged

    run = lab.finish(run)

    transfer = transfer_of("test.fid", scheduled_storage=s3.location)
    assert (transfer.state, transfer.status) == (State.SUPERSEDED, "skipped"), complaints(run)
    assert transfer.reason
    assert s3.files() == {}


def test_a_copy_that_cannot_be_reached_now_holds_up_its_own_file_only(
    lab: Lab, share_dir: ShareFolder, tmp_path: Path, posix: Destination, s3: Destination
) -> None:
    instrument = lab.instrument(share_dir)
    for name in ("a", "b", "c", "d", "e"):
        put(share_dir, f"{name}.fid", FIRST)
    lab.harvest(lab.schedule(instrument, posix))
    run = lab.discover(lab.schedule(instrument, s3))
    put(share_dir, "c.fid", SECOND, minute=5)
    (tmp_path / "archive").rename(tmp_path / "unmounted")

    run = lab.finish(run)

    assert s3.files().keys() == {f"Spectrometer/{name}.fid" for name in ("a", "b", "d", "e")}, complaints(run)
    transfer = transfer_of("c.fid", scheduled_storage=s3.location)
    assert transfer.state != State.SUPERSEDED, "there is a verified copy, and it will be back"
    assert posix.location.name in (transfer.error_message or transfer.waiting_reason or "")

    (tmp_path / "unmounted").rename(tmp_path / "archive")
    runs.retry(FileTransfer.objects.all())
    lab.wait_and_sweep()
    assert s3.files()["Spectrometer/c.fid"] == FIRST
    assert_nothing_is_wrong()


def test_an_older_version_that_could_not_be_stored_is_stored_once_it_can_be(
    lab: Lab, share_dir: ShareFolder, posix: Destination, s3: Destination
) -> None:
    """The second storage was broken when it was to get the first version; a copy of that is on the first storage."""
    instrument = lab.instrument(share_dir)
    first, second = lab.schedule(instrument, posix), lab.schedule(instrument, s3)
    put(share_dir, "test.fid", FIRST)
    lab.harvest(first)
    StorageLocation.objects.filter(pk=s3.location.pk).update(
        connection_config={**(s3.location.connection_config or {}), "bucket": "no-such-bucket"}
    )
    assert lab.harvest(second).status == "completed_with_errors"
    assert transfer_of("test.fid", scheduled_storage=s3.location).status == "failed"

    put(share_dir, "test.fid", SECOND, minute=5)
    StorageLocation.objects.filter(pk=s3.location.pk).update(connection_config=s3.location.connection_config)
    run = lab.harvest(second)

    assert run.status == "completed", complaints(run)
    assert s3.files() == {"Spectrometer/test.fid": FIRST, "Spectrometer/test.v2.fid": SECOND}
    assert_nothing_is_wrong()
