"""Hook scripts: Python files of the administrator's, each run as a process of its own that can harm nothing.

A script lies in the folder of the setting HOOK_SCRIPT_DIR; without that setting there are none. It reads a question
(see `exchange`) from its standard input and writes the answer to its standard output. It runs isolated (`python -I`)
in an empty temporary folder, without our environment, within limits of time, memory, processor, processes, open files
and file size, and everything it started is killed when it ends (see `script_warden`). Its rights on the machine are
those of the worker's account, which should therefore have few.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from django.conf import settings

from hooks.decisions import HookError
from hooks.text import storable

TIMEOUT_SECONDS = 25.0
END_SECONDS = 5.0
"""How long everything that a script started may take to die."""
MAX_ANSWER_BYTES = 8 << 20
MAX_MEMORY_BYTES = 1 << 30
MAX_FILE_BYTES = 64 << 20
MAX_PROCESSES = 64
"""Processes and threads more than the worker's account already has. The kernel does not hold root to it."""
MAX_OPEN_FILES = 64
STDERR_TAIL_BYTES = 2000

_WARDEN = Path(__file__).with_name("script_warden.py")
_OFF = "Scripts are switched off: the setting HOOK_SCRIPT_DIR names no folder."


class ScriptPathError(ValueError):
    """A script cannot be run; the message says why."""


def find(script_path: str) -> Path:
    """The script at `script_path`, relative to HOOK_SCRIPT_DIR. Raises ScriptPathError.

    It must be a regular file that not everybody may write, reached without symbolic links.
    """
    folder: Path | None = settings.HOOK_SCRIPT_DIR
    if not folder:
        raise ScriptPathError(_OFF)
    if script_path.startswith("/") or not script_path.isprintable() or {"", ".", ".."} & {*script_path.split("/")}:
        raise ScriptPathError(f"“{storable(script_path, 100)}” is no path below the folder of HOOK_SCRIPT_DIR.")
    root = Path(folder).resolve()
    path = root / script_path
    try:
        real, mode = path.resolve(strict=True), path.lstat().st_mode
    except (OSError, RuntimeError):
        raise ScriptPathError(f"“{script_path}” is not in the folder of HOOK_SCRIPT_DIR, or cannot be read.") from None
    if real != path:
        raise ScriptPathError(f"“{script_path}” is a symbolic link, or reached through one; these are not followed.")
    if not stat.S_ISREG(mode):
        raise ScriptPathError(f"“{script_path}” is not a regular file.")
    if mode & stat.S_IWOTH:
        raise ScriptPathError(f"“{script_path}” may be written by everybody; take that right away (chmod o-w).")
    return path


def ask(script_path: str, question: bytes) -> bytes:
    """The script's answer to `question`. Raises HookError, with the end of what it wrote to its standard error."""
    try:
        script = find(script_path)
    except ScriptPathError as error:
        raise HookError(str(error)) from None
    folders = tempfile.TemporaryDirectory(prefix="hook-", ignore_cleanup_errors=True)
    with folders as folder, tempfile.TemporaryFile() as stdin:
        stdin.write(question)
        stdin.seek(0)
        with _warden(script, stdin, folder) as (process, lifeline):
            answer, complaint, broken_off = _read(process, time.monotonic() + TIMEOUT_SECONDS)
            lifeline.close()
            status = _wait(process)
    if broken_off or status:
        said = storable(complaint.decode("utf-8", "replace").strip())
        raise HookError((broken_off or _ended(status)) + (f": {said}" if said else ""))
    return answer


@contextmanager
def _warden(script: Path, stdin: IO[bytes], folder: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """The running warden, and its lifeline: closed, at the latest here, it makes the warden kill the script and end."""
    held, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as lifeline:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(_WARDEN), str(held), str(script), json.dumps(_limits())],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[held],
                cwd=folder,
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        finally:
            os.close(held)
        with process:
            try:
                yield process, lifeline
            finally:
                lifeline.close()


def _limits() -> dict[str, int]:
    return {
        "AS": MAX_MEMORY_BYTES,
        "CPU": int(TIMEOUT_SECONDS) + 1,
        "FSIZE": MAX_FILE_BYTES,
        "NOFILE": MAX_OPEN_FILES,
        "NPROC": _processes_of_ours() + MAX_PROCESSES,
        "CORE": 0,
    }


def _processes_of_ours() -> int:
    """How many tasks the kernel counts for this account already; a limit below that would let nothing start."""
    count = 0
    for tasks in Path("/proc").glob("[0-9]*/task"):
        try:
            if tasks.stat().st_uid == os.getuid():
                count += len(os.listdir(tasks))
        except OSError:
            continue  # ended meanwhile
    return count


def _read(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, str | None]:
    """Standard output, the end of standard error, and why the script is to be broken off, if it is."""
    assert process.stdout
    assert process.stderr
    answer, complaint = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    answer += piece
                else:
                    complaint = (complaint + piece)[-STDERR_TAIL_BYTES:]
            if len(answer) > MAX_ANSWER_BYTES:
                return b"", bytes(complaint), f"the script wrote more than {MAX_ANSWER_BYTES} bytes and was killed"
            if time.monotonic() > deadline:
                return b"", bytes(complaint), f"the script took more than {TIMEOUT_SECONDS:g} s and was killed"
    return bytes(answer), bytes(complaint), None


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise HookError(
            f"the script was to be killed and did not die within {END_SECONDS:g} s; processes of it may be left"
        ) from None


def _ended(status: int) -> str:
    if status == 128 + signal.SIGXCPU:
        return "the script used up its processor time"
    if status > 128:
        return f"the script was ended by signal {status - 128}"
    return f"the script ended with status {status}"
