"""The committed report matches the code, and error rates and power in it are as documented."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.simulations import verdicts
from tests.simulations.studies import KINDS
from tests.simulations.verdicts import CONTRASTS, FEWER, REPLICATES, STUDIES

WRONG, SAME, ALARMS, INTERIM, POWER, EARLY, FAILED = (
    "Family-wise error",
    "False equivalence",
    "False instability",
    "Interim analyses",
    "Power for one effect",
    "Estimates of effects",
    "Failures",
)


@cache
def tables() -> dict[str, dict[tuple[str, str], str]]:
    """Returns the cells of each section's table by row and column."""
    text = Path(verdicts.__file__).with_suffix(".md").read_text(encoding="utf-8")
    found = {}
    for section in text.split("\n## ")[1:]:
        lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
        head, _, *rows = lines
        title = next(name for name in (WRONG, SAME, ALARMS, INTERIM, POWER, EARLY, FAILED) if section.startswith(name))
        # Rows are identified by the first column, or by the first two.
        keys = 2 if title == FAILED else 1
        found[title] = {
            (", ".join(row[:keys]), column): cell
            for row in rows
            for column, cell in zip(head[keys:], row[keys:], strict=True)
        }
    return found


def setting(replicates: int, contrasts: int) -> str:
    """Returns the column of a setting."""
    return f"k = {contrasts}, n = {replicates}"


def allowed(percent: float, studies: int) -> float:
    """Returns a percentage plus two and a half Monte Carlo standard errors."""
    return percent + 2.5 * math.sqrt(percent * (100 - percent) / studies)


def test_the_report_has_every_setting() -> None:
    settings = {(kind, setting(n, k)) for kind in KINDS for n in REPLICATES for k in CONTRASTS}
    for title in (WRONG, SAME, ALARMS):
        assert tables()[title].keys() == settings
    assert tables()[INTERIM].keys() == {(kind, f"k = {k}") for kind in KINDS for k in CONTRASTS}
    assert tables().keys() == {WRONG, SAME, ALARMS, INTERIM, POWER, EARLY, FAILED}


@pytest.mark.parametrize(
    ("title", "count", "kind", "replicates", "contrasts"),
    [
        (WRONG, verdicts.false_differences, "normal", 3, 1),
        (WRONG, verdicts.false_differences, "tied", 6, 4),
        (SAME, verdicts.false_equivalents, "skewed", 5, 1),
        (ALARMS, verdicts.false_alarms, "bounded", 3, 1),
    ],
)
def test_the_report_matches_the_code(
    title: str, count: Callable[[str, int, int], str], kind: str, replicates: int, contrasts: int
) -> None:
    assert tables()[title][kind, setting(replicates, contrasts)] == count(kind, replicates, contrasts)


def test_the_power_in_the_report_matches_the_code() -> None:
    simulated, predicted = verdicts.found_effects(6, 1.5)
    assert tables()[POWER]["6, 1.5", "simulated"] == simulated
    assert tables()[POWER]["6, 1.5", "predicted"] == predicted


def test_the_failures_in_the_report_match_the_code() -> None:
    n, sd, *numbers = verdicts.failures(5, 0.74)
    in_report = [cell for (row, _), cell in tables()[FAILED].items() if row == f"{n}, {sd}"]
    assert in_report == numbers


@pytest.mark.parametrize("title", [WRONG, SAME])
def test_at_most_6_percent_of_studies_make_a_false_claim(title: str) -> None:
    above = {at: cell for at, cell in tables()[title].items() if float(cell) > allowed(6, STUDIES)}
    assert above == {}


def test_interim_analyses_do_not_inflate_the_error_rate() -> None:
    limit = allowed(6, FEWER)
    above = {at: cell for at, cell in tables()[INTERIM].items() if max(map(float, cell.split(" / "))) > limit}
    assert above == {}


def test_at_most_5_percent_of_light_tailed_studies_have_a_false_instability() -> None:
    light = {at: float(cell) for at, cell in tables()[ALARMS].items() if at[0] in {"normal", "tied", "bounded"}}
    assert {at: cell for at, cell in light.items() if cell > allowed(5, STUDIES)} == {}


def test_predicted_power_is_within_5_points_of_simulated_power() -> None:
    power = tables()[POWER]
    for row in {row for row, _ in power}:
        assert float(power[row, "predicted"]) == pytest.approx(float(power[row, "simulated"]), abs=0.05), row


def test_the_adjusted_estimate_of_rare_early_decisions_is_not_optimistic() -> None:
    early = tables()[EARLY]
    for row in {row for row, _ in early}:
        mean, adjusted = (float(early[row, f"bias of the {name}"]) for name in ("mean", "adjusted mean"))
        assert adjusted < mean, row
        if float(early[row, "decided early"]) < 0.5:
            assert abs(adjusted) < abs(mean) / 2, row
        assert abs(float(early[row, "median bias of the adjusted mean"])) <= 0.2, row


@pytest.mark.parametrize("sd", ["0.5", "0.74"])
def test_failures_are_detected_in_4_of_5_studies_of_12_replicates(sd: str) -> None:
    failed = tables()[FAILED]
    assert float(failed[f"12, {sd}", "detected %"]) >= 80
    # Detection prevents almost all false claims of equivalence.
    assert float(failed[f"12, {sd}", "called equivalent despite a failure %"]) <= 2
