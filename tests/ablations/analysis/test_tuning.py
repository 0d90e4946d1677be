"""The results of tuning: best recipes, expected best values, and positions of optima."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.analysis.tuning import expected_best
from tests.builders.tuned import OPTIMA, RATE, TunableLauncher, TunedStudy


@given(st.lists(st.floats(0, 100), min_size=1, max_size=7))
def test_the_expected_best_is_the_mean_over_all_subsets(values: list[float]) -> None:
    expected = expected_best(np.array(values))
    for size in range(1, len(values) + 1):
        maxima = [max(subset) for subset in itertools.combinations(values, size)]
        assert expected[size - 1] == pytest.approx(np.mean(maxima))


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_the_expected_best_rises_from_the_mean_to_the_maximum(number: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=number)
    expected = expected_best(values)
    assert expected[0] == pytest.approx(values.mean(), abs=1e-9)
    assert expected[-1] == pytest.approx(values.max(), abs=1e-9)
    assert (np.diff(expected) >= -1e-9).all()


def test_each_variant_has_the_recipe_of_its_best_trial(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path)
    study.drive(TunableLauncher(study.config))
    tuned = study.analysis().tuned
    assert tuned is not None
    assert len(tuned.trials) == tuned.tuning.trials * len(OPTIMA)
    for name in OPTIMA:
        trials = tuned.trials[tuned.trials["variant"] == name]
        best = trials.loc[trials["top1"].idxmax()]
        assert trials["best"].sum() == 1
        assert best["best"]
        assert tuned.recipes[name] == {RATE: best[RATE], "train.weight_decay": best["train.weight_decay"]}
        expected = tuned.expected[tuned.expected["variant"] == name]["expected"]
        assert list(expected) == pytest.approx(list(expected_best(trials["top1"].to_numpy())))


def test_a_loss_is_minimized(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path, "judge.metric=test_loss", "sweep.margin=0.5")
    study.drive(TunableLauncher(study.config))
    tuned = study.analysis().tuned
    assert tuned is not None
    for name in OPTIMA:
        trials = tuned.trials[tuned.trials["variant"] == name]
        assert trials.loc[trials["best"], "test_loss"].item() == trials["test_loss"].min()
        expected = tuned.expected[tuned.expected["variant"] == name]["expected"]
        assert expected.iloc[-1] == pytest.approx(trials["test_loss"].min())
        assert (expected.diff().dropna() <= 1e-9).all()


def test_an_optimum_in_the_outer_tenth_of_a_range_is_at_an_edge(tmp_path: Path) -> None:
    # The optimum of one variant is below the range, that of the other in the middle of it.
    study = TunedStudy(tmp_path, "tune.trials=8", "tune.space={train.learning_rate: [0.15, 0.6]}")
    study.drive(TunableLauncher(study.config))
    tuned = study.analysis().tuned
    assert tuned is not None
    optima = {optimum.variant: optimum for optimum in tuned.optima}
    assert optima["groups=4"].share == pytest.approx(
        min((rate - 0.15) / 0.45 for rate in tuned.trials.loc[tuned.trials["variant"] == "groups=4", RATE])
    )
    assert optima["none"].edge == 0
    assert optima["groups=4"].edge == (-1 if optima["groups=4"].share <= 0.1 else 0)
