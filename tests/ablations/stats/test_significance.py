from __future__ import annotations

import itertools
import math
import tracemalloc
import warnings
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize
from scipy import stats as scipy_stats
from scipy.special import polygamma

from ablations.stats.significance import (
    ALPHA,
    EXACT,
    FLIPPED,
    Responses,
    equivalence_ps,
    family_tests,
    holm,
    least_p,
    max_t_ps,
    moderated,
    moderated_errors,
    resolution,
    signs,
    t_ps,
)

Array = NDArray[np.float64]

PS = st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.05]), min_size=1, max_size=8)


def columns(numbers: Sequence[int], contrasts: int) -> Array:
    """Arranges numbers in rows of replicates, dropping an incomplete row."""
    rows = len(numbers) // contrasts
    return np.array(numbers[: rows * contrasts], dtype=np.float64).reshape(rows, contrasts)


# Differences by replicate and contrast: integers, so that sums are exact and some are equal.
FAMILIES = st.builds(columns, st.lists(st.integers(-9, 9), min_size=9, max_size=24), st.integers(1, 3)).filter(
    lambda differences: len(differences) <= 9
)


def gapped(differences: Array, gaps: Sequence[tuple[int, int]]) -> Array:
    """Removes some replicates from contrasts, leaving at least two each."""
    remaining = differences.copy()
    for replicate, contrast in gaps:
        column = contrast % remaining.shape[1]
        if np.count_nonzero(~np.isnan(remaining[:, column])) > 2:
            remaining[replicate % len(remaining), column] = np.nan
    return remaining


GAPS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=6)


def statistic(values: Sequence[float]) -> float:
    """Returns 1 minus the two-sided p of Student's t for integers."""
    n, total, squares = len(values), sum(values), sum(value**2 for value in values)
    variance = (squares - total**2 / n) / (n - 1)
    t = math.inf if variance <= 1e-12 * squares else abs(total) / math.sqrt(n * variance)
    return -2 * float(scipy_stats.t.sf(t, n - 1))


def all_choices(differences: Array) -> tuple[list[int], Array]:
    """Returns the contrasts with differences, and their statistics under all choices of signs, the observed first."""
    tested = [place for place, column in enumerate(differences.T) if np.nansum(np.abs(column)) > 0]
    statistics = []
    for choice in itertools.product((1.0, -1.0), repeat=len(differences)):
        flipped = differences * np.array(choice)[:, None]
        statistics.append(
            [statistic([value for value in flipped[:, place] if not math.isnan(value)]) for place in tested]
        )
    return tested, np.array(statistics)


def stepped_down(differences: Array) -> Array:
    """Returns stepdown p-values by the definition of Westfall and Young."""
    tested, statistics = all_choices(differences)
    ps, least = np.ones(differences.shape[1]), 0.0
    order = sorted(range(len(tested)), key=lambda place: -statistics[0, place])
    for rank, place in enumerate(order):
        highest = statistics[:, order[rank:]].max(axis=1)
        least = max(least, float(np.mean(highest >= statistics[0, place] - 1e-9 * abs(statistics[0, place]))))
        ps[tested[place]] = least
    return ps


@settings(max_examples=40, deadline=None)
@given(FAMILIES)
def test_max_t_agrees_with_its_definition_over_all_choices_of_signs(differences: Array) -> None:
    assert max_t_ps(differences) == pytest.approx(stepped_down(differences), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(FAMILIES, GAPS)
def test_max_t_agrees_with_its_definition_if_contrasts_lack_replicates(
    differences: Array, gaps: Sequence[tuple[int, int]]
) -> None:
    family = gapped(differences, gaps)
    assert max_t_ps(family) == pytest.approx(stepped_down(family), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(FAMILIES, GAPS | st.just([]))
def test_max_t_is_exact_under_joint_symmetry(differences: Array, gaps: Sequence[tuple[int, int]]) -> None:
    # Given the magnitudes, all choices of signs are equally likely, so the least p is below a level in that share.
    family = gapped(differences[:6], gaps)
    choices = np.array(list(itertools.product((1.0, -1.0), repeat=len(family) - 1)))
    least = np.sort([max_t_ps(family * np.array([1.0, *choice])[:, None]).min() for choice in choices])
    assert np.all(np.searchsorted(least, least + 1e-12, side="right") / len(least) <= least + 1e-12)


def permutation_test(values: Array) -> float:
    flips = scipy_stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=2**16, alternative="two-sided"
    )
    return float(flips.pvalue)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=2, max_size=9))
def test_max_t_of_one_contrast_is_the_sign_flip_test_of_the_mean(values: list[int]) -> None:
    column = np.array(values) / 8
    expected = permutation_test(column) if np.any(column) else 1.0
    assert max_t_ps(column[:, None])[0] == pytest.approx(expected, abs=1e-12)


def test_up_to_14_replicates_use_every_choice_of_signs() -> None:
    values = np.random.default_rng(0).normal(0.6, 1.0, EXACT)
    assert max_t_ps(values[:, None])[0] == pytest.approx(permutation_test(values), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.6])
def test_more_replicates_use_a_sample_that_approximates_the_exact_p(shift: float) -> None:
    values = np.random.default_rng(1).normal(shift, 1.0, EXACT + 1)
    # Three standard errors of a share of 19,999 draws.
    exact = permutation_test(values)
    assert max_t_ps(values[:, None])[0] == pytest.approx(exact, abs=3 * math.sqrt(exact * (1 - exact) / 19_999))


@given(FAMILIES)
def test_max_t_steps_down_from_the_clearest_contrast(differences: Array) -> None:
    clearness = [statistic(column) if np.any(column) else -2.0 for column in differences.T]
    ps = max_t_ps(differences)[np.argsort(np.negative(clearness), kind="stable")]
    assert np.all(np.diff(ps) >= 0)


@settings(deadline=None)
@given(
    FAMILIES,
    GAPS | st.just([]),
    st.lists(st.floats(0.01, 100).flatmap(lambda size: st.sampled_from([size, -size])), min_size=3, max_size=3),
    st.randoms(use_true_random=False),
)
def test_max_t_does_not_depend_on_directions_units_or_order(
    differences: Array, gaps: Sequence[tuple[int, int]], factors: list[float], random: Random
) -> None:
    family = gapped(differences, gaps)
    n, k = family.shape
    expected = max_t_ps(family)
    assert max_t_ps(family * np.array(factors[:k])) == pytest.approx(expected, abs=1e-12)
    rows, places = list(range(n)), list(range(k))
    random.shuffle(rows)
    random.shuffle(places)
    assert max_t_ps(family[np.ix_(rows, places)]) == pytest.approx(expected[places], abs=1e-12)


@pytest.mark.parametrize("differences", [np.zeros((8, 3)), np.full((8, 3), 1e-12), np.zeros((20, 1))])
def test_contrasts_without_a_difference_have_a_p_of_1(differences: Array) -> None:
    assert max_t_ps(differences).tolist() == [1.0] * differences.shape[1]


def test_a_contrast_without_a_difference_does_not_count_in_the_family() -> None:
    differences = np.random.default_rng(3).normal(0.5, 1.0, (8, 2))
    with_nothing = np.column_stack([differences[:, 0], np.zeros(8), differences[:, 1]])
    assert max_t_ps(with_nothing)[[0, 2]].tolist() == max_t_ps(differences).tolist()
    assert max_t_ps(with_nothing)[1] == 1


@pytest.mark.parametrize("n", [2, 5, 6, 9, EXACT])
@pytest.mark.parametrize("contrasts", [1, 4, 30])
def test_the_least_p_does_not_depend_on_the_number_of_contrasts(n: int, contrasts: int) -> None:
    draws = np.random.default_rng(n)
    same_sign = draws.uniform(0.1, 3.0, n)[:, None] * draws.choice([-1.0, 1.0], contrasts)
    assert max_t_ps(same_sign) == pytest.approx(np.full(contrasts, 2.0 ** (1 - n)))
    assert least_p(n) == 2.0 ** (1 - n)
    others = np.column_stack([same_sign[:, 0], draws.standard_normal((n, contrasts))])
    assert max_t_ps(others).min() >= 2.0 ** (1 - n)


@given(st.integers(6, 10), st.floats(1e-9, 1e-3), st.integers(0, 2**16))
def test_nearly_equal_differences_have_the_least_p_and_not_0(n: int, spread: float, seed: int) -> None:
    # With a contrast that lacks a replicate, contrasts are compared by p-values of t, which is huge here.
    draws = np.random.default_rng(seed)
    differences = np.column_stack([1.3 + spread * draws.standard_normal(n), draws.standard_normal(n)])
    differences[-1, 1] = np.nan
    assert max_t_ps(differences)[0] == 2.0 ** (1 - n)


def test_a_sampled_p_is_never_0_and_is_reproducible() -> None:
    assert max_t_ps(np.ones((40, 2))).tolist() == [1 / 20_000] * 2
    values = np.random.default_rng(2).normal(0.4, 1.0, (30, 3))
    assert max_t_ps(values).tolist() == max_t_ps(values).tolist()


@pytest.mark.parametrize("n", [12, 20, 60])
def test_p_does_not_depend_on_the_block_size_of_signs(n: int) -> None:
    # A thousand copies of one contrast have its p-value, but are evaluated in blocks of another size.
    contrast = np.random.default_rng(n).normal(0.3, 1.0, (n, 1))
    assert max_t_ps(np.tile(contrast, 1000)) == pytest.approx(np.full(1000, max_t_ps(contrast)[0]))


def test_a_thousand_contrasts_of_2000_replicates_fit_in_memory() -> None:
    differences = np.random.default_rng(0).standard_normal((2000, 1000))
    differences[:, 7] += 0.5
    tracemalloc.start()
    ps = max_t_ps(differences)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All sums would take 160 MB, all signs 320 MB; the differences take 16 MB, and are copied once.
    assert peak < 128e6
    assert ps[7] == 1 / 20_000
    assert np.sum(ps <= ALPHA) <= 3


@pytest.mark.parametrize("n", range(1, EXACT + 1))
def test_every_choice_of_signs_occurs_once(n: int) -> None:
    choices = signs(n)
    assert choices.shape == (2 ** (n - 1), n)
    assert len(np.unique(choices, axis=0)) == len(choices)
    assert np.array_equal(np.abs(choices), np.ones_like(choices))
    assert np.all(choices[:, 0] == 1)


def test_choices_of_signs_with_equal_sums_count_despite_rounding() -> None:
    # 0.1 + 0.2 - 0.3 is 0 within rounding, so all choices are at least as extreme.
    assert max_t_ps(np.array([[0.1], [0.2], [-0.3]]))[0] == 1
    # Only ++++ and +++-, whose last difference is a rounding error, are as extreme as 0.6.
    assert max_t_ps(np.array([[0.1], [0.2], [0.3], [1e-17]]))[0] == 2.0 ** (1 - 3)


def test_sign_flips_can_decide_from_6_replicates_on() -> None:
    assert least_p(FLIPPED - 1) > ALPHA >= least_p(FLIPPED)
    assert least_p(0) == 1
    assert least_p(40) == 1 / 20_000


def reference(values: Array, own: Array, weights: Array) -> tuple[Array, Array]:
    """Returns moderated variances and degrees of freedom of complete replicates by the formulas of Smyth (2004).

    Unlike there, the prior variance is the residual variance of replicates + variants, by least squares.
    """
    n, g = values.shape
    design = np.column_stack([np.repeat(np.eye(n), g, axis=0), np.tile(np.eye(g), (n, 1))])
    _, _, rank, _ = np.linalg.lstsq(design, values.reshape(-1), rcond=None)
    predicted = design @ np.linalg.pinv(design) @ values.reshape(-1)
    pooled_freedom = n * g - rank
    pooled = float(np.sum((values.reshape(-1) - predicted) ** 2)) / pooled_freedom
    d = n - 1
    z = np.log(values.var(axis=0, ddof=1))
    e = z - polygamma(0, d / 2) + math.log(d / 2)
    excess = float(np.sum((e - e.mean()) ** 2) / (g - 1) - polygamma(1, d / 2))
    if excess <= 0:
        return pooled * weights, np.full(len(own), float(pooled_freedom))
    half = optimize.brentq(lambda x: float(polygamma(1, x)) - excess, 1e-3, 1e9)
    prior = 2 * float(half)
    variances = (prior * pooled * weights + d * own) / (prior + d)
    return variances, np.full(len(own), max(min(prior + d, pooled_freedom), d))


def responses_of(values: Array) -> Responses:
    """Returns the contrasts of all variants with the first one."""
    return Responses(values, values[:, 1:] - values[:, :1], np.full(values.shape[1] - 1, 2.0))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("spreads", [(1.0, 1.0, 1.0), (1.0, 0.2, 3.0, 1.0), (1.0, 10.0, 0.1, 1.0, 1.0)], ids=str)
def test_moderated_variances_are_those_of_smyth(n: int, spreads: tuple[float, ...]) -> None:
    is_pooled = set()
    for seed in range(12):
        values = np.random.default_rng(seed).standard_normal((n, len(spreads))) * spreads
        responses = responses_of(values)
        own = responses.differences.var(axis=0, ddof=1)
        variances, freedom = reference(values, own, responses.squared_weights)
        result = moderated(values[None], own[None], np.full(len(own), n - 1.0), responses.squared_weights)
        assert result[0][0] == pytest.approx(variances, rel=1e-4)
        assert result[1][0] == pytest.approx(freedom, rel=1e-4)
        errors, also = moderated_errors(responses)
        assert errors == pytest.approx(np.sqrt(variances / n), rel=1e-4)
        assert also == pytest.approx(freedom, rel=1e-4)
        is_pooled.add(bool(freedom[0] == (n - 1) * (len(spreads) - 1)))
    assert is_pooled == {True, False} or n == 2 or len(set(spreads)) > 1


def test_equal_spreads_are_pooled() -> None:
    columns_of = np.array([[0.0, 1.0, 2.0], [1.0, 2.0, 0.0], [2.0, 0.0, 1.0]])  # columns have the same values
    variances, freedom = moderated(columns_of[None], np.array([[9.0, 9.0]]), np.array([2.0, 2.0]), np.array([2.0, 2.0]))
    residual = float(((columns_of - 1.0) ** 2).sum()) / 4  # all means are 1
    assert variances.tolist() == [[2 * residual] * 2]
    assert freedom.tolist() == [[4.0, 4.0]]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(3, 8), st.integers(0, 2**16), st.floats(0, 4))
def test_moderated_degrees_of_freedom_are_between_the_contrasts_and_the_layouts(
    n: int, g: int, seed: int, uneven: float
) -> None:
    draws = np.random.default_rng(seed)
    values = draws.standard_normal((n, g)) * np.exp(uneven * draws.standard_normal(g))
    errors, freedom = moderated_errors(responses_of(values))
    assert np.all(errors > 0)
    assert np.all(freedom >= n - 1)
    assert np.all(freedom <= (n - 1) * (g - 1))


def test_tied_values_have_at_least_the_variance_of_rounding() -> None:
    # Two variants are always equal; values rounded to steps of 0.5 have an error of up to 0.25.
    values = np.array([[70.0, 70.5, 70.5], [70.0, 70.5, 71.0], [70.0, 70.5, 70.0]])
    assert resolution(values) == 0.5
    errors, _ = moderated_errors(responses_of(values))
    assert np.all(errors >= math.sqrt(2 * 0.5**2 / 12 / 3) - 1e-12)
    assert resolution(np.array([[70.0, np.nan], [70.0, 70.0]])) == 0
    tests = family_tests(responses_of(np.full((4, 3), 70.0)))
    assert tests.p.tolist() == [1.0, 1.0]
    assert tests.error.tolist() == [0.0, 0.0]


@given(st.integers(1, 1000).map(lambda images: 100 / images), st.lists(st.integers(0, 60), min_size=2, max_size=12))
def test_the_step_of_shares_of_images_is_found(step: float, counts: list[int]) -> None:
    # Only up to the common divisor of the counts, which cannot be distinguished from the step.
    different = np.diff(sorted(set(counts)))
    expected = step * math.gcd(*different.tolist()) if len(different) else 0.0
    found_step = resolution(np.array([[50 + step * count, np.nan] for count in counts]))
    assert found_step == pytest.approx(expected, rel=1e-3)


def test_practically_continuous_values_have_no_step() -> None:
    for seed in range(20):
        assert resolution(np.random.default_rng(seed).standard_normal((3, 3))) == 0


@pytest.mark.parametrize("n", [2, 3, 5])
def test_one_contrast_of_few_replicates_is_tested_by_students_paired_t(n: int) -> None:
    values = np.random.default_rng(n).normal([0.0, 2.0], size=(n, 2))
    tests = family_tests(responses_of(values))
    assert tests.p[0] == pytest.approx(scipy_stats.ttest_rel(values[:, 1], values[:, 0]).pvalue, rel=1e-6)
    assert tests.freedom[0] == n - 1
    assert tests.assumes_normal.all()
    assert tests.least.tolist() == [0.0]


def test_from_6_replicates_on_normality_is_not_assumed() -> None:
    values = np.random.default_rng(5).normal([0.0, 3.0, 3.0, 0.0], size=(6, 4))
    responses = responses_of(values)
    tests = family_tests(responses)
    assert tests.p.tolist() == max_t_ps(responses.differences).tolist()
    assert tests.error == pytest.approx(responses.differences.std(axis=0, ddof=1) / math.sqrt(6))
    assert tests.freedom.tolist() == [5.0] * 3
    assert not tests.assumes_normal.any()
    assert tests.least.tolist() == [2.0**-5] * 3


def test_few_and_many_replicates_are_two_families_that_share_the_error_rate() -> None:
    values = np.random.default_rng(6).normal([0.0, 2.0, 2.0, 2.0, 2.0, 0.0], size=(8, 6))
    values[3:, 1] = values[4:, 2] = np.nan
    responses = responses_of(values)
    tests = family_tests(responses)
    few = np.array([True, True, False, False, False])
    assert tests.assumes_normal.tolist() == few.tolist()
    alone, others = family_tests(responses.of(few)), family_tests(responses.of(~few))
    assert tests.p[few] == pytest.approx(np.minimum(1, 5 / 2 * alone.p))
    assert tests.p[~few] == pytest.approx(np.minimum(1, 5 / 3 * others.p))
    assert tests.least[~few] == pytest.approx(5 / 3 * 2.0**-7)
    assert tests.error == pytest.approx(np.concatenate([alone.error, others.error]))


def test_a_contrast_without_two_replicates_is_not_tested_and_does_not_count_in_the_family() -> None:
    values = np.random.default_rng(7).normal([0.0, 2.0, 0.0, 0.0, 0.0], size=(8, 5))
    values[:, 2], values[1:, 3] = np.nan, np.nan
    tests = family_tests(responses_of(values))
    assert tests.p[[1, 2]].tolist() == tests.least[[1, 2]].tolist() == [1.0, 1.0]
    assert np.isnan(tests.error[[1, 2]]).all()
    assert np.isnan(tests.freedom[[1, 2]]).all()
    both = family_tests(responses_of(values[:, [0, 1, 4]]))
    assert tests.p[[0, 3]].tolist() == both.p.tolist()


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 9), st.integers(2, 5), st.integers(0, 2**16), st.floats(0, 0.9))
def test_p_is_a_probability_with_any_missing_values(n: int, g: int, seed: int, missing: float) -> None:
    draws = np.random.default_rng(seed)
    values = np.where(draws.random((n, g)) < missing, np.nan, np.round(draws.standard_normal((n, g)), 1))
    responses = responses_of(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tests = family_tests(responses)
    assert np.all((tests.p >= tests.least - 1e-12) & (tests.p <= 1))
    tested = responses.counts >= 2
    assert np.all(tests.p[~tested] == 1)
    assert np.all(tests.error[tested] >= 0)
    assert np.array_equal(tests.assumes_normal, tested & (responses.counts < FLIPPED))


@settings(max_examples=60)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20), st.floats(0.01, 10))
def test_p_values_of_means_agree_with_students_t(values: list[float], margin: float) -> None:
    n, mean, error = len(values), np.array([np.mean(values)]), np.array([scipy_stats.sem(values)])
    if error[0] < 1e-6:
        return
    below = scipy_stats.ttest_1samp(values, margin, alternative="less").pvalue
    above = scipy_stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    p = equivalence_ps(mean, error, np.array([n - 1.0]), margin)[0]
    assert p == pytest.approx(max(below, above), rel=1e-6, abs=1e-12)
    p = t_ps(mean, error, np.array([n - 1.0]))[0]
    assert p == pytest.approx(scipy_stats.ttest_1samp(values, 0.0).pvalue, rel=1e-6, abs=1e-12)


def test_p_is_1_without_spread() -> None:
    for error in (0.0, math.nan):
        freedom = np.array([math.nan if math.isnan(error) else 3.0])
        assert t_ps(np.array([1.0]), np.array([error]), freedom)[0] == 1
        assert equivalence_ps(np.array([0.0]), np.array([error]), freedom, 1.0)[0] == 1


def test_p_of_equivalence_decreases_with_the_margin_and_is_one_half_at_it() -> None:
    mean, error, freedom = np.array([1.0]), np.array([0.07]), np.array([4.0])
    ps = [float(equivalence_ps(mean, error, freedom, margin)[0]) for margin in (0.5, 1.0, 1.5, 2.0)]
    assert ps == sorted(ps, reverse=True)
    assert ps[1] == pytest.approx(0.5)
    assert ps[0] > 0.95
    assert ps[2] < 0.05


@given(PS)
def test_holms_method_agrees_with_its_definition(ps: list[float]) -> None:
    # The maximum over all p up to this one, each times the number of p-values not below it (Holm 1979).
    expected = [
        max(min(1.0, sum(third >= other for third in ps) * other) for other in ps if other <= own) for own in ps
    ]
    assert holm(ps) == pytest.approx(expected, abs=1e-15)


@given(PS)
def test_holms_method_rejects_what_the_closed_test_rejects(ps: list[float]) -> None:
    # Every intersection is tested by Bonferroni's inequality; Holm's method is a shortcut of this.
    ps = ps[:6]
    subsets = [chosen for size in range(1, len(ps) + 1) for chosen in itertools.combinations(range(len(ps)), size)]
    closed = [
        max(min(1.0, len(chosen) * min(ps[index] for index in chosen)) for chosen in subsets if own in chosen)
        for own in range(len(ps))
    ]
    assert holm(ps) == pytest.approx(closed, abs=1e-15)


def test_holms_method_accepts_empty_single_and_many_families() -> None:
    assert holm([]).tolist() == []
    assert holm([0.03]).tolist() == [0.03]
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([[0.04, 0.01], [0.5, 0.6]])) == pytest.approx(np.array([[0.04, 0.02], [1.0, 1.0]]))
