"""Carried → verified: a batch read back, proven, published, and written down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from harvest import copies, enriching
from harvest import transfer as way
from harvest.batch import Batch
from harvest.connections import Connections
from harvest.models import FileRecord, FileTransfer, FileVersion, State
from harvest.storage.base import Fault, Proof, Staged, Storage, StorageError
from hooks import engine
from streamweave.lib import bulk

Item = tuple[FileTransfer, Staged]


def verify(batch: Batch, connections: Connections, transfers: Sequence[FileTransfer]) -> None:
    """Carried → verified: read back through a fresh handle, equal to what was read from the source, then published.

    Where no hook is asked after the transfer, verified files are available at once.
    """
    for location, group in copies.by_storage(transfers):
        storage = copies.destination(batch, connections, location, group)
        if storage is None:
            continue
        items = [(transfer, transfer.staged) for transfer in group]
        unpublished = [staged for _, staged in items if not staged.published]
        batch.hold_for(copies.durable_seconds(group))
        try:
            storage.make_durable(unpublished)
            published = _published(batch, storage, items)
        except StorageError as error:
            connections.forget_broken()
            batch.fail_by([transfer for transfer in group if transfer in batch], "destination", error)
            continue
        _write_down(batch, storage, published)


def _published(batch: Batch, storage: Storage, items: Sequence[Item]) -> list[FileTransfer]:
    """Prove, then publish; where the store can only be read under final names, publish, then prove. Returns those that
    are both. The others leave the batch. Raises StorageError where the whole storage is concerned."""
    hidden = [item for item in items if not item[1].published]
    there = [item for item in items if item[1].published]
    _drop_unequal(batch, storage, [item for item in hidden if item[1].proof is Proof.READ_BACK])
    going = [item for item in hidden if item[0] in batch]
    alone: list[tuple[FileTransfer, StorageError]] = []
    for (transfer, staged), error in zip(going, storage.publish([staged for _, staged in going]), strict=True):
        if error is None:
            there.append((transfer, staged))
        else:
            alone.append((transfer, error))
    there += [(one, one.staged) for one, error in alone if _was_published(batch, storage, one, error)]
    _drop_unequal_published(batch, storage, [item for item in there if item[1].proof is Proof.READ_BACK_PUBLISHED])
    return [transfer for transfer, _ in there if transfer in batch]


def _echoes(batch: Batch, storage: Storage, items: Sequence[Item]) -> Iterator[tuple[Item, bool | StorageError]]:
    """Each with whether it reads back as what was sent, or why it cannot be read."""
    with closing(storage.read_back_many([staged for _, staged in items])) as readings:
        for item, reading in zip(items, readings, strict=True):
            try:
                yield item, way.echoes(reading.chunks(), _expected(item[0]), batch.keep)
            except StorageError as error:
                if error.whole_storage:
                    raise
                yield item, error


def _drop_unequal(batch: Batch, storage: Storage, items: Sequence[Item]) -> None:
    """Let those go whose hidden bytes are not what was sent. What is gone may have been published by an attempt that
    died: publishing will tell."""
    damaged: list[Item] = []
    unreadable: list[tuple[FileTransfer, StorageError]] = []
    for item, found in _echoes(batch, storage, items):
        if found is False:
            damaged.append(item)
        elif isinstance(found, StorageError) and found.fault is not Fault.NOT_FOUND:
            unreadable.append((item[0], found))
    for _, staged in damaged:
        storage.discard(staged.ref, staged.path)
    message = "The copy reads back differently from what was sent; it is copied again."
    copies.carry_again(batch, [transfer for transfer, _ in damaged], message)
    batch.fail_by_each(unreadable, "destination")


def _was_published(batch: Batch, storage: Storage, transfer: FileTransfer, error: StorageError) -> bool:
    """Publishing failed: because an attempt that died had done it before it could say so? Then the final name holds
    just our bytes."""
    staged = transfer.staged
    try:
        if error.fault not in (Fault.EXISTS, Fault.NOT_FOUND):
            raise error
        ours = way.holds(storage, staged.path, _expected(transfer), batch.keep)
        storage.discard(staged.ref, "" if ours else staged.path)
    except StorageError as failure:
        if failure.whole_storage:
            raise
        batch.fail_by_each([(transfer, failure)], "destination")
        return False
    if not ours and error.fault is Fault.EXISTS:
        copies.refuse_taken(batch, transfer)
    elif not ours:
        copies.carry_again(batch, [transfer], "The hidden copy was lost; it is copied again.")
    return ours


def _drop_unequal_published(batch: Batch, storage: Storage, items: Sequence[Item]) -> None:
    """Let those go whose final names do not hold what was sent. Bytes of others that were adopted are compared by
    SHA-256 as well, one by one."""
    adopted = [item for item in items if not item[1].ref]
    doubtful = [
        item for item, found in _echoes(batch, storage, [item for item in items if item[1].ref]) if found is not True
    ]
    for transfer, staged in [*adopted, *doubtful]:
        try:
            if way.holds(storage, staged.path, _expected(transfer), batch.keep):
                continue
            own = copies.remove_own(batch, storage, transfer)
        except StorageError as error:
            if error.whole_storage:
                raise
            batch.fail_by_each([(transfer, error)], "destination")
            continue
        if own:
            message = "The copy reads back differently from what was sent; it is copied again."
            copies.carry_again(batch, [transfer], message)
        else:
            copies.refuse_taken(batch, transfer)


def _expected(transfer: FileTransfer) -> way.Sums:
    """The sums of what was read from the source, as carry has written them down."""
    return way.Sums(
        transfer.bytes_transferred or 0, transfer.source_checksum or "unknown", transfer.source_sha256 or "unknown"
    )


# -------------------------------------------------------------------------------------------------------- writing down

_PROVEN = ("dest_checksum", "checksum_verified", "verified_by", "completed_at", "staged_ref", "staged_proof")


def _write_down(batch: Batch, storage: Storage, transfers: list[FileTransfer]) -> None:
    """These are verified: freeze their versions, and count them, all or nothing. What the hooks after the transfer
    have to say goes with it, where they can say it at once."""
    if not transfers:
        return
    now = timezone.now()
    hooks = enriching.hooks_after(batch)
    prompt = engine.are_prompt(hooks)
    unknown = [transfer for transfer in transfers if transfer.version.enriched_at is None] if prompt else []
    failures = enriching.find(batch, hooks, unknown, None)
    with transaction.atomic():
        fresh, other = _freeze(transfers)
        verified = [transfer for transfer in transfers if transfer.pk not in other]
        for transfer in verified:
            transfer.dest_checksum, transfer.checksum_verified = transfer.source_checksum, True
            transfer.verified_by, transfer.completed_at = transfer.staged_proof, now
            transfer.staged_ref = transfer.staged_proof = None
            transfer.error_phase = transfer.error_code = transfer.error_message = None
            transfer.attempts = 0
        batch.step(verified, State.VERIFIED, *_PROVEN, "error_phase", "error_code", "error_message", "attempts")
        if prompt and not other:
            enriching.write_found([transfer for transfer in unknown if transfer.pk not in fresh])
            batch.fail_each(failures, "hook")
            enriched = [transfer for transfer in verified if transfer in batch]
            batch.step(enriched, State.ENRICHED)
            enriching.make_available(batch, hooks, enriched)
        else:
            batch.write()
        batch.count(
            files_completed=len(verified),
            bytes_transferred=sum(transfer.bytes_transferred or 0 for transfer in verified),
        )
    for transfer in transfers:
        if transfer.pk in other:
            batch.confirm()
            storage.delete(transfer.reserved_path)
            message = "Another storage got other bytes of this version first; it is copied again."
            copies.carry_again(batch, [transfer], message)


def _freeze(transfers: list[FileTransfer]) -> tuple[set[UUID], set[UUID]]:
    """Freeze the versions of which a first copy is verified, as they were when they were carried, and mirror that on
    their records, with what hooks have found out about them. Returns the keys of the transfers of these, and of those
    whose bytes are not the ones of their version, because another storage was first with other bytes."""
    now = timezone.now()
    versions = FileVersion.objects.filter(pk__in=[transfer.version_id for transfer in transfers])
    locked = versions.select_for_update().order_by("pk")
    facts = locked.values_list("pk", "frozen_at", "xxhash", "sha256", "size_bytes", "source_mtime")
    rows = {pk: rest for pk, *rest in facts}
    fresh: list[FileTransfer] = []
    moved_on: list[FileTransfer] = []
    other: set[UUID] = set()
    for transfer in transfers:
        version, record = transfer.version, transfer.record
        frozen_at, xxhash, sha256, *seen = rows[transfer.version_id]
        found = [transfer.source_checksum, transfer.source_sha256]
        if frozen_at is not None:
            if [xxhash, sha256] != found:
                other.add(transfer.pk)
            continue
        version.xxhash, version.sha256 = record.xxhash, record.sha256 = found
        version.frozen_at = now
        fresh.append(transfer)
        if seen != [version.size_bytes, version.source_mtime]:  # a walk has seen it change since
            record.size_bytes, record.source_mtime = version.size_bytes, version.source_mtime
            moved_on.append(transfer)
    bulk.write(
        [transfer.version for transfer in fresh], ["xxhash", "sha256", "frozen_at", "enriched_at", "proposed_grants"]
    )
    sums = ["xxhash", "sha256"]
    bulk.write(_newest(transfer for transfer in fresh if not transfer.record.metadata), sums)
    described = [transfer for transfer in fresh if transfer.record.metadata]
    bulk.write(_newest(described), [*sums, "metadata"])
    older = [transfer for transfer in described if transfer.record.version_number != transfer.version.number]
    bulk.write([transfer.record for transfer in older], ["metadata"])
    told = ["size_bytes", "source_mtime"]
    bulk.write([transfer.version for transfer in moved_on], [*told, "source_file_id", "source_created_at"])
    bulk.write(_newest(moved_on), told)
    return {transfer.pk for transfer in fresh}, other


def _newest(transfers: Iterable[FileTransfer]) -> list[FileRecord]:
    """The records of those of `transfers` that bring their newest version."""
    return [transfer.record for transfer in transfers if transfer.record.version_number == transfer.version.number]
