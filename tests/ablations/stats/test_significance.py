from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ablations.stats import equivalence_p, fewest_pairs, holm, least_p, sign_flip_p
from ablations.stats.significance import ALPHA, EXACT, signs

# Shares of whole images, as accuracies are: sums are exact, and some are equal.
DIFFERENCES = st.lists(st.integers(-40, 40).map(lambda count: count / 8), min_size=1, max_size=8)
PS = st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.05]), min_size=1, max_size=8)


def permutation_test(values: list[float]) -> float:
    made = scipy_stats.permutation_test(
        (np.array(values),), np.sum, permutation_type="samples", n_resamples=2**16, alternative="two-sided"
    )
    return float(made.pvalue)


@given(DIFFERENCES.filter(lambda values: len(values) > 1))
def test_the_permutation_test_is_scipys(values: list[float]) -> None:
    assert sign_flip_p(values) == pytest.approx(permutation_test(values), abs=1e-12)


def test_up_to_14_differences_have_every_choice_of_signs() -> None:
    values = list(np.random.default_rng(0).normal(0.6, 1.0, EXACT))
    assert sign_flip_p(values) == pytest.approx(permutation_test(values), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.6])
def test_more_differences_have_a_sample_that_comes_close(shift: float) -> None:
    values = list(np.random.default_rng(1).normal(shift, 1.0, EXACT + 1))
    # Three standard errors of a share of 9,999.
    exact = permutation_test(values)
    assert sign_flip_p(values) == pytest.approx(exact, abs=3 * math.sqrt(exact * (1 - exact) / 9_999))


@pytest.mark.parametrize("n", range(1, EXACT + 1))
def test_every_choice_of_signs_is_there_once(n: int) -> None:
    made = signs(n)
    assert made.shape == (2 ** (n - 1), n)
    assert len(np.unique(made, axis=0)) == len(made)
    assert np.array_equal(np.abs(made), np.ones_like(made))
    assert np.all(made[:, 0] == 1)


def test_a_sampled_p_is_never_0_and_says_the_same_again() -> None:
    assert sign_flip_p([1.0] * 40) == 1 / 20_000
    values = list(np.random.default_rng(2).normal(0.4, 1.0, 30))
    assert sign_flip_p(values) == sign_flip_p(values)


@pytest.mark.parametrize("n", range(1, EXACT + 1))
def test_differences_of_one_sign_have_the_least_p_that_there_is(n: int) -> None:
    values = np.random.default_rng(n).uniform(0.1, 3.0, n)
    assert sign_flip_p(values) == sign_flip_p(-values) == least_p(values) == 2.0 ** (1 - n)


@given(st.lists(st.floats(-50, 50), max_size=20))
def test_no_p_is_less_than_the_least_or_more_than_1(values: list[float]) -> None:
    assert least_p(values) <= sign_flip_p(values) <= 1


@given(DIFFERENCES, st.permutations(range(8)), st.integers(0, 4))
def test_the_order_the_direction_and_differences_of_0_do_not_matter(
    values: list[float], order: list[int], zeros: int
) -> None:
    expected = sign_flip_p(values)
    assert sign_flip_p([values[index] for index in order if index < len(values)]) == expected
    assert sign_flip_p([-value for value in values]) == expected
    assert sign_flip_p(values + [0.0] * zeros) == expected
    assert least_p(values + [0.0] * zeros) == least_p(values)


def test_differences_of_0_do_not_make_a_test_a_sampled_one() -> None:
    values = [1.0, 2.0, -0.5, 1.5, 3.0, 2.5, 1.0]
    assert sign_flip_p(values + [0.0] * EXACT) == sign_flip_p(values)


def test_choices_that_come_to_the_same_sum_count_whatever_rounding_does() -> None:
    # 0.1 + 0.2 is not 0.3: -0.3 and 0.1 + 0.2 cancel but for rounding, and so all choices are as far as 0.
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0
    # As far as 0.6: ++++, and +++- with a last difference that is nothing but rounding.
    assert sign_flip_p([0.1, 0.2, 0.3, 1e-17]) == 2.0 ** (1 - 3)


@pytest.mark.parametrize("values", [[], [0.0], [0.0] * 20, [1e-12, -1e-12]])
def test_no_difference_has_a_p_of_1(values: list[float]) -> None:
    assert sign_flip_p(values) == least_p(values) == 1


@given(st.integers(1, 400), st.sampled_from([ALPHA, 0.01, 0.1]))
def test_the_fewest_pairs_are_the_first_that_can_decide(contrasts: int, level: float) -> None:
    n = fewest_pairs(contrasts, level)
    assert contrasts * 2.0 ** (1 - n) <= level * (1 + 1e-9) < contrasts * 2.0 ** (2 - n)
    if n <= EXACT:
        assert max(holm([sign_flip_p([1.0] * n)] * contrasts)) <= level * (1 + 1e-9)


@pytest.mark.parametrize(("contrasts", "n"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (7, 9), (12, 9), (13, 10)])
def test_so_many_contrasts_need_so_many_pairs(contrasts: int, n: int) -> None:
    assert fewest_pairs(contrasts) == n


def test_the_fewest_pairs_of_very_many_contrasts_can_decide() -> None:
    contrasts = 600
    assert contrasts * least_p([1.0] * fewest_pairs(contrasts)) <= ALPHA


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20), st.floats(0.01, 10))
def test_equivalence_is_two_one_sided_t_tests(values: list[float], margin: float) -> None:
    if np.std(values) < 1e-6:
        return
    below = scipy_stats.ttest_1samp(values, margin, alternative="less").pvalue
    above = scipy_stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    assert equivalence_p(values, margin) == pytest.approx(max(below, above), rel=1e-6, abs=1e-12)


def test_equivalence_is_clearer_the_larger_the_margin_and_as_likely_as_not_at_it() -> None:
    values = [0.9, 1.0, 1.1, 1.2, 0.8]
    ps = [equivalence_p(values, margin) for margin in (0.5, 1.0, 1.5, 2.0)]
    assert ps == sorted(ps, reverse=True)
    assert ps[1] == pytest.approx(0.5)
    assert ps[0] > 0.95
    assert ps[2] < 0.05


@pytest.mark.parametrize("values", [[], [0.0], [0.1], [0.0] * 8, [0.3] * 8])
def test_without_a_spread_nothing_is_called_equivalent(values: list[float]) -> None:
    assert equivalence_p(values, 1.0) == 1


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, -math.inf])
def test_a_margin_is_more_than_0(margin: float) -> None:
    with pytest.raises(ValueError, match=r"margin=.*must be more than 0"):
        equivalence_p([0.0, 1.0], margin)


@given(PS)
def test_holms_method_is_its_definition(ps: list[float]) -> None:
    # Of every p that is no greater: as many times as there are hypotheses that are not clearer (Holm 1979).
    expected = [
        max(min(1.0, sum(third >= other for third in ps) * other) for other in ps if other <= own) for own in ps
    ]
    assert holm(ps) == pytest.approx(expected, abs=1e-15)


@given(PS)
def test_holms_method_rejects_what_the_closed_test_rejects(ps: list[float]) -> None:
    # Every intersection by Bonferroni's inequality: what Holm's method is a shortcut of.
    ps = ps[:6]
    subsets = [chosen for size in range(1, len(ps) + 1) for chosen in itertools.combinations(range(len(ps)), size)]
    closed = [
        max(min(1.0, len(chosen) * min(ps[index] for index in chosen)) for chosen in subsets if own in chosen)
        for own in range(len(ps))
    ]
    assert holm(ps) == pytest.approx(closed, abs=1e-15)


@given(PS, st.integers(0, 7), st.floats(0, 1))
def test_evidence_that_gets_clearer_makes_no_other_less_clear(ps: list[float], which: int, factor: float) -> None:
    # Why a contrast that is decided at one look stays so at the next.
    clearer = [p * factor if index == which else p for index, p in enumerate(ps)]
    assert all(after <= before + 1e-15 for after, before in zip(holm(clearer), holm(ps), strict=True))


def test_holms_method_of_none_and_of_one() -> None:
    assert holm([]) == []
    assert holm([0.03]) == [0.03]
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
