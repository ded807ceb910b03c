"""What came of a run, for people: tables of text, and what went wrong, grouped by its cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, QuerySet

from harvest.models import ENDS, UNFINISHED, HarvestRun
from streamweave.lib.logs import one_line

MAX_CAUSES = 20
"""How many causes of one kind are told apart; the most frequent come first."""

RUN_HEADS = (
    *("instrument", "storage", "discovered", "completed", "skipped", "failed", "waiting"),
    *("bytes", "seconds"),
)


def text_table(rows: Sequence[Sequence[str]], *, left: int) -> str:
    """`rows`, the heads first, as lines of equal width: `left` columns aligned to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def seconds_of(run: HarvestRun) -> str:
    """How long the run took, or a dash."""
    return f"{(run.ended_at - run.started_at).total_seconds():.1f}" if run.ended_at and run.started_at else "–"


def runs_table(runs: Iterable[HarvestRun]) -> str:
    """The runs as a table of text."""
    rows: list[Sequence[str]] = [RUN_HEADS]
    for run in runs:
        counted = (
            run.files_discovered,
            run.files_completed,
            run.files_skipped,
            run.files_failed,
            run.files_waiting,
            run.bytes_transferred,
        )
        names = (one_line(str(run.instrument)), one_line(str(run.storage_location)))
        rows.append((*names, *(f"{number:,}" for number in counted), seconds_of(run)))
    return text_table(rows, left=2)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why some files of a run, or the run itself (no files), have not come to the end as hoped: how many files, and
    one of them as an example."""

    kind: str
    files: int
    what: str
    message: str
    path: str

    def __str__(self) -> str:
        files = {0: "the run", 1: "1 file"}.get(self.files, f"{self.files:,} files")
        what = f" ({self.what})" if self.what else ""
        example = f" [{'' if self.files == 1 else 'e.g. '}{self.path}]" if self.path else ""
        return f"{files} {self.kind}{what}: {self.message}{example}"


def problems(run: HarvestRun) -> list[Cause]:
    """What went wrong in a run, the most frequent first in each kind. A few queries, however many files."""
    causes = (
        [Cause("failed" if run.ended_at else "failed so far", 0, run.error_code or "", run.error_message, "")]
        if run.error_message
        else []
    )
    wrong = run.transfers.filter(error_code__isnull=False).order_by()
    given_up, again = wrong.filter(given_up=True), wrong.filter(given_up=False, state__in=UNFINISHED)
    causes += _grouped("failed", given_up, "error_phase", "error_code")
    causes += _grouped("failed so far and tried again", again, "error_phase", "error_code")
    for row in run.errors.order_by().values("code").annotate(files=Count("pk")).order_by("-files")[:MAX_CAUSES]:
        example = run.errors.filter(code=row["code"]).first()
        if example is not None:
            causes.append(Cause("could not be read", row["files"], row["code"], example.message, example.path))
    return causes


def other_ends(run: HarvestRun) -> list[Cause]:
    """Why files wait or were left out, the most frequent reasons first."""
    waiting = run.transfers.waiting().order_by()
    left_out = run.transfers.filter(state__in=ENDS).order_by()
    return [
        *_grouped("waiting", waiting, "waiting_reason", message="waiting_reason"),
        *_grouped("left out", left_out, "state", "reason", message="reason"),
    ]


def _grouped(kind: str, transfers: QuerySet[Any], *by: str, message: str = "error_message") -> list[Cause]:
    causes = []
    for row in transfers.values(*by).annotate(files=Count("pk")).order_by("-files", *by)[:MAX_CAUSES]:
        files = row.pop("files")
        example = transfers.filter(**row).select_related("record").order_by("created_at").first()
        if example is None:  # it has gone on meanwhile
            continue
        what = ", ".join(str(row[field]) for field in by if field != message and row[field])
        text = one_line(getattr(example, message) or "no reason was given")
        causes.append(Cause(kind, files, what, text, one_line(example.record.source_path)))
    return causes
