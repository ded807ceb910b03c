"""Commands of the product as processes of their own, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
OURS = ("DATABASE_URL", "STREAMWEAVE_", "SECRET_KEY", "CELERY_", "DJANGO_", "PYTEST", "TICK_", "SWEEP_", "LEASE_")
"""The settings of the tests, which the product's own processes must not inherit."""


def environment(**settings: str) -> dict[str, str]:
    """That of a user's shell, with these settings of ours and no others."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | settings


def await_truth(question: Callable[[], bool], what: str, *, seconds: float = 60) -> None:
    """Ask until the answer is yes. Raises AssertionError, naming `what`, where it was not in time."""
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def processes_of(folder: Path) -> dict[int, str]:
    """Living processes, and their command lines, that were started in `folder` or name it in what they were given."""
    name = os.fsencode(folder)
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            command = (process / "cmdline").read_bytes()
            told = command + b"\0" + (process / "environ").read_bytes() + os.fsencode((process / "cwd").readlink())
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended, or is not ours
            continue
        if name in told and state != "Z":
            found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


class Process:
    """A running command; what it prints goes to a file that is shown when something is wrong."""

    def __init__(self, command: list[str], env: Mapping[str, str], output: Path) -> None:
        self.output_path = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self._process.pid

    def await_output(self, text: str, *, seconds: float = 90) -> None:
        """Return when it has printed `text`. Raises AssertionError where it has ended or taken too long."""

        def has_printed() -> bool:
            if text in self.output:
                return True
            assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{self.output}"
            return False

        try:
            await_truth(has_printed, f"“{text}”", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        self._process.send_signal(number)

    def wait(self, *, seconds: float = 60) -> int:
        """Its exit status. Raises AssertionError where it does not end."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"It does not end:\n{self.output}") from None

    def kill(self) -> None:
        """SIGKILL to it and to all its children, as when the power fails."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


def manage(*arguments: str, env: Mapping[str, str], seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` to its end."""
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
    )
