"""Runs the web server, one worker and beat as children of one process, for machines without systemd or containers.

    supervisor = Supervisor(port=8000)
    supervisor.start()
    supervisor.wait_ready()
    ...
    supervisor.stop()

Each child has a process group of its own, so that Ctrl-C reaches the supervisor only, which then stops them in order.
A child that ends is started again, at once and then ever later. Should the supervisor itself be killed, the kernel
sends the children SIGTERM (Linux). What they print goes to `DATA_DIR/logs/streamweave.log`.
"""

from __future__ import annotations

import ctypes
import fcntl
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Self

from django.conf import settings
from django.core.management import call_command

STOP_SECONDS = 15
"""How long children have between SIGTERM and SIGKILL. What a worker is at by then, another takes up by its lease."""

STEADY_SECONDS = 30
"""A child that ran this long is started again at once when it ends."""

LONGEST_PAUSE_SECONDS = 60

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # prctl(2)


class SupervisorError(Exception):
    """StreamWeave cannot be started; the message says why and what to do."""


class Child:
    """One child process: how it is started, and whether it runs."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.failures = 0
        self.tail: deque[str] = deque(maxlen=20)
        self._started_at = 0.0
        self._start_again_at = 0.0

    def start(self, environment: dict[str, str]) -> IO[bytes]:
        """Starts it and gives the stream of what it prints."""
        self.process = subprocess.Popen(
            self.command,
            cwd=settings.BASE_DIR,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  (one system call, nothing that another thread could hold)
        )
        self._started_at = time.monotonic()
        assert self.process.stdout
        return self.process.stdout

    def has_ended(self) -> bool:
        """Whether the process is not there (any more). What it left of its group is then killed.

        The group goes before the process is reaped: until then nobody else can get its number.
        """
        if self.process is None:
            return True
        if self.process.returncode is None:
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                return False
            self.signal_group(signal.SIGKILL)
            self.process.wait()
            steady = time.monotonic() - self._started_at >= STEADY_SECONDS
            self.failures = 1 if steady else self.failures + 1
            pause = 0 if self.failures == 1 else min(2 ** (self.failures - 2), LONGEST_PAUSE_SECONDS)
            self._start_again_at = time.monotonic() + pause
        return True

    def is_due(self) -> bool:
        return self.has_ended() and time.monotonic() >= self._start_again_at

    def terminate(self) -> None:
        """Asks it to end by itself; Celery and gunicorn pass it on to their own children."""
        if not self.has_ended():
            assert self.process
            self.process.send_signal(signal.SIGTERM)

    def signal_group(self, number: signal.Signals) -> None:
        assert self.process
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Supervisor:
    """Web server, worker and beat on this machine, under the settings of this process.

    `workers` is the number of worker processes, by default the setting WORKER_CONCURRENCY. With `dev` the web server,
    the worker and beat are started anew when a source file changes, and pages show errors in full. `echo` is called
    with each line that a child prints.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        workers: int | None = None,
        dev: bool = False,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self.host, self.port, self.dev = host, port, dev
        self.url = f"http://{'localhost' if host == '127.0.0.1' else host}:{port}/"
        self.log_path = settings.DATA_DIR / "logs" / "streamweave.log"
        self._echo = echo
        celery = [sys.executable, "-m", "celery", "--quiet", "-A", "streamweave"]
        gunicorn = [sys.executable, "-m", "gunicorn", "streamweave.wsgi", "--bind", f"{host}:{port}", "--threads", "8"]
        gunicorn += ["--graceful-timeout", "5", "--no-control-socket"]
        # One worker has nobody to gossip with, and each of its heartbeats would be a file of the embedded broker.
        alone = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        self.children = [
            Child("web", gunicorn + (["--reload"] if dev else [])),
            Child("worker", [*celery, "worker", *alone, "-c", str(workers or settings.WORKER_CONCURRENCY)]),
            Child("beat", [*celery, "beat"]),
        ]
        self._lock: IO[str] | None = None
        self._log: RotatingFileHandler | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def start(self) -> None:
        """Brings the database and the static files up to date and starts the children.

        Raises SupervisorError if another copy runs on the same DATA_DIR, or if the port is taken.
        """
        self._take_lock()
        try:
            self._check_port()
            call_command("migrate", verbosity=0, interactive=False)
            if not self.dev:
                call_command("collectstatic", verbosity=0, interactive=False)
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            self._log = RotatingFileHandler(self.log_path, maxBytes=10_000_000, backupCount=5, encoding="utf-8")
            for child in self.children:
                self._start(child)
            self._run_thread(self._watch)
        except BaseException:
            self.stop()
            raise

    def wait_ready(self, seconds: float = 60) -> None:
        """Returns when the web server answers. Raises SupervisorError if it has not after so many seconds."""
        deadline = time.monotonic() + seconds
        web = self.children[0]
        while not self._is_healthy():
            if time.monotonic() > deadline or web.failures > 2:
                printed = "\n".join(web.tail) or "(nothing)"
                raise SupervisorError(f"The web server does not answer. It printed:\n{printed}\nSee {self.log_path}.")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stops whatever runs: SIGTERM, a wait, SIGKILL. When it returns, no process of ours is left."""
        self._stopping.set()
        for thread in self._threads:
            if thread.name == "watch":
                thread.join()
        for child in self.children:
            child.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in self.children:
            while not child.has_ended():
                if time.monotonic() > deadline:
                    child.signal_group(signal.SIGKILL)
                time.sleep(0.05)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        if self._log:
            self._log.close()
        if self._lock:
            self._lock.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _take_lock(self) -> None:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        self._lock = (settings.DATA_DIR / "up.lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            process = self._lock.read().strip()
            self._lock.close()
            raise SupervisorError(
                f"StreamWeave already runs on {settings.DATA_DIR} (process {process}). Stop that one first, or give"
                " this one a folder of its own in STREAMWEAVE_DATA_DIR."
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise SupervisorError(
                    f"Port {self.port} of {self.host} cannot be used ({error.strerror}). Choose another with --port."
                ) from None

    def _start(self, child: Child) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self.dev:
            environment.setdefault("STREAMWEAVE_DEBUG", "true")
        stream = child.start(environment)
        self._run_thread(self._pump, child, stream)

    def _run_thread(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name=target.__name__.strip("_"), daemon=True)
        self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        thread.start()

    def _pump(self, child: Child, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = f"{child.name:<6} | {raw.decode(errors='backslashreplace').rstrip()}"
                child.tail.append(line)
                assert self._log
                self._log.handle(logging.makeLogRecord({"msg": line}))
                if self._echo:
                    self._echo(line)

    def _watch(self) -> None:
        changed_at = _sources_changed_at() if self.dev else 0.0
        while not self._stopping.wait(0.5):
            if self.dev and (now_changed_at := _sources_changed_at()) > changed_at:
                changed_at = now_changed_at
                for child in self.children[1:]:  # gunicorn looks after itself
                    child.terminate()
            for child in self.children:
                if child.is_due() and not self._stopping.is_set():
                    self._start(child)

    def _is_healthy(self) -> bool:
        name = next((host.lstrip(".") for host in settings.ALLOWED_HOSTS if host != "*"), "localhost")
        target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  (only compared)
        connection = http.client.HTTPConnection(target, self.port, timeout=5)
        try:
            connection.request("GET", "/health", headers={"Host": name})
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _die_with_parent() -> None:
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _sources_changed_at() -> float:
    """When one of our source files was last changed, as a POSIX time."""
    base: Path = settings.BASE_DIR
    folders = ("streamweave", "access", "hooks", "harvest")
    return max(path.stat().st_mtime for folder in folders for path in (base / folder).rglob("*.py"))
