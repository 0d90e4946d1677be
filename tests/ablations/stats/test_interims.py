from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtri

from ablations.stats import InterimAnalyses
from ablations.stats.interims import critical_values, median_unbiased
from ablations.stats.significance import ALPHA, FLIPPED, least_p

MOST = st.integers(2, 150)
SIZES = (9, 12, 16, 21, 28, 32)
PATHS = 400_000


@given(MOST)
def test_sizes_ascend_to_the_maximum_number_of_replicates(most: int) -> None:
    planned = InterimAnalyses.planned(most)
    assert (planned is None) == (most < FLIPPED)
    if planned:
        assert list(planned.sizes) == sorted(set(planned.sizes))
        assert planned.sizes[-1] == most


@given(MOST)
def test_the_first_interim_analysis_is_the_first_at_which_sign_flips_can_decide(most: int) -> None:
    planned = InterimAnalyses.planned(most)
    if planned is None or len(planned.sizes) == 1:  # an earlier one would leave too small a last batch
        return
    able = [n for n in range(2, most + 1) if least_p(n) <= ALPHA * (n / most) ** 2 * (1 + 1e-9)]
    assert planned.sizes[0] == able[0] >= FLIPPED


@given(MOST)
def test_every_batch_but_the_last_is_a_third_of_the_replicates_and_at_least_three(most: int) -> None:
    planned = InterimAnalyses.planned(most)
    if planned is None:
        return
    for before, after in itertools.pairwise(planned.sizes[:-1]):
        assert max(3, before / 3 - 0.5) <= after - before <= max(3, before / 3 + 0.5)
    if len(planned.sizes) > 1:
        before, after = planned.sizes[-2:]
        assert 3 <= after - before <= max(3, before / 3 + 0.5) + 2


@settings(max_examples=25, deadline=None)
@given(st.integers(FLIPPED, 150), st.integers(1, 12))
def test_every_interim_analysis_can_decide_at_a_level_up_to_5_percent(most: int, contrasts: int) -> None:
    planned = InterimAnalyses.planned(most)
    assert planned is not None
    levels = planned.levels(contrasts)
    assert levels[0] == pytest.approx(ALPHA * (planned.sizes[0] / most) ** 2)
    assert max(levels) <= ALPHA
    assert all(least_p(n) <= level * (1 + 1e-9) for n, level in zip(planned.sizes, levels, strict=True))


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (5, None),
        (6, (6,)),
        (8, (8,)),
        (12, (7, 12)),
        (16, (8, 11, 16)),
        (20, (8, 11, 15, 20)),
        (32, SIZES),
    ],
)
def test_interim_analyses_of_a_study(most: int, sizes: tuple[int, ...] | None) -> None:
    interims = InterimAnalyses.planned(most)
    assert (interims and interims.sizes) == sizes


@pytest.mark.parametrize("most", [12, 16, 20, 32, 60])
@pytest.mark.parametrize("contrasts", [1, 4, 9])
def test_levels_increase_between_interim_analyses(most: int, contrasts: int) -> None:
    planned = InterimAnalyses.planned(most)
    assert planned is not None
    levels = planned.levels(contrasts)
    assert list(levels) == sorted(levels)
    # Each analysis after the first has a higher level than Bonferroni's inequality would give.
    spent = ALPHA * np.diff((np.array(planned.sizes) / most) ** 2)
    assert np.all(levels[1:] > 1.1 * spent)


@pytest.mark.parametrize("contrasts", [1, 4, 9])
def test_a_single_interim_analysis_has_the_whole_5_percent(contrasts: int) -> None:
    assert InterimAnalyses((8,)).levels(contrasts) == pytest.approx((ALPHA,))
    assert critical_values((8,), ALPHA) == pytest.approx((float(-ndtri(ALPHA / 2)),))


@cache
def walks(sizes: tuple[int, ...]) -> NDArray[np.float64]:
    """Draws Brownian motion at the times of interim analyses, (paths, analyses)."""
    steps = np.diff(np.array([0, *sizes]) / sizes[-1])
    draws = np.random.default_rng(len(sizes))
    return np.asarray(np.cumsum(draws.standard_normal((PATHS, len(sizes))) * np.sqrt(steps), axis=1))


@pytest.mark.parametrize("sizes", [(7, 12), SIZES], ids=str)
@pytest.mark.parametrize("alpha", [ALPHA, 0.2])
def test_the_spent_error_rate_is_the_square_of_the_share_of_replicates(sizes: tuple[int, ...], alpha: float) -> None:
    times = np.array(sizes) / sizes[-1]
    crossed = np.abs(walks(sizes)) / np.sqrt(times) >= critical_values(sizes, alpha)
    spent = np.maximum.accumulate(crossed, axis=1).mean(axis=0)
    # Three standard errors of a share of 400,000 paths.
    assert np.all(np.abs(spent - alpha * times**2) <= 3 * np.sqrt(alpha * times**2 / PATHS))


def test_interim_analyses_at_full_level_would_exceed_the_error_rate() -> None:
    # This is the reason for the levels, and shows that the test above can fail.
    crossed = np.abs(walks(SIZES)) / np.sqrt(np.array(SIZES) / SIZES[-1]) >= -ndtri(ALPHA / 2)
    assert crossed.any(axis=1).mean() > 2 * ALPHA


def decided(drift: float, interim: int) -> NDArray[np.float64]:
    """Draws z of paths with a drift that first cross a bound, above 0, at this interim analysis."""
    times = np.array(SIZES) / SIZES[-1]
    z = (walks(SIZES) + drift * times) / np.sqrt(times)
    bounds = critical_values(SIZES, ALPHA)
    is_open = (np.abs(z[:, :interim]) < bounds[:interim]).all(axis=1)
    return np.asarray(z[is_open & (z[:, interim] >= bounds[interim]), interim])


@pytest.mark.parametrize(("drift", "interim"), [(2.5, 0), (2.5, 1), (1.5, 3), (2.0, 5)])
def test_half_of_the_adjusted_estimates_are_below_the_true_effect(drift: float, interim: int) -> None:
    z, time = decided(drift, interim), SIZES[interim] / SIZES[-1]
    assert len(z) > 2000
    bound = critical_values(SIZES, ALPHA)[interim]
    # The estimate increases with z, so half of all are below the truth if that of the median z is the truth.
    adjusted = median_unbiased(SIZES, ALPHA, interim, float(np.median(z)), bound) / time**0.5
    assert adjusted == pytest.approx(drift, abs=0.15)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, len(SIZES) - 1), st.floats(0, 3))
def test_an_adjusted_estimate_is_between_0_and_the_observed_effect(interim: int, beyond: float) -> None:
    bound = critical_values(SIZES, ALPHA)[interim]
    adjusted = median_unbiased(SIZES, ALPHA, interim, bound + beyond, bound)
    assert 0 <= adjusted <= bound + beyond + 1e-9
    assert (
        median_unbiased(SIZES, ALPHA, interim, bound + beyond + 0.1, bound) >= adjusted - 1e-4
    )  # the precision of the halvings


def test_an_effect_far_beyond_the_bound_is_hardly_adjusted_and_one_at_the_bound_is_adjusted_to_0() -> None:
    bound = critical_values(SIZES, ALPHA)[0]
    assert median_unbiased(SIZES, ALPHA, 0, bound + 5, bound) == pytest.approx(bound + 5, abs=0.01)
    assert median_unbiased(SIZES, ALPHA, 0, bound, bound) == 0


def test_an_effect_that_earlier_analyses_did_not_decide_is_not_adjusted_upwards() -> None:
    # Paths of so large an effect that first cross a bound now are below their mean.
    z, time = float(np.median(decided(4.0, 3))), SIZES[3] / SIZES[-1]
    assert z / time**0.5 < 3.7
    assert median_unbiased(SIZES, ALPHA, 3, z, critical_values(SIZES, ALPHA)[3]) == pytest.approx(z)


def test_interim_analyses_are_stored_as_their_sizes() -> None:
    planned = InterimAnalyses.planned(32)
    assert planned is not None
    assert InterimAnalyses.stored(list(planned.sizes)) == planned
    assert InterimAnalyses.stored(None) is None
    assert InterimAnalyses.stored([]) is None
