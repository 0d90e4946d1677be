from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ablations.stats import (
    Contrast,
    InterimAnalyses,
    Reason,
    ReasonCode,
    Verdict,
    estimate,
    family,
    judge,
    missing_pairs,
    relative_efficiency,
    undecided,
)
from ablations.stats.family import Inference
from ablations.stats.verdicts import decide, sign_of
from tests.builders.frames import against_nothing, frame

NAN = math.nan
# What the baselines of a study's replicates reach, and what variants add to it.
BASE = [70.06, 68.83, 71.35, 69.64, 70.63, 69.16, 70.99, 70.27, 68.65, 70.51, 69.82, 71.14, 69.37, 70.81, 69.01, 70.39]
CLEAR = [2.01, 1.58, 2.44, 1.37, 2.65, 2.22, 1.83, 1.29, 2.56, 1.49, 2.37, 1.66]
NEAR = [0.11, -0.12, 0.05, -0.06, 0.13, -0.08, 0.02, -0.03, 0.07, -0.09, 0.04, -0.07]
WIDE = [0.96, -0.47, 1.2, -0.28, -1.06, 1.07, -0.58, 0.69, -0.89, 0.73, 1.11, -0.52]
CONSTANT = [70.0] * 16


def study(base: Sequence[float] = BASE, **differences: Sequence[float]) -> pd.DataFrame:
    """Returns the cells of variants by what they differ from the baseline, which has as many replicates as any."""
    most = max((len(values) for values in differences.values()), default=0)
    variants = {
        name: [own + value for own, value in zip(base, values, strict=False)] for name, values in differences.items()
    }
    return frame({"none": base[:most], **variants})


def verdict_of(
    values: Sequence[float], margin: float = 0.5, interims: InterimAnalyses | None = None, base: Sequence[float] = BASE
) -> Contrast:
    return judge(study(base, a=values), against_nothing("a"), margin, interims=interims)[0]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (CLEAR, Verdict.HELPS),
        ([-value for value in CLEAR], Verdict.HURTS),
        (NEAR, Verdict.EQUIVALENT),
        (WIDE, Verdict.UNDECIDED),
        (CLEAR[:6], Verdict.HELPS),
        (CLEAR[:5], Verdict.HELPS),  # assuming normal differences
        (CLEAR[:2], Verdict.UNDECIDED),
        (NEAR[:3], Verdict.EQUIVALENT),
        (CLEAR[:1], Verdict.NONE),
        ([], Verdict.NONE),
        ([value + 0.2 for value in NEAR], Verdict.EQUIVALENT),  # it differs, but does not matter
        ([*CLEAR[:11], -9.0], Verdict.UNSTABLE),
    ],
)
def test_a_contrast_comes_to(values: list[float], verdict: Verdict) -> None:
    made = verdict_of(values)
    assert made.verdict is verdict
    if verdict is not Verdict.UNSTABLE:
        assert made.is_decided == (verdict in {Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT})
    assert made.interim is None
    assert made.assumes_normal == (2 <= len(values) < 6)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0] * 6, Verdict.HELPS),  # the same in every replicate, and still of one sign
        ([1.0] * 3, Verdict.UNDECIDED),  # which steps of a point may make of anything
        ([1.0] * 5, Verdict.HELPS),
        ([0.0] * 8, Verdict.UNDECIDED),
        ([0.0] * 6 + [1.0] * 6, Verdict.HELPS),
        ([0.0] * 6 + [1.0] * 5, Verdict.UNDECIDED),  # ties decide nothing
    ],
)
def test_a_contrast_of_tied_differences_comes_to(values: list[float], verdict: Verdict) -> None:
    assert verdict_of(values, base=CONSTANT).verdict is verdict


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (CLEAR, None),
        (WIDE, None),
        ([], Reason(ReasonCode.NO_PAIR)),
        (CLEAR[:1], Reason(ReasonCode.ONE_REPLICATE)),
    ],
)
def test_why_nothing_is_decided_is_said(values: list[float], reason: Reason | None) -> None:
    assert verdict_of(values).reason == reason


def test_differences_that_are_all_0_have_no_spread() -> None:
    assert verdict_of([0.0] * 8, base=CONSTANT).reason == Reason(ReasonCode.NO_SPREAD)
    assert verdict_of([0.0] * 3, base=CONSTANT).reason == Reason(ReasonCode.NO_SPREAD)


def test_ties_that_cannot_decide_are_told() -> None:
    made = verdict_of([0.0] * 6 + [1.0, -1.0, 1.0, 1.0], base=CONSTANT)
    assert (made.verdict, made.p) == (Verdict.UNDECIDED, None)
    assert made.reason == Reason(ReasonCode.ATTAINABLE_P, pytest.approx(0.125))


def test_a_difference_that_is_clear_by_itself_alone_is_told() -> None:
    values = np.random.default_rng(9).normal(size=(8, 12))
    cells = frame({name: own.tolist() for name, own in zip(("none", *"abcdefghijk"), values.T, strict=True)})
    made = judge(cells, against_nothing(*"abcdefghijk"), 0.01)
    excluded = [one for one in made if one.difference and (one.difference.low > 0 or one.difference.high < 0)]
    assert {one.verdict for one in excluded} == {Verdict.UNDECIDED}
    assert {one.reason for one in excluded} == {Reason(ReasonCode.MULTIPLICITY, 11)}


def test_evidence_is_of_pairs_alone_and_is_told() -> None:
    made = verdict_of(CLEAR[:8])
    assert (made.variant, made.baseline) == ("a", "none")
    assert made.difference is not None
    expected = estimate(CLEAR[:8])
    assert (made.difference.mean, made.difference.low, made.difference.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert made.p == 2 / 2**8
    assert made.p_equivalence is not None
    assert made.p_equivalence > 0.9
    assert [one.variant for one in made.stabilities] == ["a", "none"]
    assert (made.lost, made.adjusted, made.unseen_failures) == (0, None, None)


def test_what_could_decide_nothing_has_no_p() -> None:
    same = verdict_of([0.0] * 8, base=CONSTANT)
    assert (same.p, same.p_equivalence) == (None, None)
    single = verdict_of(CLEAR[:1])
    assert (single.p, single.p_equivalence) == (None, None)
    assert single.difference is not None
    assert single.difference.mean == pytest.approx(2.01)
    assert verdict_of([]).difference is None


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_one_contrast_of_fewer_than_6_replicates_has_students_p(n: int) -> None:
    made = verdict_of(CLEAR[:n])
    assert made.p == pytest.approx(scipy_stats.ttest_1samp(CLEAR[:n], 0.0).pvalue, rel=1e-6)
    assert made.assumes_normal


def test_all_contrasts_of_a_study_are_a_family() -> None:
    draws = np.random.default_rng(4)
    base = [float(value) for value in draws.normal(70, 1, 6)]
    for n, contrasts in itertools.product((6, 5), (1, 4, 9)):
        names = "abcdefghi"[:contrasts]
        values = {name: [float(value) for value in draws.normal(78, 1, n)] for name in names}
        made = judge(frame({"none": base[:n], **values}), against_nothing(*names), 0.5)
        # Six replicates decide however many contrasts, five by assuming what they do.
        assert [one.verdict for one in made] == [Verdict.HELPS] * contrasts
        assert [one.assumes_normal for one in made] == [n < 6] * contrasts
    made = judge(study(a=CLEAR[:8], b=WIDE[:8], c=NEAR[:8]), against_nothing("a", "b", "c"), 0.5)
    assert [one.verdict for one in made] == [Verdict.HELPS, Verdict.UNDECIDED, Verdict.EQUIVALENT]


def test_equivalence_is_corrected_for_how_many_are_asked() -> None:
    alone = verdict_of(NEAR[:6], 0.12)
    among = judge(study(a=NEAR[:6]), against_nothing("a", "x", "y", "z"), 0.12)[0]
    assert alone.p_equivalence is not None
    assert among.p_equivalence == pytest.approx(4 * alone.p_equivalence)
    assert (alone.verdict, among.verdict) == (Verdict.EQUIVALENT, Verdict.UNDECIDED)


def test_each_variant_is_compared_with_its_own_baseline() -> None:
    cells = study(a=CLEAR[:8], b=[2 * value for value in CLEAR[:8]])
    made = judge(cells, {"none": "none", "a": "none", "b": "a"}, 0.5)
    assert [(one.variant, one.baseline, one.verdict) for one in made] == [
        ("a", "none", Verdict.HELPS),
        ("b", "a", Verdict.HELPS),
    ]
    (back,) = judge(cells, {"a": "a", "none": "a"}, 0.5)
    assert (back.variant, back.verdict) == ("none", Verdict.HURTS)


ROWS = st.lists(st.floats(-5, 5).map(lambda value: round(value, 1)), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_the_order_of_cells_does_not_matter(first: list[float], second: list[float], random: Random) -> None:
    cells = study(a=first, b=second)
    order = list(range(len(cells)))
    random.shuffle(order)
    for before, after in zip(
        *(judge(one, against_nothing("a", "b"), 0.5) for one in (cells, cells.iloc[order])), strict=True
    ):
        assert (before.verdict, before.reason) == (after.verdict, after.reason)
        assert before.p == pytest.approx(after.p)
        assert before.p_equivalence == pytest.approx(after.p_equivalence)


@settings(max_examples=40, deadline=None)
@given(ROWS, ROWS)
def test_verdicts_on_losses_are_those_on_accuracies_turned_round(first: list[float], second: list[float]) -> None:
    cells = study(a=first, b=second)
    losses = cells.assign(test_loss=-cells["top1"])[["variant", "replicate", "test_loss"]]
    before = judge(cells, against_nothing("a", "b"), 0.5)
    after = judge(losses, against_nothing("a", "b"), 0.5, "test_loss")
    for one, other in zip(before, after, strict=True):
        assert (one.verdict, one.reason) == (other.verdict, other.reason)
        assert (one.difference is None) == (other.difference is None)
        if one.difference and other.difference:
            # The difference itself is the variant's less the baseline's.
            assert other.difference.mean == pytest.approx(-one.difference.mean)


def test_of_losses_the_lower_one_helps_and_a_high_one_is_the_failure() -> None:
    losses = {"none": [0.52, 0.49, 0.51, 0.50, 0.53, 0.48, 0.515, 0.495]}
    losses["a"] = [
        own - 0.2 + step / 100 for own, step in zip(losses["none"], (1, -1, 2, -2, 0, 1, -1, 0), strict=True)
    ]
    (made,) = judge(frame(losses, "test_loss"), against_nothing("a"), 0.05, "test_loss")
    assert (made.verdict, made.difference and made.difference.mean < 0) == (Verdict.HELPS, True)
    for last, verdict in ((0.9, Verdict.UNSTABLE), (0.1, Verdict.HELPS)):
        cells = frame({**losses, "a": [*losses["a"][:7], last]}, "test_loss")
        made = judge(cells, against_nothing("a"), 0.05, "test_loss")[0]
        assert made.stabilities[0].failures == (last == 0.9)
        assert (made.verdict is Verdict.UNSTABLE) == (verdict is Verdict.UNSTABLE) or last == 0.1


@pytest.mark.parametrize("metric", ["accuracy", "", "learning_rate", "seconds"])
def test_a_metric_of_which_no_value_is_better_is_an_error(metric: str) -> None:
    with pytest.raises(ValueError, match=r"metric=.*must be one of top1, "):
        judge(study(a=CLEAR), against_nothing("a"), 0.5, metric)
    assert (sign_of("top1"), sign_of("test_loss")) == (1.0, -1.0)


@pytest.mark.parametrize("margin", [0.0, -0.5, NAN])
@pytest.mark.parametrize("values", [CLEAR, CLEAR[:1], []])
def test_a_margin_is_more_than_0(margin: float, values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"margin=.*must be more than 0"):
        verdict_of(values, margin)


def test_a_study_without_contrasts_has_no_verdicts() -> None:
    assert judge(study(), against_nothing(), 0.5) == []


def test_replicates_that_do_not_pair_are_left_out() -> None:
    cells = study(a=CLEAR[:8])
    cells = cells[~((cells["variant"] == "none") & (cells["replicate"] == 2))]
    cells = cells[~((cells["variant"] == "a") & (cells["replicate"] == 5))]
    (made,) = judge(cells, against_nothing("a"), 0.5)
    assert made.difference is not None
    assert made.difference.mean == pytest.approx(np.mean([CLEAR[index] for index in (0, 1, 3, 4, 6, 7)]))
    assert (made.difference.n, made.verdict, made.lost) == (6, Verdict.HELPS, 0)


def test_more_replicates_of_the_baseline_alone_narrow_the_interval() -> None:
    draws = np.random.default_rng(9)
    none, a = draws.normal(70, 1, 16), draws.normal(71, 0.3, 8)
    short, long = (judge(frame({"none": none[:n], "a": a}), against_nothing("a"), 0.5)[0] for n in (8, 16))
    assert short.difference is not None
    assert long.difference is not None
    assert long.difference.n == short.difference.n == 8
    assert long.difference.mean == pytest.approx(a.mean() - none.mean())


def test_replicates_that_do_not_pair_are_named() -> None:
    cells = frame({"none": {0: 1.0, 1: 1.0, 3: 1.0}, "a": {0: 1.0, 2: 1.0, 4: 1.0}, "b": {0: 1.0, 1: 1.0, 3: 1.0}})
    assert missing_pairs(cells, against_nothing("a", "b", "c")) == {"a": [1, 2, 3, 4], "c": [0, 1, 3]}
    assert missing_pairs(study(a=CLEAR), against_nothing("a")) == {}
    assert missing_pairs(frame({}), against_nothing("a")) == {}


def test_replicates_without_an_accuracy_are_named() -> None:
    cells = frame({"none": [1.0, 1.0], "a": [1.0, NAN]})
    assert missing_pairs(cells, against_nothing("a")) == {"a": [1]}


def test_what_is_not_decided_could_be_by_more() -> None:
    made = judge(study(a=CLEAR[:8], b=WIDE[:8], c=NEAR[:8], d=[]), against_nothing("a", "b", "c", "d"), 0.5)
    assert [one.variant for one in undecided(made)] == ["b", "d"]


def test_a_family_is_what_is_compared_with_another() -> None:
    assert family({"none": "none", "a": "none", "b": "a"}) == ["a", "b"]


def test_the_relative_efficiency_is_what_replicates_share() -> None:
    shared = [value * 3 for value in BASE]
    cells = study(shared, a=CLEAR, b=WIDE[:5], c=CLEAR[:2])
    base = [np.array(shared[: len(values)]) for values in (CLEAR, WIDE[:5])]
    own = [np.array(values) for values in (CLEAR, WIDE[:5])]
    unpaired = sum(np.var(b, ddof=1) + np.var(b + o, ddof=1) for b, o in zip(base, own, strict=True))
    gained = relative_efficiency(cells, against_nothing("a", "b", "c"))
    assert gained == pytest.approx(unpaired / sum(np.var(o, ddof=1) for o in own))
    # Two pairs say too little of a variance, and differences that are all the same say nothing.
    assert relative_efficiency(study(a=CLEAR[:2]), against_nothing("a")) is None
    assert relative_efficiency(study(CONSTANT, a=[0.0] * 4), against_nothing("a")) is None


@pytest.mark.parametrize(
    ("values", "before"),
    [
        ([*CLEAR[:8], -9.0], Verdict.HELPS),
        ([*[-value for value in CLEAR[:8]], -9.0], Verdict.HURTS),
        ([*NEAR[:8], -9.0], Verdict.EQUIVALENT),
    ],
)
def test_unstable_wins_over_every_other_verdict(values: list[float], before: Verdict) -> None:
    assert verdict_of(values[:8]).verdict is before
    made = verdict_of(values)
    assert made.verdict is Verdict.UNSTABLE
    assert made.reason == Reason(ReasonCode.UNSTABLE)
    assert made.stabilities[0].is_unstable
    assert made.difference is not None  # which is told all the same


def test_an_unstable_baseline_makes_each_of_its_contrasts_unstable() -> None:
    base = [*BASE[:11], 60.0]
    cells = frame({"none": base, "a": BASE[:12], "b": BASE[2:14]})
    made = judge(cells, against_nothing("a", "b"), 0.5)
    assert [one.verdict for one in made] == [Verdict.UNSTABLE] * 2
    assert made[0].reason == Reason(ReasonCode.UNSTABLE)
    assert made[0].stabilities[1].is_unstable
    both = judge(frame({"none": base, "a": base, "b": BASE[2:14]}), against_nothing("a", "b"), 0.5)[0]
    assert [one.is_unstable for one in both.stabilities] == [True, True]


def test_a_variant_is_unstable_beside_those_that_share_its_baseline() -> None:
    # Beside its own variant, which is as unstable, it is not; and what is said of it there must not hide this.
    fails = [*BASE[:11], 60.0]
    cells = frame({"none": BASE[:12], "a": fails, "b": BASE[2:14], "c": [value - 1 for value in fails]})
    baselines = {**against_nothing("a", "b"), "c": "a"}
    made = {one.variant: one for one in judge(cells, baselines, 0.5)}
    assert made["a"].verdict is Verdict.UNSTABLE
    assert made["b"].verdict is not Verdict.UNSTABLE
    loud = [70.0 + 4 * (number % 2) + value / 10 for number, value in enumerate(BASE[:12])]
    cells = frame({"none": BASE[:12], "a": loud, "b": BASE[2:14], "d": BASE[1:13], "c": [value - 1 for value in loud]})
    made = {one.variant: one for one in judge(cells, {**against_nothing("a", "b", "d"), "c": "a"}, 0.5)}
    assert (made["a"].verdict, made["c"].verdict) == (Verdict.UNSTABLE, Verdict.HURTS)


def test_equivalence_is_refused_where_a_replicate_diverged() -> None:
    for name in ("a", "none"):
        cells = study(a=NEAR)
        cells.loc[(cells["variant"] == name) & (cells["replicate"] == 4), "top1"] = NAN
        (made,) = judge(cells, against_nothing("a"), 0.5)
        assert (made.verdict, made.lost, made.unseen_failures) == (Verdict.UNDECIDED, 1, None)
        assert made.p_equivalence is not None
        assert made.p_equivalence < 0.05
        assert made.reason == Reason(ReasonCode.LOST_REPLICATES, 1)
        assert made.is_decided  # more replicates change nothing about that
    cells = study(a=CLEAR)
    cells.loc[(cells["variant"] == "a") & (cells["replicate"] == 4), "top1"] = NAN
    assert judge(cells, against_nothing("a"), 0.5)[0].verdict is Verdict.HELPS


def test_equivalence_is_refused_where_a_run_fell_out() -> None:
    # Too far below the others to be left unsaid, and not far enough to be called unstable.
    draws = np.random.default_rng(12)
    values = draws.normal(70, 0.3, (12, 3))
    values[5, 1] = np.median(values[:, 1]) - 1.15
    cells = frame({name: own.tolist() for name, own in zip(("none", "a", "b"), values.T, strict=True)})
    made = {one.variant: one for one in judge(cells, against_nothing("a", "b"), 1.0)}
    assert made["a"].stabilities[0].strays == 1
    assert not made["a"].stabilities[0].is_unstable
    assert made["a"].p_equivalence is not None
    assert made["a"].p_equivalence < 0.05
    assert (made["a"].verdict, made["b"].verdict) == (Verdict.UNDECIDED, Verdict.EQUIVALENT)
    assert made["a"].reason == Reason(ReasonCode.STRAY_RUNS, 1)


@pytest.mark.parametrize(("n", "rate"), [(3, 0.632), (8, 0.312), (12, 0.221)])
def test_beside_equivalence_stands_the_rate_of_failures_that_none_in_n_cannot_exclude(n: int, rate: float) -> None:
    made = verdict_of(NEAR[:n])
    assert made.verdict is Verdict.EQUIVALENT
    expected = scipy_stats.binomtest(0, n, alternative="less").proportion_ci(0.95, "exact").high
    assert made.unseen_failures == pytest.approx(expected)
    assert made.unseen_failures == pytest.approx(rate, abs=5e-4)
    assert verdict_of(CLEAR).unseen_failures is None


@pytest.mark.parametrize(
    ("p", "p_equivalence", "mean", "better", "failed", "verdict"),
    [
        (0.05, 1.0, 1.0, 1.0, 0, Verdict.HELPS),
        (0.05, 1.0, 1.0, -1.0, 0, Verdict.HURTS),
        (0.05, 1.0, -1.0, 1.0, 9, Verdict.HURTS),
        (0.051, 0.051, 1.0, 1.0, 0, Verdict.UNDECIDED),
        (0.01, 0.05, 1.0, 1.0, 0, Verdict.EQUIVALENT),
        (0.01, 0.05, 1.0, 1.0, 1, Verdict.HELPS),
        (0.06, 0.05, 1.0, 1.0, 1, Verdict.UNDECIDED),
    ],
)
def test_tests_come_to_a_verdict(
    p: float, p_equivalence: float, mean: float, better: float, failed: int, verdict: Verdict
) -> None:
    made = estimate([mean - 0.1, mean + 0.1])
    assert decide(Inference(np.array([mean]), made, p, p_equivalence, 0.0, False), better, failed) is verdict
    single = Inference(np.array([mean]), estimate([mean]), 1.0, 1.0, 0.0, False)
    assert decide(single, better, failed) is Verdict.NONE


INTERIMS = InterimAnalyses((9, 12))


def test_before_the_first_look_nothing_is_decided() -> None:
    made = verdict_of(CLEAR[:8], interims=INTERIMS)
    assert (made.verdict, made.reason) == (Verdict.UNDECIDED, Reason(ReasonCode.BEFORE_FIRST_ANALYSIS, 9))
    assert (made.interim, made.p, made.is_decided) == (None, None, False)
    assert verdict_of(NEAR[:8], interims=INTERIMS).verdict is Verdict.UNDECIDED
    assert verdict_of(CLEAR[:1], interims=INTERIMS).verdict is Verdict.NONE


def test_a_look_divides_p_by_its_share_of_5_percent() -> None:
    made = verdict_of(CLEAR[:9], interims=INTERIMS)
    share = (9 / 12) ** 2
    assert (made.interim, made.verdict) == (9, Verdict.HELPS)
    assert made.p == pytest.approx(2 / 2**9 / share)
    near = verdict_of(NEAR[:9], 0.08), verdict_of(NEAR[:9], 0.08, INTERIMS)
    assert near[0].p_equivalence is not None
    assert near[1].p_equivalence == pytest.approx(near[0].p_equivalence / share)
    assert made.adjusted is not None
    assert made.difference is not None
    assert 0 < made.adjusted <= made.difference.mean * 1.01


def test_between_looks_more_replicates_say_nothing() -> None:
    # They turn everything round, as far as they go: they are seen when the batch is complete.
    later = [-1.5, 1.0, -1.0]
    for more in range(3):
        made = verdict_of(CLEAR[:9] + later[:more], interims=INTERIMS)
        assert made.interim == 9
        assert made.difference is not None
        assert (made.difference.n, made.difference.mean) == (9, pytest.approx(np.mean(CLEAR[:9])))


def test_what_a_look_decided_stays_so_whatever_follows() -> None:
    first = verdict_of(CLEAR[:9], interims=INTERIMS)
    after = verdict_of([*CLEAR[:9], -0.7, 0.6, -0.7], interims=INTERIMS)
    assert (after.interim, after.p, after.difference, after.adjusted) == (9, first.p, first.difference, first.adjusted)
    near = verdict_of(NEAR[:9], interims=INTERIMS), verdict_of([*NEAR[:9], 0.6, 0.7, 0.6], interims=INTERIMS)
    assert near[0].verdict is near[1].verdict is Verdict.EQUIVALENT


def test_a_look_waits_for_cells_that_have_not_ended() -> None:
    cells = study(a=CLEAR, b=WIDE)
    cells = cells[~((cells["variant"] == "a") & (cells["replicate"] == 8))]
    made = judge(cells, against_nothing("a", "b"), 0.5, interims=INTERIMS)
    assert [one.interim for one in made] == [None, None]
    # Of those that are decided, nothing is waited for.
    cells = study(a=CLEAR[:9], b=WIDE)
    made = judge(cells, against_nothing("a", "b"), 0.5, interims=INTERIMS)
    assert [(one.interim, one.verdict) for one in made] == [(9, Verdict.HELPS), (12, Verdict.UNDECIDED)]


@pytest.mark.parametrize("diverged", [("a",), ("none",), ("a", "none")], ids=str)
def test_a_last_replicate_that_diverged_does_not_void_a_look(diverged: tuple[str, ...]) -> None:
    # Four standard deviations of a difference, and 26 replicates of 32: decided at the first look that has any.
    interims = InterimAnalyses.planned(32)
    assert interims is not None
    draws = np.random.default_rng(0)
    cells = frame({"none": draws.normal(70, 1, 28), "a": draws.normal(70 + 4 * 2**0.5, 1, 28)})
    for last in (8, 27):
        cells.loc[cells["variant"].isin(diverged) & (cells["replicate"] == last), "top1"] = NAN
    (made,) = judge(cells, against_nothing("a"), 0.5, interims=interims)
    assert (made.verdict, made.interim, made.lost) == (Verdict.HELPS, 12, 2 * len(diverged))
    assert made.difference is not None
    assert made.difference.n == 11


def test_a_last_look_that_lost_its_last_replicate_decides() -> None:
    interims = InterimAnalyses((28,))
    draws = np.random.default_rng(1)
    cells = frame({"none": draws.normal(70, 1, 28), "a": draws.normal(70 + 4 * 2**0.5, 1, 28)})
    cells.loc[(cells["variant"] == "a") & (cells["replicate"] >= 26), "top1"] = NAN
    (made,) = judge(cells, against_nothing("a"), 0.5, interims=interims)
    assert (made.verdict, made.interim) == (Verdict.HELPS, 28)
    assert made.difference is not None
    assert made.difference.n == 26


def test_replicates_beyond_the_last_look_do_not_count_for_the_tests() -> None:
    made = verdict_of([*WIDE, 3.0, 3.1, 2.9], interims=INTERIMS)
    assert made.interim == 12
    assert made.difference is not None
    assert (made.difference.n, made.difference.mean) == (12, pytest.approx(np.mean(WIDE)))


def test_looks_decide_about_losses_too() -> None:
    losses = study(a=[-value for value in CLEAR]).rename(columns={"top1": "test_loss"})
    (made,) = judge(losses, against_nothing("a"), 0.5, "test_loss", INTERIMS)
    assert (made.verdict, made.interim) == (Verdict.HELPS, 9)
