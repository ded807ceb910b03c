"""Files as hooks are told of them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from hooks.facts import FileFacts

INSTRUMENT_ID = uuid.UUID("1b1ef370-7eaa-416f-852e-7724248cce5b")


def a_file(path: str = "20260115_glucose_1H/fid", **changes: Any) -> FileFacts:
    facts: dict[str, Any] = {
        "id": uuid.uuid4(),
        "path": path,
        "filename": path.rpartition("/")[2],
        "size_bytes": 16384,
        "modified_at": datetime(2026, 1, 15, 9, 30, tzinfo=UTC),
        "instrument_id": INSTRUMENT_ID,
        "instrument_name": "Bruker AVANCE III 600 MHz NMR",
        "ark": "ark:/99999/fk43n3kd35",
        **changes,
    }
    return FileFacts(**facts)


def with_content(path: str, content: bytes, **changes: Any) -> FileFacts:
    """A file whose first bytes can be read; each reading is noted in the list `readings` of the result's reader."""

    def read_head(size_bytes: int) -> bytes:
        readings.append(size_bytes)
        return content[:size_bytes]

    readings: list[int] = []
    read_head.readings = readings  # type: ignore[attr-defined]
    return a_file(path, **{"size_bytes": len(content), "read_head": read_head, **changes})
