"""`manage.py up` with real children, on SQLite and the embedded broker."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

BASE_DIR = Path(__file__).parents[2]
DEADLINE_SECONDS = 90

pytestmark = pytest.mark.timeout(180)


class Up:
    """One `manage.py up`, its environment marked so that all its processes can be found."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.mark = f"STREAMWEAVE_DATA_DIR={folder}".encode()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "CELERY_BROKER_URL")}
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--port", str(self.port), "--workers", "1", *options],
            cwd=BASE_DIR,
            env=kept | {"STREAMWEAVE_DATA_DIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_ready(self) -> None:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert "StreamWeave answers at" in line, line + self.process.stdout.read()

    def processes(self) -> dict[int, str]:
        """The living processes that were started with this one's environment: process id and command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and self.mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def children(self, word: str) -> set[int]:
        parent = str(self.process.pid)
        return {
            pid
            for pid, command in self.processes().items()
            if word in command and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == parent
        }

    def health(self) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            assert self.process.stdout
            self.process.stdout.close()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path)
    yield running
    running.stop()


def test_it_starts_three_children_and_stops_them_all(up, tmp_path):
    up.wait_ready()
    assert up.health() == 200
    assert [len(up.children(word)) for word in ("gunicorn", " worker ", " beat ")] == [1, 1, 1]
    log = tmp_path / "logs" / "streamweave.log"
    until(lambda: "ready." in log.read_text() and "beat: Starting..." in log.read_text())
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    assert up.processes() == {}
    assert up.health() is None
    assert {line.partition("|")[0].strip() for line in log.read_text().splitlines()} == {"web", "worker", "beat"}


def test_a_second_copy_on_the_same_folder_is_refused_and_harms_nothing(up, tmp_path):
    up.wait_ready()
    second = Up(tmp_path)
    output, _ = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    assert f"StreamWeave already runs on {tmp_path} (process {up.process.pid})." in output
    assert up.health() == 200


def test_a_taken_port_is_named_before_anything_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = Up(tmp_path, "--port", str(port))
        output, _ = refused.process.communicate(timeout=60)
    assert refused.process.returncode == 1
    assert f"Port {port} of 127.0.0.1 cannot be used" in output
    assert refused.processes() == {}


def test_a_child_that_dies_comes_back(up):
    up.wait_ready()
    for word in ("gunicorn", " worker "):
        (before,) = up.children(word)
        os.kill(before, signal.SIGKILL)
        until(lambda word=word, before=before: up.children(word) - {before})
    until(lambda: up.health() == 200)


def test_nothing_outlives_a_supervisor_that_is_killed(up):
    up.wait_ready()
    up.process.kill()
    until(lambda: up.processes() == {})
