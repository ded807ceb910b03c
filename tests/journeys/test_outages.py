"""Servers that die in the middle of a harvest, or refuse us: nothing is lost, nothing is half done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harvest import runs, work
from harvest.demo.servers import SambaServer, SeaweedServer, Share
from harvest.models import FileTransfer, HarvestRun, HarvestSchedule, RunStatus, ServiceAccount
from harvest.transfer import Pacer
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY, SMB_PASSWORD, SMB_USER, ShareFolder
from tests.journeys.destinations import Destination, posix_destination, s3_destination, smb_destination
from tests.journeys.lab import Lab, assert_nothing_is_wrong, complaints

MEGABYTE = 1 << 20
InTheMiddle = Callable[[Callable[[], None]], None]


@pytest.fixture
def own_samba(tmp_path: Path) -> Iterator[SambaServer]:
    """A Samba of this test alone: `nmr` is the instrument's share, `archive` a storage, `closed` one without rights."""
    for name in ("nmr", "archive"):
        (tmp_path / name).mkdir()
    shares = {
        "nmr": Share(tmp_path / "nmr"),
        "archive": Share(tmp_path / "archive"),
        "closed": Share(tmp_path / "archive", read_only=True),
    }
    with SambaServer(tmp_path / "samba", shares, {SMB_USER: SMB_PASSWORD}) as server:
        yield server


@pytest.fixture
def own_weed(tmp_path: Path) -> Iterator[SeaweedServer]:
    with SeaweedServer(
        tmp_path / "weed", access_key=S3_ACCESS_KEY, secret_key=S3_SECRET_KEY, buckets=["instruments"]
    ) as server:
        yield server


@pytest.fixture
def in_the_middle(monkeypatch: pytest.MonkeyPatch) -> InTheMiddle:
    """Does something once, while the second file is on its way."""

    def install(act: Callable[[], None]) -> None:
        seen: list[object] = []

        def count(self: Pacer, *passed: object) -> None:
            seen.append(passed)
            if len(seen) == 3:
                act()

        monkeypatch.setattr(Pacer, "__call__", count)

    return install


def share_of(server: SambaServer, name: str) -> ShareFolder:
    return ShareFolder(server.shares[name].path, name, "/")


def plant(folder: ShareFolder) -> dict[str, bytes]:
    """Five files of two pieces each; returns what they must be at the destination."""
    files = {f"{number}.raw": os.urandom(2 * MEGABYTE - number) for number in range(5)}
    for name, content in files.items():
        (folder.path / name).write_bytes(content)
    return {f"Spectrometer/{name}": content for name, content in files.items()}


def assert_all_arrived(run: HarvestRun, destination: Destination, expected: dict[str, bytes]) -> None:
    assert (run.status, run.files_completed, run.files_failed) == ("completed", 5, 0), complaints(run)
    assert destination.files() == expected
    assert not [name for name in destination.reserved() if name.startswith("tmp/")]
    assert_nothing_is_wrong()


def test_an_instrument_that_restarts_while_it_is_read(
    db: None, own_samba: SambaServer, posix: Destination, in_the_middle: InTheMiddle
) -> None:
    expected = plant(share_of(own_samba, "nmr"))
    lab = Lab(own_samba)

    def restart() -> None:
        own_samba.kill()
        own_samba.start()

    in_the_middle(restart)
    run = lab.harvest(lab.schedule(lab.instrument(share_of(own_samba, "nmr")), posix))
    assert_all_arrived(run, posix, expected)
    assert max(FileTransfer.objects.values_list("carry_attempts", flat=True)) > 1


def test_an_instrument_that_is_switched_off_while_it_is_read(
    db: None, own_samba: SambaServer, posix: Destination, in_the_middle: InTheMiddle
) -> None:
    expected = plant(share_of(own_samba, "nmr"))
    lab = Lab(own_samba)
    schedule = lab.schedule(lab.instrument(share_of(own_samba, "nmr")), posix)
    in_the_middle(own_samba.kill)

    run = lab.harvest(schedule)

    assert run.status == RunStatus.COMPLETED_WITH_ERRORS
    assert run.files_completed + run.files_failed == 5
    failed = FileTransfer.objects.filter(given_up=True)
    assert failed.count() == run.files_failed > 0
    assert set(failed.values_list("error_phase", "error_code")) == {("source", "unreachable")}
    assert posix.files().items() <= expected.items()
    # The next run finds nobody at home, and says so.
    run = lab.harvest(schedule)
    assert (run.status, run.error_code) == (RunStatus.FAILED, "unreachable")
    assert "Nothing listens there" in (run.error_message or "")

    own_samba.start()
    lab.harvest(schedule)
    assert posix.files() == expected
    assert FileTransfer.objects.count() == FileTransfer.objects.stored().count() == 5
    assert_nothing_is_wrong()


def test_an_smb_storage_that_restarts_while_it_is_written_to(
    lab: Lab, share_dir: ShareFolder, samba: SambaServer, own_samba: SambaServer, in_the_middle: InTheMiddle
) -> None:
    expected = plant(share_dir)
    host = f"{own_samba.host}:{own_samba.port}"
    destination = smb_destination(host, SMB_USER, SMB_PASSWORD, share_of(own_samba, "archive"))
    in_the_middle(own_samba.kill)
    run = _first_attempt_fails(lab, lab.schedule(lab.instrument(share_dir), destination))
    own_samba.start()
    assert_all_arrived(lab.finish(run), destination, expected)


def test_an_s3_storage_that_restarts_while_it_is_written_to(
    lab: Lab, share_dir: ShareFolder, own_weed: SeaweedServer, in_the_middle: InTheMiddle
) -> None:
    expected = plant(share_dir)
    destination = s3_destination(own_weed, "instruments")
    in_the_middle(own_weed.kill)
    run = _first_attempt_fails(lab, lab.schedule(lab.instrument(share_dir), destination))
    own_weed.start()
    assert_all_arrived(lab.finish(run), destination, expected)


def _first_attempt_fails(lab: Lab, schedule: HarvestSchedule) -> HarvestRun:
    run = lab.discover(schedule)
    work.work_on(lab.fresh(run), seconds=60)
    failed = FileTransfer.objects.exclude(error_code=None)
    assert failed.exists()
    assert set(failed.values_list("error_phase", "error_code")) == {("destination", "unreachable")}
    return run


def test_a_disk_that_is_unmounted_before_a_later_run_gets_nothing_written_below_its_mount_point(
    lab: Lab, share_dir: ShareFolder, tmp_path: Path, posix: Destination
) -> None:
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    plant(share_dir)
    lab.harvest(schedule)
    (share_dir.path / "new.raw").write_bytes(b"new")
    (tmp_path / "archive").rename(tmp_path / "disk")
    (tmp_path / "archive").mkdir()  # the mount point

    run = lab.harvest(schedule)

    assert (run.status, run.files_failed) == (RunStatus.COMPLETED_WITH_ERRORS, 1)
    assert "Is the right disk mounted" in " ".join(complaints(run))
    assert posix.everything() == {}
    (tmp_path / "archive").rmdir()
    (tmp_path / "disk").rename(tmp_path / "archive")
    assert lab.harvest(schedule).status == "completed"
    assert posix.files()["Spectrometer/new.raw"] == b"new"


def test_a_storage_that_may_not_be_written_to_is_said_and_another_one_is_served(
    db: None, own_samba: SambaServer, tmp_path: Path
) -> None:
    expected = plant(share_of(own_samba, "nmr"))
    lab = Lab(own_samba)
    host = f"{own_samba.host}:{own_samba.port}"
    closed = smb_destination(host, SMB_USER, SMB_PASSWORD, share_of(own_samba, "closed"))
    instrument = lab.instrument(share_of(own_samba, "nmr"))
    schedule = lab.schedule(instrument, closed)
    run = lab.harvest(schedule)
    assert (run.status, run.files_completed, run.files_failed) == ("completed_with_errors", 0, 5)
    assert all("read-only" in complaint for complaint in complaints(run)), complaints(run)
    assert closed.everything() == {}
    open_ = posix_destination(tmp_path / "open", name="Open archive")
    assert_all_arrived(lab.harvest(lab.schedule(instrument, open_)), open_, expected)


def test_a_refused_log_in_is_tried_once_and_again_only_with_other_credentials(
    db: None, own_samba: SambaServer, posix: Destination
) -> None:
    expected = plant(share_of(own_samba, "nmr"))
    lab = Lab(own_samba)
    instrument = lab.instrument(share_of(own_samba, "nmr"))
    schedule = lab.schedule(instrument, posix)
    account = ServiceAccount.objects.get()
    account.password = "an old one"
    account.save()

    run = lab.harvest(schedule)
    assert (run.status, run.error_code, run.attempts) == (RunStatus.FAILED, "authentication", 1)
    assert "password is wrong" in (run.error_message or "")
    instrument.refresh_from_db()
    assert instrument.paused_at is not None
    own_samba.kill()  # so that it would be noticed if we knocked again
    run = lab.harvest(schedule)
    assert (run.status, run.error_code) == (RunStatus.FAILED, "paused")

    own_samba.start()
    account.password = SMB_PASSWORD
    account.save()
    assert_all_arrived(lab.harvest(schedule), posix, expected)


def test_a_cancelled_run_stops_where_it_is_and_a_retry_takes_up_its_files(
    lab: Lab, share_dir: ShareFolder, posix: Destination
) -> None:
    expected = plant(share_dir)
    run = lab.discover(lab.schedule(lab.instrument(share_dir), posix))
    assert runs.cancel(run)
    lab.wait_and_sweep()
    assert posix.files() == {}
    assert set(FileTransfer.objects.values_list("state", flat=True)) == {"cancelled"}
    assert runs.retry(FileTransfer.objects.all()) == 5
    lab.wait_and_sweep()
    assert posix.files() == expected
    assert_nothing_is_wrong()
