"""How a run gets on: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time

from django.core.management.base import OutputWrapper

from harvest.models import HarvestRun
from streamweave.lib.logs import one_line

BAR_CELLS = 24
LINE_SECONDS = 10


class Progress:
    """Call it with the run whenever it may have got on, and `end` it when it has ended."""

    def __init__(self, out: OutputWrapper, *, terminal: bool) -> None:
        self.out = out
        self.terminal = terminal
        self._next_line_at = time.monotonic() + LINE_SECONDS
        self._dirty = False

    def __call__(self, run: HarvestRun) -> None:
        if self.terminal:
            self._dirty = True
            self._write(f"\r\033[K{line(_counted(run))}")
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + LINE_SECONDS
            self._write(f"{line(_counted(run))}\n")

    def end(self) -> None:
        """Leave the bar's line."""
        if self._dirty:
            self._dirty = False
            self._write("\n")

    def _write(self, text: str) -> None:
        self.out.write(text, ending="")
        self.out.flush()


def line(run: HarvestRun) -> str:
    """The run's progress in one line: how many of the files taken on have come to an end."""
    done = run.files_completed + run.files_skipped + run.files_failed
    share = done / run.files_discovered if run.files_discovered else float(run.walked_at is not None)
    full = round(min(share, 1) * BAR_CELLS)
    bar = "█" * full + "░" * (BAR_CELLS - full)
    name = one_line(f"{run.instrument} → {run.storage_location}")
    failed = f", {run.files_failed:,} failed" if run.files_failed else ""
    mebibytes = run.bytes_transferred / 1024**2
    return f"{name}  {bar}  {done:,} of {run.files_discovered:,} files, {mebibytes:,.1f} MiB{failed}"


def _counted(run: HarvestRun) -> HarvestRun:
    """The run as it is counted in the database by now."""
    return HarvestRun.objects.select_related("instrument", "storage_location").get(pk=run.pk)
