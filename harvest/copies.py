"""What the two stages that make a copy have in common; see `carrying` and `verifying`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harvest.batch import Batch
from harvest.connections import Connections
from harvest.models import FileTransfer, State, StorageLocation
from harvest.storage.base import Fault, Storage, StorageError


def by_storage(transfers: Sequence[FileTransfer]) -> list[tuple[StorageLocation, list[FileTransfer]]]:
    """`transfers` by where they go, in their order."""
    groups: dict[StorageLocation, list[FileTransfer]] = {}
    for transfer in transfers:
        groups.setdefault(transfer.storage_location, []).append(transfer)
    return list(groups.items())


def destination(
    batch: Batch, connections: Connections, location: StorageLocation, transfers: Sequence[FileTransfer]
) -> Storage | None:
    """The storage, connected; None, and `transfers` failed, where it cannot be had."""
    try:
        if not location.enabled or location.deleted_at:
            raise StorageError(Fault.CONFIGURATION, f"The storage location “{location}” is disabled or deleted.")
        return connections.storage(location)
    except StorageError as error:
        batch.fail_by(transfers, "destination", error)
        return None


def durable_seconds(transfers: Iterable[FileTransfer]) -> float:
    """How long it may take to make the bytes of `transfers` durable, during which nothing is reported."""
    return 10 + sum(transfer.bytes_transferred or 0 for transfer in transfers) / 10_000_000


def remove_own(batch: Batch, storage: Storage, transfer: FileTransfer) -> bool:
    """Remove what has the file's name at the destination, if an attempt of this very transfer put it there, which has
    never been verified or served. Whether it did."""
    token = storage.token_of(transfer.reserved_path)
    if token is None or not token.startswith(f"{transfer.pk.hex}-"):
        return False
    batch.confirm()
    storage.delete(transfer.reserved_path)
    return True


def refuse_taken(batch: Batch, transfer: FileTransfer) -> None:
    """Give the file up: something else has its name."""
    message = (
        f"“{transfer.destination_path}” holds another file, which StreamWeave did not put there. It is never replaced: "
        "move it away, then retry."
    )
    batch.fail([transfer], "destination", Fault.EXISTS.value, message, permanent=True, state=State.READY)


def carry_again(batch: Batch, transfers: Sequence[FileTransfer], message: str) -> None:
    """Send the files back to be carried anew."""
    batch.fail(transfers, "destination", "unverified", message, state=State.READY)
