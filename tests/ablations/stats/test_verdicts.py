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
# Baseline results by replicate, and differences of variants.
BASE = [70.06, 68.83, 71.35, 69.64, 70.63, 69.16, 70.99, 70.27, 68.65, 70.51, 69.82, 71.14, 69.37, 70.81, 69.01, 70.39]
CLEAR = [2.01, 1.58, 2.44, 1.37, 2.65, 2.22, 1.83, 1.29, 2.56, 1.49, 2.37, 1.66]
NEAR = [0.11, -0.12, 0.05, -0.06, 0.13, -0.08, 0.02, -0.03, 0.07, -0.09, 0.04, -0.07]
WIDE = [0.96, -0.47, 1.2, -0.28, -1.06, 1.07, -0.58, 0.69, -0.89, 0.73, 1.11, -0.52]
CONSTANT = [70.0] * 16


def study(base: Sequence[float] = BASE, **differences: Sequence[float]) -> pd.DataFrame:
    """Returns cells of a baseline and of variants given by their differences from it."""
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
        ([value + 0.2 for value in NEAR], Verdict.EQUIVALENT),  # it differs, but within the margin
        ([*CLEAR[:11], -9.0], Verdict.UNSTABLE),
    ],
)
def test_the_verdict_on_a_contrast(values: list[float], verdict: Verdict) -> None:
    contrast = verdict_of(values)
    assert contrast.verdict is verdict
    if verdict is not Verdict.UNSTABLE:
        assert contrast.is_decided == (verdict in {Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT})
    assert contrast.interim is None
    assert contrast.assumes_normal == (2 <= len(values) < 6)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0] * 6, Verdict.HELPS),  # no spread, but one sign
        ([1.0] * 3, Verdict.UNDECIDED),  # no spread, and too few for sign flips
        ([1.0] * 5, Verdict.HELPS),
        ([0.0] * 8, Verdict.UNDECIDED),
        ([0.0] * 6 + [1.0] * 6, Verdict.HELPS),
        ([0.0] * 6 + [1.0] * 5, Verdict.UNDECIDED),  # too few nonzero differences
    ],
)
def test_the_verdict_on_a_contrast_of_tied_differences(values: list[float], verdict: Verdict) -> None:
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
def test_an_undecided_contrast_has_a_reason(values: list[float], reason: Reason | None) -> None:
    assert verdict_of(values).reason == reason


def test_differences_that_are_all_0_have_no_spread() -> None:
    assert verdict_of([0.0] * 8, base=CONSTANT).reason == Reason(ReasonCode.NO_SPREAD)
    assert verdict_of([0.0] * 3, base=CONSTANT).reason == Reason(ReasonCode.NO_SPREAD)


def test_ties_that_cannot_decide_are_the_reason() -> None:
    contrast = verdict_of([0.0] * 6 + [1.0, -1.0, 1.0, 1.0], base=CONSTANT)
    assert (contrast.verdict, contrast.p) == (Verdict.UNDECIDED, None)
    assert contrast.reason == Reason(ReasonCode.ATTAINABLE_P, pytest.approx(0.125))


def test_significance_only_without_correction_is_the_reason() -> None:
    values = np.random.default_rng(9).normal(size=(8, 12))
    cells = frame({name: own.tolist() for name, own in zip(("none", *"abcdefghijk"), values.T, strict=True)})
    contrasts = judge(cells, against_nothing(*"abcdefghijk"), 0.01)
    excluded = [
        contrast
        for contrast in contrasts
        if contrast.difference and (contrast.difference.low > 0 or contrast.difference.high < 0)
    ]
    assert {contrast.verdict for contrast in excluded} == {Verdict.UNDECIDED}
    assert {contrast.reason for contrast in excluded} == {Reason(ReasonCode.MULTIPLICITY, 11)}


def test_a_contrast_has_the_statistics_of_its_pairs() -> None:
    contrast = verdict_of(CLEAR[:8])
    assert (contrast.variant, contrast.baseline) == ("a", "none")
    assert contrast.difference is not None
    expected = estimate(CLEAR[:8])
    assert (contrast.difference.mean, contrast.difference.low, contrast.difference.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert contrast.p == 2 / 2**8
    assert contrast.p_equivalence is not None
    assert contrast.p_equivalence > 0.9
    assert [one.variant for one in contrast.stabilities] == ["a", "none"]
    assert (contrast.lost, contrast.adjusted, contrast.unseen_failures) == (0, None, None)


def test_p_is_none_if_it_cannot_decide() -> None:
    same = verdict_of([0.0] * 8, base=CONSTANT)
    assert (same.p, same.p_equivalence) == (None, None)
    single = verdict_of(CLEAR[:1])
    assert (single.p, single.p_equivalence) == (None, None)
    assert single.difference is not None
    assert single.difference.mean == pytest.approx(2.01)
    assert verdict_of([]).difference is None


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_one_contrast_of_fewer_than_6_replicates_has_students_p(n: int) -> None:
    contrast = verdict_of(CLEAR[:n])
    assert contrast.p == pytest.approx(scipy_stats.ttest_1samp(CLEAR[:n], 0.0).pvalue, rel=1e-6)
    assert contrast.assumes_normal


def test_all_contrasts_of_a_study_are_a_family() -> None:
    draws = np.random.default_rng(4)
    base = [float(value) for value in draws.normal(70, 1, 6)]
    for n, contrasts in itertools.product((6, 5), (1, 4, 9)):
        names = "abcdefghi"[:contrasts]
        values = {name: [float(value) for value in draws.normal(78, 1, n)] for name in names}
        judged = judge(frame({"none": base[:n], **values}), against_nothing(*names), 0.5)
        # Six replicates decide with any number of contrasts, five by assuming normality.
        assert [contrast.verdict for contrast in judged] == [Verdict.HELPS] * contrasts
        assert [contrast.assumes_normal for contrast in judged] == [n < 6] * contrasts
    judged = judge(study(a=CLEAR[:8], b=WIDE[:8], c=NEAR[:8]), against_nothing("a", "b", "c"), 0.5)
    assert [contrast.verdict for contrast in judged] == [Verdict.HELPS, Verdict.UNDECIDED, Verdict.EQUIVALENT]


def test_equivalence_is_corrected_for_the_number_of_contrasts() -> None:
    alone = verdict_of(NEAR[:6], 0.12)
    among = judge(study(a=NEAR[:6]), against_nothing("a", "x", "y", "z"), 0.12)[0]
    assert alone.p_equivalence is not None
    assert among.p_equivalence == pytest.approx(4 * alone.p_equivalence)
    assert (alone.verdict, among.verdict) == (Verdict.EQUIVALENT, Verdict.UNDECIDED)


def test_each_variant_is_compared_with_its_baseline() -> None:
    cells = study(a=CLEAR[:8], b=[2 * value for value in CLEAR[:8]])
    contrasts = judge(cells, {"none": "none", "a": "none", "b": "a"}, 0.5)
    assert [(contrast.variant, contrast.baseline, contrast.verdict) for contrast in contrasts] == [
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
def test_verdicts_on_losses_mirror_those_on_accuracies(first: list[float], second: list[float]) -> None:
    cells = study(a=first, b=second)
    losses = cells.assign(test_loss=-cells["top1"])[["variant", "replicate", "test_loss"]]
    before = judge(cells, against_nothing("a", "b"), 0.5)
    after = judge(losses, against_nothing("a", "b"), 0.5, "test_loss")
    for contrast, mirrored in zip(before, after, strict=True):
        assert (contrast.verdict, contrast.reason) == (mirrored.verdict, mirrored.reason)
        assert (contrast.difference is None) == (mirrored.difference is None)
        if contrast.difference and mirrored.difference:
            # The difference is always variant minus baseline.
            assert mirrored.difference.mean == pytest.approx(-contrast.difference.mean)


def test_a_lower_loss_helps_and_a_high_loss_is_a_failure() -> None:
    losses = {"none": [0.52, 0.49, 0.51, 0.50, 0.53, 0.48, 0.515, 0.495]}
    losses["a"] = [
        own - 0.2 + step / 100 for own, step in zip(losses["none"], (1, -1, 2, -2, 0, 1, -1, 0), strict=True)
    ]
    (contrast,) = judge(frame(losses, "test_loss"), against_nothing("a"), 0.05, "test_loss")
    assert (contrast.verdict, contrast.difference and contrast.difference.mean < 0) == (Verdict.HELPS, True)
    for last, verdict in ((0.9, Verdict.UNSTABLE), (0.1, Verdict.HELPS)):
        cells = frame({**losses, "a": [*losses["a"][:7], last]}, "test_loss")
        contrast = judge(cells, against_nothing("a"), 0.05, "test_loss")[0]
        assert contrast.stabilities[0].failures == (last == 0.9)
        assert (contrast.verdict is Verdict.UNSTABLE) == (verdict is Verdict.UNSTABLE) or last == 0.1


@pytest.mark.parametrize("metric", ["accuracy", "", "learning_rate", "seconds"])
def test_a_metric_without_a_direction_is_an_error(metric: str) -> None:
    with pytest.raises(ValueError, match=r"metric=.*must be one of top1, "):
        judge(study(a=CLEAR), against_nothing("a"), 0.5, metric)
    assert (sign_of("top1"), sign_of("test_loss")) == (1.0, -1.0)


@pytest.mark.parametrize("margin", [0.0, -0.5, NAN])
@pytest.mark.parametrize("values", [CLEAR, CLEAR[:1], []])
def test_the_margin_must_be_above_0(margin: float, values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"margin=.*must be more than 0"):
        verdict_of(values, margin)


def test_a_study_without_contrasts_has_no_verdicts() -> None:
    assert judge(study(), against_nothing(), 0.5) == []


def test_unpaired_replicates_are_left_out() -> None:
    cells = study(a=CLEAR[:8])
    cells = cells[~((cells["variant"] == "none") & (cells["replicate"] == 2))]
    cells = cells[~((cells["variant"] == "a") & (cells["replicate"] == 5))]
    (contrast,) = judge(cells, against_nothing("a"), 0.5)
    assert contrast.difference is not None
    assert contrast.difference.mean == pytest.approx(np.mean([CLEAR[index] for index in (0, 1, 3, 4, 6, 7)]))
    assert (contrast.difference.n, contrast.verdict, contrast.lost) == (6, Verdict.HELPS, 0)


def test_more_baseline_replicates_narrow_the_interval() -> None:
    draws = np.random.default_rng(9)
    none, a = draws.normal(70, 1, 16), draws.normal(71, 0.3, 8)
    short, long = (judge(frame({"none": none[:n], "a": a}), against_nothing("a"), 0.5)[0] for n in (8, 16))
    assert short.difference is not None
    assert long.difference is not None
    assert long.difference.n == short.difference.n == 8
    assert long.difference.mean == pytest.approx(a.mean() - none.mean())


def test_unpaired_replicates_are_reported() -> None:
    cells = frame({"none": {0: 1.0, 1: 1.0, 3: 1.0}, "a": {0: 1.0, 2: 1.0, 4: 1.0}, "b": {0: 1.0, 1: 1.0, 3: 1.0}})
    assert missing_pairs(cells, against_nothing("a", "b", "c")) == {"a": [1, 2, 3, 4], "c": [0, 1, 3]}
    assert missing_pairs(study(a=CLEAR), against_nothing("a")) == {}
    assert missing_pairs(frame({}), against_nothing("a")) == {}


def test_replicates_without_an_accuracy_are_reported_as_unpaired() -> None:
    cells = frame({"none": [1.0, 1.0], "a": [1.0, NAN]})
    assert missing_pairs(cells, against_nothing("a")) == {"a": [1]}


def test_undecided_contrasts_are_those_that_more_replicates_could_decide() -> None:
    contrasts = judge(study(a=CLEAR[:8], b=WIDE[:8], c=NEAR[:8], d=[]), against_nothing("a", "b", "c", "d"), 0.5)
    assert [one.variant for one in undecided(contrasts)] == ["b", "d"]


def test_a_family_has_every_variant_with_another_baseline() -> None:
    assert family({"none": "none", "a": "none", "b": "a"}) == ["a", "b"]


def test_the_relative_efficiency_is_the_ratio_of_unpaired_to_paired_variance() -> None:
    shared = [value * 3 for value in BASE]
    cells = study(shared, a=CLEAR, b=WIDE[:5], c=CLEAR[:2])
    base = [np.array(shared[: len(values)]) for values in (CLEAR, WIDE[:5])]
    own = [np.array(values) for values in (CLEAR, WIDE[:5])]
    unpaired = sum(np.var(b, ddof=1) + np.var(b + o, ddof=1) for b, o in zip(base, own, strict=True))
    gained = relative_efficiency(cells, against_nothing("a", "b", "c"))
    assert gained == pytest.approx(unpaired / sum(np.var(o, ddof=1) for o in own))
    # Two pairs are too few for a variance, and equal differences have none.
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
def test_unstable_has_priority_over_every_other_verdict(values: list[float], before: Verdict) -> None:
    assert verdict_of(values[:8]).verdict is before
    contrast = verdict_of(values)
    assert contrast.verdict is Verdict.UNSTABLE
    assert contrast.reason == Reason(ReasonCode.UNSTABLE)
    assert contrast.stabilities[0].is_unstable
    assert contrast.difference is not None  # still available


def test_an_unstable_baseline_makes_each_of_its_contrasts_unstable() -> None:
    base = [*BASE[:11], 60.0]
    cells = frame({"none": base, "a": BASE[:12], "b": BASE[2:14]})
    contrasts = judge(cells, against_nothing("a", "b"), 0.5)
    assert [contrast.verdict for contrast in contrasts] == [Verdict.UNSTABLE] * 2
    assert contrasts[0].reason == Reason(ReasonCode.UNSTABLE)
    assert contrasts[0].stabilities[1].is_unstable
    both = judge(frame({"none": base, "a": base, "b": BASE[2:14]}), against_nothing("a", "b"), 0.5)[0]
    assert [contrast.is_unstable for contrast in both.stabilities] == [True, True]


def test_stability_is_relative_to_variants_with_the_same_baseline() -> None:
    # Compared with c, which is equally unstable, a is stable; that must not hide its instability here.
    fails = [*BASE[:11], 60.0]
    cells = frame({"none": BASE[:12], "a": fails, "b": BASE[2:14], "c": [value - 1 for value in fails]})
    baselines = {**against_nothing("a", "b"), "c": "a"}
    contrasts = {one.variant: one for one in judge(cells, baselines, 0.5)}
    assert contrasts["a"].verdict is Verdict.UNSTABLE
    assert contrasts["b"].verdict is not Verdict.UNSTABLE
    loud = [70.0 + 4 * (number % 2) + value / 10 for number, value in enumerate(BASE[:12])]
    cells = frame({"none": BASE[:12], "a": loud, "b": BASE[2:14], "d": BASE[1:13], "c": [value - 1 for value in loud]})
    contrasts = {one.variant: one for one in judge(cells, {**against_nothing("a", "b", "d"), "c": "a"}, 0.5)}
    assert (contrasts["a"].verdict, contrasts["c"].verdict) == (Verdict.UNSTABLE, Verdict.HURTS)


def test_equivalence_is_not_concluded_if_a_replicate_diverged() -> None:
    for name in ("a", "none"):
        cells = study(a=NEAR)
        cells.loc[(cells["variant"] == name) & (cells["replicate"] == 4), "top1"] = NAN
        (contrast,) = judge(cells, against_nothing("a"), 0.5)
        assert (contrast.verdict, contrast.lost, contrast.unseen_failures) == (Verdict.UNDECIDED, 1, None)
        assert contrast.p_equivalence is not None
        assert contrast.p_equivalence < 0.05
        assert contrast.reason == Reason(ReasonCode.LOST_REPLICATES, 1)
        assert contrast.is_decided  # more replicates cannot change it
    cells = study(a=CLEAR)
    cells.loc[(cells["variant"] == "a") & (cells["replicate"] == 4), "top1"] = NAN
    assert judge(cells, against_nothing("a"), 0.5)[0].verdict is Verdict.HELPS


def test_equivalence_is_not_concluded_if_a_run_is_an_outlier() -> None:
    # An outlier, but not far enough below the others to be unstable.
    draws = np.random.default_rng(12)
    values = draws.normal(70, 0.3, (12, 3))
    values[5, 1] = np.median(values[:, 1]) - 1.15
    cells = frame({name: own.tolist() for name, own in zip(("none", "a", "b"), values.T, strict=True)})
    contrasts = {one.variant: one for one in judge(cells, against_nothing("a", "b"), 1.0)}
    assert contrasts["a"].stabilities[0].strays == 1
    assert not contrasts["a"].stabilities[0].is_unstable
    assert contrasts["a"].p_equivalence is not None
    assert contrasts["a"].p_equivalence < 0.05
    assert (contrasts["a"].verdict, contrasts["b"].verdict) == (Verdict.UNDECIDED, Verdict.EQUIVALENT)
    assert contrasts["a"].reason == Reason(ReasonCode.STRAY_RUNS, 1)


@pytest.mark.parametrize(("n", "rate"), [(3, 0.632), (8, 0.312), (12, 0.221)])
def test_an_equivalent_contrast_has_the_failure_rate_that_n_runs_cannot_exclude(n: int, rate: float) -> None:
    contrast = verdict_of(NEAR[:n])
    assert contrast.verdict is Verdict.EQUIVALENT
    expected = scipy_stats.binomtest(0, n, alternative="less").proportion_ci(0.95, "exact").high
    assert contrast.unseen_failures == pytest.approx(expected)
    assert contrast.unseen_failures == pytest.approx(rate, abs=5e-4)
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
def test_test_results_determine_the_verdict(
    p: float, p_equivalence: float, mean: float, better: float, failed: int, verdict: Verdict
) -> None:
    interval = estimate([mean - 0.1, mean + 0.1])
    assert decide(Inference(np.array([mean]), interval, p, p_equivalence, 0.0, False), better, failed) is verdict
    single = Inference(np.array([mean]), estimate([mean]), 1.0, 1.0, 0.0, False)
    assert decide(single, better, failed) is Verdict.NONE


INTERIMS = InterimAnalyses((9, 12))


def test_nothing_is_decided_before_the_first_interim_analysis() -> None:
    contrast = verdict_of(CLEAR[:8], interims=INTERIMS)
    assert (contrast.verdict, contrast.reason) == (Verdict.UNDECIDED, Reason(ReasonCode.BEFORE_FIRST_ANALYSIS, 9))
    assert (contrast.interim, contrast.p, contrast.is_decided) == (None, None, False)
    assert verdict_of(NEAR[:8], interims=INTERIMS).verdict is Verdict.UNDECIDED
    assert verdict_of(CLEAR[:1], interims=INTERIMS).verdict is Verdict.NONE


def test_an_interim_analysis_divides_p_by_its_share_of_5_percent() -> None:
    contrast = verdict_of(CLEAR[:9], interims=INTERIMS)
    share = (9 / 12) ** 2
    assert (contrast.interim, contrast.verdict) == (9, Verdict.HELPS)
    assert contrast.p == pytest.approx(2 / 2**9 / share)
    near = verdict_of(NEAR[:9], 0.08), verdict_of(NEAR[:9], 0.08, INTERIMS)
    assert near[0].p_equivalence is not None
    assert near[1].p_equivalence == pytest.approx(near[0].p_equivalence / share)
    assert contrast.adjusted is not None
    assert contrast.difference is not None
    assert 0 < contrast.adjusted <= contrast.difference.mean * 1.01


def test_replicates_between_interim_analyses_are_not_used() -> None:
    # They would reverse the result, but are used only when the batch is complete.
    later = [-1.5, 1.0, -1.0]
    for more in range(3):
        contrast = verdict_of(CLEAR[:9] + later[:more], interims=INTERIMS)
        assert contrast.interim == 9
        assert contrast.difference is not None
        assert (contrast.difference.n, contrast.difference.mean) == (9, pytest.approx(np.mean(CLEAR[:9])))


def test_a_decision_of_an_interim_analysis_is_final() -> None:
    first = verdict_of(CLEAR[:9], interims=INTERIMS)
    after = verdict_of([*CLEAR[:9], -0.7, 0.6, -0.7], interims=INTERIMS)
    assert (after.interim, after.p, after.difference, after.adjusted) == (9, first.p, first.difference, first.adjusted)
    near = verdict_of(NEAR[:9], interims=INTERIMS), verdict_of([*NEAR[:9], 0.6, 0.7, 0.6], interims=INTERIMS)
    assert near[0].verdict is near[1].verdict is Verdict.EQUIVALENT


def test_an_interim_analysis_waits_for_cells_that_have_not_ended() -> None:
    cells = study(a=CLEAR, b=WIDE)
    cells = cells[~((cells["variant"] == "a") & (cells["replicate"] == 8))]
    contrasts = judge(cells, against_nothing("a", "b"), 0.5, interims=INTERIMS)
    assert [contrast.interim for contrast in contrasts] == [None, None]
    # Decided contrasts are not waited for.
    cells = study(a=CLEAR[:9], b=WIDE)
    contrasts = judge(cells, against_nothing("a", "b"), 0.5, interims=INTERIMS)
    assert [(contrast.interim, contrast.verdict) for contrast in contrasts] == [
        (9, Verdict.HELPS),
        (12, Verdict.UNDECIDED),
    ]


@pytest.mark.parametrize("diverged", [("a",), ("none",), ("a", "none")], ids=str)
def test_a_diverged_last_replicate_does_not_prevent_an_interim_analysis(diverged: tuple[str, ...]) -> None:
    # A difference of four standard deviations is decided at the first possible analysis.
    interims = InterimAnalyses.planned(32)
    assert interims is not None
    draws = np.random.default_rng(0)
    cells = frame({"none": draws.normal(70, 1, 28), "a": draws.normal(70 + 4 * 2**0.5, 1, 28)})
    for last in (8, 27):
        cells.loc[cells["variant"].isin(diverged) & (cells["replicate"] == last), "top1"] = NAN
    (contrast,) = judge(cells, against_nothing("a"), 0.5, interims=interims)
    assert (contrast.verdict, contrast.interim, contrast.lost) == (Verdict.HELPS, 12, 2 * len(diverged))
    assert contrast.difference is not None
    assert contrast.difference.n == 11


def test_the_last_interim_analysis_decides_without_its_last_replicate() -> None:
    interims = InterimAnalyses((28,))
    draws = np.random.default_rng(1)
    cells = frame({"none": draws.normal(70, 1, 28), "a": draws.normal(70 + 4 * 2**0.5, 1, 28)})
    cells.loc[(cells["variant"] == "a") & (cells["replicate"] >= 26), "top1"] = NAN
    (contrast,) = judge(cells, against_nothing("a"), 0.5, interims=interims)
    assert (contrast.verdict, contrast.interim) == (Verdict.HELPS, 28)
    assert contrast.difference is not None
    assert contrast.difference.n == 26


def test_replicates_beyond_the_last_interim_analysis_are_not_tested() -> None:
    contrast = verdict_of([*WIDE, 3.0, 3.1, 2.9], interims=INTERIMS)
    assert contrast.interim == 12
    assert contrast.difference is not None
    assert (contrast.difference.n, contrast.difference.mean) == (12, pytest.approx(np.mean(WIDE)))


def test_interim_analyses_decide_on_losses() -> None:
    losses = study(a=[-value for value in CLEAR]).rename(columns={"top1": "test_loss"})
    (contrast,) = judge(losses, against_nothing("a"), 0.5, "test_loss", INTERIMS)
    assert (contrast.verdict, contrast.interim) == (Verdict.HELPS, 9)
