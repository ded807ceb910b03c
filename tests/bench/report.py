"""What is said of the rounds: on the terminal, as JSON for later, as the table of docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.bench.rounds import Outcome

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
_MB = 1_000_000
_COLUMNS = (
    *("work", "figure", "wanted", "median (least–greatest)", "verdict", "harvest, s", "peer, s"),
    *("CPU s, harvest", "CPU s, peer", "peak of a worker, MB", "measured"),
)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what it is for


def lines(outcome: Outcome) -> list[str]:
    """A row with its participants and targets, for the terminal."""
    told = [f"{outcome.row}: {outcome.work}; rounds: {len(outcome.rounds)}", *(f"  {text}" for text in outcome.remarks)]
    for who in outcome.participants():
        cpu = ", ".join(f"{name} {seconds:.2f}" for name, seconds in outcome.cpu_seconds(who).items())
        seconds = format(outcome.seconds(who), ".2f")
        told.append(f"  {who:<32}{seconds:>22} s   CPU s: {cpu};   peak {outcome.peak_bytes(who) / _MB:.0f} MB")
    if phases := outcome.phases():
        told.append(f"  phases of the harvest: {', '.join(f'{name} {value:.2f} s' for name, value in phases.items())}")
    for target in outcome.targets if outcome.rounds else ():
        spread = outcome.figure(target.figure)
        limit = ", ".join(filter(None, (target.wanted, target.verdict(spread.median))))
        told.append(f"  {target.figure:<52}{spread:.2f} {target.unit}   {limit}")
    if outcome.error:
        told.append(f"  FAILED: {outcome.error}")
    return told


def markdown(outcomes: Iterable[Outcome]) -> str:
    """The table: a line for each target of each row."""
    told = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for outcome in outcomes:
        for target in outcome.targets if outcome.rounds else ():
            spread = outcome.figure(target.figure)
            verdict = target.verdict(spread.median).replace("MISSED", "**missed**")
            harvest, *peers = outcome.participants()
            peer = max((name for name in peers if name in target.figure), key=len, default=None)
            cells = [
                f"{outcome.work} (`{outcome.row}`)",
                target.figure,
                target.wanted,
                f"{spread:.2f} {target.unit}",
                verdict,
                f"{outcome.seconds(harvest):.2f}",
                f"{outcome.seconds(peer):.2f}" if peer else "–",
                _cpu(outcome, harvest),
                _cpu(outcome, peer) if peer else "–",
                f"{outcome.peak_bytes(harvest) / _MB:.0f}",
                outcome.measured_at[:10],
            ]
            told.append(f"| {' | '.join(cells)} |")
    return "\n".join(told) + "\n"


def _cpu(outcome: Outcome, who: str) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in outcome.cpu_seconds(who).items())


def keep(outcome: Outcome, folder: Path) -> None:
    """Write the raw rounds, those of a row that is not finished as well."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{outcome.row}.json").write_text(json.dumps(outcome.as_json(), indent=1, default=str) + "\n")


def newest(folder: Path, order: Sequence[str]) -> list[Outcome]:
    """Of each row the rounds that were kept last, below `folder`, in the given order."""
    found: dict[str, Outcome] = {}
    for path in sorted(folder.glob("*/*.json")):  # a folder is named by its time
        found[path.stem] = Outcome.from_json(json.loads(path.read_text()))
    return [found[row] for row in order if row in found]


def put_between_markers(text: str, table: str) -> str:
    """`text` with what is between the two markers replaced. Raises ValueError where it has not both."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The file has no {BEGIN} followed by {END}, between which the table belongs.")
    return f"{before}{BEGIN}\n{table}{END}{after}"
