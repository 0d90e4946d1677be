from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ablations.ledger.declared import Expectation, Outcome
from ablations.ledger.rules import (
    ERRORS,
    concluded,
    detectable,
    joined,
    level,
    outcome_above,
    outcome_within,
    prediction,
    replicates_needed,
    share_of,
    spent,
)
from ablations.stats import Estimate, estimate

STUDIES = 1500
NOISE = 2.6 * math.sqrt(ERRORS * (1 - ERRORS) / STUDIES)  # 2.6 standard errors of a rate; exceeded once in 200

Decision = Callable[[NDArray[np.float64]], Outcome]
Draw = Callable[[np.random.Generator], NDArray[np.float64]]


def interval(low: float, high: float) -> Estimate:
    return Estimate(6, (low + high) / 2, low, high)


def shares(decide: Decision, draw: Draw) -> dict[Outcome, float]:
    """The relative frequency of each outcome in simulated studies."""
    draws = np.random.default_rng(5)
    outcomes = [decide(draw(draws)) for _ in range(STUDIES)]
    return {outcome: outcomes.count(outcome) / STUDIES for outcome in Outcome}


def more_than(bound: float, comparisons: int = 1) -> Decision:
    """Decides studies whose rows are the differences of one comparison each."""
    confidence = level(Expectation.HELPS, share_of(comparisons))
    return lambda rows: joined(outcome_above(estimate(row, confidence), bound) for row in np.atleast_2d(rows))


def same(margin: float, comparisons: int = 1) -> Decision:
    error = share_of(comparisons)
    narrow, wide = level(Expectation.EQUIVALENT, error), 1 - error
    return lambda rows: joined(
        outcome_within(estimate(row, narrow), estimate(row, wide), 0.0, margin) for row in np.atleast_2d(rows)
    )


def one_run(margin: float, comparisons: int = 1) -> Decision:
    """Decides studies whose first value is the published number."""
    error = share_of(comparisons)
    narrow, wide = level(Expectation.TOP1, error), 1 - error
    return lambda runs: outcome_within(prediction(runs[1:], narrow), prediction(runs[1:], wide), runs[0], margin)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.40, 1.40, Outcome.UNDECIDED),  # +0.90: above 0, but not above 1.34
        (1.2, 1.6, Outcome.UNDECIDED),
        (1.35, 1.6, Outcome.REPRODUCED),
        (1.34, 1.6, Outcome.UNDECIDED),
        (0.5, 1.33, Outcome.CONTRADICTED),
        (0.5, 1.34, Outcome.UNDECIDED),
        (-3.0, -1.0, Outcome.CONTRADICTED),
        (1.5, 1.5, Outcome.UNDECIDED),  # without spread there is no interval
        (math.nan, math.nan, Outcome.UNDECIDED),
    ],
)
def test_a_gain_is_reproduced_above_the_claimed_number_and_contradicted_below(
    low: float, high: float, outcome: Outcome
) -> None:
    assert outcome_above(interval(low, high), 1.34) is outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.08, 0.42, Outcome.UNDECIDED),  # +0.25: neither 0 nor more than 0.2
        (-0.19, 0.19, Outcome.REPRODUCED),
        (0.05, 0.15, Outcome.REPRODUCED),  # not 0, but equivalent
        (-0.2, 0.1, Outcome.UNDECIDED),
        (0.21, 0.42, Outcome.CONTRADICTED),
        (-0.42, -0.21, Outcome.CONTRADICTED),
        (-0.42, -0.1, Outcome.UNDECIDED),
        (-9.0, 9.0, Outcome.UNDECIDED),
        (0.0, 0.0, Outcome.UNDECIDED),
        (math.nan, math.nan, Outcome.UNDECIDED),
    ],
)
def test_equivalence_is_reproduced_within_the_margin_and_contradicted_beyond(
    low: float, high: float, outcome: Outcome
) -> None:
    assert outcome_within(interval(low, high), interval(low, high), 0.0, 0.2) is outcome
    moved = interval(low + 70, high + 70)
    assert outcome_within(moved, moved, 70.0, 0.2) is outcome or abs(abs(low) - 0.2) < 1e-9


def test_contradiction_of_equivalence_uses_the_wider_interval() -> None:
    assert outcome_within(interval(0.21, 0.4), interval(0.18, 0.43), 0.0, 0.2) is Outcome.UNDECIDED
    assert outcome_within(interval(-0.1, 0.1), interval(-0.3, 0.3), 0.0, 0.2) is Outcome.REPRODUCED


@pytest.mark.parametrize("comparisons", [1, 2, 9])
def test_comparisons_share_the_error_rate(comparisons: int) -> None:
    error = share_of(comparisons)
    assert error == pytest.approx(0.05 / comparisons)
    assert level(Expectation.HELPS, error) == pytest.approx(1 - 0.05 / comparisons)
    assert level(Expectation.EQUIVALENT, error) == pytest.approx(1 - 0.10 / comparisons)
    assert level(Expectation.TOP1, error) == level(Expectation.EQUIVALENT, error)
    assert share_of(comparisons, 0.5) == error / 2


# Error rates of claims at the boundary.


@pytest.mark.parametrize("comparisons", [1, 3])
@pytest.mark.parametrize("n", [3, 8])
def test_at_the_boundary_of_more_than_x_at_most_one_study_in_twenty_is_decided(comparisons: int, n: int) -> None:
    """Comparisons share their control, as variants of a study do."""

    def draw(draws: np.random.Generator) -> NDArray[np.float64]:
        return 1.34 + draws.normal(size=(comparisons, n)) - draws.normal(size=n)

    found = shares(more_than(1.34, comparisons), draw)
    assert found[Outcome.REPRODUCED] + found[Outcome.CONTRADICTED] + found[Outcome.DEPENDS] <= ERRORS + NOISE


@pytest.mark.parametrize("comparisons", [1, 3])
@pytest.mark.parametrize("margin", [0.01, 0.5, 2.0])
def test_networks_that_differ_by_the_margin_are_seldom_decided(comparisons: int, margin: float) -> None:
    found = shares(same(margin, comparisons), lambda draws: margin + draws.normal(size=(comparisons, 8)))
    assert found[Outcome.REPRODUCED] <= ERRORS + NOISE
    assert found[Outcome.CONTRADICTED] <= ERRORS + NOISE
    equal = shares(same(margin, comparisons), lambda draws: draws.normal(size=(comparisons, 8)))
    assert equal[Outcome.CONTRADICTED] <= ERRORS + NOISE


@pytest.mark.parametrize(("deviation", "n"), [(0.1, 4), (0.1, 12), (0.15, 12), (0.3, 6)])
def test_a_published_run_is_seldom_contradicted_by_equal_networks_or_reproduced_beyond_the_margin(
    deviation: float, n: int
) -> None:
    """With a margin of 0.3 points, which is 3, 2 or 1 standard deviations of a run."""

    def draw(worse: float) -> Draw:
        shift = np.r_[0.0, np.full(n, -worse)]  # the published run, then ours
        return lambda draws: 77.88 + deviation * draws.normal(size=n + 1) + shift

    assert shares(one_run(0.3), draw(0.0))[Outcome.CONTRADICTED] <= ERRORS + NOISE
    assert shares(one_run(0.3), draw(0.299))[Outcome.CONTRADICTED] <= ERRORS + NOISE
    assert shares(one_run(0.3), draw(0.301))[Outcome.REPRODUCED] <= ERRORS + NOISE
    assert shares(one_run(0.3), draw(max(0.3, 2 * deviation)))[Outcome.REPRODUCED] <= ERRORS + NOISE


@pytest.mark.parametrize(
    ("worse", "reproduced", "contradicted"), [(0.0, 0.71, 0.0), (0.2, 0.23, 0.0), (0.3, 0.05, 0.025), (1.0, 0.0, 1.0)]
)
def test_twelve_replicates_reproduce_a_published_run_as_often_as_documented(
    worse: float, reproduced: float, contradicted: float
) -> None:
    """With runs that vary by 0.1 points and a margin of 0.3."""
    found = shares(one_run(0.3), lambda draws: 77.88 + 0.1 * draws.normal(size=13) - np.r_[0.0, np.full(12, worse)])
    assert found[Outcome.REPRODUCED] == pytest.approx(reproduced, abs=0.04)
    assert found[Outcome.CONTRADICTED] == pytest.approx(contradicted, abs=0.04)


def test_outcomes_seldom_depend_on_the_scale_unless_the_truth_does() -> None:
    truth = shares(more_than(0.5, 4), lambda draws: 0.5 + draws.normal(size=(4, 8)))
    assert truth[Outcome.DEPENDS] <= ERRORS
    apart = shares(more_than(0.0, 2), lambda draws: np.array([[2.0], [-2.0]]) + draws.normal(size=(2, 12)))
    assert apart[Outcome.DEPENDS] > 0.9


# Interim analyses.


@given(
    sizes=st.lists(st.integers(2, 200), min_size=1, max_size=8, unique=True).map(sorted), between=st.integers(1, 400)
)
def test_all_stopping_points_of_a_study_together_spend_the_error_rate(sizes: list[int], between: int) -> None:
    """A study stops at one of its analyses, or is between two of them."""
    reached = [size for size in sizes if size < between]
    ends = [*reached, between]
    total = sum(spent(sizes, end) for end in ends) - (spent(sizes, between) if between > sizes[-1] else 0.0)
    assert 0 < total <= 1 + 1e-9
    assert sum(spent(sizes, size) for size in sizes) == pytest.approx(1)


def test_stopping_at_the_first_decisive_interval_keeps_the_error_rate() -> None:
    sizes = (6, 9, 12, 16)

    def decide(differences: NDArray[np.float64]) -> Outcome:
        for size in sizes:
            confidence = level(Expectation.HELPS, share_of(1, spent(sizes, size)))
            outcome = outcome_above(estimate(differences[:size], confidence), 0.0)
            if outcome.is_settled:
                return outcome
        return Outcome.UNDECIDED

    found = shares(decide, lambda draws: draws.normal(size=sizes[-1]))
    assert found[Outcome.REPRODUCED] + found[Outcome.CONTRADICTED] <= ERRORS + NOISE


# Number of replicates.


@given(
    distance=st.floats(0.01, 5),
    deviation=st.floats(0.01, 3),
    confidence=st.floats(0.8, 0.999),
    of_one_run=st.booleans(),
)
def test_one_replicate_fewer_than_needed_is_not_enough(
    distance: float, deviation: float, confidence: float, of_one_run: bool
) -> None:
    needed = replicates_needed(distance, deviation, confidence, of_one_run=of_one_run)

    def half(n: int) -> float:
        values = np.resize([1.0, -1.0], n)
        values *= deviation / values.std(ddof=1)
        seen = (prediction if of_one_run else estimate)(values, confidence)
        return (seen.high - seen.low) / 2

    if needed is None:
        assert half(100_000) >= distance * (1 - 1e-9)
        return
    assert half(needed) < distance * (1 + 1e-9)
    assert needed == 2 or half(needed - 1) >= distance * (1 - 1e-9)


def test_no_number_of_replicates_reproduces_a_published_run_within_a_margin_below_the_spread_of_runs() -> None:
    assert replicates_needed(1.6, 1.0, 0.9, of_one_run=True) is None
    assert replicates_needed(1.7, 1.0, 0.9, of_one_run=True) is not None
    assert replicates_needed(0.0, 1.0, 0.9) is None


@pytest.mark.parametrize("n", [2, 5, 10])
@pytest.mark.parametrize("of_one_run", [False, True])
def test_an_interval_excludes_a_bound_at_the_minimum_detectable_effect_with_80_percent_power(
    n: int, of_one_run: bool
) -> None:
    """The published number of one run varies like the runs themselves."""
    effect, draws = detectable(2.0, n, 0.95, of_one_run=of_one_run), np.random.default_rng(n)
    runs, published = draws.normal(0, 2, size=(STUDIES, n)), draws.normal(0, 2, size=STUDIES) * of_one_run
    intervals = [(prediction if of_one_run else estimate)(study, 0.95) for study in runs]
    excluded = [not one.low <= number + effect <= one.high for one, number in zip(intervals, published, strict=True)]
    assert abs(np.mean(excluded) - 0.8) <= 2.6 * math.sqrt(0.8 * 0.2 / STUDIES)


def test_the_prediction_interval_has_its_nominal_coverage() -> None:
    draws = np.random.default_rng(2)
    runs = draws.normal(size=(STUDIES, 6))
    inside = [seen.low <= run[0] <= seen.high for run in runs if (seen := prediction(run[1:], 0.9))]
    assert np.mean(inside) == pytest.approx(0.9, abs=2.6 * math.sqrt(0.09 / STUDIES))


# Combined outcomes.


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], Outcome.NOT_RUN),
        ([Outcome.UNDECIDED], Outcome.UNDECIDED),
        ([Outcome.UNDECIDED, Outcome.REPRODUCED], Outcome.REPRODUCED),
        ([Outcome.CONTRADICTED, Outcome.UNDECIDED], Outcome.CONTRADICTED),
        ([Outcome.CONTRADICTED, Outcome.UNDECIDED, Outcome.REPRODUCED], Outcome.DEPENDS),
    ],
)
def test_opposite_decisions_depend_on_the_scale_in_any_order(outcomes: Sequence[Outcome], expected: Outcome) -> None:
    assert {joined(order) for order in itertools.permutations(outcomes)} == {expected}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([[], []], Outcome.NOT_RUN),
        ([[Outcome.REPRODUCED], [Outcome.REPRODUCED, Outcome.UNDECIDED]], Outcome.REPRODUCED),
        ([[Outcome.REPRODUCED], []], Outcome.UNDECIDED),
        ([[Outcome.REPRODUCED], [Outcome.UNDECIDED]], Outcome.UNDECIDED),
        ([[Outcome.REPRODUCED], [Outcome.CONTRADICTED]], Outcome.CONTRADICTED),
        ([[Outcome.CONTRADICTED], []], Outcome.CONTRADICTED),
        ([[Outcome.REPRODUCED, Outcome.CONTRADICTED], []], Outcome.DEPENDS),
    ],
)
def test_a_claim_needs_all_its_parts_and_is_contradicted_by_one(
    parts: Sequence[Sequence[Outcome]], expected: Outcome
) -> None:
    assert concluded(dict(enumerate(parts))) is expected
