"""The connections of one task: opened when first needed, closed at its end, never shared with another task."""

from __future__ import annotations

from types import TracebackType
from typing import Self
from uuid import UUID

from django.utils import timezone

from harvest.models import FileTransfer, Instrument, StorageLocation
from harvest.storage.base import RESERVED, Fault, Storage, StorageError
from harvest.transfer import Pacer, SourceError

SENTINEL = "sentinel"


class Connections:
    """To one instrument and to the storages that its files go to. Use it as a context manager, in one process."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        limit = instrument.max_bytes_per_second
        self.pacer = Pacer(limit / instrument.max_connections if limit else None)
        self._source: Storage | None = None
        self._storages: dict[UUID, Storage] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for storage in [*self._storages.values(), *([self._source] if self._source else [])]:
            storage.close()
        self._storages, self._source = {}, None

    def source(self) -> Storage:
        """The instrument's share, connected. Raises SourceError."""
        if self._source is None:
            try:
                source = self.instrument.open_source()
                source.connect()
            except StorageError as error:
                raise SourceError(error) from error
            self._source = source
        return self._source

    def storage(self, location: StorageLocation) -> Storage:
        """The storage, connected and proven to be the right one. Raises StorageError."""
        if location.pk not in self._storages:
            storage = location.open()
            storage.connect()
            try:
                prove_mounted(location, storage)
            except BaseException:
                storage.close()
                raise
            self._storages[location.pk] = storage
        return self._storages[location.pk]

    def forget_broken(self) -> None:
        """Close everything, so that the next use connects afresh."""
        self.__exit__(None, None, None)


def pause_if_refused(instrument: Instrument, error: StorageError) -> None:
    """After one refused log-in, leave the instrument alone until its credentials change: we never lock its account."""
    if error.fault is Fault.AUTHENTICATION:
        Instrument.objects.filter(pk=instrument.pk).update(paused_at=timezone.now(), paused_reason=str(error))
        instrument.refresh_from_db(fields=["paused_at", "paused_reason"])


def wrong_disk(location: StorageLocation, storage: Storage) -> str | None:
    """Why what lies at the base path of `location` is not the disk that its files are on; None if it is, or if nothing
    is stored there yet. Raises StorageError where the sentinel cannot be read.

    An unmounted disk leaves an empty folder, and a base path mistyped may be another location's.
    """
    found = storage.read_reserved(SENTINEL)
    if found == _sentinel_of(location):
        return None
    stored = FileTransfer.objects.stored()
    other = StorageLocation.objects.exclude(pk=location.pk).filter(pk__in=_as_key(found or b"")).first()
    if other is not None and stored.filter(storage_location=other).exists():
        return (
            f"“{location}”: the base path belongs to the storage location “{other}”; the file {RESERVED}/{SENTINEL} "
            "there says so. Give each storage location a base path of its own, or mount the right disk."
        )
    if not stored.filter(storage_location=location).exists():
        return None
    what = "is missing" if found is None else "names another storage location"
    return (
        f"“{location}”: files are stored there, but the file {RESERVED}/{SENTINEL} {what}. Is the right disk mounted "
        "at the base path? Nothing is written there until it is."
    )


def prove_mounted(location: StorageLocation, storage: Storage) -> None:
    """Return only if the storage is the right one, with its sentinel, written anew where nothing is stored there yet.

    Raises StorageError(not_mounted).
    """
    if why := wrong_disk(location, storage):
        raise StorageError(Fault.NOT_MOUNTED, why)
    if storage.read_reserved(SENTINEL) != _sentinel_of(location):
        storage.write_reserved(SENTINEL, _sentinel_of(location))


def _sentinel_of(location: StorageLocation) -> bytes:
    return str(location.pk).encode()


def _as_key(found: bytes) -> list[UUID]:
    """The id in a sentinel, as a list of at most one: anybody may have written anything there."""
    try:
        return [UUID(found.decode())]
    except ValueError:
        return []
