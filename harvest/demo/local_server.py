"""One server process of our own on this machine's loopback address: started, awaited, stopped.

It lives in a folder of its own (configuration, data, `server.log`), listens on 127.0.0.1 alone, and is ended by its
process id. The folder remembers the ports, so that a second start answers where the first one did.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

HOST = "127.0.0.1"
LOWEST_PORT = 12_000
HIGHEST_PORT = 21_999
GRPC_OFFSET = 10_000
"""Some servers open a second port this far above each one; both stay below Linux's ephemeral ports (32768 and up)."""

_SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/local/sbin"
"""Where Debian keeps servers; it is not on the PATH of an ordinary user."""
_POLL_SECONDS = 0.02
_STOP_SECONDS = 15.0
_LOG_TAIL_LINES = 25


class ServerError(Exception):
    """A server could not be started or stopped. The message shows the end of its log where there is one."""


def find_program(name: str) -> str | None:
    """The path of an installed program: beside our own Python first, then on the PATH; None where there is none."""
    beside_python = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join((beside_python, os.environ.get("PATH", ""), _SYSTEM_FOLDERS)))


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """`count` different ports on which nothing listens, nor 10000 above them.

    They lie below the ports the kernel hands to outgoing connections, so that none is lost between choosing and
    listening. Raises ServerError where there are not as many.
    """
    candidates = random.sample(range(LOWEST_PORT, HIGHEST_PORT + 1), HIGHEST_PORT + 1 - LOWEST_PORT)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if is_free(port) and is_free(port + GRPC_OFFSET):
            found.append(port)
    if len(found) < count:
        raise ServerError(f"Only {len(found)} of {count} ports between {LOWEST_PORT} and {HIGHEST_PORT} are free.")
    return found


def await_truth(question: Callable[[], bool], *, within_seconds: float) -> bool:
    """Ask until the answer is yes; False where it was not within `within_seconds`."""
    deadline = time.monotonic() + within_seconds
    while not question():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _started_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks since boot (proc(5), /proc/PID/stat, field 22); None if it is gone.

    Together with the process id it names one process for as long as the machine is up.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


class LocalServer(ABC):
    """What all our servers share. Use it as a context manager, or call `start` and `stop`."""

    label: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    """What must be installed."""
    remedy: ClassVar[str]
    """How to install it."""
    port_count: ClassVar[int] = 1
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    host: ClassVar[str] = HOST

    def __init__(self, directory: Path, *, port: int | None = None, start_within_seconds: float = 30.0) -> None:
        self.directory = Path(directory).absolute()
        self.log_path = self.directory / "server.log"
        self.start_within_seconds = start_within_seconds
        self._wanted_port = port
        self._ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def available(cls) -> bool:
        """Whether all that it needs is installed."""
        return all(find_program(name) is not None for name in cls.programs)

    # ---------------------------------------------------------------------------------- what each server says

    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments. It must stay in the foreground."""

    @staticmethod
    def _program(name: str) -> str:
        """The path of one of `programs`."""
        return find_program(name) or name

    @abstractmethod
    def _prepare(self) -> None:
        """Write what the server needs into its folder. Called at every start, when the ports are known."""

    def _answers(self) -> bool:
        """Whether the server does its work by now. Called again and again until it does."""
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _environment(self) -> Mapping[str, str]:
        """Variables to set for the server, besides those of this process."""
        return {}

    def _account(self) -> str | None:
        """The Unix account to run it as, or None for our own."""
        return None

    # ------------------------------------------------------------------------------------------------ its life

    @property
    def port(self) -> int:
        """The port to connect to; known from the first start on."""
        if not self._ports:
            raise ServerError(f"{self.label} has no port before it was started.")
        return self._ports[0]

    @property
    def pid(self) -> int | None:
        """Its process id (and that of its process group), None while it does not run."""
        return self._process.pid if self.is_running and self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and return when it answers. Raises ServerError if it does not within `start_within_seconds`."""
        if self.is_running:
            return self
        if not self.available():
            raise ServerError(f"{self.label} is not installed on this machine. {self.remedy}")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._end_left_over()
        self._ports = self._choose_ports()
        self._prepare()
        command, account = self._command(), self._account()
        with self.log_path.open("ab") as log:
            try:
                # A session of its own: a Ctrl-C in our terminal is ours to handle, and its group can be ended whole.
                self._process = subprocess.Popen(
                    command,
                    cwd=self.directory,
                    env={**os.environ, **self._environment()},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=account,
                    extra_groups=None if account is None else [],
                )
            except OSError as error:
                raise ServerError(f"{self.label} cannot be started: {command[0]}: {error.strerror}.") from error
        self._remember()
        self._await_answer()
        return self

    def stop(self) -> None:
        """Ask it to end, end it if it does not, and return when its ports are free. May be called twice."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def log_tail(self) -> str:
        """The last lines the server wrote."""
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        return "\n".join(lines[-_LOG_TAIL_LINES:]) or "(its log is empty)"

    # ---------------------------------------------------------------------------------------------- internals

    @property
    def _memory_path(self) -> Path:
        return self.directory / "server.json"

    def _memory(self) -> dict[str, Any]:
        try:
            memory = json.loads(self._memory_path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # none yet, or cut short by a crash
            return {}
        return memory if isinstance(memory, dict) else {}

    def _remember(self) -> None:
        assert self._process is not None
        processes = {str(pid): _started_ticks(pid) for pid in (self._process.pid, os.getpid())}
        memory = {"ports": self._ports, "pid": self._process.pid, "owner": os.getpid(), "started_ticks": processes}
        self._memory_path.write_text(json.dumps(memory))

    def _choose_ports(self) -> list[int]:
        wanted = self._wanted_port
        if wanted is not None and not is_free(wanted):
            raise ServerError(f"{self.label} cannot listen on port {wanted}: something else does. Choose another port.")
        remembered = self._memory().get("ports", [])
        if (
            len(remembered) == self.port_count
            and wanted in (None, remembered[0])
            and all(is_free(port) for port in remembered)
        ):
            return list(remembered)
        ports = free_ports(self.port_count)
        return ports if wanted is None else [wanted, *(port for port in ports if port != wanted)][: self.port_count]

    def _end_left_over(self) -> None:
        """End the server that an earlier run left in this folder because it was killed before it could stop it."""
        memory = self._memory()
        started_ticks = memory.get("started_ticks", {})

        def lives(pid: object) -> bool:
            return isinstance(pid, int) and started_ticks.get(str(pid)) == (_started_ticks(pid) or "gone")

        pid, owner = memory.get("pid"), memory.get("owner")
        if not isinstance(pid, int) or not lives(pid):
            return
        if lives(owner):
            raise ServerError(
                f"{self.label} in {self.directory} runs already (process {pid}, started by process {owner}). "
                "Stop that one first, or choose another folder."
            )
        with suppress(ProcessLookupError):
            os.kill(pid, self.stop_signal)
        await_truth(lambda: not lives(pid), within_seconds=_STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def _await_answer(self) -> None:
        assert self._process is not None
        process = self._process
        answered = await_truth(
            lambda: process.poll() is not None or self._answers(), within_seconds=self.start_within_seconds
        )
        if process.poll() is not None:
            reason = f"ended at once with status {process.returncode}"
        elif not answered:
            reason = f"did not answer on port {self.port} within {self.start_within_seconds:g} s"
        else:
            return
        self.kill()
        raise ServerError(f"{self.label} {reason}. The end of {self.log_path}:\n{self.log_tail()}")

    def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(with_signal)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError):  # the usual case: nobody of its group is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not await_truth(lambda: all(is_free(port) for port in self._ports), within_seconds=_STOP_SECONDS):
            raise ServerError(f"{self.label} was stopped, and still something listens on one of {self._ports}.")
