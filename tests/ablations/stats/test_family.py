from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ablations.stats import InterimAnalyses, estimate
from ablations.stats.family import infer
from ablations.stats.significance import ALPHA, Responses, equivalence_ps, family_tests, holm, max_t_ps
from tests.simulations.studies import differs, inferences, is_equivalent, responses, studies

Array = NDArray[np.float64]

INTERIMS = InterimAnalyses((9, 14, 20))


def drawn(replicates: int, *effects: float, seed: int = 0) -> Array:
    """Returns a study whose variants have these true effects, in standard deviations of a run."""
    return next(studies("normal", 1, replicates, len(effects), effects=effects, seed=seed))


@pytest.mark.parametrize("margin", [0.0, -0.5, math.nan])
def test_a_margin_is_more_than_0(margin: float) -> None:
    with pytest.raises(ValueError, match=r"margin=.*must be more than 0"):
        inferences(drawn(6, 1.0), margin)


@pytest.mark.parametrize("n", [3, 8])
def test_inferences_are_those_of_the_family_tests(n: int) -> None:
    values = drawn(n, 3.0, 0.0, 0.0)
    inferred, tests = inferences(values, 1.0), family_tests(responses(values))
    assert [inference.p for inference in inferred] == tests.p.tolist()
    assert [inference.least for inference in inferred] == tests.least.tolist()
    assert [inference.assumes_normal for inference in inferred] == [n < 6] * 3
    means = responses(values).differences.mean(axis=0)
    expected = holm(equivalence_ps(means, tests.error, tests.freedom, 1.0))
    assert [inference.p_equivalence for inference in inferred] == pytest.approx(expected)
    for place, inference in enumerate(inferred):
        assert inference.estimate is not None
        assert inference.estimate.mean == pytest.approx(means[place])
        half = (inference.estimate.high - inference.estimate.low) / 2
        # The interval and the test have the same standard error and degrees of freedom.
        assert half > tests.error[place]
        assert (inference.interim, inference.adjusted) == (None, None)


def test_from_6_replicates_on_intervals_are_students() -> None:
    values = drawn(8, 1.0, 0.0)
    for inference, column in zip(inferences(values, 1.0), responses(values).differences.T, strict=True):
        expected = estimate(column)
        assert inference.estimate is not None
        assert (inference.estimate.low, inference.estimate.high) == pytest.approx((expected.low, expected.high))


def test_members_without_replicates_have_no_estimate_but_count_in_the_family_of_equivalence() -> None:
    values = drawn(8, 0.0, 0.0, 0.0) / 10
    values[:, 3] = np.nan
    *others, missing = inferences(values, 0.15)
    assert missing.estimate is None
    assert (missing.p, missing.p_equivalence, len(missing.differences)) == (1.0, 1.0, 0)
    # Equivalence is corrected for three members; a difference that cannot be tested cannot be claimed wrongly.
    two = inferences(values[:, :3], 0.15)
    clearer, clearer_of_two = (min(inference.p_equivalence for inference in some) for some in (others, two))
    assert clearer == pytest.approx(1.5 * clearer_of_two)
    assert [inference.p for inference in others] == [inference.p for inference in two]


def test_a_single_replicate_has_a_mean_but_no_interval() -> None:
    (inference,) = inferences(drawn(1, 1.0), 1.0)
    assert inference.estimate is not None
    assert not inference.estimate.has_interval
    assert (inference.p, inference.p_equivalence) == (1.0, 1.0)


def test_an_empty_family_has_no_inferences() -> None:
    nothing = Responses(np.empty((0, 0)), np.empty((0, 0)), np.empty(0))
    assert infer(lambda *_: nothing, 0, 1.0, None) == []
    assert infer(lambda *_: nothing, 0, 1.0, INTERIMS) == []


def test_p_is_1_before_the_first_interim_analysis() -> None:
    values = drawn(8, 9.0)
    all_replicates = responses(values)
    (inference,) = infer(lambda size, _: all_replicates if size is None else None, 1, 1.0, INTERIMS)
    assert (inference.p, inference.p_equivalence, inference.least, inference.interim) == (1.0, 1.0, 1.0, None)
    assert not inference.is_decided
    assert inference.estimate is not None  # the estimate so far is available


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16), st.floats(0, 3), st.sampled_from([1e-6, 1.0, 3.0]))
def test_p_of_an_interim_analysis_is_at_most_5_percent_exactly_if_its_level_decides(
    seed: int, effect: float, margin: float
) -> None:
    values = drawn(INTERIMS.sizes[-1], effect, 0.0, seed=seed)
    inferred = inferences(values, margin, INTERIMS)
    for inference in inferred:
        assert inference.interim in INTERIMS.sizes
        assert inference.is_decided or inference.interim == INTERIMS.sizes[-1]
        assert inference.is_decided == (differs(inference) or is_equivalent(inference))
        assert (inference.adjusted is not None) == differs(inference)
    # At the first analysis this is the family's p-value scaled by the analysis's level.
    raw, level = max_t_ps(responses(values[: INTERIMS.sizes[0]]).differences), INTERIMS.levels(2)[0]
    for inference, p in zip(inferred, raw, strict=True):
        if inference.interim == INTERIMS.sizes[0]:
            assert inference.p == pytest.approx(min(1.0, p * ALPHA / level))
            assert differs(inference) == bool(p <= level * (1 + 1e-12))
        else:
            assert p > level


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 2))
def test_decisions_of_an_interim_analysis_do_not_depend_on_later_replicates(seed: int, interims_before: int) -> None:
    values = drawn(INTERIMS.sizes[-1], 2.0, -1.5, 0.0, seed=seed)
    changed, seen = values.copy(), INTERIMS.sizes[interims_before - 1]
    changed[seen:] = -changed[seen:] + 3
    for before, after in zip(inferences(values, 1.0, INTERIMS), inferences(changed, 1.0, INTERIMS), strict=True):
        assert before.interim is not None
        if before.is_decided and before.interim <= seen:
            assert (after.interim, after.p, after.p_equivalence) == (before.interim, before.p, before.p_equivalence)
            assert (after.estimate, after.adjusted) == (before.estimate, before.adjusted)
            assert len(after.differences) == before.interim


def test_an_interim_analysis_tests_all_open_members() -> None:
    values = drawn(INTERIMS.sizes[-1], 0.0, 0.0, seed=3)
    asked: list[tuple[int | None, tuple[int, ...]]] = []

    def at(size: int | None, active: object) -> Responses | None:
        asked.append((size, tuple(active)))  # type: ignore[call-overload]
        return None if size == INTERIMS.sizes[1] else responses(values[:size])

    inferred = infer(at, 2, 1e-6, INTERIMS)
    assert asked == [(None, ()), (9, (0, 1)), (14, (0, 1))]  # no later one is requested earlier
    assert [inference.interim for inference in inferred] == [9, 9]


def test_the_interval_of_an_interim_analysis_holds_simultaneously_at_all_of_them() -> None:
    values = drawn(INTERIMS.sizes[-1], 4.0, 0.0)
    inference = inferences(values, 1e-6, INTERIMS)[0]
    assert inference.interim == 9
    assert inference.estimate is not None
    expected = estimate(responses(values[:9]).differences[:, 0], 1 - INTERIMS.levels(2)[0])
    assert (inference.estimate.low, inference.estimate.high) == pytest.approx((expected.low, expected.high))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.floats(1.5, 6), st.sampled_from([-1.0, 1.0]))
def test_an_adjusted_estimate_is_between_0_and_the_mean(seed: int, effect: float, side: float) -> None:
    inference = inferences(drawn(INTERIMS.sizes[-1], side * effect, 0.0, seed=seed), 1e-6, INTERIMS)[0]
    if differs(inference):
        assert inference.estimate is not None
        assert inference.adjusted is not None
        # z is rounded to two decimals.
        assert 0 <= inference.adjusted / inference.estimate.mean <= 1.01


def test_early_decisions_overestimate_the_difference_and_the_adjusted_estimate_does_not() -> None:
    # Measured bias: +0.26 at a true 0.5 standard deviations of a difference, with analyses at 9 to 32 replicates.
    interims, means, adjusted = InterimAnalyses.planned(32), [], []
    assert interims is not None
    for values in studies("normal", 160, 32, 1, effects=(0.5 * 2**0.5,), seed=11):
        inference = inferences(values, 1e-6, interims)[0]
        if differs(inference) and inference.interim != interims.sizes[-1]:
            assert inference.estimate is not None
            assert inference.adjusted is not None
            means.append(inference.estimate.mean / 2**0.5 - 0.5)
            adjusted.append(inference.adjusted / 2**0.5 - 0.5)
    assert len(means) > 80
    error = 3 * float(np.std(adjusted)) / math.sqrt(len(adjusted))
    assert np.mean(means) > 0.15
    assert abs(np.mean(adjusted)) < 0.03 + error


def test_a_member_without_results_does_not_affect_the_decision_on_another() -> None:
    values = drawn(INTERIMS.sizes[-1], 6.0, 0.0, 0.0)
    values[:, 2] = np.nan
    values[1:, 3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inferred = inferences(values, 1e-6, INTERIMS)
    assert (inferred[0].interim, differs(inferred[0])) == (9, True)
    assert inferred[0].adjusted is not None
    assert [inference.interim for inference in inferred[1:]] == [20, 20]
    assert [inference.estimate is None for inference in inferred[1:]] == [True, False]
