"""Runs one hook script and outlives it: when this program ends, nothing that the script started is left.

It is run by path as a program of its own, `python -I script_warden.py LIFELINE SCRIPT LIMITS`, and imports nothing of
ours. LIFELINE is the number of the read end of a pipe whose write end the worker holds: when it closes, because the
worker has had enough or is dead, the script is killed. LIMITS is a JSON object of resource limits (names as in
resource(3), without RLIMIT_). The exit status is the script's, or 128 plus the number of the signal that ended it.

As a "child subreaper" (prctl(2)) this process inherits every orphan among its descendants, so that one which made
itself a daemon is found and killed like the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38


def main(lifeline: int, script: str, limits: dict[str, int]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    for option in (PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS):
        if libc.prctl(option, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl({option})")
    os.set_inheritable(lifeline, False)
    child = os.fork()
    if not child:
        _become(script, limits)
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(lifeline, select.POLLIN | select.POLLHUP)
    poll.poll()
    return _end_all(child)


def _become(script: str, limits: dict[str, int]) -> None:
    try:
        os.setsid()
        for name, limit in limits.items():
            # The hard limit is one more, so that SIGXCPU comes first and says what is the matter; SIGKILL says nothing.
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit + 1))
        os.execv(sys.executable, [sys.executable, "-I", "-B", script])  # noqa: S606
    except BaseException as error:
        os.write(2, f"the script could not be started: {error}\n".encode())
        os._exit(126)


def _end_all(child: int) -> int:
    """Kill whatever descends from this process, and give the exit status of `child`."""
    status = 0
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # at once, so that a program which only forks cannot outrun us
    try:
        while True:
            children = _children()
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            for _ in children or [child]:
                pid, result = os.waitpid(-1, 0)
                if pid == child:
                    status = result
    except ChildProcessError:  # nobody is left
        return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _children() -> list[int]:
    """Our children, those that were left to us among them. None has been waited for, so their numbers are theirs."""
    me = os.getpid()
    children = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
            if int(stat.rpartition(")")[2].split()[1]) == me:
                children.append(int(process.name))
    return children


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])))
