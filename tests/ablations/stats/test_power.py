"""Of power, what does not need simulated studies; `test_simulations.py` has how often differences are found."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ablations.stats import detectable, fewest_pairs, power, replicates_for, spread
from tests.builders.frames import against_nothing, frame

EFFECTS = st.floats(0.05, 3)
CONTRASTS = st.integers(1, 8)


@pytest.mark.parametrize("contrasts", [1, 2, 4, 8])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_replicates_that_can_decide_nothing_have_no_power(n: int, contrasts: int) -> None:
    assert power(100.0, 1.0, n, contrasts) == 0
    assert detectable(1.0, n, contrasts) is None


@pytest.mark.parametrize("contrasts", [1, 2, 4, 8])
def test_the_first_replicates_that_can_decide_find_what_is_large(contrasts: int) -> None:
    n = fewest_pairs(contrasts)
    assert power(100.0, 1.0, n - 1, contrasts) == 0
    assert power(100.0, 1.0, n, contrasts) == 1
    assert detectable(1.0, n - 1, contrasts) is None
    assert detectable(1.0, n, contrasts) is not None


@settings(max_examples=60)
@given(EFFECTS, st.floats(0.1, 5), st.integers(6, 40), CONTRASTS)
def test_power_is_of_the_difference_in_standard_deviations_whatever_its_sign(
    effect: float, sd: float, n: int, contrasts: int
) -> None:
    made = power(effect * sd, sd, n, contrasts)
    assert 0 <= made <= 1
    assert made == power(-effect * sd, sd, n, contrasts)
    assert made == pytest.approx(power(effect, 1.0, n, contrasts), abs=1e-3)


@settings(max_examples=60)
@given(EFFECTS, st.integers(6, 40), CONTRASTS)
def test_power_grows_with_the_difference_and_with_replicates_and_shrinks_with_contrasts(
    effect: float, n: int, contrasts: int
) -> None:
    made = power(effect, 1.0, n, contrasts)
    noise = 0.03  # of what is simulated, which is drawn anew for each number of replicates
    assert power(1.1 * effect, 1.0, n, contrasts) >= made - 0.01
    assert power(effect, 1.0, n, contrasts + 1) <= made + 0.01
    assert power(effect, 1.0, n, contrasts, share=0.5) <= made + 0.01
    assert power(effect, 1.0, n + 2, contrasts) >= made - noise


@pytest.mark.parametrize("n", [12, 13, 20, 100])
@pytest.mark.parametrize("level", [1.0, 0.4])
def test_power_for_nothing_is_the_level(n: int, level: float) -> None:
    assert power(0.0, 1.0, n, share=level) == pytest.approx(0.05 * level, abs=0.012)


@pytest.mark.parametrize(("effect", "contrasts"), [(0.8, 1), (1.1, 4)])
def test_what_is_simulated_and_the_formula_meet(effect: float, contrasts: int) -> None:
    before, after = (power(effect, 1.0, n, contrasts) for n in (12, 13))
    assert -0.01 < after - before < 0.09


def test_beyond_what_is_simulated_power_is_students() -> None:
    n, effect, level = 30, 0.6, 0.05 / 4
    critical = scipy_stats.t.ppf(1 - level / 2, n - 1)
    shifted = scipy_stats.nct(n - 1, effect * math.sqrt(n))
    assert power(effect, 1.0, n, 4) == pytest.approx(shifted.sf(critical) + shifted.cdf(-critical), abs=1e-6)


def test_the_largest_studies_have_a_power_too() -> None:
    assert power(1.0, 1.0, 100_000) == 1
    assert power(0.01, 1.0, 100_000) == pytest.approx(0.885, abs=0.01)


def test_power_at_a_low_level_does_not_jump_to_1() -> None:
    # By numeric integration, 73 % of the time at 1.475 standard deviations.
    made = [power(effect, 1.0, 13, contrasts=20, share=0.25) for effect in (1.4, 1.475, 1.55)]
    assert made == sorted(made)
    assert made[-1] < 0.9


@pytest.mark.parametrize("contrasts", [1, 4])
@pytest.mark.parametrize("n", [8, 12, 13, 24, 60])
def test_what_is_detectable_has_a_power_of_80_percent(n: int, contrasts: int) -> None:
    effect = detectable(0.7, n, contrasts)
    assert effect is not None
    assert power(effect, 0.7, n, contrasts) == pytest.approx(0.8, abs=0.01)
    assert power(effect * 0.95, 0.7, n, contrasts) < 0.8


def test_looks_make_what_is_detectable_larger() -> None:
    with_looks, without = detectable(1.0, 24, 4, share=0.5), detectable(1.0, 24, 4)
    assert with_looks is not None
    assert without is not None
    assert with_looks > 1.05 * without


@settings(max_examples=40)
@given(st.floats(0.2, 2.5), CONTRASTS)
def test_replicates_are_the_fewest_that_find_a_difference(effect: float, contrasts: int) -> None:
    n = replicates_for(effect, 1.0, contrasts)
    assert n is not None
    assert power(effect, 1.0, n, contrasts) >= 0.8
    assert n == fewest_pairs(contrasts) or power(effect, 1.0, n - 1, contrasts) < 0.8


def test_without_a_spread_the_fewest_replicates_that_can_decide_find_anything() -> None:
    assert replicates_for(0.1, 0.0, 4) == fewest_pairs(4)
    assert replicates_for(50.0, 1.0, 4) == fewest_pairs(4)


def test_a_difference_that_100000_replicates_do_not_find_needs_too_many() -> None:
    assert power(0.001, 1.0, 100_000) < 0.8
    assert replicates_for(0.001, 1.0) is None


def test_a_difference_that_100000_replicates_find_needs_no_more() -> None:
    assert power(1.0, 95.0, 90_000, 2) > 0.8
    assert replicates_for(1.0, 95.0, 2) is not None


@pytest.mark.parametrize("effect", [0.0, -0.5, math.nan])
def test_a_difference_to_find_is_more_than_0(effect: float) -> None:
    with pytest.raises(ValueError, match=r"effect=.*must be more than 0"):
        replicates_for(effect, 1.0)


def test_the_spread_pools_contrasts_by_how_many_replicates_they_have() -> None:
    cells = frame({"none": [50.0, 52.0, 51.0, 49.0], "a": [51.0, 53.5, 52.0, 50.5], "b": [50.0, 53.0]})
    first, second = np.var([1.0, 1.5, 1.0, 1.5], ddof=1), np.var([0.0, 1.0], ddof=1)
    made = spread(cells, against_nothing("a", "b"))
    assert made is not None
    assert made.value == pytest.approx(math.sqrt((3 * first + second) / 4))
    assert made.low < made.value < made.high
    assert (made.n, made.contrasts) == (4, 2)


def test_the_spread_of_one_contrast_has_the_interval_of_a_variance() -> None:
    values = [0.3, -0.4, 0.9, 0.1, -0.2]
    made = spread(frame({"none": [70.0] * 5, "a": [70 + value for value in values]}), against_nothing("a"))
    assert made is not None
    squares = 4 * np.var(values, ddof=1)
    low, high = (math.sqrt(squares / scipy_stats.chi2.ppf(tail, 4)) for tail in (0.975, 0.025))
    assert (made.low, made.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    "cells",
    [
        frame({}),
        frame({"none": [50.0, 51.0]}),
        frame({"none": [50.0], "a": [51.0]}),
        frame({"none": {0: 50.0, 1: 51.0}, "a": {1: 51.0, 2: 52.0}}),
    ],
    ids=["nothing", "baseline", "one pair", "one pair of more"],
)
def test_without_two_pairs_there_is_no_spread(cells: pd.DataFrame) -> None:
    assert spread(cells, against_nothing("a")) is None
