"""The two stages that make a copy: carry brings the bytes over, hidden; verify proves and publishes them.

`transfer` moves and proves single files; here it is decided what becomes of each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from django.db import transaction
from django.utils import timezone

from harvest import destinations
from harvest import transfer as way
from harvest.batch import Batch
from harvest.connections import Connections
from harvest.models import FileTransfer, FileVersion, State, StorageLocation
from harvest.storage.base import Entry, Fault, Proof, Staged, Storage, StorageError
from streamweave.lib import bulk

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
        pacer(passed_bytes, batch.keep)
        batch.keep()

    expected = Entry(
        transfer.record.source_path,
        version.size_bytes,
        version.source_mtime,
        version.source_file_id,
        version.source_created_at,
    )
    try:
        done = _stage(batch, transfer, storage, connections.source(), expected, progress=progress)
    except (way.SourceChangedError, way.SourceError) as error:
        return _from_another_copy(batch, connections, transfer, storage, error)
    if done is None:
        return False
    staged, sums = done
    if version.frozen_at is not None and not _is_of(version, sums):
        # Same size and time, other bytes: the source was rewritten and its times put back.
        way.discard(storage, staged, batch.confirm)
        return _from_another_copy(batch, connections, transfer, storage, way.SourceChangedError(expected))
    _note_staged(transfer, staged, sums)
    return True


def _stage(
    batch: Batch,
    transfer: FileTransfer,
    storage: Storage,
    source: Storage,
    expected: Entry,
    *,
    progress: way.Progress,
    source_is_live: bool = True,
) -> tuple[Staged, way.Sums] | None:
    """Stage the file, or adopt what has its name at the destination if it is equal. None where it left the batch."""
    path = transfer.reserved_path
    token = f"{transfer.pk.hex}-{transfer.carry_attempts}" + ("" if source_is_live else "c")
    try:
        return way.stage(
            source,
            expected,
            storage,
            path,
            token,
            progress=progress,
            confirm=batch.confirm,
            source_is_live=source_is_live,
        )
    except way.TakenError as error:
        if way.holds(storage, path, error.sums, batch.keep):
            return Staged("", path, error.sums.size_bytes, Proof.READ_BACK_PUBLISHED, published=True), error.sums
    if _remove_own(batch, storage, transfer):
        _carry_again(batch, transfer, "An earlier attempt had left other bytes under its name; they were removed.")
    else:
        _taken(batch, transfer)
    return None


def _is_of(version: FileVersion, sums: way.Sums) -> bool:
    return (sums.xxh64, sums.sha256) == (version.xxhash, version.sha256)


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
    error: way.SourceChangedError | way.SourceError,
) -> bool:
    """The source no longer has this version. Copy it from a verified copy on another storage, where there is one."""
    version = transfer.version
    gone = isinstance(error, way.SourceError) and error.error.fault is Fault.NOT_FOUND
    if isinstance(error, way.SourceError) and not gone:
        raise error
    copies = FileTransfer.objects.stored().filter(version=version).exclude(storage_location=transfer.storage_location)
    unreachable: tuple[StorageLocation, StorageError] | None = None
    for copy in copies.select_related("storage_location"):
        expected = Entry(copy.reserved_path, version.size_bytes, version.source_mtime)
        try:
            other = connections.storage(copy.storage_location)
        except StorageError as trouble:
            unreachable = copy.storage_location, trouble
            continue
        try:
            done = _stage(batch, transfer, storage, other, expected, progress=batch.keep, source_is_live=False)
        except way.SourceError as trouble:
            log.error("the copy of %s on %s: %s", transfer.record.persistent_id, copy.storage_location, trouble)
            unreachable = copy.storage_location, trouble.error
            continue
        if done is None:
            return False
        if _is_of(version, done[1]):
            _note_staged(transfer, *done)
            return True
        way.discard(storage, done[0], batch.confirm)
        log.error("the copy of %s on %s is damaged", transfer.record.persistent_id, copy.storage_location)
    if unreachable:
        location, cause = unreachable
        message = (
            f"The instrument has it no more. A verified copy is on “{location}”, which cannot be read now: {cause}"
        )
        batch.fail([transfer], "source", cause.fault.value, message)
    elif gone:
        batch.vanish([transfer])
    elif isinstance(error, way.SourceChangedError):
        batch.settle_anew(transfer, error.entry)
    return False


def _remove_own(batch: Batch, storage: Storage, transfer: FileTransfer) -> bool:
    """Remove what has the file's name at the destination, if an attempt of this very transfer put it there, which has
    never been verified or served. Whether it did."""
    token = storage.token_of(transfer.reserved_path)
    if token is None or not token.startswith(f"{transfer.pk.hex}-"):
        return False
    batch.confirm()
    storage.delete(transfer.reserved_path)
    return True


def _taken(batch: Batch, transfer: FileTransfer) -> None:
    message = (
        f"“{transfer.destination_path}” holds another file, which StreamWeave did not put there. It is never replaced: "
        "move it away, then retry."
    )
    batch.fail([transfer], "destination", Fault.EXISTS.value, message, permanent=True, state=State.READY)


def _carry_again(batch: Batch, transfer: FileTransfer, message: str) -> None:
    batch.fail([transfer], "destination", "unverified", message, state=State.READY)


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
            _verified(batch, storage, _publish_proven(batch, storage, staged))
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
    proven = [
        transfer
        for transfer, item in staged.items()
        if not item.published
        and (item.proof is Proof.READ_BACK_PUBLISHED or _each(batch, transfer, _proves, storage, item))
    ]
    published = [transfer for transfer, item in staged.items() if item.published]
    for transfer, error in zip(proven, storage.publish([staged[transfer] for transfer in proven]), strict=True):
        if error is None or _each(batch, transfer, _was_published, storage, staged[transfer], error):
            published.append(transfer)
    return [
        transfer
        for transfer in published
        if staged[transfer].proof is not Proof.READ_BACK_PUBLISHED
        or _each(batch, transfer, _proves_published, storage, staged[transfer])
    ]


def _each(batch: Batch, transfer: FileTransfer, step: Callable[..., bool], *args: object) -> bool:
    """One step for one file: a fault that concerns this file only fails it alone."""
    try:
        return step(batch, transfer, *args)
    except StorageError as error:
        if error.whole_storage:
            raise
        batch.fail_by([transfer], "destination", error)
        return False


def _proves(batch: Batch, transfer: FileTransfer, storage: Storage, staged: Staged) -> bool:
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


def _was_published(batch: Batch, transfer: FileTransfer, storage: Storage, staged: Staged, error: StorageError) -> bool:
    """Publishing failed: because an attempt that died had done it before it could say so? Then the final name holds
    just our bytes."""
    if error.fault not in (Fault.EXISTS, Fault.NOT_FOUND):
        raise error
    ours = way.holds(storage, transfer.reserved_path, _expected(transfer), batch.keep)
    storage.discard(staged.ref, "" if ours else staged.path)
    if not ours and error.fault is Fault.EXISTS:
        _taken(batch, transfer)
    elif not ours:
        _carry_again(batch, transfer, "The hidden copy was lost; it is copied again.")
    return ours


def _proves_published(batch: Batch, transfer: FileTransfer, storage: Storage, staged: Staged) -> bool:
    if way.holds(storage, staged.path, _expected(transfer), batch.keep):
        return True
    if _remove_own(batch, storage, transfer):
        _carry_again(batch, transfer, "The copy reads back differently from what was sent; it is copied again.")
    else:
        _taken(batch, transfer)
    return False


def _verified(batch: Batch, storage: Storage, transfers: list[FileTransfer]) -> None:
    """Write down that these are verified, freeze their versions, and count them: all or nothing."""
    if not transfers:
        return
    with transaction.atomic():
        frozen, other = _freeze(transfers)
        now = timezone.now()
        for transfer in frozen:
            transfer.dest_checksum, transfer.checksum_verified = transfer.source_checksum, True
            transfer.verified_by, transfer.completed_at = transfer.staged_proof, now
            transfer.staged_ref = transfer.staged_proof = None
            transfer.error_phase = transfer.error_code = transfer.error_message = None
            transfer.attempts = 0
        batch.move(
            frozen,
            State.VERIFIED,
            *("dest_checksum", "checksum_verified", "verified_by", "completed_at", "staged_ref", "staged_proof"),
            *("error_phase", "error_code", "error_message", "attempts"),
        )
        batch.count(
            files_completed=len(frozen),
            bytes_transferred=sum(transfer.bytes_transferred or 0 for transfer in frozen),
        )
    for transfer in other:
        batch.confirm()
        storage.delete(transfer.reserved_path)
        _carry_again(batch, transfer, "Another storage got other bytes of this version first; it is copied again.")


def _freeze(transfers: list[FileTransfer]) -> tuple[list[FileTransfer], list[FileTransfer]]:
    """Freeze the versions of which a first copy is verified, as they were when they were carried, and mirror that on
    their records. Returns the transfers whose bytes are those of their version, and those whose are not, because
    another storage was first with other bytes."""
    now = timezone.now()
    locked = FileVersion.objects.select_for_update().filter(pk__in=[transfer.version_id for transfer in transfers])
    rows = {row.pk: row for row in locked}
    frozen = {pk: [row.xxhash, row.sha256] for pk, row in rows.items() if row.frozen_at is not None}
    fresh = [transfer for transfer in transfers if transfer.version_id not in frozen]
    for transfer in fresh:
        version, record = transfer.version, transfer.record
        version.xxhash, version.sha256 = record.xxhash, record.sha256 = transfer.source_checksum, transfer.source_sha256
        version.frozen_at = now
    _update_versions(fresh, ["xxhash", "sha256", "frozen_at"], ["xxhash", "sha256"])
    moved_on = [
        t
        for t in fresh
        if rows[t.version_id].source_mtime != t.version.source_mtime
        or rows[t.version_id].size_bytes != t.version.size_bytes
    ]
    for transfer in moved_on:
        transfer.record.size_bytes, transfer.record.source_mtime = (
            transfer.version.size_bytes,
            transfer.version.source_mtime,
        )
    seen = ["size_bytes", "source_mtime"]
    _update_versions(moved_on, [*seen, "source_file_id", "source_created_at"], seen)
    other = [
        transfer
        for transfer in transfers
        if frozen.get(transfer.version_id, [transfer.source_checksum, transfer.source_sha256])
        != [transfer.source_checksum, transfer.source_sha256]
    ]
    return [transfer for transfer in transfers if transfer not in other], other


def _update_versions(transfers: list[FileTransfer], fields: list[str], mirrored: list[str]) -> None:
    """Write `fields` of the versions of `transfers`, and `mirrored` of the records whose newest version that is."""
    bulk.write([transfer.version for transfer in transfers], fields)
    newest = [transfer.record for transfer in transfers if transfer.record.version_number == transfer.version.number]
    bulk.write(newest, mirrored)


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
