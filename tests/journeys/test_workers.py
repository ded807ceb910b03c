"""Several workers, beats and brokers that come and go: every file once, every slot once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import pytest
import redis
from django.db import connection
from django.utils import timezone

from harvest import janitor, runs, work
from harvest.models import FileRecord, FileTransfer, HarvestRun, HarvestSchedule, RunStatus, State, Trigger
from tests.conftest import ShareFolder
from tests.journeys.destinations import Destination
from tests.journeys.lab import Lab, assert_nothing_is_wrong, complaints
from tests.journeys.processes import Process, await_truth, environment, manage
from tests.servers.redis import RedisServer

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="several processes share the tests' database"),
]

Start = Callable[..., Process]
Result = TypeVar("Result")


def plant(folder: ShareFolder, count: int, size_bytes: int = 100) -> dict[str, bytes]:
    """Files on the share; returns what they must be at the destination."""
    files = {f"{number // 10:02}/{number:03}.fid": os.urandom(size_bytes) for number in range(count)}
    for path, content in files.items():
        (folder.path / path).parent.mkdir(exist_ok=True)
        (folder.path / path).write_bytes(content)
    return {f"Spectrometer/{path}": content for path, content in files.items()}


def make_due(schedule: HarvestSchedule) -> None:
    """Let the last look at the clock have been a minute and a second ago, so that a slot has come since then."""
    HarvestSchedule.objects.filter(pk=schedule.pk).update(decided_until=timezone.now() - timedelta(seconds=61))


def assert_each_is_stored_once(destination: Destination, expected: dict[str, bytes]) -> None:
    assert destination.files() == expected
    assert FileRecord.objects.count() == FileTransfer.objects.count() == len(expected)
    assert FileTransfer.objects.filter(state=State.AVAILABLE).count() == len(expected)
    assert not [name for name in destination.reserved() if name.startswith("tmp/")]
    assert_nothing_is_wrong()


# ---------------------------------------------------------------------------------------------- in one process


def in_threads(count: int, act: Callable[[], Result]) -> list[Result]:
    """Let `act` happen in several threads at the same moment; what each returned."""
    barrier = threading.Barrier(count)

    def one() -> Result:
        barrier.wait()
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(one) for _ in range(count)]]


def test_a_due_slot_makes_one_run_however_many_ask(lab: Lab, share_dir: ShareFolder, posix: Destination) -> None:
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    schedule.cron_expression = "* * * * *"
    schedule.save()
    make_due(schedule)
    made = in_threads(8, runs.decide_due)
    assert sum(map(len, made)) == 1
    assert HarvestRun.objects.count() == 1


def test_a_trigger_during_a_run_queues_one_follow_up_however_many_ask(
    lab: Lab, share_dir: ShareFolder, posix: Destination
) -> None:
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    lab.discover(schedule)
    queued = in_threads(8, lambda: runs.request(schedule, trigger=Trigger.PERSON).pk)
    assert len(set(queued)) == 1
    assert not runs.begin(HarvestRun.objects.get(pk=queued[0]))
    assert sorted(HarvestRun.objects.values_list("status", flat=True)) == ["queued", "running"]


def test_workers_on_one_run_share_its_files(
    lab: Lab, share_dir: ShareFolder, posix: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "BATCH_FILES", 5)
    expected = plant(share_dir, 60)
    run = lab.discover(lab.schedule(lab.instrument(share_dir, max_connections=4), posix))
    in_threads(4, lambda: work.work_on(lab.fresh(run), seconds=60))
    run = lab.finish(run)
    assert (run.status, run.files_completed) == ("completed", 60), complaints(run)
    assert_each_is_stored_once(posix, expected)


def test_no_more_connections_to_an_instrument_are_open_than_it_allows(
    lab: Lab, share_dir: ShareFolder, posix: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "BATCH_FILES", 5)
    plant(share_dir, 30)
    run = lab.discover(lab.schedule(lab.instrument(share_dir, max_connections=1), posix))
    first = work.claim(lab.fresh(run))
    assert first is not None
    assert work.claim(lab.fresh(run)) is None
    first.release()
    assert work.claim(lab.fresh(run)) is not None


def test_a_worker_that_lost_its_lease_spoils_nothing(
    lab: Lab, share_dir: ShareFolder, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs in the middle of a file, is taken for dead, another one finishes its work, then it wakes up."""
    expected = plant(share_dir, 4, size_bytes=3 << 20)
    run = lab.discover(lab.schedule(lab.instrument(share_dir, max_connections=2), destination))
    asleep = [True]

    def hang(self: object, *passed: object) -> None:
        if not asleep:
            return
        asleep.clear()
        past = timezone.now() - timedelta(seconds=1)
        FileTransfer.objects.filter(lease_token__isnull=False).update(lease_expires_at=past)
        janitor.take_back()
        lab.finish(run)

    monkeypatch.setattr("harvest.transfer.Pacer.__call__", hang)
    work.work_on(lab.fresh(run), seconds=60)

    run.refresh_from_db()
    assert (run.status, run.files_completed, run.files_failed) == ("completed", 4, 0), complaints(run)
    lab.wait_and_sweep()
    assert_each_is_stored_once(destination, expected)


# ------------------------------------------------------------------------------------- processes of their own


@pytest.fixture
def broker(redis_url: str) -> str:
    """The tests' Redis, with nothing in it."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    return redis_url


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a Celery process on the tests' database: `start("worker", broker)`, `start("beat", broker)`."""
    with ExitStack() as started:

        def start_one(kind: str, broker_url: str, *options: str) -> Process:
            command = [sys.executable, "-m", "celery", "-A", "streamweave", kind, *options]
            number = len(list(tmp_path.glob(f"{kind}*.log")))
            log = tmp_path / f"{kind}{number}.log"
            process = Process(command, settings_of(broker_url, tmp_path), log)
            started.callback(process.kill)
            return process

        yield start_one


def settings_of(broker_url: str, data_dir: Path) -> dict[str, str]:
    """The environment of processes beside the tests: their database and keys, and clocks that tick fast."""
    database = connection.settings_dict
    kept = {name: os.environ[name] for name in ("SECRET_KEY", "STREAMWEAVE_ENCRYPTION_KEYS")}
    login = quote(database["USER"]) + (f":{quote(database['PASSWORD'])}" if database["PASSWORD"] else "")
    return environment(
        DATABASE_URL=f"postgresql://{login}@{database['HOST']}:{database['PORT']}/{database['NAME']}",
        STREAMWEAVE_DATA_DIR=str(data_dir / "data"),
        CELERY_BROKER_URL=broker_url,
        TICK_SECONDS="1",
        SWEEP_SECONDS="1",
        LEASE_SECONDS="3",
        **kept,
    )


def await_end(run: HarvestRun, *, seconds: float = 60) -> HarvestRun:
    def has_ended() -> bool:
        run.refresh_from_db()
        return run.ended_at is not None

    await_truth(has_ended, f"the end of {run}", seconds=seconds)
    return run


def test_a_due_slot_is_harvested_once_though_two_beats_a_tick_and_its_own_task_ask(
    lab: Lab, share_dir: ShareFolder, posix: Destination, broker: str, start: Start, tmp_path: Path
) -> None:
    expected = plant(share_dir, 12)
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    schedule.cron_expression = "* * * * *"
    schedule.save()
    make_due(schedule)

    worker = start("worker", broker, "-c", "2")
    beats = [start("beat", broker), start("beat", broker)]
    asked = manage(
        "shell",
        "-c",
        "import json; from streamweave.celery import app; from harvest.models import HarvestSchedule\n"
        "task = HarvestSchedule.objects.get().periodic_task\n"
        "for _ in range(10): app.send_task(task.task, args=json.loads(task.args)); app.send_task('harvest.tasks.tick')",
        env=settings_of(broker, tmp_path),
    )
    assert asked.returncode == 0, asked.stderr
    await_truth(HarvestRun.objects.exclude(ended_at=None).exists, "the end of a run")
    await_truth(lambda: _all_messages_are_gone(broker), "an empty queue")

    slots = list(HarvestRun.objects.values_list("scheduled_for", flat=True))
    assert len(slots) == len(set(slots)) <= 3  # of two minutes, and the one that may have begun meanwhile
    for run in HarvestRun.objects.order_by("created_at"):
        run = await_end(run)
        assert (run.status, run.trigger) == (RunStatus.COMPLETED, Trigger.SCHEDULE), complaints(run)
        assert run.scheduled_for == (run.scheduled_for or run.created_at).replace(second=0, microsecond=0)
    assert_each_is_stored_once(posix, expected)
    assert all(beat.output.count("Sending due task tick") for beat in beats)
    for process in (worker, *beats):
        assert "Traceback" not in process.output, process.output


def _all_messages_are_gone(broker: str) -> bool:
    with redis.Redis.from_url(broker) as client:
        return client.llen("celery") == 0


def test_a_killed_worker_s_files_are_finished_by_the_next_one_and_none_twice(
    lab: Lab, share_dir: ShareFolder, posix: Destination, broker: str, start: Start, tmp_path: Path
) -> None:
    expected = plant(share_dir, 60, size_bytes=32 << 10)
    instrument = lab.instrument(share_dir, max_bytes_per_second=256 << 10, max_connections=1)
    run = lab.discover(lab.schedule(instrument, posix))
    start("beat", broker)
    worker = start("worker", broker, "-c", "2")
    hidden = tmp_path / "archive/.streamweave/tmp"
    await_truth(lambda: hidden.is_dir() and len(list(hidden.iterdir())) >= 10, "ten files on their way")

    worker.kill()
    assert not FileTransfer.objects.stored().exists()
    assert posix.files() == {}
    type(instrument).objects.update(max_bytes_per_second=None)
    start("worker", broker, "-c", "2")

    run = await_end(run)
    assert (run.status, run.files_completed, run.files_failed) == ("completed", 60, 0), complaints(run)
    assert HarvestRun.objects.count() == 1
    assert max(FileTransfer.objects.values_list("carry_attempts", flat=True)) > 1, "it was not killed midway"
    await_truth(lambda: not list(hidden.iterdir()), "left-overs of the dead worker cleared")
    assert_each_is_stored_once(posix, expected)
    manifested = [text.count(b"\n") for name, text in posix.reserved().items() if name.startswith("manifests/")]
    assert sum(manifested) == 60


def test_a_worker_that_is_stopped_gives_its_files_back_at_once(
    lab: Lab, share_dir: ShareFolder, posix: Destination, broker: str, start: Start, tmp_path: Path
) -> None:
    expected = plant(share_dir, 3, size_bytes=4 << 20)
    instrument = lab.instrument(share_dir, max_bytes_per_second=64 << 10, max_connections=1)
    run = lab.discover(lab.schedule(instrument, posix))
    beat = start("beat", broker)
    worker = start("worker", broker, "-c", "1")
    hidden = tmp_path / "archive/.streamweave/tmp"
    await_truth(lambda: hidden.is_dir() and bool(list(hidden.iterdir())), "a file on its way")

    worker.interrupt(signal.SIGTERM)

    # At this rate the first file alone would take a minute.
    assert worker.wait(seconds=30) == 0
    assert not FileTransfer.objects.filter(lease_token__isnull=False).exists()
    assert set(FileTransfer.objects.values_list("attempts", "losses", "error_message")) == {(0, 0, None)}
    assert list(hidden.iterdir()) == []
    type(instrument).objects.update(max_bytes_per_second=None)
    start("worker", broker, "-c", "1")
    run = await_end(run)
    assert (run.status, run.files_completed) == ("completed", 3), complaints(run)
    assert beat.pid
    assert_each_is_stored_once(posix, expected)


def test_a_run_that_was_asked_for_without_a_broker_begins_when_it_is_back(
    lab: Lab, share_dir: ShareFolder, posix: Destination, start: Start, tmp_path: Path
) -> None:
    expected = plant(share_dir, 12)
    schedule = lab.schedule(lab.instrument(share_dir), posix)
    with RedisServer(tmp_path / "redis") as broker:
        start("beat", broker.url).await_output("tick")
        start("worker", broker.url, "-c", "1").await_output("ready")
        broker.kill()

        asked = manage(
            "shell",
            "-c",
            "from harvest.models import HarvestSchedule; from harvest.tasks import trigger\n"
            "print(trigger(HarvestSchedule.objects.get()).status)",
            env=settings_of(broker.url, tmp_path),
            seconds=60,
        )

        assert asked.returncode == 0, asked.stderr
        assert asked.stdout.endswith("queued\n")
        assert "the broker cannot be reached" in asked.stderr
        run = HarvestRun.objects.get(schedule=schedule)
        assert (run.status, run.trigger) == (RunStatus.QUEUED, Trigger.PERSON)
        broker.start()
        run = await_end(run)
        assert (run.status, run.files_completed) == ("completed", 12), complaints(run)
    assert_each_is_stored_once(posix, expected)
