"""Properties of power without simulated studies; `test_simulations.py` compares it with simulated detection rates."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ablations.stats import (
    InterimAnalyses,
    baseline_shares,
    detectable,
    power,
    reachable_margin,
    replicates_for,
    replicates_for_margin,
    spreads,
)
from tests.builders.frames import against_nothing, frame

EFFECTS = st.floats(0.3, 3)
CONTRASTS = st.sampled_from([1, 2, 4])
REPLICATES = st.sampled_from([2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 20, 40])


@pytest.mark.parametrize("contrasts", [1, 4, 9])
def test_fewer_than_2_replicates_have_no_power(contrasts: int) -> None:
    for n in (0, 1):
        assert power(100.0, 1.0, n, contrasts) == 0
        assert detectable(1.0, n, contrasts) is None
        assert reachable_margin(1.0, n, contrasts) is None


@pytest.mark.parametrize("contrasts", [1, 4, 9])
@pytest.mark.parametrize("n", [3, 5, 6, 12])
def test_from_3_replicates_on_large_differences_are_detected(n: int, contrasts: int) -> None:
    assert power(60.0, 1.0, n, contrasts) > 0.99
    assert detectable(1.0, n, contrasts) is not None


def test_power_is_0_if_an_interim_analysis_cannot_decide() -> None:
    assert power(100.0, 1.0, 5, 1, level=0.02) == 0  # interim analyses start where sign flips can decide
    assert power(100.0, 1.0, 6, 1, level=0.02) == 0
    assert detectable(1.0, 6, 1, level=0.02) is None
    assert power(100.0, 1.0, 7, 1, level=0.02) == 1


@settings(max_examples=60, deadline=None)
@given(EFFECTS, st.floats(0.1, 5), REPLICATES, CONTRASTS)
def test_power_depends_on_the_absolute_difference_in_standard_deviations(
    effect: float, sd: float, n: int, contrasts: int
) -> None:
    probability = power(effect * sd, sd, n, contrasts)
    assert 0 <= probability <= 1
    assert probability == power(-effect * sd, sd, n, contrasts)
    assert probability == pytest.approx(power(effect, 1.0, n, contrasts), abs=2e-3)


@settings(max_examples=30, deadline=None)
@given(EFFECTS, REPLICATES, CONTRASTS)
def test_power_increases_with_the_difference_and_decreases_with_contrasts(
    effect: float, n: int, contrasts: int
) -> None:
    probability = power(effect, 1.0, n, contrasts)
    noise = 0.04  # of the simulation, which has other draws for each number of contrasts
    assert power(1.1 * effect, 1.0, n, contrasts) >= probability - 0.01
    if n >= 6:  # below, more contrasts give a more precise variance
        assert power(effect, 1.0, n, 2 * contrasts) <= probability + noise
        assert power(effect, 1.0, n + 2, contrasts) >= probability - noise


@pytest.mark.parametrize("contrasts", [1, 4])
@pytest.mark.parametrize("n", [3, 5, 12, 13, 100])
def test_power_without_a_difference_is_at_most_5_percent(n: int, contrasts: int) -> None:
    # Two standard errors of 1,500 simulated studies are one point.
    probability = power(0.0, 1.0, n, contrasts)
    assert probability <= 0.05 + 0.012
    assert probability >= (0.035 if contrasts == 1 else 0.005)


@pytest.mark.parametrize(("effect", "contrasts"), [(0.8, 1), (1.1, 4)])
def test_simulated_power_and_the_formula_agree(effect: float, contrasts: int) -> None:
    before, after = (power(effect, 1.0, n, contrasts) for n in (12, 13))
    assert -0.01 < after - before < 0.09


def test_beyond_the_simulated_range_the_power_of_one_contrast_is_students() -> None:
    n, effect = 30, 0.6
    critical = scipy_stats.t.ppf(1 - 0.05 / 2, n - 1)
    shifted = scipy_stats.nct(n - 1, effect * math.sqrt(n))
    assert power(effect, 1.0, n) == pytest.approx(shifted.sf(critical) + shifted.cdf(-critical), abs=1e-6)


def test_correlated_contrasts_lose_less_power_than_with_bonferronis_inequality() -> None:
    n, effect = 30, 0.6
    critical = scipy_stats.t.ppf(1 - 0.05 / 8 / 2, n - 1)
    bonferroni = scipy_stats.nct(n - 1, effect * math.sqrt(n)).sf(critical)
    assert bonferroni + 0.005 < power(effect, 1.0, n, 8) < power(effect, 1.0, n, 4) < power(effect, 1.0, n)


def test_the_largest_studies_have_power() -> None:
    assert power(1.0, 1.0, 100_000) == 1
    assert power(0.01, 1.0, 100_000) == pytest.approx(0.885, abs=0.01)


@pytest.mark.parametrize("contrasts", [1, 4])
@pytest.mark.parametrize("n", [3, 5, 6, 8, 12, 13, 24, 60])
def test_the_detectable_difference_has_a_power_of_80_percent(n: int, contrasts: int) -> None:
    effect = detectable(0.7, n, contrasts)
    assert effect is not None
    assert power(effect, 0.7, n, contrasts) == pytest.approx(0.8, abs=0.015)
    assert power(effect * 0.95, 0.7, n, contrasts) < 0.8


def test_interim_analyses_increase_the_detectable_difference() -> None:
    interims = InterimAnalyses.planned(24)
    assert interims is not None
    with_interims, without = detectable(1.0, 24, 4, interims.levels(4)[-1]), detectable(1.0, 24, 4)
    assert with_interims is not None
    assert without is not None
    assert with_interims > 1.02 * without


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 4), CONTRASTS)
def test_replicates_are_the_fewest_that_detect_a_difference(effect: float, contrasts: int) -> None:
    n = replicates_for(effect, 1.0, contrasts)
    assert n is not None
    assert power(effect, 1.0, n, contrasts) >= 0.8
    assert n == 2 or power(effect, 1.0, n - 1, contrasts) < 0.8


@settings(max_examples=40, deadline=None)
@given(st.floats(0.3, 6), CONTRASTS)
def test_replicates_are_the_fewest_that_reach_a_margin(margin: float, contrasts: int) -> None:
    n = replicates_for_margin(margin, 1.0, contrasts)
    assert n is not None
    reached, before = (reachable_margin(1.0, number, contrasts) for number in (n, n - 1))
    assert reached is not None
    assert reached <= margin * 1.003  # margins are found to 0.2 %
    assert n == 2 or (before is not None and before > margin * 0.997)


@pytest.mark.parametrize("contrasts", [1, 4])
@pytest.mark.parametrize("n", [3, 5, 8, 12, 20, 60])
def test_a_reachable_difference_or_margin_needs_no_more_replicates(n: int, contrasts: int) -> None:
    effect, margin = detectable(0.7, n, contrasts), reachable_margin(0.7, n, contrasts)
    assert effect is not None
    assert margin is not None
    for replicates in (
        replicates_for(1.01 * effect, 0.7, contrasts),
        replicates_for_margin(1.01 * margin, 0.7, contrasts),
    ):
        assert replicates is not None
        assert replicates <= n
        assert replicates == n or n >= 6  # fewer than 6 may have more power


@settings(max_examples=10, deadline=None)
@given(st.floats(0.2, 3), st.floats(0.1, 3), st.floats(1.01, 3), CONTRASTS)
def test_less_noise_and_larger_effects_and_margins_need_no_more_replicates(
    effect: float, sd: float, factor: float, contrasts: int
) -> None:
    for replicates in (replicates_for, replicates_for_margin):
        needed = replicates(effect, sd, contrasts)
        assert needed is not None
        for fewer in (replicates(factor * effect, sd, contrasts), replicates(effect, sd / factor, contrasts)):
            assert fewer is not None
            assert fewer <= needed


def test_five_replicates_can_have_more_power_than_six() -> None:
    # Because they assume more: normal differences and comparable variances of all variants.
    assert power(1.5, 1.0, 5, 4) > power(1.5, 1.0, 6, 4) + 0.2
    five, six = (detectable(1.0, n, 4) for n in (5, 6))
    assert five is not None
    assert six is not None
    assert five < 0.8 * six
    assert replicates_for(1.8, 1.0, 4) == 5
    margins = [reachable_margin(1.0, n, 4) for n in (5, 6)]
    assert margins[0] is not None
    assert margins[1] is not None
    assert margins[0] < margins[1]
    assert replicates_for_margin(1.8, 1.0, 4) == 5


def test_the_power_table_is_reached() -> None:
    # Moderated t at 3 replicates, max-T from 6 on; each with a Monte Carlo error of one or two points.
    table = {(3, 2.0): 0.50, (6, 1.5): 0.37, (8, 1.0): 0.37, (8, 1.5): 0.76, (12, 1.0): 0.69}
    for (n, effect), expected in table.items():
        assert power(effect, 1.0, n, 4) >= expected - 0.035, (n, effect)


@pytest.mark.parametrize("needed", [replicates_for, replicates_for_margin])
def test_without_noise_two_replicates_are_enough(needed: object) -> None:
    assert needed(0.5, 0.0) == needed(0.5, 0.0, 9) == 2  # type: ignore[operator]


def test_a_difference_that_100000_replicates_do_not_detect_has_no_number() -> None:
    assert power(0.001, 1.0, 100_000) < 0.8
    assert replicates_for(0.001, 1.0) is None
    assert replicates_for_margin(0.001, 1.0) is None


def test_a_difference_that_100000_replicates_detect_has_a_number() -> None:
    assert power(1.0, 95.0, 90_000, 2) > 0.8
    assert replicates_for(1.0, 95.0, 2) is not None


@pytest.mark.parametrize("value", [0.0, -0.5, math.nan])
def test_effects_and_margins_must_be_above_0(value: float) -> None:
    with pytest.raises(ValueError, match=r"effect=.*must be more than 0"):
        replicates_for(value, 1.0)
    with pytest.raises(ValueError, match=r"margin=.*must be more than 0"):
        replicates_for_margin(value, 1.0)


def test_a_margin_of_a_fifth_of_the_noise_needs_hundreds_of_replicates() -> None:
    # 0.2 points need 282 replicates at the stored spread; (1.645 + 1.282)^2 / 0.19^2 by the normal approximation for
    # one contrast.
    n = replicates_for_margin(0.19, 1.0)
    assert n is not None
    assert n == pytest.approx((1.645 + 1.282) ** 2 / 0.19**2, rel=0.03)


def test_each_contrast_has_a_separate_spread() -> None:
    # With a pooled spread, the stable variant a would need as many replicates as the unstable b.
    cells = frame({"none": [50.0, 52.0, 51.0, 49.0], "a": [51.0, 53.5, 52.0, 50.5], "b": [50.0, 62.0]})
    by_variant = spreads(cells, against_nothing("a", "b", "c"))
    assert list(by_variant) == ["a", "b"]
    assert by_variant["a"].value == pytest.approx(np.std([1.0, 1.5, 1.0, 1.5], ddof=1))
    assert by_variant["b"].value == pytest.approx(np.std([0.0, 10.0], ddof=1))
    assert (by_variant["a"].n, by_variant["b"].n) == (4, 2)
    assert all(spread.low < spread.value < spread.high for spread in by_variant.values())


def test_a_spread_has_the_interval_of_a_variance_in_the_unit_of_the_metric() -> None:
    values = [0.3, -0.4, 0.9, 0.1, -0.2]
    cells = frame({"none": [70.0] * 5, "a": [70 + value for value in values]}, "test_loss")
    spread = spreads(cells, against_nothing("a"), "test_loss")["a"]
    squares = 4 * np.var(values, ddof=1)
    low, high = (math.sqrt(squares / scipy_stats.chi2.ppf(tail, 4)) for tail in (0.975, 0.025))
    assert (spread.low, spread.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    "cells",
    [
        frame({}),
        frame({"none": [50.0, 51.0]}),
        frame({"none": [50.0], "a": [51.0]}),
        frame({"none": {0: 50.0, 1: 51.0}, "a": {1: 51.0, 2: 52.0}}),
        frame({"none": [50.0, 51.0], "a": [51.0, math.nan]}),
    ],
    ids=["nothing", "baseline", "one pair", "one pair of more", "diverged"],
)
def test_without_two_pairs_there_is_no_spread(cells: pd.DataFrame) -> None:
    assert spreads(cells, against_nothing("a")) == {}


def test_a_baseline_has_a_share_of_the_variance_of_a_typical_contrast() -> None:
    draws = np.random.default_rng(0)
    cells = frame({"none": 3 * draws.normal(size=8), "a": draws.normal(size=8), "b": 9 * draws.normal(size=8)})
    cells = pd.concat([cells, frame({"c": 2 * draws.normal(size=8), "d": [1.0, 2.0]})])
    variances = {name: rows["top1"].var(ddof=1) for name, rows in cells.groupby("variant")}
    shares = baseline_shares(cells, {**against_nothing("a", "b", "c", "d"), "b": "c"})
    typical = np.median([variances["a"], variances["c"]])  # d has too few replicates
    assert shares["none"] == pytest.approx(variances["none"] / (variances["none"] + typical))
    assert shares["c"] == pytest.approx(variances["c"] / (variances["c"] + variances["b"]))
    assert set(shares) == {"none", "c"}


def test_a_share_predicts_the_gain_of_more_baseline_replicates() -> None:
    # With 73 % of the variance, twice as many baseline runs multiply the standard deviation by sqrt(1 - 0.73 / 2).
    draws = np.random.default_rng(1)
    none, a = 1.64 * draws.normal(size=(2, 4000)), draws.normal(size=4000)
    share = baseline_shares(frame({"none": none[0], "a": a}), against_nothing("a"))["none"]
    assert share == pytest.approx(0.73, abs=0.02)
    ratio = np.std(a - none.mean(axis=0)) / np.std(a - none[0])
    assert ratio == pytest.approx(math.sqrt(1 - share + share / 2), abs=0.02)


@pytest.mark.parametrize(
    "cells",
    [frame({}), frame({"none": [1.0, 2.0, 4.0], "a": [1.0, 2.0]}), frame({"none": [1.0, 2.0], "a": [1.0, 2.0, 4.0]})],
    ids=["nothing", "variant", "baseline"],
)
def test_without_three_replicates_there_is_no_share(cells: pd.DataFrame) -> None:
    assert baseline_shares(cells, against_nothing("a")) == {}
