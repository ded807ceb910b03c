"""Instruments and storage locations tried out, as an administrator has set them up."""

from __future__ import annotations

from harvest.connections import SENTINEL
from harvest.models import FileTransfer, Instrument, StorageLocation
from harvest.storage.base import RESERVED, Check, Storage, StorageError


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
    found = storage.read_reserved(SENTINEL)
    if found == str(location.pk).encode():
        return Check("the right disk", True, "It is the one that files were stored on before.")
    if found is not None:
        other = StorageLocation.objects.filter(pk__in=_as_key(found)).first()
        whose = f"the storage location “{other}”" if other else "a storage location that is not known here"
        return Check(
            "the right disk",
            False,
            f"The base path belongs to {whose}: the file {RESERVED}/{SENTINEL} there says so. Give each storage "
            "location a base path of its own, or mount the right disk.",
        )
    if FileTransfer.objects.stored().filter(storage_location=location).exists():
        return Check(
            "the right disk",
            False,
            f"Files are stored there, but the file {RESERVED}/{SENTINEL} is missing. Is the right disk mounted at the "
            "base path?",
        )
    return Check("the right disk", True, "Nothing is stored there yet; the first harvest will mark it as ours.")


def _as_key(found: bytes) -> list[str]:
    """The id in a sentinel, as a list of at most one: anybody may have written anything there."""
    text = found.decode(errors="replace").strip()
    return [text] if len(text) == 36 and set(text) <= set("0123456789abcdef-") and text.count("-") == 4 else []
