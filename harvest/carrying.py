"""Ready → carried: the bytes of a batch brought to a hidden place at the destination, many files at once.

`transfer` moves bytes; here it is decided what becomes of each file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from uuid import UUID

from harvest import copies, destinations
from harvest import transfer as way
from harvest.batch import Batch
from harvest.connections import Connections
from harvest.models import FileTransfer, FileVersion, State, StorageLocation
from harvest.storage.base import Entry, Fault, Incoming, Proof, Staged, Storage, StorageError, WithdrawnError

log = logging.getLogger(__name__)

Missed = way.SourceError | way.SourceChangedError


def carry(batch: Batch, connections: Connections, transfers: Sequence[FileTransfer]) -> None:
    """Ready → carried: the bytes lie hidden at the destination, hashed while they were read."""
    for location, group in copies.by_storage(transfers):
        storage = copies.destination(batch, connections, location, group)
        if storage is None:
            continue
        reservation = _Reservation(batch, group, location, storage)
        if storage.publishes_at_once:  # under a name that must be ours before
            batch.write(mend=reservation.again)
        carrier = _Carrier(batch, connections, storage)
        carrier.carry([transfer for transfer in group if transfer in batch])
        batch.step(
            carrier.carried,
            State.CARRIED,
            *("staged_ref", "staged_proof", "staged_published"),
            *("source_checksum", "source_sha256", "bytes_transferred"),
        )
        batch.write(hold_for=copies.durable_seconds(carrier.carried), mend=reservation.again)
        if carrier.broken is not None:
            raise carrier.broken


class _Reservation:
    """The paths at the destination of `transfers`, reserved on the rows with the batch's next write. Those that cannot
    go there leave the batch."""

    def __init__(
        self, batch: Batch, transfers: list[FileTransfer], location: StorageLocation, storage: Storage
    ) -> None:
        self._batch, self._location, self._storage = batch, location, storage
        self._new = [transfer for transfer in transfers if transfer.stored_path is None]
        self._reserve()

    def _reserve(self) -> None:
        destinations.reserve(self._batch, self._new, self._location, self._storage)
        self._batch.step((), State.READY, "stored_path", "stored_path_key")

    def again(self) -> None:
        """Another worker has just reserved one of these paths: choose anew. What is published keeps its path."""
        self._new = [transfer for transfer in self._new if transfer in self._batch and not transfer.staged_published]
        for transfer in self._new:
            transfer.stored_path = transfer.stored_path_key = None
        self._reserve()


class _Carrier:
    """Brings transfers of a batch to one storage. `carried` are those that it has brought; `broken` is what keeps the
    source from giving any more. Of the others, those that are not as they were have left the batch."""

    def __init__(self, batch: Batch, connections: Connections, storage: Storage) -> None:
        self._batch = batch
        self._connections = connections
        self._storage = storage
        self.carried: list[FileTransfer] = []
        self.broken: way.SourceError | None = None

    def carry(self, transfers: Sequence[FileTransfer]) -> None:
        """All of them at once; then, one by one, those that did not go smoothly."""
        taken: list[FileTransfer] = []
        lost: list[tuple[FileTransfer, Missed]] = []
        unread: list[tuple[FileTransfer, StorageError]] = []
        unwritten: list[tuple[FileTransfer, StorageError]] = []
        try:
            for transfer, pull, result in self._write_many(transfers):
                match result:
                    case Staged():
                        self._note(transfer, result, pull.sums)
                    case way.SourceError() if result.error.whole_storage:
                        self.broken = result
                    case way.SourceError() if result.error.fault is not Fault.NOT_FOUND:
                        unread.append((transfer, result.error))
                    case way.SourceError() | way.SourceChangedError():
                        lost.append((transfer, result))
                    case StorageError() if result.fault is Fault.EXISTS:
                        taken.append(transfer)
                    case StorageError():
                        unwritten.append((transfer, result))
            self._batch.fail_by_each(unread, "source")
            self._batch.fail_by_each(unwritten, "destination")
            self._look_elsewhere(lost)
            if self.broken is None:
                self._look_at_taken(taken)
        except StorageError as error:  # nothing more can be written
            self._connections.forget_broken()
            done = {transfer.pk for transfer in self.carried}
            stopped = [transfer for transfer in transfers if transfer in self._batch and transfer.pk not in done]
            self._batch.fail_by(stopped, "destination", error)

    def _write_many(
        self, transfers: Sequence[FileTransfer]
    ) -> Iterator[tuple[FileTransfer, way.Pull, Staged | StorageError | WithdrawnError]]:
        """Each with its pull and what became of it; the last are missing where the source breaks down."""
        source = self._connections.source()
        pulls: list[way.Pull] = []
        with closing(self._storage.write_many(self._incoming(transfers, source, pulls))) as results:
            for number, result in enumerate(results):
                yield transfers[number], pulls[number], result

    def _incoming(
        self, transfers: Sequence[FileTransfer], source: Storage, pulls: list[way.Pull]
    ) -> Iterator[Incoming]:
        """The files as the destination takes them, until the source breaks down; their pulls are added to `pulls`."""
        entries = [_entry(transfer) for transfer in transfers]
        with closing(source.read_many(entries)) as readings:
            for transfer, entry, reading in zip(transfers, entries, readings, strict=True):
                pull = way.Pull(reading, entry, self._progress, known=_known_sums(transfer.version))
                pulls.append(pull)
                yield Incoming(
                    transfer.reserved_path, _token(transfer), pull.chunks(), entry.size_bytes, entry.modified_at
                )
                if pull.has_broken:
                    return

    def _progress(self, passed_bytes: int) -> None:
        self._connections.pacer(passed_bytes, self._batch.keep)
        self._batch.keep()

    def _note(self, transfer: FileTransfer, staged: Staged, sums: way.Sums) -> None:
        transfer.staged_ref, transfer.staged_proof = staged.ref, staged.proof.value
        transfer.staged_published = staged.published
        transfer.source_checksum, transfer.source_sha256 = sums.xxh64, sums.sha256
        transfer.bytes_transferred = sums.size_bytes
        self.carried.append(transfer)

    def _stage(
        self, transfer: FileTransfer, source: Storage, entry: Entry, progress: way.Progress, *, is_live: bool
    ) -> None:
        """Stage one file by itself, or adopt what has its name at the destination if it is equal, or let it go.

        Raises SourceError, SourceChangedError, StorageError (the destination's).
        """
        path, token = transfer.reserved_path, _token(transfer) + ("" if is_live else "c")
        known = _known_sums(transfer.version)
        try:
            staged, sums = way.stage(
                source, entry, self._storage, path, token, progress=progress, is_live=is_live, known=known
            )
        except way.TakenError as error:
            if way.holds(self._storage, path, error.sums, self._batch.keep):
                adopted = Staged("", path, error.sums.size_bytes, Proof.READ_BACK_PUBLISHED, published=True)
                self._note(transfer, adopted, error.sums)
            elif copies.remove_own(self._batch, self._storage, transfer):
                message = "An earlier attempt had left other bytes under its name; they were removed."
                copies.carry_again(self._batch, [transfer], message)
            else:
                copies.refuse_taken(self._batch, transfer)
        else:
            self._note(transfer, staged, sums)

    # ------------------------------------------------------------------------------------------- the name is taken

    def _look_at_taken(self, transfers: Sequence[FileTransfer]) -> None:
        """Of storages that publish at once: something has the name already, and is ours if it is equal."""
        for transfer in transfers:
            try:
                self._stage(transfer, self._connections.source(), _entry(transfer), self._progress, is_live=True)
            except way.SourceError as error:
                if error.error.whole_storage:
                    self.broken = error
                    return
                if error.error.fault is Fault.NOT_FOUND:
                    self._look_elsewhere([(transfer, error)])
                else:
                    self._batch.fail_by_each([(transfer, error.error)], "source")
            except way.SourceChangedError as error:
                self._look_elsewhere([(transfer, error)])
            except StorageError as error:
                self._fail_alone(transfer, error)

    def _fail_alone(self, transfer: FileTransfer, error: StorageError) -> None:
        """Fail a file by what the destination could not do. Raises `error` where that concerns the others, too."""
        if error.whole_storage:
            raise error
        self._batch.fail_by_each([(transfer, error)], "destination")

    # ------------------------------------------------------------------------- the source has the version no more

    def _look_elsewhere(self, lost: Sequence[tuple[FileTransfer, Missed]]) -> None:
        """The source has these versions no more. Copy them from verified copies on other storages, where there are
        some; the others are gone, or are taken as they are now."""
        stored = FileTransfer.objects.stored().filter(version__in=[transfer.version_id for transfer, _ in lost])
        found: dict[UUID, list[FileTransfer]] = {}
        for copy in stored.select_related("storage_location") if lost else ():
            found.setdefault(copy.version_id, []).append(copy)
        gone: list[FileTransfer] = []
        for transfer, missed in lost:
            try:
                done, trouble = self._copy_a_copy(transfer, found.get(transfer.version_id, []))
            except StorageError as error:
                self._fail_alone(transfer, error)
                continue
            if done:
                continue
            if trouble is not None:
                location, cause = trouble
                message = (
                    f"The instrument has it no more. A verified copy is on “{location}”, which cannot be read now: "
                    f"{cause}"
                )
                self._batch.fail([transfer], "source", cause.fault.value, message)
            elif isinstance(missed, way.SourceChangedError):
                self._batch.settle_anew(transfer, missed.entry)
            else:
                gone.append(transfer)
        self._batch.vanish(gone)

    def _copy_a_copy(
        self, transfer: FileTransfer, others: Sequence[FileTransfer]
    ) -> tuple[bool, tuple[StorageLocation, StorageError] | None]:
        """Stage the file from the first of `others` that can be read and is whole. Whether it is settled by that, and
        else which storage could not be asked."""
        version, trouble = transfer.version, None
        for copy in others:
            location = copy.storage_location
            if location.pk == transfer.storage_location_id:
                continue
            entry = Entry(copy.reserved_path, version.size_bytes, version.source_mtime)
            try:
                source = self._connections.storage(location)
            except StorageError as error:
                trouble = location, error
                continue
            try:
                self._stage(transfer, source, entry, self._batch.keep, is_live=False)
            except way.SourceError as error:
                log.error("the copy of %s on %s: %s", transfer.record.persistent_id, location, error)
                trouble = location, error.error
            except way.SourceChangedError:
                log.error("the copy of %s on %s is damaged", transfer.record.persistent_id, location)
            else:
                return True, None
        return False, trouble


def _entry(transfer: FileTransfer) -> Entry:
    """The file as it was discovered."""
    version = transfer.version
    return Entry(
        transfer.record.source_path,
        version.size_bytes,
        version.source_mtime,
        version.source_file_id,
        version.source_created_at,
    )


def _known_sums(version: FileVersion) -> tuple[str | None, str | None] | None:
    return None if version.frozen_at is None else (version.xxhash, version.sha256)


def _token(transfer: FileTransfer) -> str:
    return f"{transfer.pk.hex}-{transfer.carry_attempts}"
