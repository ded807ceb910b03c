"""Rounds and what they come to: medians, spread, targets met or missed. Nothing here measures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.processes import Sample


@dataclass(frozen=True)
class Target:
    """What the median of a figure has to be. Without a limit the figure is only reported."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "×"

    def met_by(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def wanted(self) -> str:
        limits = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        limits += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return f"{' and '.join(limits)} {self.unit}".strip() if limits else "reported only"

    def verdict(self, value: float) -> str:
        if self.at_least is None and self.at_most is None:
            return ""
        return "met" if self.met_by(value) else "MISSED"


@dataclass(frozen=True)
class Round:
    """One turn of everybody: the `samples` of who took part, and the `figures` that targets are about.

    Figures are computed within a round, so that what slows the machine for a while slows both sides of a ratio.
    """

    samples: Mapping[str, Sample]
    figures: Mapping[str, float]
    notes: Mapping[str, float] = field(default_factory=dict)
    """The seconds of the harvest's phases."""


@dataclass(frozen=True)
class Spread:
    """The median of some values, with the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        known = list(values)
        return cls(statistics.median(known), min(known), max(known))

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.least:{form}}–{self.greatest:{form}})"


@dataclass
class Outcome:
    """The rounds of one row of the table, or what kept it from having them."""

    row: str
    work: str
    targets: Sequence[Target]
    wanted_rounds: int
    rounds: list[Round] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    error: str | None = None
    measured_at: str = ""

    def figure(self, name: str) -> Spread:
        return Spread.of(each.figures[name] for each in self.rounds)

    def participants(self) -> list[str]:
        return list(self.rounds[0].samples) if self.rounds else []

    def seconds(self, who: str) -> Spread:
        return Spread.of(each.samples[who].seconds for each in self.rounds)

    def cpu_seconds(self, who: str) -> dict[str, float]:
        """The median of the CPU seconds of each process that worked for `who`."""
        names = self.rounds[0].samples[who].cpu_seconds
        return {
            name: statistics.median(each.samples[who].cpu_seconds.get(name, 0.0) for each in self.rounds)
            for name in names
        }

    def phases(self) -> dict[str, float]:
        """The median of each of the harvest's phases, in seconds."""
        return {
            phase: statistics.median(each.notes[phase] for each in self.rounds)
            for phase in (self.rounds[0].notes if self.rounds else ())
        }

    def peak_bytes(self, who: str) -> int:
        return max(each.samples[who].peak_bytes for each in self.rounds)

    def missed(self) -> list[str]:
        """Each target that the medians miss, in words; what went wrong, where there are too few rounds."""
        wrong = [f"{self.row}: {self.error}"] if self.error else []
        if not self.error and len(self.rounds) < self.wanted_rounds:
            wrong.append(f"{self.row}: {len(self.rounds)} of {self.wanted_rounds} rounds")
        for target in self.targets if self.rounds else ():
            median = self.figure(target.figure).median
            if not target.met_by(median):
                wrong.append(f"{self.row}: {target.figure} is {median:.2f} {target.unit}, not {target.wanted}")
        return wrong

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Outcome:
        rounds = [
            Round({who: Sample(**sample) for who, sample in each["samples"].items()}, each["figures"], each["notes"])
            for each in told.pop("rounds")
        ]
        return cls(**{**told, "targets": [Target(**target) for target in told["targets"]]}, rounds=rounds)
