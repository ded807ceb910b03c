"""What processes cost: CPU seconds and peak memory, of ours with all their children, from proc(5)."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_POLL_SECONDS, _PEAKS_EVERY = 0.005, 20


class BenchError(Exception):
    """A measurement that is worth nothing, and why."""


@dataclass(frozen=True)
class Sample:
    """One piece of work, measured: wall-clock seconds, CPU seconds by who spent them, the greatest resident memory that
    one process of ours reached (0 where it was not looked at)."""

    seconds: float
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: int = 0

    def __add__(self, other: Sample) -> Sample:
        """One after the other."""
        cpu = {who: self.cpu_seconds.get(who, 0.0) + other.cpu_seconds.get(who, 0.0) for who in self.cpu_seconds}
        return Sample(self.seconds + other.seconds, cpu, max(self.peak_bytes, other.peak_bytes))


def family(pid: int) -> list[int]:
    """The process and all that descend from it and live."""
    found, unasked = [], [pid]
    while unasked:
        parent = unasked.pop()
        found.append(parent)
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):  # ended meanwhile
                unasked += map(int, path.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """What the process and its descendants have spent, those included that have ended and were waited for."""
    ticks = 0
    for member in family(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / _TICKS


def peaks(pid: int) -> dict[int, int]:
    """The peak resident memory in bytes of the process and its descendants, each by its process id."""
    found = {}
    for member in family(pid):
        with suppress(OSError):
            for line in Path(f"/proc/{member}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    found[member] = int(line.split()[1]) * 1024
    return found


def forget_peaks(pid: int) -> None:
    """Begin anew to note peaks."""
    for member in family(pid):
        with suppress(OSError):
            Path(f"/proc/{member}/clear_refs").write_text("5")


class Meter:
    """CPU seconds between two moments, of several process trees by name.

    with Meter({"smbd": 4711}) as meter:
        ...
    meter.cpu_seconds["smbd"]
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self.cpu_seconds: dict[str, float] = {}

    def __enter__(self) -> Meter:
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        return self

    def __exit__(self, *error: object) -> None:
        self.cpu_seconds = {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}


def measured(
    command: Sequence[str | Path],
    *,
    who: str = "client",
    within_seconds: float,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    servers: Mapping[str, int] | None = None,
    accepted: Iterable[int] = (0,),
) -> tuple[Sample, str]:
    """Run `command` to its end; what it cost (`servers` by name and process id besides) and what it printed.

    Raises BenchError where it fails, or takes longer than allowed, after ending it with its process group.
    """
    words = [os.fspath(word) for word in command]
    with tempfile.TemporaryFile() as output, Meter(servers or {}) as meter:
        begun = time.perf_counter()
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status, usage, peak_bytes = _wait(process, within_seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        seconds = time.perf_counter() - begun
        output.seek(0)
        printed = output.read().decode(errors="replace")
    if status is None:
        raise BenchError(f"{words[0]} was not ready after {within_seconds:g} s: {' '.join(words)}")
    if status not in accepted:
        raise BenchError(f"{' '.join(words)} ended with status {status}:\n{printed[-2000:]}")
    cpu = {who: usage.ru_utime + usage.ru_stime, **meter.cpu_seconds}
    return Sample(seconds, cpu, peak_bytes), printed


def _wait(process: subprocess.Popen[bytes], within_seconds: float) -> tuple[int | None, Any, int]:
    """The exit status, None where it was ended for being late, the resources it used, and its greatest memory in bytes
    (looked at now and then: what the kernel tells at the end counts the process that it was forked from)."""
    deadline = time.monotonic() + within_seconds
    late, peak_bytes, polls = False, 0, 0
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return (None if late else process.returncode), usage, peak_bytes
            if polls % _PEAKS_EVERY == 0:
                peak_bytes = max([peak_bytes, *peaks(process.pid).values()])
            polls += 1
            if not late and time.monotonic() > deadline:
                late = True
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
    except BaseException:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise
