"""A worker's word to its children that it is being stopped, so that long work ends at the next good place.

Celery waits for running tasks when a worker is told to stop, and its child processes are not told at all. The flag lies
in memory that the children share with the parent which forked them.
"""

from __future__ import annotations

import ctypes
import multiprocessing

_requested = multiprocessing.RawValue(ctypes.c_bool, False)


class StoppingError(Exception):
    """The worker is being stopped; what is begun is given back."""


def request() -> None:
    """Ask every process that was forked from this one, and this one, to stop soon."""
    _requested.value = True


def is_requested() -> bool:
    return bool(_requested.value)


def check() -> None:
    """Raises StoppingError once a stop is requested."""
    if is_requested():
        raise StoppingError
