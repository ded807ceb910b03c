"""The sample files on the demonstration lab's shares: small, generated, and shaped like what the instruments write.

Every file comes out the same each time. The formats are real as far as a header or a text goes; the signals are made of
a few cosines and Gaussian peaks.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harvest.demo.samples import hplc, ms, nmr, tem

_SHARES = {"nmr": nmr.files, "hplc": hplc.files, "ms": ms.files, "tem": tem.files}


def write_samples(shares_dir: Path) -> None:
    """Write the files of the four shares to `shares_dir`/{nmr,hplc,ms,tem}.

    A file that is there already is left as it is, whatever is in it. Each is dated to when its instrument would have
    written it, early in 2026.
    """
    for share, files in _SHARES.items():
        for path, content in files():
            _write_once(Path(shares_dir) / share / path, content, _written_at(path))


def _write_once(target: Path, content: bytes, written_at: datetime) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    unfinished.write_bytes(content)
    os.utime(unfinished, (written_at.timestamp(), written_at.timestamp()))
    unfinished.replace(target)


def _written_at(path: str) -> datetime:
    """The day is the path's first component that begins with one; the minute differs from file to file."""
    day = next(part[:8] for part in path.split("/") if part[:8].isdigit())
    return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) + timedelta(hours=9, minutes=sum(path.encode()) % 480)
