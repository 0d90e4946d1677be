from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ablations.analysis.importances import importances
from ablations.analysis.tradeoffs import tradeoffs
from tests.builders.picks import searched, searched_cells


def test_the_factor_that_decides_is_the_important_one() -> None:
    made = searched()
    # none, then groups 1, 2, 4, 8 with and without the shuffle: accuracy follows groups, memory the shuffle.
    frame = tradeoffs(
        searched_cells(made, top1=[0, 10, 10, 20, 20, 30, 30, 40, 40], peak_memory_mib=[0, 5, 9, 5, 9, 5, 9, 5, 9]),
        made,
    )
    found = importances(frame, made)
    shares = found.pivot_table(index="factor", columns="objective", values="importance")
    assert shares.loc["groups", "top1"] > 0.9 > 0.1 > shares.loc["shuffle", "top1"]
    assert shares.loc["shuffle", "peak_memory_mib"] > 0.9 > 0.1 > shares.loc["groups", "peak_memory_mib"]
    of_top1 = {row["factor"]: row for row in found.to_dict("records") if row["objective"] == "top1"}
    assert of_top1["groups"]["p"] <= of_top1["groups"]["p_family"] <= 0.05
    assert of_top1["groups"]["importance"] > of_top1["groups"]["null_95"]
    assert of_top1["shuffle"]["p_family"] > 0.5


def test_an_objective_that_never_differs_has_no_importances() -> None:
    made = searched()
    shares = importances(tradeoffs(searched_cells(made, top1=[0, 1, 2, 3, 4, 5, 6, 7, 8]), made), made)
    assert set(shares["objective"]) == {"top1"}


@pytest.mark.parametrize("tried", [0, 1, 5])
def test_few_variants_say_nothing_of_importance(tried: int) -> None:
    made = searched()
    made = replace(made, variants=made.variants[: tried + 1])
    assert importances(tradeoffs(searched_cells(made, top1=list(map(float, range(tried + 1)))), made), made).empty


def test_noise_alone_exceeds_the_permuted_importances_no_more_often_than_it_may() -> None:
    made = searched()
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(4):
        frame = tradeoffs(searched_cells(made, top1=random.normal(size=9).tolist()), made)
        found = importances(frame, made)
        alarms += bool((found["p_family"] <= 0.05).any())
        assert (found["p"] <= found["p_family"]).all()
        assert set(found["permutations"]) == {59}
    assert alarms <= 2  # of four with a chance of 0.05 each, three come in 5 of 10,000 cases


def test_importances_are_the_same_whenever_they_are_computed() -> None:
    made = searched()
    frame = tradeoffs(searched_cells(made, top1=[0, 3, 1, 4, 1, 5, 9, 2, 6]), made)
    pd.testing.assert_frame_equal(importances(frame, made), importances(frame, made))
