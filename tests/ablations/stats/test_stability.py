from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ablations.stats.stability import Stability, stabilities
from tests.simulations.studies import stability, studies

Array = NDArray[np.float64]

STUDIES = 300
ERROR = 2.5 * math.sqrt(0.05 * 0.95 / STUDIES)  # 2.5 Monte Carlo standard errors of a rate of 5 %

STEADY = [70.1, 69.8, 70.4, 70.0, 69.6, 70.3, 69.9, 70.2]


def of(**values: list[float]) -> dict[str, Stability]:
    """Returns the stabilities of variants with a margin of one point."""
    return stabilities(list(values), [np.array(runs) for runs in values.values()], 1.0)


def moved(by: float) -> list[float]:
    """Returns the runs of STEADY in another order, shifted: an equally stable variant."""
    return [value + by for value in STEADY[3:] + STEADY[:3]]


def test_a_single_failure_is_detected_and_described() -> None:
    fails = [*STEADY[:7], 64.0]
    found = of(none=STEADY, a=fails, b=moved(1.0))
    assert [name for name, one in found.items() if one.is_unstable] == ["a"]
    failing = found["a"]
    assert (failing.n, failing.failures, failing.strays) == (8, 1, 1)
    assert failing.shortfall == pytest.approx(np.median(fails) - 64.0)
    assert failing.spread == pytest.approx(np.std(fails, ddof=1))
    assert failing.typical == pytest.approx(np.std(STEADY, ddof=1))


def test_a_variant_with_bimodal_results_is_unstable() -> None:
    halves = [70.0, 76.0, 70.2, 75.8, 69.9, 76.1, 70.1, 76.2]
    bimodal = of(none=STEADY, a=halves, b=moved(1.0), c=moved(2.0))["a"]
    # No single run is far below the median, because half of them are low.
    assert (bimodal.failures, bimodal.is_unstable) == (0, True)
    assert bimodal.spread / bimodal.typical == pytest.approx(np.std(halves, ddof=1) / np.std(STEADY, ddof=1))
    assert bimodal.shortfall == pytest.approx(3.1, abs=0.1)


def test_the_stored_global_context_is_unstable() -> None:
    # Its differences in the stored study of rivals: -0.9 four times and -7 to -14 four times; those of other variants
    # were within some tenths of a point.
    context = [-0.9, -0.9, -0.9, -0.9, -7.0, -9.0, -11.0, -14.0]
    found = of(none=STEADY, gc=[70 + value for value in context], se=moved(0.3), eca=moved(-0.2))
    assert [name for name, one in found.items() if one.is_unstable] == ["gc"]


@pytest.mark.parametrize("sd", [0.5, 0.74])
def test_a_run_that_loses_4_points_is_detected_in_4_of_5_studies(sd: float) -> None:
    draws, held, found = np.random.default_rng(int(100 * sd)), 0, 0
    for values in studies("normal", 400, 12, 4, seed=21):
        fails = draws.random(12) < 0.1
        values *= sd
        values[:, 1] -= 4 * fails
        held += bool(fails.any())
        found += bool(fails.any()) and stability(values, 1.0)[1].is_unstable
    assert held > 250
    # Detected in 95 % (SD 0.5) and 83 % (0.74); two standard errors of the latter are 5 points.
    assert found / held >= 0.8 - 0.02


@pytest.mark.parametrize("contrasts", [1, 4])
def test_a_moderately_noisier_variant_is_stable_with_any_number_of_replicates(contrasts: int) -> None:
    # A threefold standard deviation would hide a difference of 4 standard deviations.
    found = dict.fromkeys((1.4, 3.0), 0)
    for values in studies("normal", 100, 28, contrasts, seed=23):
        for factor in found:
            found[factor] += stability(values * [1.0, factor, *[1.0] * (contrasts - 1)], 0.5)[1].is_unstable
    assert found[1.4] <= 20  # 38 by significance alone
    assert found[3.0] >= 97


@pytest.mark.parametrize("n", [3, 4, 5, 6, 8, 12, 20])
@pytest.mark.parametrize("contrasts", [1, 4])
def test_equally_stable_variants_are_rarely_unstable(n: int, contrasts: int) -> None:
    alarms = sum(any(one.is_unstable for one in stability(values, 1e-6)) for values in drawn(n, contrasts))
    assert alarms / STUDIES <= 0.05 + ERROR


def test_variants_with_different_numbers_of_replicates_are_rarely_unstable() -> None:
    alarms = 0
    for values in drawn(20, 3):
        parts = [values[:20, 0], values[:9, 1], values[:9, 2], values[:3, 3]]
        alarms += any(one.is_unstable for one in stabilities(list("abcd"), parts, 1e-6).values())
    assert alarms / STUDIES <= 0.05 + ERROR


def drawn(n: int, contrasts: int) -> list[Array]:
    return list(studies("normal", STUDIES, n, contrasts, seed=22))


def test_coarse_values_are_rarely_unstable() -> None:
    # Accuracies of few images in steps of half a standard deviation: most variants have a median deviation of 0 or 1.
    alarms = sum(any(one.is_unstable for one in stability(np.round(2 * values), 1e-6)) for values in drawn(8, 4))
    assert alarms / STUDIES <= 0.05 + ERROR


@pytest.mark.parametrize("n", [3, 8])
def test_equal_values_are_stable(n: int) -> None:
    found = stabilities(["none", "a"], [np.full(n, 70.0), np.full(n, 60.0)], 1.0)
    assert [one.is_unstable for one in found.values()] == [False, False]
    # A single value that differs by one step is not a failure, although the others have no deviation.
    steps = stabilities(["none", "a"], [np.full(n, 70.0), np.array([70.0] * (n - 1) + [69.5])], 1.0, step=0.5)
    assert not steps["a"].is_unstable


def test_scatter_within_the_margin_is_stable() -> None:
    values = [np.array(STEADY), np.array([*STEADY[:7], 64.0]), np.array(moved(0.0))]
    assert stabilities(list("abc"), values, 5.0)["b"].is_unstable
    for margin in (6.5, 20.0):
        stability_ = stabilities(list("abc"), values, margin)["b"]
        assert (stability_.failures, stability_.strays, stability_.is_unstable) == (0, 0, False)


def test_a_run_far_above_the_others_is_not_a_failure() -> None:
    high = of(none=STEADY, a=[*STEADY[:7], 71.5], b=moved(1.0))["a"]
    assert (high.failures, high.strays, high.is_unstable) == (0, 0, False)
    assert of(none=STEADY, a=[*STEADY[:7], 68.3], b=moved(1.0))["a"].strays == 1


def test_fewer_than_3_replicates_or_2_variants_have_no_stability() -> None:
    assert of(none=STEADY, a=[70.0, 50.0]) == {}
    assert of(none=STEADY) == {}
    assert list(of(none=STEADY, a=[70.0, 50.0], b=moved(1.0))) == ["none", "b"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.floats(-50, 50), st.sampled_from([0.5, 2.0, 100.0]), st.permutations(range(4)))
def test_levels_units_and_order_do_not_matter(seed: int, shift: float, factor: float, order: list[int]) -> None:
    values = np.random.default_rng(seed).standard_t(2, (6, 4))
    names = list("abcd")
    expected = stabilities(names, list(values.T), 0.5)
    other = stabilities(
        [names[place] for place in order], [factor * (values[:, place] + shift) for place in order], 0.5 * factor
    )
    for name, before in expected.items():
        after = other[name]
        assert (after.is_unstable, after.failures, after.strays) == (before.is_unstable, before.failures, before.strays)
        assert after.shortfall == pytest.approx(factor * before.shortfall)
        assert after.spread == pytest.approx(factor * before.spread)
