"""What hooks are told of a file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from harvest.connections import Connections
from harvest.models import FileTransfer, Instrument
from hooks.facts import FileFacts


def facts_of(transfer: FileTransfer, instrument: Instrument, connections: Connections | None = None) -> FileFacts:
    """The facts of one file; with `connections`, also its first bytes, read from its verified copy when asked for."""
    record, version = transfer.record, transfer.version
    return FileFacts(
        id=version.pk,
        path=record.source_path,
        filename=record.filename,
        size_bytes=version.size_bytes,
        modified_at=version.source_mtime,
        instrument_id=instrument.pk,
        instrument_name=instrument.name,
        ark=record.persistent_id,
        owner_id=record.owner_id,
        metadata=record.metadata,
        read_head=_head_reader(transfer, connections) if connections else None,
    )


def _head_reader(transfer: FileTransfer, connections: Connections) -> Callable[[int], bytes]:
    def read_head(size_bytes: int) -> bytes:
        storage = connections.storage(transfer.storage_location)
        head = bytearray()
        with closing(storage.read(transfer.reserved_path)) as chunks:
            for chunk in chunks:
                head += chunk
                if len(head) >= size_bytes:
                    break
        return bytes(head[:size_bytes])

    return read_head
