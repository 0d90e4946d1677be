"""Error rates of verdicts, counted over simulated studies with known effects; every simulation is seeded.

These are spot checks that take seconds; `tests/simulations/verdicts.md` has all settings with more studies each.
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
FAR = 1e6  # a margin without effect, in standard deviations of a run
NEVER = 1e-6  # a margin that no difference is within
OF_DIFFERENCE = 2**0.5  # the standard deviation of a difference relative to that of a run


def allowed(rate: float, number: int = STUDIES) -> float:
    """Returns a rate plus two and a half Monte Carlo standard errors for a number of studies."""
    return rate + 2.5 * math.sqrt(rate * (1 - rate) / number)


def cells_of(values: Array) -> pd.DataFrame:
    """Returns a study in the format of `judge`."""
    return frame({name: own.tolist() for name, own in zip(names_of(values), values.T, strict=True)})


def names_of(values: Array) -> list[str]:
    return [BASELINE, *map(str, range(1, values.shape[1]))]


def judged(values: Array, margin: float, planned: InterimAnalyses | None) -> list[Contrast]:
    """Judges a study as it runs: from cells, adding replicates only to contrasts that are undecided."""
    cells, baselines = cells_of(values), against_nothing(*names_of(values)[1:])
    kept = cells[cells["replicate"] < 0]
    going, contrasts, before = list(baselines), list[Contrast](), 0
    for size in planned.sizes if planned else (len(values),):
        batch = cells["replicate"].between(before, size - 1) & cells["variant"].isin(going)
        # Rows are in the order of finishing.
        kept = kept.merge(cells[batch], how="outer").sample(frac=1, random_state=size)
        contrasts = judge(kept, baselines, margin, interims=planned)
        going = [BASELINE, *(contrast.variant for contrast in contrasts if not contrast.is_decided)]
        before = size
    return contrasts


@pytest.mark.parametrize(
    ("replicates", "planned"),
    [(n, None) for n in (3, 5, 6, 8, 12, 20)] + [(most, InterimAnalyses.planned(most)) for most in (8, 12, 20)],
    ids=str,
)
def test_the_fast_simulation_agrees_with_judge(replicates: int, planned: InterimAnalyses | None) -> None:
    # Differences and margins for which every verdict is common.
    verdicts = set()
    for values in studies("normal", 5, replicates, 4, effects=(0.0, 0.0, 2.5, -1.5), seed=replicates):
        fast, made = inferences(values, 2.0, planned), judged(values, 2.0, planned)
        for inference, contrast in zip(fast, made, strict=True):
            assert contrast.p == pytest.approx(inference.p)
            assert contrast.p_equivalence == pytest.approx(inference.p_equivalence)
            assert (contrast.interim, contrast.assumes_normal) == (inference.interim, inference.assumes_normal)
            assert contrast.adjusted == pytest.approx(inference.adjusted)
            assert contrast.difference is not None
            assert inference.estimate is not None
            assert astuple(contrast.difference) == pytest.approx(astuple(inference.estimate))
            if planned is None:
                stable = stability(values, 2.0)
                pair = (stable[int(contrast.variant)], replace(stable[0], variant=BASELINE))
                assert [astuple(each) for each in contrast.stabilities] == [
                    pytest.approx(astuple(each)) for each in pair
                ]
            if not any(each.is_unstable or each.strays for each in contrast.stabilities):
                assert contrast.verdict is decide(inference, 1.0, 0)
                verdicts.add(contrast.verdict)
    if replicates >= 12:
        assert verdicts >= {Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT}


@pytest.mark.parametrize(
    ("kind", "replicates", "contrasts"),
    [
        *(("normal", *setting) for setting in product((3, 5, 6, 8, 12), (1, 4, 9))),
        *product(sorted(KINDS.keys() - {"normal"}), (3, 5, 6, 12), (4,)),
        *product(sorted(KINDS.keys() - {"normal"}), (5, 8), (9,)),
    ],
)
def test_variants_without_effect_are_rarely_significant(kind: str, replicates: int, contrasts: int) -> None:
    number = STUDIES if replicates < 12 else STUDIES // 2
    wrong = sum(
        bool(family_tests(responses(one)).p.min() <= 0.05) for one in studies(kind, number, replicates, contrasts)
    )
    assert wrong / number <= allowed(0.06, number)


def test_a_single_contrast_uses_the_whole_error_rate() -> None:
    wrong = sum(differs(inferences(values, NEVER)[0]) for values in studies("normal", 1500, 10, 1, seed=2))
    assert wrong / 1500 == pytest.approx(0.05, abs=0.014)


def test_uncorrected_t_tests_would_exceed_the_error_rate() -> None:
    # This is the reason for the correction, and shows that the test above can fail.
    wrong = 0
    for values in studies("normal", STUDIES, 8, 9):
        wrong += any(not one.low <= 0 <= one.high for one in map(estimate, responses(values).differences.T))
    assert wrong / STUDIES > 0.15


@pytest.mark.parametrize(
    ("kind", "replicates", "contrasts"),
    [*product(sorted(KINDS), (3, 6), (4,)), *product(["normal"], (5, 12), (1, 4, 9))],
)
def test_variants_that_differ_by_the_margin_are_rarely_equivalent(kind: str, replicates: int, contrasts: int) -> None:
    # The margin is large relative to the spread; otherwise no variant would be equivalent, rightly or wrongly.
    margin = 4 * (2 / replicates) ** 0.5
    wrong = 0
    for values in studies(kind, STUDIES // 2, replicates, contrasts, effects=(margin,) * contrasts, seed=1):
        wrong += any(map(is_equivalent, inferences(values, margin)))
    assert wrong / (STUDIES // 2) <= allowed(0.06, STUDIES // 2)


INTERIMS = InterimAnalyses((7, 9, 12))


@pytest.mark.parametrize(("kind", "contrasts"), [("normal", 4), ("tied", 4)])
def test_interim_analyses_keep_the_error_rate(kind: str, contrasts: int) -> None:
    drawn = studies(kind, STUDIES, INTERIMS.sizes[-1], contrasts, seed=3)
    wrong = sum(any(map(differs, inferences(values, NEVER, INTERIMS))) for values in drawn)
    assert wrong / STUDIES <= allowed(0.06)


def test_interim_analyses_keep_the_error_rate_of_equivalence() -> None:
    margin, number = 4 * (2 / INTERIMS.sizes[-1]) ** 0.5, 120
    drawn = studies("normal", number, INTERIMS.sizes[-1], 2, effects=(margin, margin), seed=3)
    wrong = sum(any(map(is_equivalent, inferences(values, margin, INTERIMS))) for values in drawn)
    assert wrong / number <= allowed(0.06, number)


def test_interim_analyses_use_the_whole_error_rate() -> None:
    # Bonferroni's inequality over the analyses left 1.6 to 3.2 of the 5 points unused.
    wrong = sum(differs(inferences(values, NEVER, INTERIMS)[0]) for values in studies("normal", 600, 12, 1, seed=4))
    assert wrong / 600 == pytest.approx(0.05, abs=0.022)


def test_a_clear_difference_is_detected_before_the_last_interim_analysis() -> None:
    found, number = 0, 60
    for values in studies("normal", number, 12, 4, effects=(5.0, -5.0), seed=5):
        inferred = inferences(values, NEVER, INTERIMS)
        found += all(differs(inference) and inference.interim == 7 for inference in inferred[:2])
    assert found / number > 0.9


def found_in(replicates: int, effect: float, contrasts: int, number: int = STUDIES) -> float:
    """Returns the share of studies that detect the one true difference, in standard deviations of a difference."""
    detected = 0
    for values in studies("normal", number, replicates, contrasts, effects=(effect * OF_DIFFERENCE,), seed=6):
        detected += bool(family_tests(responses(values)).p[0] <= 0.05)
    return detected / number


@pytest.mark.parametrize("contrasts", [1, 4])
@pytest.mark.parametrize(
    ("n", "effects"),
    [(3, (2.0, 3.0)), (5, (1.0, 1.6)), (6, (1.2, 2.0)), (8, (0.9, 1.4)), (12, (0.6, 1.0)), (20, (0.5, 0.7))],
)
def test_power_is_the_share_of_studies_that_detect_a_difference(
    n: int, effects: tuple[float, ...], contrasts: int
) -> None:
    number = STUDIES if n < 12 else STUDIES // 2
    for effect in effects:
        predicted = power(effect * 0.7, 0.7, n, contrasts)
        assert 0.1 < predicted < 0.99  # the range in which the prediction is informative
        error = 2.5 * math.sqrt(predicted * (1 - predicted) / number)
        assert predicted == pytest.approx(found_in(n, effect, contrasts, number), abs=0.02 + error), effect


@pytest.mark.parametrize(("n", "contrasts"), [(3, 4), (5, 1), (8, 1), (8, 4), (12, 4)])
def test_the_detectable_difference_is_detected_in_four_of_five_studies(n: int, contrasts: int) -> None:
    effect = detectable(1.0, n, contrasts)
    assert effect is not None
    assert found_in(n, effect, contrasts) == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize(("effect", "contrasts"), [(1.3, 1), (1.4, 4), (2.0, 4)])
def test_the_predicted_replicates_detect_a_difference_in_four_of_five_studies(effect: float, contrasts: int) -> None:
    n = replicates_for(effect, 1.0, contrasts)
    assert n is not None
    assert found_in(n, effect, contrasts) > 0.8 - 0.06
    assert found_in(n - 1, effect, contrasts) < 0.8 + 0.06


@pytest.mark.parametrize(("n", "contrasts"), [(3, 1), (5, 1), (8, 1), (20, 1), (6, 4), (12, 4)])
def test_the_reachable_margin_confirms_equivalence_in_four_of_five_studies(n: int, contrasts: int) -> None:
    margin = reachable_margin(OF_DIFFERENCE, n, contrasts)
    assert margin is not None
    confirmed = 0
    # The other variants differ by far more than the margin.
    for values in studies(
        "normal", STUDIES // 2, n, contrasts, effects=(0.0, *(9 * margin,) * (contrasts - 1)), seed=7
    ):
        confirmed += is_equivalent(inferences(values, margin)[0])
    assert confirmed / (STUDIES // 2) == pytest.approx(0.8, abs=0.05 + 0.06)


@pytest.mark.parametrize(("n", "sd"), [(8, 0.5), (12, 0.74)])
def test_studies_with_a_failure_in_the_sample_rarely_conclude_equivalence(n: int, sd: float) -> None:
    # One run in ten loses 4 points, at equal means; the margin is one point.
    draws, held, wrong, decided = np.random.default_rng(n), 0, 0, 0
    baselines = against_nothing("1", "2", "3", "4")
    for values in studies("normal", 150, n, 4, seed=8):
        fails = draws.random(n) < 0.1
        values *= sd
        values[:, 1] += 0.4 - 4 * fails
        contrast = judge(cells_of(values), baselines, 1.0)[0]
        held += bool(fails.any())
        wrong += bool(fails.any()) and contrast.verdict is Verdict.EQUIVALENT
        decided += contrast.verdict in {Verdict.HELPS, Verdict.HURTS}
    assert held > 60
    # A run that loses 4 points but is 2 standard deviations above the mean by chance is not detected.
    assert wrong <= (0 if sd == 0.5 else 0.03 * held)
    assert decided / 150 <= 0.15  # without the verdict `unstable` it is more


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
def test_students_interval_covers_the_true_mean_in_19_of_20_studies(kind: str, n: int) -> None:
    intervals = [estimate(values) for values in drawn(kind, (8000, n))]
    assert 0.93 <= np.mean([one.low <= 0 <= one.high for one in intervals]) <= 0.97


def test_an_interval_has_the_coverage_of_its_confidence_level() -> None:
    intervals = [estimate(values, 0.8) for values in drawn("normal", (8000, 8))]
    assert np.mean([one.low <= 0 <= one.high for one in intervals]) == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("n", [3, 5])
def test_moderated_intervals_cover_the_true_difference_in_19_of_20_studies(n: int) -> None:
    held = []
    for values in studies("normal", STUDIES, n, 4, seed=9):
        held += [bool(one.estimate and one.estimate.low <= 0 <= one.estimate.high) for one in inferences(values, FAR)]
    # Four correlated contrasts of a study have the precision of two or three independent ones.
    assert 0.93 <= np.mean(held) <= 0.975


@pytest.mark.parametrize(("n", "least", "most"), [(5, 0.79, 0.88), (20, 0.91, 0.96)])
def test_the_bootstrap_interval_covers_the_truth_less_often_with_fewer_replicates(
    n: int, least: float, most: float
) -> None:
    values = drawn("normal", (1500, n))
    interval = scipy_stats.bootstrap((values,), np.mean, axis=-1, n_resamples=1000, rng=0).confidence_interval
    assert least < np.mean((interval.low <= 0) & (interval.high >= 0)) < most


def test_the_interval_of_a_spread_covers_it_and_unstable_variants_do_not_affect_others() -> None:
    held, ratios = [], []
    for values in studies("normal", 200, 6, 3, seed=10):
        values[:, 3] *= 6
        by_variant = spreads(cells_of(values), against_nothing("1", "2", "3"))
        held += [spread.low <= OF_DIFFERENCE <= spread.high for name, spread in by_variant.items() if name != "3"]
        ratios.append(by_variant["3"].value / by_variant["1"].value)
    assert 0.92 <= np.mean(held) <= 0.98
    assert np.median(ratios) > 3
