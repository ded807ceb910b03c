"""What the rounds come to: medians decide, and nothing that was not measured counts as met."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.processes import Sample
from tests.bench.rounds import Outcome, Round, Spread, Target

FASTER = Target("times as fast as rclone copy", at_least=2)
CHECKED = Target("times as fast as rclone copy + check", at_least=3)
MEMORY = Target("peak memory", at_most=250, unit="MB")


def outcome(*ratios: float, targets: tuple[Target, ...] = (FASTER,), wanted: int | None = None) -> Outcome:
    rounds = [
        Round(
            {"harvest": Sample(1.0, {"worker": 0.8}, 100_000_000), "rclone copy": Sample(ratio, {"rclone": ratio})},
            {target.figure: ratio for target in targets},
            {"walk": ratio / 10},
        )
        for ratio in ratios
    ]
    return Outcome("large", "4 files", targets, wanted or len(ratios), rounds, measured_at="2026-03-01T12:00:00")


def test_the_median_decides_and_not_the_mean_nor_a_single_round() -> None:
    assert outcome(1.0, 1.5, 2.1, 2.2, 2.3).missed() == []
    assert outcome(1.0, 1.5, 1.9, 20.0, 30.0).missed() == [
        "large: times as fast as rclone copy is 1.90 ×, not at least 2 ×"
    ]


@pytest.mark.parametrize(("value", "met"), [(2.0, True), (1.999, False)])
def test_the_limit_itself_is_enough(value: float, met: bool) -> None:
    assert FASTER.met_by(value) is met


def test_a_greatest_value_is_missed_above_it() -> None:
    assert outcome(249.0, 250.0, 400.0, targets=(MEMORY,)).missed() == []
    assert outcome(249.0, 251.0, 252.0, targets=(MEMORY,)).missed() == [
        "large: peak memory is 251.00 MB, not at most 250 MB"
    ]


def test_every_target_of_a_row_is_looked_at() -> None:
    assert len(outcome(1.0, targets=(FASTER, CHECKED)).missed()) == 2
    assert len(outcome(2.5, targets=(FASTER, CHECKED)).missed()) == 1


def test_too_few_rounds_are_no_success() -> None:
    assert outcome(3.0, 3.0, wanted=5).missed() == ["large: 2 of 5 rounds"]


def test_a_row_that_failed_is_missed_whatever_its_first_rounds_were() -> None:
    failed = outcome(3.0, 3.0, wanted=5)
    failed.error = "rclone has left 3 files"
    assert failed.missed() == ["large: rclone has left 3 files"]
    nothing = outcome(wanted=5)
    assert nothing.missed() == ["large: 0 of 5 rounds"]


def test_a_figure_without_a_limit_is_reported_only() -> None:
    reported = outcome(0.1, targets=(Target("times as fast as cp"),))
    assert reported.missed() == []
    assert "reported only" in "\n".join(report.lines(reported))


def test_a_spread_shows_the_median_between_the_ends() -> None:
    assert f"{Spread.of([3, 1, 2.5]):.1f}" == "2.5 (1.0–3.0)"


def test_work_done_one_after_the_other_adds_up() -> None:
    both = Sample(1.0, {"rclone": 1.0, "smbd": 0.5}, 10) + Sample(2.0, {"rclone": 0.25, "smbd": 0.5}, 7)
    assert both == Sample(3.0, {"rclone": 1.25, "smbd": 1.0}, 10)


def test_kept_rounds_are_read_back_and_the_newest_of_each_row_counts(tmp_path: Path) -> None:
    old, new, other = outcome(1.0), outcome(3.0, 3.5), outcome(2.0)
    other.row = "small"
    for folder, each in (("2026-01-01T000000", old), ("2026-01-02T000000", new), ("2026-01-01T000000", other)):
        report.keep(each, tmp_path / folder)
    found = report.newest(tmp_path, ["small", "large", "never measured"])
    assert [(each.row, len(each.rounds)) for each in found] == [("small", 1), ("large", 2)]
    assert json.loads(json.dumps(found[1].as_json())) == json.loads(json.dumps(new.as_json()))


def test_the_table_names_the_peer_of_each_figure_and_marks_what_is_missed() -> None:
    both = outcome(2.5, targets=(FASTER, CHECKED))
    both.rounds[0].samples["rclone copy + check"] = Sample(7.0, {"rclone": 4.0})  # type: ignore[index]
    lines = report.markdown([both]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| met | 1.00 (1.00–1.00) | 2.50 (2.50–2.50) | worker 0.8 | rclone 2.5 | 100 | 2026-03-01 |" in lines[2]
    assert "| **missed** | 1.00 (1.00–1.00) | 7.00 (7.00–7.00) | worker 0.8 | rclone 4.0 |" in lines[3]


def test_the_table_is_put_between_its_markers_and_nowhere_else() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.put_between_markers(page, "new\n") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="bench: begin"):
        report.put_between_markers("no markers", "new\n")
