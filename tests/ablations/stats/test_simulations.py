"""Error rates of verdicts, counted over simulated studies with known truths; every simulation is seeded.

These are spot checks that take seconds; `tests/simulations/verdicts.md` has all settings and more studies of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from ablations.stats import (
    Contrast,
    InterimAnalyses,
    Verdict,
    detectable,
    estimate,
    judge,
    power,
    reachable_margin,
    replicates_for,
    spreads,
)
from ablations.stats.significance import family_tests
from ablations.stats.verdicts import decide
from tests.builders.frames import BASELINE, against_nothing, frame
from tests.simulations.studies import (
    KINDS,
    differs,
    inferences,
    is_equivalent,
    responses,
    stability,
    studies,
)

Array = NDArray[np.float64]

STUDIES = 400
FAR = 1e6  # a margin that plays no part, in standard deviations of a run
NEVER = 1e-6  # one within which nothing is
OF_DIFFERENCE = 2**0.5  # the standard deviation of a difference, in those of a run


def allowed(rate: float, number: int = STUDIES) -> float:
    """Returns a rate with two and a half Monte Carlo errors of so many studies."""
    return rate + 2.5 * math.sqrt(rate * (1 - rate) / number)


def cells_of(values: Array) -> pd.DataFrame:
    """Returns a study as `judge` takes it."""
    return frame({name: own.tolist() for name, own in zip(names_of(values), values.T, strict=True)})


def names_of(values: Array) -> list[str]:
    return [BASELINE, *map(str, range(1, values.shape[1]))]


def judged(values: Array, margin: float, planned: InterimAnalyses | None) -> list[Contrast]:
    """Judges a study as a study is: from cells, adding replicates to those contrasts only that are not decided."""
    cells, baselines = cells_of(values), against_nothing(*names_of(values)[1:])
    kept = cells[cells["replicate"] < 0]
    going, made, before = list(baselines), list[Contrast](), 0
    for size in planned.sizes if planned else (len(values),):
        batch = cells["replicate"].between(before, size - 1) & cells["variant"].isin(going)
        # Rows are in the order in which runs finish.
        kept = kept.merge(cells[batch], how="outer").sample(frac=1, random_state=size)
        made = judge(kept, baselines, margin, interims=planned)
        going = [BASELINE, *(one.variant for one in made if not one.is_decided)]
        before = size
    return made


@pytest.mark.parametrize(
    ("replicates", "planned"),
    [(n, None) for n in (3, 5, 6, 8, 12, 20)] + [(most, InterimAnalyses.planned(most)) for most in (8, 12, 20)],
    ids=str,
)
def test_what_is_simulated_fast_is_what_judge_says(replicates: int, planned: InterimAnalyses | None) -> None:
    # Of differences and of margins for which every verdict is common.
    found = set()
    for values in studies("normal", 5, replicates, 4, effects=(0.0, 0.0, 2.5, -1.5), seed=replicates):
        fast, made = inferences(values, 2.0, planned), judged(values, 2.0, planned)
        for inference, one in zip(fast, made, strict=True):
            assert one.p == pytest.approx(inference.p)
            assert one.p_equivalence == pytest.approx(inference.p_equivalence)
            assert (one.interim, one.assumes_normal) == (inference.interim, inference.assumes_normal)
            assert one.adjusted == pytest.approx(inference.adjusted)
            assert one.difference is not None
            assert inference.estimate is not None
            assert astuple(one.difference) == pytest.approx(astuple(inference.estimate))
            if planned is None:
                stable = stability(values, 2.0)
                pair = (stable[int(one.variant)], replace(stable[0], variant=BASELINE))
                assert [astuple(each) for each in one.stabilities] == [pytest.approx(astuple(each)) for each in pair]
            if not any(each.is_unstable or each.strays for each in one.stabilities):
                assert one.verdict is decide(inference, 1.0, 0)
                found.add(one.verdict)
    if replicates >= 12:
        assert found >= {Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT}


@pytest.mark.parametrize(
    ("kind", "replicates", "contrasts"),
    [
        *(("normal", *setting) for setting in product((3, 5, 6, 8, 12), (1, 4, 9))),
        *product(sorted(KINDS.keys() - {"normal"}), (3, 5, 6, 12), (4,)),
        *product(sorted(KINDS.keys() - {"normal"}), (5, 8), (9,)),
    ],
)
def test_variants_that_do_nothing_are_rarely_said_to_do_something(kind: str, replicates: int, contrasts: int) -> None:
    number = STUDIES if replicates < 12 else STUDIES // 2
    wrong = sum(
        bool(family_tests(responses(one)).p.min() <= 0.05) for one in studies(kind, number, replicates, contrasts)
    )
    assert wrong / number <= allowed(0.06, number)


def test_one_contrast_uses_up_what_is_allowed() -> None:
    wrong = sum(differs(inferences(values, NEVER)[0]) for values in studies("normal", 1500, 10, 1, seed=2))
    assert wrong / 1500 == pytest.approx(0.05, abs=0.014)


def test_students_t_of_each_contrast_would_be_wrong_too_often() -> None:
    # What the family is for; and so the test above is able to fail.
    wrong = 0
    for values in studies("normal", STUDIES, 8, 9):
        wrong += any(not one.low <= 0 <= one.high for one in map(estimate, responses(values).differences.T))
    assert wrong / STUDIES > 0.15


@pytest.mark.parametrize(
    ("kind", "replicates", "contrasts"),
    [*product(sorted(KINDS), (3, 6), (4,)), *product(["normal"], (5, 12), (1, 4, 9))],
)
def test_what_differs_by_the_margin_is_rarely_called_equivalent(kind: str, replicates: int, contrasts: int) -> None:
    # With a spread that the margin is large against: otherwise nothing would be called equivalent, right or wrong.
    margin = 4 * (2 / replicates) ** 0.5
    wrong = 0
    for values in studies(kind, STUDIES // 2, replicates, contrasts, effects=(margin,) * contrasts, seed=1):
        wrong += any(map(is_equivalent, inferences(values, margin)))
    assert wrong / (STUDIES // 2) <= allowed(0.06, STUDIES // 2)


INTERIMS = InterimAnalyses((7, 9, 12))


@pytest.mark.parametrize(("kind", "contrasts"), [("normal", 4), ("tied", 4)])
def test_looking_on_the_way_is_not_wrong_more_often(kind: str, contrasts: int) -> None:
    drawn = studies(kind, STUDIES, INTERIMS.sizes[-1], contrasts, seed=3)
    wrong = sum(any(map(differs, inferences(values, NEVER, INTERIMS))) for values in drawn)
    assert wrong / STUDIES <= allowed(0.06)


def test_looking_on_the_way_does_not_call_more_equivalent() -> None:
    margin, number = 4 * (2 / INTERIMS.sizes[-1]) ** 0.5, 120
    drawn = studies("normal", number, INTERIMS.sizes[-1], 2, effects=(margin, margin), seed=3)
    wrong = sum(any(map(is_equivalent, inferences(values, margin, INTERIMS))) for values in drawn)
    assert wrong / number <= allowed(0.06, number)


def test_looks_use_up_what_is_allowed() -> None:
    # Bonferroni's inequality over the looks left 1.6 to 3.2 of the 5 points unused.
    wrong = sum(differs(inferences(values, NEVER, INTERIMS)[0]) for values in studies("normal", 600, 12, 1, seed=4))
    assert wrong / 600 == pytest.approx(0.05, abs=0.022)


def test_a_clear_difference_is_found_before_the_last_look() -> None:
    found, number = 0, 60
    for values in studies("normal", number, 12, 4, effects=(5.0, -5.0), seed=5):
        made = inferences(values, NEVER, INTERIMS)
        found += all(differs(inference) and inference.interim == 7 for inference in made[:2])
    assert found / number > 0.9


def found_in(replicates: int, effect: float, contrasts: int, number: int = STUDIES) -> float:
    """Returns in what share of studies the one contrast that differs is said to, in deviations of a difference."""
    found = 0
    for values in studies("normal", number, replicates, contrasts, effects=(effect * OF_DIFFERENCE,), seed=6):
        found += bool(family_tests(responses(values)).p[0] <= 0.05)
    return found / number


@pytest.mark.parametrize("contrasts", [1, 4])
@pytest.mark.parametrize(
    ("n", "effects"),
    [(3, (2.0, 3.0)), (5, (1.0, 1.6)), (6, (1.2, 2.0)), (8, (0.9, 1.4)), (12, (0.6, 1.0)), (20, (0.5, 0.7))],
)
def test_power_is_how_often_a_difference_is_found(n: int, effects: tuple[float, ...], contrasts: int) -> None:
    number = STUDIES if n < 12 else STUDIES // 2
    for effect in effects:
        predicted = power(effect * 0.7, 0.7, n, contrasts)
        assert 0.1 < predicted < 0.99  # where there is something to predict
        error = 2.5 * math.sqrt(predicted * (1 - predicted) / number)
        assert predicted == pytest.approx(found_in(n, effect, contrasts, number), abs=0.02 + error), effect


@pytest.mark.parametrize(("n", "contrasts"), [(3, 4), (5, 1), (8, 1), (8, 4), (12, 4)])
def test_what_is_detectable_is_found_in_four_of_five_studies(n: int, contrasts: int) -> None:
    effect = detectable(1.0, n, contrasts)
    assert effect is not None
    assert found_in(n, effect, contrasts) == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize(("effect", "contrasts"), [(1.3, 1), (1.4, 4), (2.0, 4)])
def test_so_many_replicates_find_a_difference_in_four_of_five_studies(effect: float, contrasts: int) -> None:
    n = replicates_for(effect, 1.0, contrasts)
    assert n is not None
    assert found_in(n, effect, contrasts) > 0.8 - 0.06
    assert found_in(n - 1, effect, contrasts) < 0.8 + 0.06


@pytest.mark.parametrize(("n", "contrasts"), [(3, 1), (5, 1), (8, 1), (20, 1), (6, 4), (12, 4)])
def test_the_reachable_margin_confirms_equivalence_in_four_of_five_studies(n: int, contrasts: int) -> None:
    margin = reachable_margin(OF_DIFFERENCE, n, contrasts)
    assert margin is not None
    found = 0
    # The others are nowhere near.
    for values in studies(
        "normal", STUDIES // 2, n, contrasts, effects=(0.0, *(9 * margin,) * (contrasts - 1)), seed=7
    ):
        found += is_equivalent(inferences(values, margin)[0])
    assert found / (STUDIES // 2) == pytest.approx(0.8, abs=0.05 + 0.06)


@pytest.mark.parametrize(("n", "sd"), [(8, 0.5), (12, 0.74)])
def test_with_a_failure_in_the_sample_hardly_anything_is_called_equivalent(n: int, sd: float) -> None:
    # One run in ten loses 4 points, at equal means; the margin is a point.
    draws, held, wrong, told = np.random.default_rng(n), 0, 0, 0
    baselines = against_nothing("1", "2", "3", "4")
    for values in studies("normal", 150, n, 4, seed=8):
        fails = draws.random(n) < 0.1
        values *= sd
        values[:, 1] += 0.4 - 4 * fails
        made = judge(cells_of(values), baselines, 1.0)[0]
        held += bool(fails.any())
        wrong += bool(fails.any()) and made.verdict is Verdict.EQUIVALENT
        told += made.verdict in {Verdict.HELPS, Verdict.HURTS}
    assert held > 60
    # A run that loses 4 points and gains 2 deviations by chance is none of those that are told from others.
    assert wrong <= (0 if sd == 0.5 else 0.03 * held)
    assert told / 150 <= 0.15  # without the finding of instability it is more, and nothing in the sample tells


def drawn(kind: str, size: tuple[int, int]) -> Array:
    """Draws differences whose mean is 0."""
    rng = np.random.default_rng(5)
    draw: dict[str, Callable[[], Array]] = {
        "normal": lambda: rng.standard_normal(size),
        "gamma": lambda: rng.gamma(4.0, size=size) - 4.0,  # a skewness of 1
        "two gammas": lambda: rng.gamma(1.0, size=size) - rng.gamma(1.0, size=size),
        "two lognormals": lambda: rng.lognormal(0.0, 0.5, size) - rng.lognormal(0.0, 0.5, size),
    }
    return draw[kind]()


@pytest.mark.parametrize(
    ("kind", "n"),
    [("normal", 5), ("normal", 8), ("normal", 20)]
    + [(kind, n) for kind in ("gamma", "two gammas", "two lognormals") for n in (8, 20)],
)
def test_students_interval_holds_the_truth_in_19_of_20_studies(kind: str, n: int) -> None:
    made = [estimate(values) for values in drawn(kind, (8000, n))]
    assert 0.93 <= np.mean([one.low <= 0 <= one.high for one in made]) <= 0.97


def test_an_interval_of_another_confidence_holds_the_truth_so_often() -> None:
    made = [estimate(values, 0.8) for values in drawn("normal", (8000, 8))]
    assert np.mean([one.low <= 0 <= one.high for one in made]) == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("n", [3, 5])
def test_moderated_intervals_hold_the_truth_in_19_of_20_studies(n: int) -> None:
    held = []
    for values in studies("normal", STUDIES, n, 4, seed=9):
        held += [bool(one.estimate and one.estimate.low <= 0 <= one.estimate.high) for one in inferences(values, FAR)]
    # Four contrasts of a study are as good as two or three independent ones.
    assert 0.93 <= np.mean(held) <= 0.975


@pytest.mark.parametrize(("n", "least", "most"), [(5, 0.79, 0.88), (20, 0.91, 0.96)])
def test_the_bootstraps_interval_holds_the_truth_less_often_the_fewer_replicates(
    n: int, least: float, most: float
) -> None:
    values = drawn("normal", (1500, n))
    interval = scipy_stats.bootstrap((values,), np.mean, axis=-1, n_resamples=1000, rng=0).confidence_interval
    assert least < np.mean((interval.low <= 0) & (interval.high >= 0)) < most


def test_the_spread_of_a_contrast_is_within_its_interval_and_not_that_of_an_unstable_one() -> None:
    held, ratios = [], []
    for values in studies("normal", 200, 6, 3, seed=10):
        values[:, 3] *= 6
        made = spreads(cells_of(values), against_nothing("1", "2", "3"))
        held += [one.low <= OF_DIFFERENCE <= one.high for name, one in made.items() if name != "3"]
        ratios.append(made["3"].value / made["1"].value)
    assert 0.92 <= np.mean(held) <= 0.98
    assert np.median(ratios) > 3
