from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ablations.analysis.tradeoffs import importances, is_on_front, tradeoffs
from ablations.common.metrics import CELL_METRICS
from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.design.variants import variant_of_levels

CONFIG = compose_config(
    [
        "device=cpu",
        "sweep=search",
        "sweep.factors={attention: {groups: [1, 2, 4, 8], shuffle: [true, false]}}",
        "sweep.objectives=[top1,peak_memory_mib]",
        "sweep.max_parameters=100",
    ]
)


def searched() -> Design:
    """A search that picked all eight combinations."""
    made = make_design(CONFIG)
    picked = [
        variant_of_levels(CONFIG, {"attention.groups": groups, "attention.shuffle": shuffle})
        for groups in (1, 2, 4, 8)
        for shuffle in (True, False)
    ]
    return replace(made, variants=(*made.variants, *picked))


def cells(made: Design, **metrics: list[float]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for index, variant in enumerate(made.variants):
        for number in range(2):
            row: dict[str, Any] = dict.fromkeys(CELL_METRICS, 1.0) | {"variant": variant.name, "replicate": number}
            rows.append(row | {key: values[index] for key, values in metrics.items()})
    return pd.DataFrame(rows)


@given(arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(0, 4)))
def test_the_front_is_what_nothing_beats(values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    directions = ["maximize", "minimize", "maximize"][: values.shape[1]]
    signs = [1, -1, 1][: values.shape[1]]

    def beats(one: int, other: int) -> bool:
        differences = [sign * (a - b) for sign, a, b in zip(signs, values[one], values[other], strict=True)]
        return min(differences) >= 0 and max(differences) > 0

    expected = [not any(beats(other, row) for other in range(len(values))) for row in range(len(values))]
    assert is_on_front(values, directions).tolist() == expected


def test_the_front_is_lettered_from_the_best_in_the_first_objective() -> None:
    made = searched()
    frame = tradeoffs(
        cells(made, top1=[50, 60, 70, 1, 1, 1, 1, 1, 1], peak_memory_mib=[1, 2, 3, 9, 9, 9, 9, 9, 9]), made
    )
    lettered = frame[frame["on_front"]].set_index("label")["variant"].to_dict()
    assert lettered == {"A": "groups=1, shuffle=off", "B": "groups=1, shuffle=on", "C": "none"}
    assert frame["n"].tolist() == [2] * 9
    assert frame["picked"].tolist() == [False] + [True] * 8


def test_variants_with_too_many_parameters_are_not_on_the_front() -> None:
    made = searched()
    frame = tradeoffs(cells(made, top1=[50, 99] + [40] * 7, parameters=[10, 101] + [10] * 7), made)
    assert frame[frame["on_front"]]["variant"].tolist() == ["none"]
    assert frame["fits"].tolist() == [True, False] + [True] * 7


def test_the_factor_that_decides_is_the_important_one() -> None:
    made = searched()
    # none, then groups 1, 2, 4, 8 with and without the shuffle: accuracy follows groups, memory the shuffle.
    frame = tradeoffs(
        cells(made, top1=[0, 10, 10, 20, 20, 30, 30, 40, 40], peak_memory_mib=[0, 5, 9, 5, 9, 5, 9, 5, 9]), made
    )
    shares = importances(frame, made).pivot_table(index="factor", columns="objective", values="importance")
    assert shares.loc["groups", "top1"] > 0.9 > 0.1 > shares.loc["shuffle", "top1"]
    assert shares.loc["shuffle", "peak_memory_mib"] > 0.9 > 0.1 > shares.loc["groups", "peak_memory_mib"]


def test_an_objective_that_never_differs_has_no_importances() -> None:
    made = searched()
    shares = importances(tradeoffs(cells(made, top1=[0, 1, 2, 3, 4, 5, 6, 7, 8]), made), made)
    assert set(shares["objective"]) == {"top1"}


@pytest.mark.parametrize("tried", [0, 1, 5])
def test_few_variants_say_nothing_of_importance(tried: int) -> None:
    made = searched()
    made = replace(made, variants=made.variants[: tried + 1])
    assert importances(tradeoffs(cells(made, top1=list(map(float, range(tried + 1)))), made), made).empty
