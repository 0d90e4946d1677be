from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ablations.analysis.tradeoffs import is_on_front, tradeoffs
from tests.builders.picks import searched, searched_cells


@given(arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(0, 4)))
def test_the_front_has_all_non_dominated_rows(values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    directions = ["maximize", "minimize", "maximize"][: values.shape[1]]
    signs = [1, -1, 1][: values.shape[1]]

    def dominates(first: int, second: int) -> bool:
        differences = [sign * (a - b) for sign, a, b in zip(signs, values[first], values[second], strict=True)]
        return min(differences) >= 0 and max(differences) > 0

    expected = [not any(dominates(other, row) for other in range(len(values))) for row in range(len(values))]
    assert is_on_front(values, directions).tolist() == expected


def test_labels_on_the_front_start_at_the_best_in_the_first_objective() -> None:
    design = searched()
    frame = tradeoffs(
        searched_cells(design, top1=[50, 60, 70, 1, 1, 1, 1, 1, 1], peak_memory_mib=[1, 2, 3, 9, 9, 9, 9, 9, 9]), design
    )
    labelled = frame[frame["on_front"]].set_index("label")["variant"].to_dict()
    assert labelled == {"A": "groups=1, shuffle=off", "B": "groups=1, shuffle=on", "C": "none"}
    assert frame["picked"].tolist() == [False] + [True] * 8


def test_variants_with_too_many_parameters_are_not_on_the_front() -> None:
    design = searched()
    frame = tradeoffs(searched_cells(design, top1=[50, 99] + [40] * 7, parameters=[10, 101] + [10] * 7), design)
    assert frame[frame["on_front"]]["variant"].tolist() == ["none"]
    assert frame["fits"].tolist() == [True, False] + [True] * 7


def test_variants_are_ranked_among_those_within_the_limit() -> None:
    design = replace(searched(), objectives=("top1",), confirm=3)
    frame = tradeoffs(
        searched_cells(design, top1=[99, 10, 40, 30, 20, 0, 0, 0, 50], parameters=[1] * 8 + [101]), design
    )
    ranked = frame.set_index("rank")["variant"].to_dict()
    names = [variant.name for variant in design.variants]
    assert [ranked[rank] for rank in (1, 2, 3)] == [names[2], names[3], names[4]]
    assert sorted(frame["rank"]) == [0] * 6 + [1, 2, 3]


def test_with_several_objectives_extremes_are_ranked_first_then_by_crowding_distance() -> None:
    design = replace(searched(), confirm=4)
    top1 = [0, 10, 20, 21, 22, 50, 60, 0, 0]
    memory = [99, 1, 2, 2.1, 2.2, 5, 6, 9, 9]
    frame = tradeoffs(searched_cells(design, top1=top1, peak_memory_mib=memory), design)
    names = [variant.name for variant in design.variants]
    ranked = frame[frame["rank"] > 0].sort_values("rank")["variant"].tolist()
    assert ranked == [names[6], names[1], names[5], names[4]]
    assert set(ranked) <= set(frame.loc[frame["on_front"], "variant"])


@given(arrays(np.float64, st.tuples(st.integers(1, 8), st.just(2)), elements=st.integers(0, 4)), st.integers(1, 9))
def test_confirmed_variants_are_on_the_front_and_at_most_the_requested_number(
    values: np.ndarray[Any, np.dtype[np.float64]], confirm: int
) -> None:
    design = searched()
    design = replace(design, variants=design.variants[: len(values) + 1], confirm=confirm)
    columns = np.vstack([[[9.0, 0.0]], values])
    frame = tradeoffs(
        searched_cells(design, top1=columns[:, 0].tolist(), peak_memory_mib=columns[:, 1].tolist()), design
    )
    picks = frame[frame["picked"]]
    front = is_on_front(values, ["maximize", "minimize"])
    ranked = picks["rank"].to_numpy() > 0
    assert ranked.sum() == min(confirm, front.sum())
    assert not (ranked & ~front).any()
