"""What is told of processes is what they spent, and none of them outlives its time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harvest.demo.local_server import await_truth
from tests.bench.processes import BenchError, Meter, family, measured, peaks

SPIN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


def test_the_cpu_seconds_of_children_count_while_they_live_and_after() -> None:
    with Meter({"us": os.getpid()}) as meter:
        subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert meter.cpu_seconds["us"] >= 0.29


def test_a_command_is_told_with_its_cost_and_what_it_printed() -> None:
    sample, printed = measured([sys.executable, "-c", SPIN + "print('done')"], who="spinner", within_seconds=60)
    assert printed == "done\n"
    assert sample.cpu_seconds["spinner"] >= 0.29
    assert sample.seconds >= 0.3


def test_the_memory_of_a_command_is_its_own_and_not_ours() -> None:
    ours = bytearray(300_000_000)
    sample, _ = measured([sys.executable, "-c", "import time; time.sleep(0.3)"], within_seconds=60)
    assert 0 < sample.peak_bytes < len(ours)


def test_a_command_that_fails_is_no_measurement_and_shows_why() -> None:
    with pytest.raises(BenchError, match=r"(?s)status 3.*no such share"):
        measured([sys.executable, "-c", "print('no such share'); raise SystemExit(3)"], within_seconds=60)


def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    noted = tmp_path / "child"
    command = f"sleep 600 & echo $! > {noted}; wait"
    with pytest.raises(BenchError, match=r"was not ready after 0\.5 s"):
        measured(["sh", "-c", command], within_seconds=0.5)
    child = int(noted.read_text())
    assert await_truth(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child), within_seconds=10)


def test_a_family_is_a_process_with_all_its_descendants() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 600 & wait"], start_new_session=True) as parent:
        assert await_truth(lambda: len(family(parent.pid)) == 2, within_seconds=10)
        assert set(peaks(parent.pid)) == set(family(parent.pid))
        os.killpg(parent.pid, 9)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
