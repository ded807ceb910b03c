"""A dry run says beforehand what the harvest then does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from harvest.dry_run import Course, plan
from harvest.models import (
    FileRecord,
    FileTransfer,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    State,
    StorageLocation,
)
from harvest.storage.base import StorageError
from hooks.models import HookConfig

pytestmark = pytest.mark.django_db
Harvest = Callable[[HarvestSchedule], HarvestRun]


def courses(schedule: HarvestSchedule) -> dict[str, tuple[Course, str]]:
    fresh = HarvestSchedule.objects.get(pk=schedule.pk)
    return {item.path: (item.course, item.reason) for item in plan(fresh)}


def a_hook(name: str, builtin: str, config: dict[str, Any]) -> HookConfig:
    return HookConfig.objects.create(
        name=name, trigger="pre_transfer", implementation="builtin", builtin_name=builtin, config=config
    )


def test_it_foretells_what_is_taken_skipped_and_waited_for(
    on_share: Path, schedule: HarvestSchedule, instrument: Instrument, harvest: Harvest
) -> None:
    a_hook("No temporary files", "file_filter", {"exclude_patterns": ["*.tmp"]})
    instrument.min_age_seconds = 3600
    instrument.save()
    for name in ("old.fid", "young.fid", "x.tmp"):
        (on_share / name).write_bytes(b"x")
    os.utime(on_share / "old.fid", (time.time() - 7200,) * 2)
    os.utime(on_share / "x.tmp", (time.time() - 7200,) * 2)

    foretold = courses(schedule)

    assert {path: course for path, (course, _) in foretold.items()} == {
        "old.fid": Course.TAKE,
        "young.fid": Course.WAIT,
        "x.tmp": Course.SKIP,
    }
    assert foretold["x.tmp"][1].startswith("No temporary files: ")
    assert "3600 s" in foretold["young.fid"][1]
    assert not FileRecord.objects.exists()
    assert HookConfig.objects.get().last_run_at is None

    harvest(schedule)
    states = dict(FileTransfer.objects.values_list("record__source_path", "state"))
    assert states == {"old.fid": State.AVAILABLE, "young.fid": State.ACCEPTED, "x.tmp": State.SKIPPED}
    waiting = FileTransfer.objects.get(state=State.ACCEPTED)
    again = courses(schedule)
    assert again["old.fid"] == (Course.LEAVE, "It is stored already.")
    assert again["young.fid"][0] is Course.WAIT
    assert again["x.tmp"][0] is Course.SKIP
    waiting.refresh_from_db()
    assert waiting.state == State.ACCEPTED


def test_changed_and_replaced_files_and_another_storage_are_told_apart(
    on_share: Path,
    schedule: HarvestSchedule,
    second_archive: StorageLocation,
    instrument: Instrument,
    harvest: Harvest,
) -> None:
    for name in ("same", "changed", "replaced"):
        (on_share / name).write_bytes(b"1")
    harvest(schedule)
    (on_share / "changed").write_bytes(b"12")
    (on_share / "new").write_bytes(b"12")
    (on_share / "new").replace(on_share / "replaced")
    foretold = courses(schedule)
    assert foretold["same"][0] is Course.LEAVE
    assert foretold["changed"] == (Course.TAKE, "a new version")
    assert foretold["replaced"] == (Course.TAKE, "another file under the same name")
    other = HarvestSchedule.objects.create(
        instrument=instrument, default_storage_location=second_archive, cron_expression="0 2 * * *"
    )
    assert courses(other)["same"] == (Course.TAKE, "not on this storage yet")
    run = harvest(schedule)
    assert run.files_discovered == 2


def test_a_redirect_is_shown_and_one_to_nowhere_holds_back(
    on_share: Path, schedule: HarvestSchedule, second_archive: StorageLocation
) -> None:
    (on_share / "a.fid").write_bytes(b"x")
    hook = a_hook("Elsewhere", "redirect", {"rules": [{"storage": "second"}]})
    course, reason = courses(schedule)["a.fid"]
    assert course is Course.TAKE
    assert "Elsewhere redirects it to second" in reason
    HookConfig.objects.filter(pk=hook.pk).update(config={"rules": [{"storage": "nowhere"}]})
    assert courses(schedule)["a.fid"] == (
        Course.HOLD,
        "Elsewhere: there is no enabled storage location “nowhere”.",
    )


def test_a_hook_that_fails_holds_back(on_share: Path, schedule: HarvestSchedule) -> None:
    (on_share / "a.fid").write_bytes(b"x")
    hook = a_hook("Broken", "file_filter", {})
    HookConfig.objects.filter(pk=hook.pk).update(config={"min_size_bytes": "many"})
    course, reason = courses(schedule)["a.fid"]
    assert course is Course.HOLD
    assert reason.startswith("Broken: ")


def test_what_failed_before_is_looked_at_again(on_share: Path, schedule: HarvestSchedule, harvest: Harvest) -> None:
    (on_share / "a.fid").write_bytes(b"x")
    a_hook("Elsewhere", "redirect", {"rules": [{"storage": "nowhere"}]})
    harvest(schedule)
    FileTransfer.objects.update(given_up=True, error_message="No such storage.")
    HookConfig.objects.all().delete()
    assert courses(schedule)["a.fid"] == (Course.TAKE, "looked at again; before: No such storage.")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cifs_share": "no-such-share"}, "no such share"),
        ({"cifs_host": "127.0.0.1:1"}, "Nothing listens there"),
        ({"enabled": False}, "is disabled"),
        ({"paused_at": timezone.now(), "paused_reason": "The password is wrong."}, "The password is wrong."),
        ({"quiet_from": time_of_day(0), "quiet_until": time_of_day(23, 59, 59, 999999)}, "quiet hours"),
    ],
)
def test_a_share_that_cannot_be_looked_at_says_why(
    on_share: Path, schedule: HarvestSchedule, instrument: Instrument, changed: dict[str, Any], message: str
) -> None:
    Instrument.objects.filter(pk=instrument.pk).update(**changed)
    with pytest.raises(StorageError, match=message):
        courses(schedule)
