from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.stats import Contrast, Question, Verdict, corrected_for_protocols, judge, judge_together
from ablations.stats.significance import ALPHA, Responses, family_tests, moderated_errors
from tests.builders.frames import against_nothing, frame

LOUD = 7.0  # standard deviations of the quietest protocol


def drawn(draws: np.random.Generator, n: int, sd: float, *effects: float) -> pd.DataFrame:
    """Returns cells of a baseline and of one variant per effect."""
    values = sd * draws.standard_normal((n, 1 + len(effects))) + np.array([0.0, *effects])
    names = ["none", *(f"v{number}" for number in range(len(effects)))]
    return frame({name: list(70 + column) for name, column in zip(names, values.T, strict=True)})


def question(cells: pd.DataFrame, margin: float = 0.5) -> Question:
    names = [name for name in dict.fromkeys(cells["variant"]) if name != "none"]
    return Question(cells, against_nothing(*names), margin)


def responses(values: np.ndarray) -> Responses:
    return Responses(values, values[:, 1:] - values[:, :1], np.full(values.shape[1] - 1, 2.0))


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_a_single_protocol_is_judged_like_a_study(n: int) -> None:
    cells = drawn(np.random.default_rng(n), n, 0.5, 0.0, 1.0)
    assert judge_together([question(cells)]) == [judge(cells, against_nothing("v0", "v1"), 0.5)]


def test_the_contrasts_of_all_protocols_are_one_family() -> None:
    cells = [drawn(np.random.default_rng(seed), 4, 0.5, 1.0, 0.2) for seed in range(3)]
    alone = [judge(own, against_nothing("v0", "v1"), 0.5) for own in cells]
    together = judge_together([question(own) for own in cells])
    for single, joint in zip((c for own in alone for c in own), (c for own in together for c in own), strict=True):
        assert single.difference == joint.difference  # difference and interval are per protocol
        assert single.p is not None
        assert joint.p is not None
        assert joint.p >= single.p
        assert (joint.p_equivalence or 0) >= (single.p_equivalence or 0)


def test_from_6_replicates_on_more_protocols_need_no_more_replicates() -> None:
    effects = [2.0 + 0.1 * number for number in range(6)]
    values = {"none": [70.0] * 6, "a": [70 + effect for effect in effects]}
    together = judge_together([question(frame(values)) for _ in range(5)])
    assert {contrast.p for own in together for contrast in own} == {2 / 2**6}
    assert {contrast.verdict for own in together for contrast in own} == {Verdict.HELPS}


def test_each_contrast_is_judged_by_the_margin_of_its_protocol() -> None:
    cells = drawn(np.random.default_rng(0), 12, 0.1, 0.3)
    (narrow,), (wide,) = judge_together([question(cells, 0.2), question(cells, 1.0)])
    assert (narrow.verdict, wide.verdict) == (Verdict.HELPS, Verdict.EQUIVALENT)


def test_protocols_need_not_have_the_same_replicates_or_variants() -> None:
    draws = np.random.default_rng(1)
    many, few = drawn(draws, 8, 0.2, 2.0, 0.0), drawn(draws, 3, 0.2, 2.0)
    few["replicate"] += 6  # the other protocol also has 6 and 7, but not 8
    (first, second), (third,) = judge_together([question(many), question(few)])
    assert [one.difference.n for one in (first, second, third) if one.difference] == [8, 8, 3]
    assert (first.assumes_normal, third.assumes_normal) == (False, True)
    assert first.verdict is Verdict.HELPS


def test_variances_are_moderated_within_a_protocol() -> None:
    draws = np.random.default_rng(2)
    quiet, loud = draws.standard_normal((4, 5)), LOUD * draws.standard_normal((4, 5))
    both = Responses.joined([responses(quiet), responses(loud)])
    errors, freedom = moderated_errors(both)
    for part, own in ((quiet, slice(0, 4)), (loud, slice(4, 8))):
        own_errors, own_freedom = moderated_errors(responses(part))
        assert errors[own].tolist() == own_errors.tolist()
        assert freedom[own].tolist() == own_freedom.tolist()
    some = both.of(np.array([False] * 3 + [True] * 2 + [False] * 3))
    assert moderated_errors(some)[0].tolist() == errors[3:5].tolist()


@pytest.mark.parametrize("n", [3, 6])
@pytest.mark.parametrize("contrasts", [1, 4])
def test_at_most_5_percent_of_multiverses_without_effects_claim_one_even_if_spreads_differ(
    n: int, contrasts: int
) -> None:
    draws, studies, wrong = np.random.default_rng([n, contrasts]), 1000, 0
    for _ in range(studies):
        parts = [sd * draws.standard_normal((n, 1 + contrasts)) for sd in np.geomspace(1, LOUD, 3)]
        wrong += bool(family_tests(Responses.joined([responses(part) for part in parts])).p.min() <= ALPHA)
    assert wrong / studies <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / studies)


def judged(effects: Sequence[float], margin: float = 0.5) -> Contrast:
    cells = frame({"none": [70.0, 70.2] * (len(effects) // 2), "a": [70 + effect for effect in effects]})
    return judge(cells, against_nothing("a"), margin)[0]


def test_under_interim_analyses_p_values_are_corrected_for_the_number_of_protocols() -> None:
    clear = judged([2.0, 2.3, 2.1, 2.4, 2.2, 2.6, 1.9, 2.5])
    assert clear.p == 2 / 2**8
    twice, often = (corrected_for_protocols([clear], protocols, "top1")[0] for protocols in (2, 7))
    assert (twice.p, twice.verdict) == (4 / 2**8, Verdict.HELPS)
    assert (often.p, often.verdict) == (14 / 2**8, Verdict.UNDECIDED)
    same = judged([0.1, 0.0, 0.1, 0.2, 0.1, 0.3, 0.0, 0.2])
    assert same.verdict is Verdict.EQUIVALENT
    assert corrected_for_protocols([same], 2, "top1")[0].verdict is Verdict.EQUIVALENT
    assert corrected_for_protocols([same], 10**6, "top1")[0].verdict is Verdict.UNDECIDED


@given(
    verdict=st.sampled_from([Verdict.NONE, Verdict.UNSTABLE, Verdict.UNDECIDED]),
    p=st.none() | st.floats(0, 1),
    protocols=st.integers(2, 9),
)
def test_a_correction_does_not_decide_undecided_contrasts(verdict: Verdict, p: float | None, protocols: int) -> None:
    contrast = replace(judged([0.3, 0.1, 0.2, 0.4]), verdict=verdict, p=p)
    (corrected,) = corrected_for_protocols([contrast], protocols, "top1")
    assert corrected.verdict is verdict
    assert corrected.p == (None if p is None else min(1.0, protocols * p))
