"""The committed report, and the same procedure with simulated copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablations.measure.speed import LEAST_COPIES, half_width
from ablations.stats import CostContrast, CostVerdict, judge_costs
from tests.simulations import speed
from tests.simulations.speed import ALL, DIFFERENT, DIFFERS, IDENTICAL, KINDS, MARGIN, PRECISION

MOST = 12  # copies, if the precision is not reached
REPETITIONS = 100
# Noise of log times by copy and subject, the baseline first. One copy in ten is preempted.
NOISE = {
    "normal": lambda draws, size: draws.normal(0, 0.02, size),
    "heavy tails": lambda draws, size: 0.015 * draws.standard_t(3, size),
    "skewed": lambda draws, size: draws.exponential(0.03, size),
    "preempted": lambda draws, size: (
        draws.normal(0, 0.01, size) + (draws.random(size) < 0.1) * draws.exponential(0.3, size)
    ),
}


def tables() -> dict[tuple[str, str], dict[str, str]]:
    """The rows of the report by heading and kind of subjects."""
    text = Path(speed.__file__).with_suffix(".md").read_text(encoding="utf-8")
    found = {}
    for section in text.split("\n## ")[1:]:
        head, _, *rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
        for row in rows:
            found[section.splitlines()[0], row[0]] = dict(zip(head, row, strict=True))
    return found


def test_the_report_has_every_comparison() -> None:
    found = tables()
    headings = list(dict.fromkeys(heading for heading, _ in found))
    assert len(headings) == 2
    assert all((heading, kind) in found for heading in headings for kind in (*KINDS, ALL))
    counts = [int(found[heading, ALL]["comparisons"]) for heading in headings]
    assert counts == [IDENTICAL, DIFFERENT]


def test_under_load_false_alarms_are_rare_and_ten_percent_more_work_is_detected() -> None:
    identical, different = (row for (_, kind), row in tables().items() if kind == ALL)
    assert int(identical["false alarms"]) <= 0.05 * IDENTICAL
    assert int(different["detected"]) >= 0.9 * DIFFERENT


def judged(logs: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[CostContrast]:
    """Judges copies by subject, (n, 1 + k), with as many copies as a comparison needs for its precision."""
    ratios = logs - logs[:, :1]
    copies = LEAST_COPIES
    while copies < len(ratios) and max(half_width(own) for own in ratios[:copies].T) > PRECISION:
        copies += 1
    rows = [(str(name), copy, value) for (copy, name), value in np.ndenumerate(ratios[:copies])]
    values = pd.DataFrame(rows, columns=["variant", "copy", "log_ratio"])
    return judge_costs(values, {str(name): "0" for name in range(ratios.shape[1])}, MARGIN)


@pytest.mark.parametrize("noise", NOISE)
def test_false_alarms_are_rare_although_precision_ends_the_comparison(noise: str) -> None:
    draws = np.random.default_rng(19)
    wrong = sum(
        any(contrast.verdict in DIFFERS for contrast in judged(NOISE[noise](draws, (MOST, 6))))
        for _ in range(REPETITIONS)
    )
    assert wrong <= 0.05 * REPETITIONS


@pytest.mark.parametrize("noise", ["normal", "heavy tails", "skewed"])
def test_a_simulated_difference_of_ten_percent_is_detected_with_its_size(noise: str) -> None:
    draws = np.random.default_rng(19)
    planted = np.log([1, 1, 1.1, 1, 1, 1])
    contrasts = [judged(NOISE[noise](draws, (MOST, 6)) + planted)[1] for _ in range(REPETITIONS)]
    assert sum(contrast.verdict is CostVerdict.SLOWER for contrast in contrasts) >= 0.9 * REPETITIONS
    assert sum(contrast.low <= 1.1 <= contrast.high for contrast in contrasts) >= 0.91 * REPETITIONS
