from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.stats import (
    Contrast,
    Looks,
    Verdict,
    bca_interval,
    estimate,
    family,
    judge,
    missing_pairs,
    pairing_gain,
    sign_flip_p,
    undecided,
)
from tests.builders.frames import against_nothing, frame

# What the baselines of a study's replicates reach: far apart, which pairing makes nothing of.
SHARED = [70.0, 61.0, 75.0, 58.0, 66.0, 72.0, 63.0, 79.0, 55.0, 68.0, 60.0, 77.0, 64.0, 71.0, 59.0, 73.0]
CLEAR = [2.0, 1.5, 2.5, 1.0, 3.0, 2.2, 1.8, 1.2, 2.6, 1.4, 2.4, 1.6]
NEAR = [0.1, -0.1, 0.05, -0.05, 0.12, -0.08, 0.02, -0.03, 0.07, -0.06, 0.04, -0.09]
WIDE = [2.0, -1.5, 2.5, -1.0, -3.0, 2.2, -1.8, 1.2, -2.6, 1.4, -2.4, 1.6]


def study(**differences: Sequence[float]) -> pd.DataFrame:
    most = max((len(values) for values in differences.values()), default=0)
    variants = {
        name: [shared + value for shared, value in zip(SHARED, values, strict=False)]
        for name, values in differences.items()
    }
    return frame({"none": SHARED[:most], **variants})


def verdict_of(values: Sequence[float], margin: float = 0.5, looks: Looks | None = None, others: int = 0) -> Contrast:
    names = ("a", *(f"other{number}" for number in range(others)))
    return judge(study(a=values), against_nothing(*names), margin, looks)[0]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (CLEAR, Verdict.HELPS),
        ([-value for value in CLEAR], Verdict.HURTS),
        (NEAR, Verdict.EQUIVALENT),
        (WIDE, Verdict.UNDECIDED),
        (CLEAR[:6], Verdict.HELPS),
        (CLEAR[:5], Verdict.UNDECIDED),
        (NEAR[:5], Verdict.EQUIVALENT),
        (CLEAR[:1], Verdict.NONE),
        ([], Verdict.NONE),
        ([1.0] * 6, Verdict.HELPS),  # the same in every replicate, and still of one sign
        ([0.0] * 8, Verdict.UNDECIDED),
        ([0.0] * 6 + [1.0] * 6, Verdict.HELPS),
        ([0.0] * 6 + [1.0] * 5, Verdict.UNDECIDED),  # ties decide nothing
        ([value + 0.2 for value in NEAR], Verdict.EQUIVALENT),  # it differs, but does not matter
    ],
)
def test_a_contrast_comes_to(values: list[float], verdict: Verdict) -> None:
    made = verdict_of(values)
    assert made.verdict is verdict
    assert made.is_decided == (verdict in {Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT})
    assert made.look is None


@pytest.mark.parametrize(
    ("values", "others", "reason"),
    [
        (CLEAR, 0, ""),
        (WIDE, 0, ""),
        ([], 0, "no replicate of both is finished"),
        (CLEAR[:1], 0, "one replicate says nothing about how sure that is"),
        ([0.0] * 8, 0, "the same in every replicate: no spread to judge it by"),
        ([1.0] * 3, 0, "the same in every replicate: no spread to judge it by"),
        (CLEAR[:2], 0, "too few replicates: no p of theirs is below 0.5; 6 can decide"),
        (CLEAR[:5], 0, "too few replicates: no p of theirs is below 0.062; 6 can decide"),
        (CLEAR[:5] + [0.0] * 3, 0, "too few replicates: no p of theirs is below 0.062; 9 can decide"),
        (CLEAR[:7], 3, "too few replicates: no p of theirs is below 0.016, and there are 4 contrasts; 8 can decide"),
    ],
)
def test_why_nothing_is_decided_is_said(values: list[float], others: int, reason: str) -> None:
    # Others are as clear: what is attainable is asked of all contrasts together.
    names = ("a", *(f"other{number}" for number in range(others)))
    assert judge(study(**dict.fromkeys(names, values)), against_nothing(*names), 0.5)[0].reason == reason


def test_evidence_is_of_pairs_alone_and_is_told() -> None:
    made = verdict_of(CLEAR[:8])
    assert (made.variant, made.baseline) == ("a", "none")
    assert made.difference is not None
    expected = estimate(CLEAR[:8])
    assert (made.difference.mean, made.difference.low, made.difference.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert made.p == sign_flip_p(CLEAR[:8]) == 2 / 2**8
    assert made.p_equivalence is not None
    assert made.p_equivalence > 0.9
    assert made.bca == pytest.approx(bca_interval(CLEAR[:8]))


def test_what_could_decide_nothing_has_no_p() -> None:
    assert verdict_of(CLEAR[:5]).p is None
    assert verdict_of(CLEAR[:5]).p_equivalence is not None
    same = verdict_of([1.0] * 8)
    assert (same.p, same.p_equivalence, same.bca) == (2 / 2**8, None, None)
    single = verdict_of(CLEAR[:1])
    assert (single.p, single.p_equivalence, single.bca) == (None, None, None)
    assert single.difference is not None
    assert single.difference.mean == pytest.approx(2.0)
    assert verdict_of([]).difference is None


def test_all_contrasts_of_a_study_are_a_family() -> None:
    # Seven replicates decide up to three contrasts, and each alone; of four, none is decided however clear.
    names = ("a", "b", "c", "d")
    for count, verdict in ((1, Verdict.HELPS), (3, Verdict.HELPS), (4, Verdict.UNDECIDED)):
        made = judge(study(**dict.fromkeys(names[:count], CLEAR[:7])), against_nothing(*names[:count]), 0.5)
        assert [one.verdict for one in made] == [verdict] * count
    made = judge(study(a=CLEAR[:8], b=WIDE[:8], c=NEAR[:8]), against_nothing("a", "b", "c"), 0.5)
    assert [one.verdict for one in made] == [Verdict.HELPS, Verdict.UNDECIDED, Verdict.EQUIVALENT]
    assert made[0].p == pytest.approx(3 * 2 / 2**8)
    # One that is not trained yet counts as well: the family is what the study asks, not what is finished.
    assert verdict_of(CLEAR[:8], others=2).p == pytest.approx(3 * 2 / 2**8)
    assert verdict_of(CLEAR[:7], others=3).verdict is Verdict.UNDECIDED


def test_equivalence_is_corrected_for_how_many_are_asked() -> None:
    alone = verdict_of(NEAR[:5], 0.15)
    among = verdict_of(NEAR[:5], 0.15, others=3)
    assert alone.p_equivalence is not None
    assert among.p_equivalence == pytest.approx(4 * alone.p_equivalence)
    assert (alone.verdict, among.verdict) == (Verdict.EQUIVALENT, Verdict.UNDECIDED)


def test_each_variant_is_compared_with_its_own_baseline() -> None:
    cells = frame(
        {
            "none": SHARED[:8],
            "a": [shared + value for shared, value in zip(SHARED, CLEAR[:8], strict=False)],
            "b": [shared + 2 * value for shared, value in zip(SHARED, CLEAR[:8], strict=False)],
        }
    )
    made = judge(cells, {"none": "none", "a": "none", "b": "a"}, 0.5)
    assert [(one.variant, one.baseline, one.verdict) for one in made] == [
        ("a", "none", Verdict.HELPS),
        ("b", "a", Verdict.HELPS),
    ]
    (back,) = judge(cells, {"a": "a", "none": "a"}, 0.5)
    assert (back.variant, back.verdict) == ("none", Verdict.HURTS)


ROWS = st.lists(st.floats(-5, 5).map(lambda value: round(value, 1)), min_size=1, max_size=8)


@settings(max_examples=40)
@given(ROWS, ROWS, st.randoms(use_true_random=False), st.lists(st.integers(-9, 9), min_size=8, max_size=8))
def test_the_order_of_cells_and_what_replicates_share_do_not_matter(
    first: list[float], second: list[float], random: Random, moved: list[int]
) -> None:
    cells = study(a=first, b=second)
    order = list(range(len(cells)))
    random.shuffle(order)
    other = cells.assign(top1=cells["top1"] + cells["replicate"].map(dict(enumerate(moved)))).iloc[order]
    for before, after in zip(*(judge(one, against_nothing("a", "b"), 0.5) for one in (cells, other)), strict=True):
        assert (before.verdict, before.reason) == (after.verdict, after.reason)
        assert before.p == after.p
        assert before.p_equivalence == pytest.approx(after.p_equivalence)


@settings(max_examples=40)
@given(ROWS, ROWS)
def test_variants_that_are_turned_round_have_verdicts_that_are_turned_round(
    first: list[float], second: list[float]
) -> None:
    turned = {Verdict.HELPS: Verdict.HURTS, Verdict.HURTS: Verdict.HELPS}
    before = judge(study(a=first, b=second), against_nothing("a", "b"), 0.5)
    after = judge(study(a=[-value for value in first], b=[-value for value in second]), against_nothing("a", "b"), 0.5)
    assert [turned.get(one.verdict, one.verdict) for one in before] == [one.verdict for one in after]


@pytest.mark.parametrize("margin", [0.0, -0.5, math.nan])
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
    assert (made.difference.n, made.verdict) == (6, Verdict.HELPS)


def test_replicates_that_do_not_pair_are_named() -> None:
    cells = frame({"none": {0: 1.0, 1: 1.0, 3: 1.0}, "a": {0: 1.0, 2: 1.0, 4: 1.0}, "b": {0: 1.0, 1: 1.0, 3: 1.0}})
    assert missing_pairs(cells, against_nothing("a", "b", "c")) == {"a": [1, 2, 3, 4], "c": [0, 1, 3]}
    assert missing_pairs(study(a=CLEAR), against_nothing("a")) == {}
    assert missing_pairs(frame({}), against_nothing("a")) == {}


def test_replicates_without_an_accuracy_are_named() -> None:
    cells = frame({"none": [1.0, 1.0], "a": [1.0, math.nan]})
    assert missing_pairs(cells, against_nothing("a")) == {"a": [1]}


def test_what_is_not_decided_could_be_by_more() -> None:
    made = judge(study(a=CLEAR[:8], b=WIDE[:8], c=NEAR[:8], d=[]), against_nothing("a", "b", "c", "d"), 0.5)
    assert [one.variant for one in undecided(made)] == ["b", "d"]


def test_a_family_is_what_is_compared_with_another() -> None:
    assert family({"none": "none", "a": "none", "b": "a"}) == ["a", "b"]


def test_pairing_gains_what_replicates_share() -> None:
    cells = study(a=CLEAR, b=WIDE[:5], c=CLEAR[:2])
    base = [np.array(SHARED[: len(values)]) for values in (CLEAR, WIDE[:5])]
    own = [np.array(values) for values in (CLEAR, WIDE[:5])]
    unpaired = sum(np.var(b, ddof=1) + np.var(b + o, ddof=1) for b, o in zip(base, own, strict=True))
    gained = pairing_gain(cells, against_nothing("a", "b", "c"))
    assert gained == pytest.approx(unpaired / sum(np.var(o, ddof=1) for o in own))
    # Two pairs say too little of a variance, and differences that are all the same say nothing.
    assert pairing_gain(study(a=CLEAR[:2]), against_nothing("a")) is None
    assert pairing_gain(study(a=[0.0] * 4), against_nothing("a")) is None


LOOKS = Looks((8, 12))


def test_before_the_first_look_nothing_is_decided() -> None:
    made = verdict_of(CLEAR[:7], looks=LOOKS)
    assert (made.verdict, made.reason) == (Verdict.UNDECIDED, "the first look is at 8 replicates")
    assert (made.look, made.p) == (None, None)
    assert verdict_of(NEAR[:7], looks=LOOKS).verdict is Verdict.UNDECIDED
    assert verdict_of(CLEAR[:1], looks=LOOKS).verdict is Verdict.NONE


def test_a_look_divides_p_by_what_it_may_spend() -> None:
    made = verdict_of(CLEAR[:8], looks=LOOKS)
    share = 64 / 144
    assert (made.look, made.verdict) == (8, Verdict.HELPS)
    assert made.p == pytest.approx(2 / 2**8 / share)
    alone = verdict_of(CLEAR[:8])
    assert alone.p_equivalence is not None
    assert made.p_equivalence == pytest.approx(min(1.0, alone.p_equivalence / share))
    near = verdict_of(NEAR[:8], 0.1), verdict_of(NEAR[:8], 0.1, LOOKS)
    assert near[0].p_equivalence is not None
    assert near[1].p_equivalence == pytest.approx(near[0].p_equivalence / share)


def test_the_interval_of_a_look_is_wide_enough_for_all_looks() -> None:
    made = verdict_of(CLEAR[:8], looks=LOOKS).difference
    expected = estimate(CLEAR[:8], 1 - 0.05 * 64 / 144)
    assert made is not None
    assert (made.low, made.high) == pytest.approx((expected.low, expected.high))


def test_between_looks_more_replicates_say_nothing() -> None:
    # Three that turn everything round: they are seen when the batch is complete.
    later = [-20.0, -21.0, -22.0, -23.0]
    for more in range(4):
        made = verdict_of(CLEAR[:8] + later[:more], looks=LOOKS)
        assert (made.look, made.verdict) == (8, Verdict.HELPS)
        assert made.difference is not None
        assert made.difference.n == 8


def test_a_contrast_keeps_the_clearest_of_its_looks() -> None:
    first = verdict_of(CLEAR[:8], looks=LOOKS)
    both = verdict_of([*CLEAR[:8], -0.5, 0.5, -0.5, 0.5], looks=LOOKS)
    assert sign_flip_p([*CLEAR[:8], -0.5, 0.5, -0.5, 0.5]) / (80 / 144) != first.p
    assert both.look == 12
    assert both.p is not None
    assert first.p is not None
    assert both.p == min(first.p, sign_flip_p([*CLEAR[:8], -0.5, 0.5, -0.5, 0.5]) / (80 / 144))
    # And what was decided at a look stays so, whatever follows.
    after = verdict_of([*CLEAR[:8], 9.0, -9.0, 8.0, -8.0], looks=LOOKS)
    assert (after.p, after.verdict) == (first.p, Verdict.HELPS)
    near = verdict_of([*NEAR[:8], 9.0, -9.0, 8.0, -8.0], looks=LOOKS)
    assert near.verdict is Verdict.EQUIVALENT


def test_a_look_whose_last_replicate_is_not_there_is_not_taken() -> None:
    cells = study(a=CLEAR)
    cells = cells[~((cells["variant"] == "a") & (cells["replicate"] == 7))]
    (made,) = judge(cells, against_nothing("a"), 0.5, LOOKS)
    assert made.look == 12
    assert made.p == pytest.approx(2 / 2**11 / (80 / 144))


def test_replicates_beyond_the_last_look_do_not_count() -> None:
    made = verdict_of([*CLEAR, -50.0, -50.0, -50.0], looks=LOOKS)
    assert (made.look, made.verdict) == (12, Verdict.HELPS)
    assert made.difference is not None
    assert made.difference.n == 12


def test_contrasts_that_stopped_at_different_looks_are_one_family() -> None:
    made = judge(study(a=CLEAR[:8], b=[*WIDE[:11], 1.6]), against_nothing("a", "b"), 0.5, LOOKS)
    assert [(one.look, one.verdict) for one in made] == [(8, Verdict.HELPS), (12, Verdict.UNDECIDED)]
    assert made[0].p == pytest.approx(2 * 2 / 2**8 / (64 / 144))


def test_the_direction_of_a_verdict_is_that_of_the_look_that_decided() -> None:
    made = verdict_of([*CLEAR[:8], -20.0, -21.0, -22.0, -23.0], looks=LOOKS)
    assert made.verdict is Verdict.HELPS
