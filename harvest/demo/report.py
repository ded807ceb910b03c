"""What came of the demonstration's harvests, checked against the shares and the storages themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import xxhash

from harvest.models import STORED, FileTransfer, HarvestRun, State
from harvest.reports import seconds_of, text_table
from harvest.storage.base import CHUNK_BYTES, Storage, StorageError


@dataclass
class Outcome:
    """One run beside the truth: how many files of the share have a verified copy, and which should and have not."""

    run: HarvestRun
    files: int = 0
    verified: int = 0
    wrong: list[str] = field(default_factory=list)


def outcome_of(run: HarvestRun, shares: Path) -> Outcome:
    """Read every file of the run's share and its copy on the run's storage, and compare."""
    outcome = Outcome(run)
    share = shares / run.instrument.cifs_share
    transfers = {
        transfer.record.source_path: transfer
        for transfer in FileTransfer.objects.filter(
            record__instrument=run.instrument_id, record__is_current=True, scheduled_storage=run.storage_location_id
        )
        .select_related("record", "storage_location")
        .order_by("version__number")
    }
    try:
        with run.storage_location.open() as storage:
            for path in sorted(path for path in share.rglob("*") if path.is_file()):
                name = path.relative_to(share).as_posix()
                transfer = transfers.get(name)
                if transfer is not None and transfer.state == State.SKIPPED:
                    continue
                outcome.files += 1
                if reason := _why_not_verified(path, transfer, storage):
                    outcome.wrong.append(f"{name}: {reason}")
                else:
                    outcome.verified += 1
    except StorageError as error:
        outcome.wrong.append(str(error))
    return outcome


def _why_not_verified(path: Path, transfer: FileTransfer | None, storage: Storage) -> str | None:
    """What is wrong with the copy of the file at `path`, None if nothing is. Raises StorageError where the whole
    storage is concerned."""
    if transfer is None:
        return "not discovered"
    if transfer.state not in STORED or transfer.stored_path is None:
        reason = transfer.error_message or transfer.waiting_reason or transfer.reason or ""
        return f"{transfer.state}, {reason}"
    try:
        copy = _xxh64(storage.read(transfer.stored_path))
    except StorageError as error:
        if error.whole_storage:
            raise
        return str(error)
    with path.open("rb") as file:
        original = _xxh64(iter(partial(file.read, CHUNK_BYTES), b""))
    return None if copy == original == transfer.dest_checksum else "the copy differs from the file on the share"


def _xxh64(chunks: Iterable[bytes]) -> str:
    digest = xxhash.xxh64()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def incomplete(outcome: Outcome) -> list[str]:
    """What is missing, a line each; the run's own error first."""
    run = outcome.run
    lines = [f"{run.instrument} → {run.storage_location}: {line}" for line in outcome.wrong]
    if run.error_message:
        lines.insert(0, f"{run.instrument} → {run.storage_location}: {run.error_message}")
    if run.ended_at is None:
        lines.insert(0, f"{run.instrument} → {run.storage_location}: not ended in time")
    return lines


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as a table of text."""
    heads = (
        *("instrument", "storage", "discovered", "completed", "skipped", "failed"),
        *("bytes", "verified", "seconds"),
    )
    rows: list[tuple[str, ...]] = [heads]
    for outcome in outcomes:
        run = outcome.run
        counted = (
            run.files_discovered,
            run.files_completed,
            run.files_skipped,
            run.files_failed,
            run.bytes_transferred,
        )
        verified = f"{outcome.verified} of {outcome.files}"
        rows.append(
            (str(run.instrument), str(run.storage_location), *(f"{n:,}" for n in counted), verified, seconds_of(run))
        )
    return text_table(rows, left=2)
