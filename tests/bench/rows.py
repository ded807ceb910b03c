"""The rows of the table: who does what, and how fast it has to be."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

from django.db.models import Max

from harvest.models import FileRecord, FileTransfer, FileVersion, HarvestSchedule, Instrument, RunError
from tests.bench import data, peers, relay
from tests.bench.data import MIB, Data
from tests.bench.peers import Flags, Rclone, mget
from tests.bench.processes import BenchError, Sample, measured
from tests.bench.product import ROOT, Product, check
from tests.bench.rounds import Round, Target
from tests.bench.stage import ONE_WAY_SECONDS, SOURCE, Destination, Stage

ROUNDS = 5
HARVEST = "harvest"
MEMORY = Target("peak memory of a worker", at_most=250, unit="MB")
_MB = 1_000_000

Remark = Callable[[str], None]
"""Takes what is to be said beside the figures of a row."""


class Bench:
    """What rows share: the stage, the product on it, data and the peer's best flags, each made when first needed."""

    def __init__(self, stage: Stage, product: Product) -> None:
        self.stage, self.product = stage, product
        source = stage.memory / SOURCE
        self._builders: dict[str, Callable[[], Data]] = {
            "large": partial(data.large, source / "large"),
            "small": partial(data.small, source / "small"),
            "trial": partial(data.small, source / "trial", files=1000),
            "trial-large": partial(data.large, source / "trial-large", size_bytes=32 * MIB),
            "20k": partial(data.small, source / "20k", files=20_000),
            "100k": partial(data.small, source / "100k", files=100_000, size_bytes=100),
            "million": partial(data.small, source / "million", files=1_000_000, size_bytes=0),
            "sparse": partial(data.sparse, source / "sparse", size_bytes=20 << 30),
        }
        self.data = cache(self._build)
        self.best_flags = cache(self._best_flags)
        self.relay = cache(partial(relay.described, stage.memory / "relay", delay_seconds=ONE_WAY_SECONDS))

    def _build(self, name: str) -> Data:
        return self._builders[name]()

    def warm_up(self) -> str:
        """A first small harvest, so that no round is the one in which the product loads its modules. How the source is
        connected."""
        with self.stage.destination("posix") as destination:
            self.first_run(self.data("trial"), destination, within_seconds=120)
        with Instrument.objects.select_related("service_account").get(name="trial").open_source() as source:
            return source.describe()

    def first_run(
        self,
        what: Data,
        destination: Destination,
        *,
        within_seconds: float,
        delayed: bool = False,
        content: bool = False,
    ) -> tuple[Sample, dict[str, Any]]:
        """Harvest into an empty database and destination, and look that all is there."""
        self.product.forget_files()
        schedule = self.product.schedule(what, destination, delayed=delayed)
        harvested = self.product.harvest(schedule, within_seconds=within_seconds)
        check(harvested.run, what, destination, content=content)
        return harvested.sample, dict(harvested.phases)

    def _best_flags(self, kind: str, delayed: bool, is_large: bool) -> tuple[Flags, str]:
        """rclone's best flags for this work by a short trial, and what to say of it."""
        candidates = peers.CANDIDATES
        if kind == "s3":
            candidates = peers.LARGE_S3_CANDIDATES if is_large else peers.S3_CANDIDATES
        what = self.data("trial-large" if is_large else "trial")
        tried = Rclone(self.stage, delayed=delayed).trial(what, kind, candidates, within_seconds=120)
        best = min(tried, key=tried.__getitem__)
        told = "; ".join(f"{' '.join(flags) or 'defaults'} {seconds:.2f} s" for flags, seconds in tried.items())
        return best, f"rclone's best flags: {' '.join(best) or 'its defaults'} (trial: {told})"


class Row(ABC):
    """One row: its rounds in turn, and what their medians have to be."""

    name: str
    work: str
    targets: Sequence[Target]
    count: int = ROUNDS
    only_full: bool = False
    room_bytes: int = 3 << 30
    """How much memory its files take, at the source and at a destination …"""
    room_files: int = 300_000
    """… and how many there are."""

    @abstractmethod
    def rounds(self, bench: Bench, count: int, remark: Remark) -> Generator[Round]:
        """Measure, `count` times. Raises BenchError where what was measured is worth nothing."""


@dataclass
class FirstRun(Row):
    """Everything for the first time, beside `rclone copy`, and that with `rclone check --download` after it."""

    name: str
    work: str
    source: str
    kind: str
    copy: float
    """How many times as fast as the copy it has to be …"""
    copy_and_check: float | None = None
    """… and as copy and check together."""
    delayed: bool = False
    best_flags: bool = False
    only_full: bool = False
    count: int = ROUNDS
    room_bytes: int = 5 << 30
    within_seconds: float = 300

    COPY: ClassVar[str] = "rclone copy"
    CHECK: ClassVar[str] = "rclone copy + check"

    def __post_init__(self) -> None:
        self.targets = [Target(f"times as fast as {self.COPY}", at_least=self.copy)]
        if self.copy_and_check is not None:
            self.targets.append(Target(f"times as fast as {self.CHECK}", at_least=self.copy_and_check))

    def rounds(self, bench: Bench, count: int, remark: Remark) -> Generator[Round]:
        what, rclone = bench.data(self.source), Rclone(bench.stage, delayed=self.delayed)
        flags: Flags = ()
        told = "rclone's flags: its defaults"
        if self.best_flags:
            flags, told = bench.best_flags(self.kind, self.delayed, self.source == "large")
        remark(told)
        if self.delayed:
            remark(bench.relay())
        for number in range(count):
            with bench.stage.destination(self.kind) as to:
                ours, phases = bench.first_run(
                    what, to, within_seconds=self.within_seconds, delayed=self.delayed, content=number == 0
                )
            samples = {HARVEST: ours}
            with bench.stage.destination(self.kind) as to:
                samples[self.COPY] = rclone.copy(what, to, flags, within_seconds=self.within_seconds)
                if self.copy_and_check is not None:
                    looked = rclone.check(what, to, flags, within_seconds=self.within_seconds)
                    samples[self.CHECK] = samples[self.COPY] + looked
            figures = {
                f"times as fast as {who}": sample.seconds / ours.seconds
                for who, sample in samples.items()
                if who != HARVEST
            }
            yield Round(samples, figures, phases)


@dataclass
class Unchanged(Row):
    """A second run over what is known already, beside `rclone lsf -R` and beside the walk alone."""

    name: str
    work: str
    source: str
    only_full: bool = False
    count: int = ROUNDS
    room_bytes: int = 3 << 30
    room_files: int = 300_000
    within_seconds: float = 600
    beside_list: bool = True

    LIST: ClassVar[str] = "rclone lsf -R"
    WALK: ClassVar[str] = "the walk alone"
    TIMES: ClassVar[str] = f"times the seconds of {LIST}"
    SHARE: ClassVar[str] = f"database work, of the seconds of {WALK}"
    WRITTEN: ClassVar[str] = "rows and files written"

    def __post_init__(self) -> None:
        self.targets = [Target(self.TIMES, at_most=2)] if self.beside_list else []
        self.targets += [Target(self.SHARE, at_most=0.5), Target(self.WRITTEN, at_most=0, unit=""), MEMORY]

    def rounds(self, bench: Bench, count: int, remark: Remark) -> Generator[Round]:
        what, rclone = bench.data(self.source), Rclone(bench.stage)
        with bench.stage.destination("posix") as to:
            bench.product.forget_files()
            schedule = bench.product.schedule(what, to)
            first = bench.product.harvest(schedule, within_seconds=self.within_seconds)
            check(first.run, what, to, content=False)
            remark(f"the first run: {first.sample.seconds:.1f} s, peak {first.sample.peak_bytes / _MB:.0f} MB")
            remark(
                "database work: seconds of the second run, from its request to its end, less those of the walk alone"
            )
            bench.product.vacuum()
            for _ in range(count):
                before = fingerprint(to)
                ours = bench.product.harvest(schedule, within_seconds=self.within_seconds)
                written = sum(before[key] != value for key, value in fingerprint(to).items())
                if ours.run.files_seen != what.files:
                    raise BenchError(f"The second run has seen {ours.run.files_seen} files of {what.files}.")
                samples = {HARVEST: ours.sample}
                if self.beside_list:
                    samples[self.LIST] = rclone.list(what, within_seconds=self.within_seconds)
                walk = samples[self.WALK] = walk_alone(bench.stage, schedule, what, self.within_seconds)
                peak_bytes = max(ours.sample.peak_bytes, first.sample.peak_bytes)
                figures = {
                    self.SHARE: (ours.sample.seconds - walk.seconds) / walk.seconds,
                    self.WRITTEN: float(written),
                    MEMORY.figure: peak_bytes / _MB,
                }
                if self.beside_list:
                    figures[self.TIMES] = ours.sample.seconds / samples[self.LIST].seconds
                yield Round(samples, figures, ours.phases)


@dataclass
class CopyAlone(Row):
    """The bytes without what makes a harvest of them, beside `smbclient mget`."""

    name: str = "copy-alone"
    work: str = "the copy alone, 4 × 512 MiB"
    count: int = ROUNDS
    room_bytes: int = 5 << 30
    MGET: ClassVar[str] = "smbclient mget"
    COPY: ClassVar[str] = "the copy alone"

    targets = (Target(f"of the speed of {MGET}", at_least=0.8),)

    def rounds(self, bench: Bench, count: int, remark: Remark) -> Generator[Round]:
        remark("the copy alone: connect, walk, read through SmbStorage.read_many (signed), write; not Python's start")
        what = bench.data("large")
        for _ in range(count):
            samples = {}
            with bench.stage.destination("posix") as to:
                schedule = bench.product.schedule(what, to)
                assert to.folder is not None
                samples[self.COPY] = alone(bench.stage, "copy", schedule, to.folder, within_seconds=300)[0]
                _require(to, what)
            with bench.stage.destination("posix") as to:
                assert to.folder is not None
                samples[self.MGET] = mget(bench.stage, what, to.folder, within_seconds=300)
                _require(to, what)
            ratio = samples[self.MGET].seconds / samples[self.COPY].seconds
            yield Round(samples, {self.targets[0].figure: ratio})


@dataclass
class Memory(Row):
    """How much memory a worker takes for a first run."""

    name: str
    work: str
    source: str
    kind: str = "posix"
    only_full: bool = False
    count: int = 1
    room_bytes: int = 3 << 30
    within_seconds: float = 600
    HOLES: ClassVar[Target] = Target("of the file's bytes are allocated at the destination", at_most=0.01)

    def __post_init__(self) -> None:
        self.targets = [MEMORY, *([self.HOLES] if self.source == "sparse" else [])]

    def rounds(self, bench: Bench, count: int, remark: Remark) -> Generator[Round]:
        what = bench.data(self.source)
        for _ in range(count):
            with bench.stage.destination(self.kind) as to:
                ours, phases = bench.first_run(what, to, within_seconds=self.within_seconds)
                figures = {MEMORY.figure: ours.peak_bytes / _MB}
                if self.source == "sparse":
                    figures[self.HOLES.figure] = _allocated_bytes(to) / what.size_bytes
                yield Round({HARVEST: ours}, figures, phases)


@dataclass
class OnDisk(Row):
    """To a disk, beside `cp` and an fsync of every file. Reported; no target."""

    name: str
    work: str
    source: str
    count: int = 3
    only_full: bool = True
    room_bytes: int = 3 << 30
    CP: ClassVar[str] = "cp with fsync"

    targets = (Target(f"times as fast as {CP}"),)

    def rounds(self, bench: Bench, count: int, remark: Remark) -> Generator[Round]:
        what = bench.data(self.source)
        remark(f"on {bench.stage.disk}; cp reads from memory, without SMB")
        command = 'cp -r "$0" "$1" && find "$1" -type f -print0 | xargs -0 sync'
        for _ in range(count):
            with bench.stage.destination("disk") as to:
                ours, phases = bench.first_run(what, to, within_seconds=300)
            with bench.stage.destination("disk") as to:
                assert to.folder is not None
                theirs, _ = measured(["sh", "-c", command, what.path, to.folder / "copy"], who="cp", within_seconds=300)
                _require(to, what)
            yield Round(
                {HARVEST: ours, self.CP: theirs}, {self.targets[0].figure: theirs.seconds / ours.seconds}, phases
            )


def alone(
    stage: Stage, step: str, schedule: HarvestSchedule, *words: str | Path, within_seconds: float
) -> tuple[Sample, dict[str, Any]]:
    """One step of a harvest by itself (see `alone`): its cost, and what it told."""
    command = [sys.executable, "-m", "tests.bench.alone", step, str(schedule.instrument_id), *words]
    sample, printed = measured(command, within_seconds=within_seconds, servers=stage.smb_pids, cwd=ROOT)
    told = json.loads(printed.splitlines()[-1])
    cpu = {**sample.cpu_seconds, "client": told["cpu_seconds"]}
    return replace(sample, seconds=told["seconds"], cpu_seconds=cpu), told


def walk_alone(stage: Stage, schedule: HarvestSchedule, what: Data, within_seconds: float) -> Sample:
    sample, told = alone(stage, "walk", schedule, within_seconds=within_seconds)
    if told["entries"] != what.files:
        raise BenchError(f"The walk alone has found {told['entries']} files of {what.files}.")
    return sample


def fingerprint(destination: Destination) -> dict[str, Any]:
    """What a run that finds nothing new leaves as it is: rows of files, and the copies with all their attributes."""
    found: dict[str, Any] = {
        model.__name__: (model.objects.count(), model.objects.aggregate(newest=Max("updated_at"))["newest"])
        for model in (FileRecord, FileVersion, FileTransfer)
    }
    found["RunError"] = RunError.objects.count()
    digest = hashlib.blake2b()
    assert destination.folder is not None
    for parent, folders, names in os.walk(destination.folder):
        folders.sort()
        for name in sorted(names):
            told = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - a million of them
            digest.update(f"{name}\0{told.st_ino} {told.st_size} {told.st_mtime_ns} {told.st_ctime_ns}\n".encode())
    return {**found, "destination": digest.hexdigest()}


def _require(to: Destination, what: Data) -> None:
    if to.found() != (what.files, what.size_bytes):
        raise BenchError(f"There are {to.found()} files and bytes at {to.name}, not {what}.")


def _allocated_bytes(to: Destination) -> int:
    assert to.folder is not None
    return sum(path.stat().st_blocks * 512 for path in to.folder.rglob("*") if path.is_file())


LARGE, SMALL = "4 × 512 MiB", "5,000 × 8 KiB in 611 folders"
FAR = "through a round trip of 2 ms"

ROWS: tuple[Row, ...] = (
    FirstRun("large-posix", f"{LARGE}, SMB → POSIX", "large", "posix", 2, 3),
    FirstRun("small-posix", f"{SMALL}, SMB → POSIX", "small", "posix", 1.5, 3, best_flags=True),
    FirstRun("large-far", f"{LARGE}, {FAR}", "large", "posix", 3, delayed=True),
    FirstRun("small-far", f"{SMALL}, {FAR}", "small", "posix", 4, delayed=True, best_flags=True),
    Unchanged("unchanged", "100,000 unchanged files, second run", "100k"),
    FirstRun("large-s3", f"{LARGE}, SMB → S3", "large", "s3", 1, best_flags=True, only_full=True, room_bytes=7 << 30),
    FirstRun("small-s3", f"{SMALL}, SMB → S3", "small", "s3", 1, best_flags=True),
    FirstRun("large-smb", f"{LARGE}, SMB → SMB", "large", "cifs", 1.5, only_full=True),
    FirstRun("small-smb", f"{SMALL}, SMB → SMB", "small", "cifs", 1.5),
    CopyAlone(),
    Memory("memory-20k", "20,000 × 8 KiB", "20k"),
    Memory("memory-sparse", "a sparse file of 20 GiB", "sparse", kind="disk", only_full=True, within_seconds=1800),
    Unchanged(
        "million",
        "1,000,000 known files, second run",
        "million",
        only_full=True,
        count=3,
        room_bytes=12 << 30,
        room_files=2_100_000,
        within_seconds=7200,
        beside_list=False,
    ),
    OnDisk("large-disk", f"{LARGE}, SMB → disk", "large"),
    OnDisk("small-disk", f"{SMALL}, SMB → disk", "small"),
)
