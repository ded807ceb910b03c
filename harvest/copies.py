"""The two stages that make a copy: carry brings the bytes over, hidden; verify proves and publishes them.

`transfer` moves and proves single files; here it is decided what becomes of each.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from harvest import destinations
from harvest import transfer as way
from harvest.batch import Batch
from harvest.connections import Connections
from harvest.models import FileRecord, FileTransfer, FileVersion, State, StorageLocation
from harvest.storage.base import Entry, Fault, Proof, Staged, Storage, StorageError

log = logging.getLogger(__name__)

Transfers = Sequence[FileTransfer]


def carry(batch: Batch, connections: Connections, transfers: Transfers) -> None:
    """Ready → carried: the bytes lie hidden at the destination, hashed while they were read."""
    for location, group in _by_storage(transfers):
        storage = _destination(batch, connections, location, group)
        if storage is None:
            continue
        destinations.reserve(batch, group, location, storage)
        reserved = [transfer for transfer in group if transfer in batch.transfers]
        for transfer in reserved:
            transfer.carry_attempts += 1
        batch.move(reserved, State.READY, "stored_path", "stored_path_key", "carry_attempts")
        carried: list[FileTransfer] = []
        broken: way.SourceError | None = None
        for transfer in reserved:
            try:
                if _carry_one(batch, connections, transfer, storage):
                    carried.append(transfer)
            except way.SourceError as error:
                if error.error.whole_storage:
                    broken = error
                    break
                batch.fail_by([transfer], "source", error.error)
            except StorageError as error:
                if error.whole_storage:
                    connections.forget_broken()
                    stopped = [t for t in reserved if t in batch.transfers and t not in carried]
                    batch.fail_by(stopped, "destination", error)
                    break
                batch.fail_by([transfer], "destination", error)
        batch.move(
            carried,
            State.CARRIED,
            *("staged_ref", "staged_proof", "staged_published"),
            *("source_checksum", "source_sha256", "bytes_transferred"),
        )
        if broken:
            raise broken


def _carry_one(batch: Batch, connections: Connections, transfer: FileTransfer, storage: Storage) -> bool:
    """Stage one file. False where it left the batch."""
    version = transfer.version
    pacer = connections.pacer

    def progress(passed_bytes: int) -> None:
        pacer(passed_bytes)
        batch.keep()

    expected = Entry(
        transfer.record.source_path,
        version.size_bytes,
        version.source_mtime,
        version.source_file_id,
        version.source_created_at,
    )
    token = f"{transfer.pk.hex}-{transfer.carry_attempts}"
    try:
        staged, sums = way.stage(
            connections.source(), expected, storage, transfer.reserved_path, token, progress=progress
        )
    except way.TakenError as error:
        if not way.holds(storage, transfer.reserved_path, error.sums, batch.keep):
            _taken(batch, transfer)
            return False
        sums = error.sums
        staged = Staged("", transfer.reserved_path, sums.size_bytes, Proof.READ_BACK_PUBLISHED, published=True)
    except (way.SourceChangedError, way.SourceError) as error:
        return _from_another_copy(batch, connections, transfer, storage, token, error)
    if version.frozen_at is not None and (sums.xxh64, sums.sha256) != (version.xxhash, version.sha256):
        # Same size and time, other bytes: the source was rewritten and its times put back.
        storage.discard(staged.ref, staged.path)
        return _from_another_copy(batch, connections, transfer, storage, token, way.SourceChangedError(expected))
    _note_staged(transfer, staged, sums)
    return True


def _note_staged(transfer: FileTransfer, staged: Staged, sums: way.Sums) -> None:
    transfer.staged_ref, transfer.staged_proof = staged.ref, staged.proof.value
    transfer.staged_published = staged.published
    transfer.source_checksum, transfer.source_sha256 = sums.xxh64, sums.sha256
    transfer.bytes_transferred = sums.size_bytes


def _from_another_copy(
    batch: Batch,
    connections: Connections,
    transfer: FileTransfer,
    storage: Storage,
    token: str,
    error: way.SourceChangedError | way.SourceError,
) -> bool:
    """The source no longer has this version. Copy it from a verified copy on another storage, where there is one."""
    version = transfer.version
    gone = isinstance(error, way.SourceError) and error.error.fault is Fault.NOT_FOUND
    if isinstance(error, way.SourceError) and not gone:
        raise error
    copies = FileTransfer.objects.stored().filter(version=version).exclude(storage_location=transfer.storage_location)
    for copy in copies.select_related("storage_location"):
        other = connections.storage(copy.storage_location)
        expected = Entry(copy.reserved_path, version.size_bytes, version.source_mtime)
        staged, sums = way.stage(
            other, expected, storage, transfer.reserved_path, f"{token}c", progress=batch.keep, source_is_live=False
        )
        if (sums.xxh64, sums.sha256) == (version.xxhash, version.sha256):
            _note_staged(transfer, staged, sums)
            return True
        storage.discard(staged.ref, staged.path)
        log.error("the copy of %s on %s is damaged", transfer.record.persistent_id, copy.storage_location)
    if gone:
        batch.vanish([transfer])
    elif isinstance(error, way.SourceChangedError):
        batch.settle_anew(transfer, error.entry)
    return False


def _taken(batch: Batch, transfer: FileTransfer) -> None:
    message = (
        f"“{transfer.destination_path}” holds another file, which StreamWeave did not put there. It is never replaced: "
        "move it away, then retry."
    )
    batch.fail([transfer], "destination", Fault.EXISTS.value, message, permanent=True, state=State.READY)


# ------------------------------------------------------------------------------------------------------------- verify


def verify(batch: Batch, connections: Connections, transfers: Transfers) -> None:
    """Carried → verified: read back through a fresh handle, equal to what was read from the source, then published."""
    for location, group in _by_storage(transfers):
        storage = _destination(batch, connections, location, group)
        if storage is None:
            continue
        staged = {transfer: transfer.staged for transfer in group}
        unpublished = [item for item in staged.values() if not item.published]
        batch.hold_for(30 + sum(item.size_bytes for item in unpublished) / 10_000_000)
        try:
            storage.make_durable(unpublished)
            _verified(batch, location, _publish_proven(batch, storage, staged))
        except StorageError as error:
            connections.forget_broken()
            batch.fail_by([t for t in group if t in batch.transfers], "destination", error)


def _expected(transfer: FileTransfer) -> way.Sums:
    """The sums of what was read from the source, as carry has written them down."""
    return way.Sums(
        transfer.staged.size_bytes, transfer.source_checksum or "unknown", transfer.source_sha256 or "unknown"
    )


def _publish_proven(batch: Batch, storage: Storage, staged: dict[FileTransfer, Staged]) -> list[FileTransfer]:
    """Prove, then publish; where the store can only be read under final names, publish, then prove. Returns those that
    are both. The others leave the batch."""
    proven, published = [], []
    for transfer, item in staged.items():
        if item.published:
            published.append(transfer)
        elif item.proof is Proof.READ_BACK_PUBLISHED or _prove(batch, storage, transfer, item):
            proven.append(transfer)
    for transfer, error in zip(proven, storage.publish([staged[transfer] for transfer in proven]), strict=True):
        if error is None:
            published.append(transfer)
        elif error.fault in (Fault.EXISTS, Fault.NOT_FOUND):
            # Published by an attempt that died before it could say so? Then the final name holds just our bytes.
            if way.holds(storage, transfer.reserved_path, _expected(transfer), batch.keep):
                storage.discard(staged[transfer].ref, staged[transfer].path)
                published.append(transfer)
            elif error.fault is Fault.EXISTS:
                storage.discard(staged[transfer].ref, staged[transfer].path)
                _taken(batch, transfer)
            else:
                _carry_again(batch, transfer, "The hidden copy was lost.")
        else:
            batch.fail_by([transfer], "destination", error)
    return [
        t for t in published if staged[t].proof is not Proof.READ_BACK_PUBLISHED or _prove_published(batch, storage, t)
    ]


def _prove(batch: Batch, storage: Storage, transfer: FileTransfer, staged: Staged) -> bool:
    try:
        way.prove(storage, staged, _expected(transfer), batch.keep)
    except way.UnequalError as error:
        storage.discard(staged.ref, staged.path)
        _carry_again(batch, transfer, f"{error}; it is copied again.")
        return False
    except StorageError as error:
        if error.fault is not Fault.NOT_FOUND:
            raise
        # Perhaps published already: publishing will tell.
    return True


def _prove_published(batch: Batch, storage: Storage, transfer: FileTransfer) -> bool:
    if way.holds(storage, transfer.reserved_path, _expected(transfer), batch.keep):
        return True
    # Ours by reservation, unverified, and never served.
    storage.discard(transfer.staged.ref, transfer.staged.path)
    _carry_again(batch, transfer, "The copy reads back differently from what was sent; it is copied again.")
    return False


def _carry_again(batch: Batch, transfer: FileTransfer, message: str) -> None:
    batch.fail([transfer], "destination", "unverified", message, state=State.READY)


def _verified(batch: Batch, location: StorageLocation, transfers: list[FileTransfer]) -> None:
    """Write down that these are verified, freeze their versions, and count them: all or nothing."""
    if not transfers:
        return
    now = timezone.now()
    for transfer in transfers:
        transfer.dest_checksum, transfer.checksum_verified = transfer.source_checksum, True
        transfer.verified_by, transfer.completed_at = transfer.staged_proof, now
        transfer.staged_ref = transfer.staged_proof = None
        transfer.error_phase = transfer.error_code = transfer.error_message = None
        transfer.attempts = 0
    with transaction.atomic():
        _freeze(transfers)
        batch.move(
            transfers,
            State.VERIFIED,
            *("dest_checksum", "checksum_verified", "verified_by", "completed_at", "staged_ref", "staged_proof"),
            *("error_phase", "error_code", "error_message", "attempts"),
        )
        batch.count(
            files_completed=len(transfers),
            bytes_transferred=sum(transfer.bytes_transferred or 0 for transfer in transfers),
        )


def _freeze(transfers: list[FileTransfer]) -> None:
    """Freeze the versions of which a first copy is verified, and mirror their sums on their records."""
    now = timezone.now()
    fresh = [transfer for transfer in transfers if transfer.version.frozen_at is None]
    for transfer in fresh:
        version, record = transfer.version, transfer.record
        version.xxhash, version.sha256 = record.xxhash, record.sha256 = transfer.source_checksum, transfer.source_sha256
        version.frozen_at = now
    versions = [transfer.version for transfer in fresh]
    FileVersion.objects.filter(frozen_at=None).bulk_update(versions, ["xxhash", "sha256", "frozen_at"])
    newest = [transfer.record for transfer in fresh if transfer.record.version_number == transfer.version.number]
    FileRecord.objects.bulk_update(newest, ["xxhash", "sha256"])


def _by_storage(transfers: Transfers) -> list[tuple[StorageLocation, list[FileTransfer]]]:
    groups: dict[StorageLocation, list[FileTransfer]] = {}
    for transfer in transfers:
        groups.setdefault(transfer.storage_location, []).append(transfer)
    return list(groups.items())


def _destination(
    batch: Batch, connections: Connections, location: StorageLocation, transfers: Transfers
) -> Storage | None:
    """The storage, connected; None, and the transfers failed, where it cannot be had."""
    try:
        if not location.enabled or location.deleted_at:
            raise StorageError(Fault.CONFIGURATION, f"The storage location “{location}” is disabled or deleted.")
        return connections.storage(location)
    except StorageError as error:
        batch.fail_by(transfers, "destination", error)
        return None
