"""The commands: what they do, what they say, and with which exit status."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from harvest.management.commands import diagram
from harvest.models import (
    FileRecord,
    FileTransfer,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    RunStatus,
    ServiceAccount,
    State,
    StorageLocation,
    Trigger,
)
from harvest.models.states import TRANSITIONS
from harvest.runs import begin, request, walk
from hooks.models import HookConfig
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY, SMB_PASSWORD
from tests.harvest.conftest import stored_files

pytestmark = pytest.mark.django_db
Harvest = Callable[[HarvestSchedule], HarvestRun]


@pytest.fixture(autouse=True)
def reminded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that workers were reminded of; the messages go nowhere."""
    runs: list[str] = []
    monkeypatch.setattr("harvest.tasks.work_on.apply_async", lambda args, **options: runs.append(args[0]))
    return runs


def run_command(*words: Any) -> tuple[int, str]:
    """Exit status and everything said."""
    out = StringIO()
    try:
        call_command(*map(str, words), stdout=out, no_color=True)
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}"
    return 0, out.getvalue()


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


# --- harvest ----------------------------------------------------------------------------------------------------------


def test_an_instrument_is_harvested_to_each_of_its_storages(
    on_share: Path,
    schedule: HarvestSchedule,
    instrument: Instrument,
    archive: StorageLocation,
    second_archive: StorageLocation,
) -> None:
    HarvestSchedule.objects.create(
        instrument=instrument, default_storage_location=second_archive, cron_expression="0 2 * * *"
    )
    (on_share / "a.fid").write_bytes(b"abc")
    status, said = run_command("harvest", "nmr")
    assert status == 0
    assert re.search(r"NMR +archive +1 +1 +0 +0 +0 +3 ", said)
    assert re.search(r"NMR +second +1 +1 +0 +0 +0 +3 ", said)
    assert stored_files(archive) == stored_files(second_archive) == {"NMR/a.fid": b"abc"}
    assert set(HarvestRun.objects.values_list("trigger", flat=True)) == {Trigger.COMMAND}
    status, said = run_command("harvest", "--all")
    assert status == 0
    assert HarvestRun.objects.filter(files_discovered=0).count() == 2


def test_one_schedule_is_harvested_by_its_id(on_share: Path, schedule: HarvestSchedule) -> None:
    schedule.enabled = False
    schedule.save()
    (on_share / "a.fid").write_bytes(b"abc")
    assert run_command("harvest", "--schedule", schedule.pk)[0] == 0
    assert FileTransfer.objects.get().state == State.AVAILABLE
    status, said = run_command("harvest", "NMR")
    assert status == 2
    assert str(schedule.pk) in said


@pytest.mark.parametrize("words", [(), ("NMR", "--all"), ("--schedule", "x"), ("nope",)])
def test_what_makes_no_sense_is_a_usage_error(schedule: HarvestSchedule, words: tuple[str, ...]) -> None:
    assert run_command("harvest", *words)[0] == 2
    assert not HarvestRun.objects.exists()


def test_an_unknown_instrument_lists_what_there_is(schedule: HarvestSchedule) -> None:
    status, said = run_command("harvest", "nope")
    assert (status, "There is no instrument “nope”" in said, "\n  NMR" in said) == (2, True, True)


def test_a_bar_shows_on_a_terminal_and_quiet_says_nothing(on_share: Path, schedule: HarvestSchedule) -> None:
    (on_share / "a.fid").write_bytes(b"abc")
    out = Terminal()
    call_command("harvest", "NMR", stdout=out)
    assert "\r\x1b[KNMR → archive  ████████████████████████  1 of 1 files" in out.getvalue()
    assert run_command("harvest", "NMR", "--quiet") == (0, "")


def test_failures_are_grouped_by_their_cause(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, settings: Any
) -> None:
    settings.MAX_ATTEMPTS = 1
    for number in range(3):
        (on_share / f"{number}.fid").write_bytes(b"abc")
    (on_share / "good.fid").write_bytes(b"abc")
    HookConfig.objects.create(
        name="Elsewhere",
        trigger="pre_transfer",
        implementation="builtin",
        builtin_name="redirect",
        config={"rules": [{"patterns": ["[0-9].fid"], "storage": "nowhere"}]},
    )
    status, said = run_command("harvest", "NMR")
    assert status == 1
    assert re.search(r"NMR +archive +4 +1 +0 +3 +0 +3 ", said)
    assert "3 files failed (hook, unknown_storage): Elsewhere: there is no enabled storage location “nowhere”." in said


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cifs_share": "no-such-share"}, "no such share"),
        ({"cifs_host": "127.0.0.1:1"}, "Nothing listens there"),
        ({"cifs_base_path": "/no-such-folder"}, "no such folder"),
        ({"enabled": False}, "is disabled"),
        ({"service_account": None}, "has no service account"),
    ],
)
def test_an_instrument_that_cannot_be_harvested_says_why(
    on_share: Path, schedule: HarvestSchedule, instrument: Instrument, changed: dict[str, Any], message: str
) -> None:
    Instrument.objects.filter(pk=instrument.pk).update(**changed)
    status, said = run_command("harvest", "--schedule", schedule.pk, "--wait", "0")
    assert status == 1
    assert message in said


def test_a_refused_log_in_pauses_and_is_not_tried_again(
    on_share: Path, schedule: HarvestSchedule, account: ServiceAccount, instrument: Instrument
) -> None:
    account.password = "hunter2-secret"
    account.save()
    status, said = run_command("harvest", "NMR")
    assert status == 1
    assert "authentication" in said
    assert "hunter2" not in said
    instrument.refresh_from_db()
    assert instrument.paused_at is not None
    status, said = run_command("harvest", "NMR")
    assert (status, HarvestRun.objects.count()) == (1, 1)
    assert "is paused since" in said


def test_a_missing_destination_is_said_and_the_next_harvest_goes_on(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation
) -> None:
    (on_share / "a.fid").write_bytes(b"abc")
    folder = Path(archive.base_path)
    folder.rmdir()
    status, said = run_command("harvest", "NMR", "--wait", "0")
    assert status == 1
    assert f"There is no folder {folder}" in said
    folder.mkdir()
    assert run_command("harvest", "NMR")[0] == 0
    assert stored_files(archive) == {"NMR/a.fid": b"abc"}


def test_files_that_wait_do_not_keep_it(on_share: Path, schedule: HarvestSchedule, instrument: Instrument) -> None:
    instrument.min_age_seconds = 3600
    instrument.save()
    (on_share / "a.fid").write_bytes(b"abc")
    status, said = run_command("harvest", "NMR")
    assert status == 0
    assert "1 file waiting: It changed less than 3600 s ago." in said


def test_a_run_that_is_under_way_is_followed_to_its_end(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation
) -> None:
    (on_share / "a.fid").write_bytes(b"abc")
    run = request(schedule, trigger=Trigger.SCHEDULE)
    assert begin(run)
    assert walk(run)
    status, said = run_command("harvest", "NMR")
    assert status == 0
    assert "A run is under way since" in said
    assert HarvestRun.objects.get().status == RunStatus.COMPLETED
    assert stored_files(archive) == {"NMR/a.fid": b"abc"}


def test_what_a_dead_worker_held_is_taken_back(on_share: Path, schedule: HarvestSchedule) -> None:
    (on_share / "a.fid").write_bytes(b"abc")
    run = request(schedule, trigger=Trigger.SCHEDULE)
    assert begin(run)
    assert walk(run)
    gone = {"lease_token": run.pk, "lease_expires_at": timezone.now() - timedelta(seconds=1), "lease_size": 1}
    FileTransfer.objects.update(**gone)
    assert run_command("harvest", "NMR")[0] == 0
    assert FileTransfer.objects.get().state == State.AVAILABLE


def test_another_run_to_the_same_storage_comes_first(
    on_share: Path, schedule: HarvestSchedule, instrument: Instrument, archive: StorageLocation
) -> None:
    other = HarvestSchedule.objects.create(
        instrument=instrument, default_storage_location=archive, cron_expression="0 2 * * *"
    )
    assert begin(request(other, trigger=Trigger.SCHEDULE))
    status, said = run_command("harvest", "--schedule", schedule.pk)
    assert status == 0
    assert "comes first" in said
    assert set(HarvestRun.objects.values_list("status", flat=True)) == {RunStatus.COMPLETED}


def test_a_dry_run_lists_and_writes_nothing(on_share: Path, schedule: HarvestSchedule) -> None:
    (on_share / "a.fid").write_bytes(b"abc")
    status, said = run_command("harvest", "NMR", "--dry-run")
    assert status == 0
    assert re.search(r"take +3  a\.fid  \(not known yet\)", said)
    assert "take 1 (3 bytes)" in said
    assert not FileRecord.objects.exists()
    assert not HarvestRun.objects.exists()


def test_a_dry_run_of_what_cannot_be_reached_fails(schedule: HarvestSchedule) -> None:
    status, said = run_command("harvest", "NMR", "--dry-run")
    assert status == 1
    assert "Nothing listens there" in said


# --- retry ------------------------------------------------------------------------------------------------------------


def test_failed_files_go_on_their_way_again(
    on_share: Path,
    schedule: HarvestSchedule,
    archive: StorageLocation,
    harvest: Harvest,
    reminded: list[str],
    django_capture_on_commit_callbacks: Any,
) -> None:
    (on_share / "a.fid").write_bytes(b"abc")
    (on_share / "b.fid").write_bytes(b"abc")
    folder = Path(archive.base_path)
    folder.rmdir()
    run = harvest(schedule)
    assert FileTransfer.objects.filter(given_up=True).count() == 2
    folder.mkdir()
    transfer = FileTransfer.objects.get(record__source_path="a.fid")
    for words in (
        ("--instrument", "nope"),
        ("--storage", "nope"),
        ("--run", "x"),
        ("--run", transfer.pk),
        ("--file", "nope"),
        (),
        ("--all", "--file", "a.fid"),
    ):
        assert run_command("retry", *words)[0] == 2
    with django_capture_on_commit_callbacks(execute=True):
        assert "1 file goes" in run_command("retry", "--file", transfer.record.persistent_id)[1]
    assert reminded == [str(run.pk)]
    assert "nothing to retry" in run_command("retry", "--file", "a.fid")[1]
    assert "1 file goes" in run_command("retry", "--instrument", "NMR", "--storage", "archive", "--run", run.pk)[1]
    assert not FileTransfer.objects.filter(given_up=True).exists()
    assert run_command("harvest", "NMR")[0] == 0
    assert len(stored_files(archive)) == 2
    assert run_command("retry", "--all") == (0, "There is nothing to retry.\n")


def test_retrying_what_was_given_up_after_a_worker_died_does_not_miscount(
    on_share: Path, schedule: HarvestSchedule, harvest: Harvest
) -> None:
    (on_share / "a.fid").write_bytes(b"abc")
    run = request(schedule, trigger=Trigger.SCHEDULE)
    assert begin(run)
    assert walk(run)
    FileTransfer.objects.update(given_up=True, error_code="worker_lost")
    assert run_command("retry", "--all")[0] == 0
    run.refresh_from_db()
    assert run.files_failed == 0


def test_retry_says_when_the_instrument_is_paused(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "a.fid").write_bytes(b"abc")
    Path(archive.base_path).rmdir()
    harvest(schedule)
    Instrument.objects.update(paused_at=timezone.now(), paused_reason="The password is wrong.")
    assert "The password is wrong." in run_command("retry", "--all")[1]


# --- verify -----------------------------------------------------------------------------------------------------------


def test_verify_is_clean_then_finds_what_is_wrong(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    for name in ("a.fid", "b.fid"):
        (on_share / name).write_bytes(b"abc")
    harvest(schedule)
    status, said = run_command("verify")
    assert (status, said) == (0, "archive: 2 files read again (6 bytes), all is well.\n")
    folder = Path(archive.base_path) / "NMR"
    (folder / "a.fid").unlink()
    (folder / "b.fid").write_bytes(b"abd")
    (folder / "c.fid").write_bytes(b"abd")
    status, said = run_command("verify", "--storage", "archive")
    assert status == 1
    assert "missing NMR/a.fid" in said
    assert "changed NMR/b.fid" in said
    assert "unknown NMR/c.fid" in said
    assert "1 missing, 1 changed, 1 unknown" in said
    status, said = run_command("verify", "--json", "--instrument", "NMR")
    assert status == 1
    *findings, summary = (json.loads(line) for line in said.splitlines()[:4])
    assert {(finding["problem"], finding["path"]) for finding in findings} == {
        ("missing", "NMR/a.fid"),
        ("changed", "NMR/b.fid"),
        ("unknown", "NMR/c.fid"),
    }
    assert (summary["files"], summary["missing"], summary["error"]) == (2, 1, None)
    assert {path.name for path in folder.iterdir()} == {"b.fid", "c.fid"}


def test_verify_does_not_take_an_unmounted_disk_for_lost_files(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "a.fid").write_bytes(b"abc")
    harvest(schedule)
    folder = Path(archive.base_path)
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()
    status, said = run_command("verify")
    assert status == 1
    assert "Is the right disk mounted" in said
    assert "missing NMR" not in said
    assert list(folder.iterdir()) == []


def test_verify_refuses_what_makes_no_sense(archive: StorageLocation) -> None:
    assert run_command("verify", "--storage", "nope")[0] == 2
    assert run_command("verify", "--instrument", "nope")[0] == 2
    for words in (("--sample", "0"), ("--sample", "many"), ("--limit", "-1")):
        with pytest.raises(CommandError):
            call_command("verify", *words)


# --- check_instrument, check_storage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "step", "message"),
    [
        ({"cifs_host": "127.0.0.1:1"}, "reach the server", "Nothing listens there"),
        ({"cifs_share": "no-such-share"}, "open the share", "no such share"),
        ({"cifs_base_path": "/no-such-folder"}, "open the base folder", "no such folder"),
        ({"service_account": None}, "configuration", "no service account"),
    ],
)
def test_a_wrong_instrument_fails_at_its_step(
    on_share: Path, instrument: Instrument, changed: dict[str, Any], step: str, message: str
) -> None:
    Instrument.objects.filter(pk=instrument.pk).update(**changed)
    status, said = run_command("check_instrument", "NMR")
    assert status == 1
    assert re.search(rf"✗ {step}: .*{message}", said)


def test_a_right_instrument_is_resumed_only_when_asked(on_share: Path, instrument: Instrument) -> None:
    Instrument.objects.update(paused_at=timezone.now(), paused_reason="The password was wrong.")
    status, said = run_command("check_instrument", "--all")
    assert status == 0
    assert "✓ log in" in said
    assert "The password was wrong. --resume resumes it." in said
    instrument.refresh_from_db()
    assert instrument.paused_at is not None
    assert "is resumed" in run_command("check_instrument", "NMR", "--resume")[1]
    instrument.refresh_from_db()
    assert instrument.paused_at is None


def test_a_wrong_password_is_told_apart_and_does_not_resume(
    on_share: Path, instrument: Instrument, account: ServiceAccount
) -> None:
    account.password = "hunter2-secret"
    account.save()
    Instrument.objects.update(paused_at=timezone.now(), paused_reason="The password was wrong.")
    status, said = run_command("check_instrument", "NMR", "--resume")
    assert status == 1
    assert "✗ log in" in said
    assert "hunter2" not in said
    instrument.refresh_from_db()
    assert instrument.paused_at is not None


@pytest.mark.parametrize("command", ["check_instrument", "check_storage"])
def test_a_check_of_nothing_is_a_usage_error(db: None, command: str) -> None:
    for words in ((), ("nope",), ("nope", "--all")):
        assert run_command(command, *words)[0] == 2


def test_a_right_storage_passes_every_step_and_keeps_nothing(archive: StorageLocation) -> None:
    status, said = run_command("check_storage", "archive")
    assert status == 0
    assert "✗" not in said
    assert "the first harvest will mark it as ours" in said
    assert stored_files(archive) == {}
    assert not (Path(archive.base_path) / ".streamweave" / "sentinel").exists()


def test_a_base_path_that_another_storage_has_is_refused(
    on_share: Path, schedule: HarvestSchedule, archive: StorageLocation, harvest: Harvest
) -> None:
    (on_share / "a.fid").write_bytes(b"abc")
    harvest(schedule)
    StorageLocation.objects.create(name="twin", type="posix", base_path=archive.base_path)
    assert run_command("check_storage", "archive")[0] == 0
    status, said = run_command("check_storage", "twin")
    assert status == 1
    assert "belongs to the storage location “archive”" in said


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bucket": "no-such-bucket"}, "bucket does not exist"),
        ({"secret_access_key": "hunter2-secret"}, "✗ log in"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "✗ reach the server"),
    ],
)
def test_a_wrong_s3_storage_fails_at_its_step(
    db: None, weed: Any, bucket: str, changed: dict[str, str], message: str
) -> None:
    config = {
        "bucket": bucket,
        "endpoint_url": weed.endpoint_url,
        "access_key_id": S3_ACCESS_KEY,
        "secret_access_key": S3_SECRET_KEY,
    }
    StorageLocation.objects.create(name="S3", type="s3", base_path="lab", connection_config=config)
    status, said = run_command("check_storage", "S3")
    assert (status, "✗" in said) == (0, False)
    StorageLocation.objects.create(name="wrong", type="s3", base_path="lab", connection_config=config | changed)
    status, said = run_command("check_storage", "wrong")
    assert status == 1
    assert message in said
    assert "hunter2" not in said
    assert SMB_PASSWORD not in said


# --- diagram ----------------------------------------------------------------------------------------------------------


def test_the_diagram_is_compared_with_the_code(tmp_path: Path) -> None:
    file = tmp_path / "states.md"
    assert run_command("diagram", "--check", file)[0] == 1
    assert run_command("diagram", file)[0] == 0
    assert run_command("diagram", "--check", file)[0] == 0
    file.write_text(file.read_text().replace("verified --> enriched", "verified --> available"))
    status, said = run_command("diagram", "--check", file)
    assert status == 1
    assert f"manage.py diagram {file}" in said


def test_the_diagram_shows_every_step_and_the_one_in_the_documentation_is_current() -> None:
    page = diagram.page()
    for before, after, when in TRANSITIONS:
        assert f"    {before.value} --> {after.value}: {when}\n" in page
    assert (Path(__file__).parents[2] / diagram.DEFAULT).read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    "command", ["harvest", "retry", "verify", "check_storage", "check_instrument", "diagram", "seed_demo"]
)
def test_help_says_what_the_exit_status_means(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command(command, "--help")
    assert "status" in capsys.readouterr().out
