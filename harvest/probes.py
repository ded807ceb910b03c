"""Instruments and storage locations tried out, as an administrator has set them up."""

from __future__ import annotations

from harvest.connections import wrong_disk
from harvest.models import Instrument, StorageLocation
from harvest.storage.base import Check, Storage, StorageError

_RIGHT = "It is ours, or nothing is stored there yet and the first harvest will mark it as ours."


def probe_instrument(instrument: Instrument) -> list[Check]:
    """Try to reach, log in to and list the instrument's share, step by step. Writes nothing, stops at the first step
    that fails."""
    try:
        return instrument.open_source().check(write=False)
    except StorageError as error:
        return [Check("configuration", False, str(error))]


def probe_storage(location: StorageLocation) -> list[Check]:
    """Try what a harvest needs of a storage location, step by step, on a file of our own in the reserved folder that
    is removed again."""
    try:
        storage = location.open()
    except StorageError as error:
        return [Check("configuration", False, str(error))]
    checks = storage.check()
    if not all(check.ok for check in checks):
        return checks
    try:
        with storage:
            return [*checks, sentinel_check(location, storage)]
    except StorageError as error:
        return [*checks, Check("the right disk", False, str(error))]


def sentinel_check(location: StorageLocation, storage: Storage) -> Check:
    """Whether the connected `storage` is the one whose files we know: not an empty mount point, nor another location's.

    Unlike `connections.prove_mounted` it never writes. Raises StorageError where the sentinel cannot be read.
    """
    why = wrong_disk(location, storage)
    return Check("the right disk", why is None, why or _RIGHT)
