"""The product at work: real workers and beat, told by the broker; a harvest measured from its request to its end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import redis
import xxhash
from django.core.management import call_command
from django.db import connection
from django.db.models import Count, Q, Sum

from access.models import Group
from harvest import runs
from harvest.demo.local_server import LocalServer, await_truth
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
)
from harvest.tasks import trigger
from hooks.models import HookConfig
from tests.bench.data import Data
from tests.bench.processes import BenchError, Meter, Sample, forget_peaks, peaks
from tests.bench.stage import PASSWORD, SOURCE, USER, Destination, Stage

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {"min_age_seconds": 0, "max_connections": 8, "max_requests_in_flight": 64, "max_bytes_per_second": None}
"""How gently an instrument is treated: not at all."""
HOOKS: tuple[dict[str, Any], ...] = (
    {"trigger": "pre_transfer", "builtin_name": "file_filter", "config": {"exclude_patterns": ["*.tmp", "~*"]}},
    {
        "trigger": "post_transfer",
        "builtin_name": "metadata_enrichment",
        "config": {"rules": [{"source": "path", "pattern": r"project(?P<project>\d+)/sample(?P<sample>\d+)"}]},
    },
    {
        "trigger": "post_transfer",
        "builtin_name": "access_assignment",
        "config": {"grants": [{"to": "group", "name": "Everybody here"}]},
    },
)
_POLL_SECONDS = 0.02
_PEAKS_EVERY = 25
"""Memory is looked at once in so many polls."""


class Celery(LocalServer):
    """One of the product's own processes, by the command that docker-compose.yml has. It listens on no port."""

    label = "Celery"
    programs = ("celery",)
    remedy = "It comes with requirements.txt."

    def __init__(self, directory: Path, role: str, ready: str) -> None:
        super().__init__(directory)
        self._role, self._ready = role, ready

    def _prepare(self) -> None:
        pass

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "celery", "-A", "streamweave", "--workdir", os.fspath(ROOT), self._role]

    def _environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": os.fspath(ROOT)}

    def _answers(self) -> bool:
        return self._ready in self.log_path.read_text(errors="replace")


@dataclass(frozen=True)
class Harvested:
    """A harvest that went well: its cost, and its phases in seconds."""

    sample: Sample
    run: HarvestRun
    phases: Mapping[str, float] = field(default_factory=dict)


class Product:
    """An installation with one instrument for each tree of files. Use it as a context manager."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.worker = Celery(stage.memory / "worker", "worker", "ready.")
        self.beat = Celery(stage.memory / "beat", "beat", "beat: Starting")

    def __enter__(self) -> Product:
        call_command("migrate", verbosity=0, interactive=False)
        self._account = ServiceAccount.objects.create(name="bench", username=USER, password=PASSWORD)
        Group.objects.create(name="Everybody here")
        for priority, hook in enumerate(HOOKS):
            HookConfig.objects.create(name=hook["builtin_name"], implementation="builtin", priority=priority, **hook)
        with ExitStack() as opened:
            opened.callback(connection.close)
            self._poll = opened.enter_context(psycopg.connect(self._stage.postgres.url, autocommit=True))
            self._broker = opened.enter_context(redis.Redis.from_url(self._stage.redis.url))
            for process in (self.worker, self.beat):
                opened.enter_context(process)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.close()

    def forget_files(self) -> None:
        """As new: no file, no run."""
        self._await_idle()
        tables = ", ".join(model._meta.db_table for model in (FileRecord, HarvestRun))
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {tables} CASCADE")

    def vacuum(self) -> None:
        """Tidy the tables up, as the database would by itself some time after so many new rows."""
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")

    def schedule(self, data: Data, destination: Destination, *, delayed: bool = False) -> HarvestSchedule:
        """A schedule that is never due, for harvests of `data` to `destination`."""
        port = self._stage.smb_port(delayed=delayed)
        instrument, _ = Instrument.objects.get_or_create(
            name=f"{data.name}{' far away' if delayed else ''}",
            defaults={
                "cifs_host": f"{self._stage.samba.host}:{port}",
                "cifs_share": SOURCE,
                "cifs_base_path": f"/{data.name}",
                "service_account": self._account,
                **LIMITS,
            },
        )
        location = StorageLocation.objects.create(
            name=destination.name,
            type=destination.kind,
            base_path=destination.base_path,
            connection_config=destination.config,
        )
        return HarvestSchedule.objects.create(
            instrument=instrument, default_storage_location=location, cron_expression="0 0 29 2 *"
        )

    def harvest(self, schedule: HarvestSchedule, *, within_seconds: float) -> Harvested:
        """Request a run, and wait until it is closed. Raises BenchError where it is not COMPLETED within the time."""
        self._await_idle()
        self._poll.execute("CHECKPOINT")
        forget_peaks(self._pid(self.worker))
        pids = {"worker": self._pid(self.worker), "postgres": self._pid(self._stage.postgres), **self._stage.smb_pids}
        with Meter(pids) as meter:
            begun = time.perf_counter()
            run = trigger(schedule)
            peak_bytes = self._await_end(run, begun + within_seconds)
            seconds = time.perf_counter() - begun
        self._await_idle()
        run.refresh_from_db()
        if run.status != RunStatus.COMPLETED:
            raise BenchError(f"The run ended {run.status}: {run.error_message or _troubles(run)}")
        tidied = time.perf_counter() - begun - seconds
        assert run.started_at
        assert run.walked_at
        assert run.ended_at
        phases = {
            "requested to begun": (run.started_at - run.created_at).total_seconds(),
            "walk": (run.walked_at - run.started_at).total_seconds(),
            "after the walk": (run.ended_at - run.walked_at).total_seconds(),
            "manifests, after the end": tidied,
        }
        return Harvested(Sample(seconds, meter.cpu_seconds, peak_bytes), run, phases)

    def _await_end(self, run: HarvestRun, deadline: float) -> int:
        """Return when the run is closed: the greatest memory of one of the worker's processes, in bytes."""
        worker, seen, polls = self._pid(self.worker), dict[int, int](), 0
        while True:
            row = self._poll.execute("SELECT ended_at FROM harvest_harvestrun WHERE id = %s", [run.pk]).fetchone()
            ended = row is not None and row[0] is not None
            if ended or polls % _PEAKS_EVERY == 0:
                seen |= peaks(worker)
            if ended:
                return max(seen.values())
            if time.perf_counter() > deadline:
                states = dict(run.transfers.values_list("state").annotate(Count("pk")).order_by())
                runs.cancel(run)
                raise BenchError(f"The run took too long; its files were {states}. {self.worker.log_tail()}")
            polls += 1
            time.sleep(_POLL_SECONDS)

    def _await_idle(self) -> None:
        """Return when the workers have nothing to do: what comes after a run must not slow down who runs next."""

        def idle() -> bool:
            return not self._broker.llen("celery") and not self._broker.hlen("unacked")

        if not await_truth(idle, within_seconds=600):
            raise BenchError(f"The workers find no rest. {self.worker.log_tail()}")

    @staticmethod
    def _pid(server: LocalServer) -> int:
        if server.pid is None:
            raise BenchError(f"{server.label} has ended. {server.log_tail()}")
        return server.pid


def _troubles(run: HarvestRun) -> str:
    rows = FileTransfer.objects.filter(run=run, error_message__isnull=False).values_list("error_message", flat=True)
    return "; ".join([*rows[:3], *(str(error) for error in run.errors.all()[:3])])


def check(run: HarvestRun, data: Data, destination: Destination, *, content: bool) -> None:
    """Raises BenchError unless every file is available and verified, with the sums it was made with, and number and
    bytes are right, by the database and at the destination; `content`: read there as well."""
    good = Q(state=State.AVAILABLE, checksum_verified=True)
    counted = FileTransfer.objects.filter(run=run).aggregate(
        all=Count("pk"), files=Count("pk", filter=good), size_bytes=Sum("bytes_transferred", filter=good, default=0)
    )
    wanted = (data.files, data.size_bytes)
    if (counted["all"], counted["files"], counted["size_bytes"]) != (data.files, *wanted):
        raise BenchError(f"Of {wanted} files and bytes, the database has {counted}.")
    if destination.found() != wanted:
        raise BenchError(f"Of {wanted} files and bytes, the destination has {destination.found()}.")
    if data.sums and dict(FileRecord.objects.values_list("source_path", "xxhash")) != data.sums:
        raise BenchError("The sums in the database are not those of the files.")
    if content and destination.folder and data.sums:
        folder = destination.folder / run.instrument.storage_folder
        _compare(data, lambda path: folder / path)


def _compare(data: Data, copy_of: Callable[[str], Path]) -> None:
    buffer = memoryview(bytearray(1 << 20))
    for path, wanted in data.sums.items():
        digest = xxhash.xxh64()
        with copy_of(path).open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
        if digest.hexdigest() != wanted:
            raise BenchError(f"The copy of {path} differs from the original.")
