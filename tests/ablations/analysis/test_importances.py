from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ablations.analysis.importances import importances
from ablations.analysis.tradeoffs import tradeoffs
from tests.builders.picks import searched, searched_cells


def test_the_factor_with_the_effect_is_important() -> None:
    design = searched()
    # none, then groups 1, 2, 4, 8 with and without shuffle: accuracy depends on groups, memory on shuffle.
    frame = tradeoffs(
        searched_cells(design, top1=[0, 10, 10, 20, 20, 30, 30, 40, 40], peak_memory_mib=[0, 5, 9, 5, 9, 5, 9, 5, 9]),
        design,
    )
    frame_of_importances = importances(frame, design)
    shares = frame_of_importances.pivot_table(index="factor", columns="objective", values="importance")
    assert shares.loc["groups", "top1"] > 0.9 > 0.1 > shares.loc["shuffle", "top1"]
    assert shares.loc["shuffle", "peak_memory_mib"] > 0.9 > 0.1 > shares.loc["groups", "peak_memory_mib"]
    of_top1 = {row["factor"]: row for row in frame_of_importances.to_dict("records") if row["objective"] == "top1"}
    assert of_top1["groups"]["p"] <= of_top1["groups"]["p_family"] <= 0.05
    assert of_top1["groups"]["importance"] > of_top1["groups"]["null_95"]
    assert of_top1["shuffle"]["p_family"] > 0.5


def test_a_constant_objective_has_no_importances() -> None:
    design = searched()
    shares = importances(tradeoffs(searched_cells(design, top1=[0, 1, 2, 3, 4, 5, 6, 7, 8]), design), design)
    assert set(shares["objective"]) == {"top1"}


@pytest.mark.parametrize("tried", [0, 1, 5])
def test_few_variants_have_no_importances(tried: int) -> None:
    design = searched()
    design = replace(design, variants=design.variants[: tried + 1])
    assert importances(tradeoffs(searched_cells(design, top1=list(map(float, range(tried + 1)))), design), design).empty


def test_noise_is_significant_no_more_often_than_at_the_nominal_level() -> None:
    design = searched()
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(4):
        frame = tradeoffs(searched_cells(design, top1=random.normal(size=9).tolist()), design)
        frame_of_importances = importances(frame, design)
        alarms += bool((frame_of_importances["p_family"] <= 0.05).any())
        assert (frame_of_importances["p"] <= frame_of_importances["p_family"]).all()
        assert set(frame_of_importances["permutations"]) == {59}
    assert alarms <= 2  # P(X >= 3) = 0.0005 for X ~ Binomial(4, 0.05)


def test_importances_are_reproducible() -> None:
    design = searched()
    frame = tradeoffs(searched_cells(design, top1=[0, 3, 1, 4, 1, 5, 9, 2, 6]), design)
    pd.testing.assert_frame_equal(importances(frame, design), importances(frame, design))
