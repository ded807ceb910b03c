"""What a hook is told about a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file as the harvest knows it.

    `id` is the asker's own key, by which answers are matched to questions; it means nothing here. `path` is relative
    to the instrument's folder, with "/" between its components. `modified_at` is aware UTC. `metadata` is what is
    known so far. `read_head(n)` gives the first n bytes of the verified copy and raises what reading raises; it is
    None where there is no copy to read, as before the transfer.
    """

    id: UUID
    path: str
    filename: str
    size_bytes: int
    modified_at: datetime
    instrument_id: UUID
    instrument_name: str
    ark: str
    owner_id: UUID | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    read_head: Callable[[int], bytes] | None = None
