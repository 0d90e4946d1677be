from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from ablations.reporting.figures import style
from ablations.reporting.figures.pareto import draw_pareto, pareto_frame
from ablations.reporting.figures.style import aside, is_wide
from tests.builders.costs import costs_of
from tests.builders.drawings import (
    MEMORY,
    SHORT,
    SPEED,
    STRANGE,
    STUDIES,
    TOPS,
    cells_of,
    cut,
    design_of,
    is_percent,
    overlapping,
    points,
    strange_study,
    written,
)


def frame_of(
    tops: Mapping[str, Sequence[float]], speeds: Mapping[str, float], memory: Mapping[str, float]
) -> pd.DataFrame:
    made = design_of(list(tops))
    costs = costs_of(made, train_images_per_second=speeds, peak_memory_mib=memory)
    return pareto_frame(cells_of(tops), made, costs)


def rows_of(frame: pd.DataFrame, metric: str) -> dict[str, dict[str, object]]:
    return {str(row["variant"]): row for row in frame[frame["metric"] == metric].to_dict("records")}  # type: ignore[misc]


def test_a_row_has_mean_interval_and_cost() -> None:
    tops = {"none": [70.0, 72.0, 77.0], "sa": [73.0]}
    frame = frame_of(tops, {"none": 100.0, "sa": 80.0}, {"none": 12.0, "sa": 20.0})
    assert len(frame) == 4
    row = rows_of(frame, SPEED)["none"]
    half = student.ppf(0.975, 2) * np.std([70.0, 72.0, 77.0], ddof=1) / math.sqrt(3)
    assert (row["n"], row["top1"], row["cost"]) == (3, 73, 100)
    assert (row["low"], row["high"]) == pytest.approx((73 - half, 73 + half))
    single = rows_of(frame, SPEED)["sa"]
    assert (single["n"], single["top1"], single["cost"]) == (1, 73, 80)
    assert math.isnan(single["low"])  # type: ignore[arg-type]
    assert math.isnan(single["high"])  # type: ignore[arg-type]
    row = rows_of(frame, MEMORY)["none"]
    assert (row["cost"], row["n"]) == (12, 3)


def test_more_images_a_second_and_fewer_mib_are_better() -> None:
    tops = {"a": [70.0], "b": [71.0], "c": [69.0]}
    costs = {"a": 100.0, "b": 100.0, "c": 120.0}
    frame = frame_of(tops, costs, costs)
    assert {name: row["on_front"] for name, row in rows_of(frame, SPEED).items()} == {"a": False, "b": True, "c": True}
    assert {name: row["on_front"] for name, row in rows_of(frame, MEMORY).items()} == {
        "a": False, "b": True, "c": False,
    }  # fmt: skip


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_agrees_with_brute_force(points: list[tuple[int, int]]) -> None:
    names = SHORT[: len(points)]
    tops = {name: [float(top1)] for name, (top1, _) in zip(names, points, strict=True)}
    costs = {name: float(2**cost) for name, (_, cost) in zip(names, points, strict=True)}
    frame = frame_of(tops, costs, costs)
    for metric, sign in ((SPEED, 1), (MEMORY, -1)):
        found = rows_of(frame, metric)
        for name, (top1, cost) in zip(names, points, strict=True):
            beaten = any(
                other >= top1 and sign * price >= sign * cost and (other, price) != (top1, cost)
                for other, price in points
            )
            assert found[name]["on_front"] == (not beaten)


def test_equal_variants_are_on_the_front_together() -> None:
    frame = frame_of({"a": [50.0], "b": [50.0]}, {}, {"a": 9.0, "b": 9.0})
    assert frame["on_front"].tolist() == [True, True]


def test_unmeasured_variants_are_left_out() -> None:
    tops = {"a": [50.0, 51.0], "b": [52.0, 53.0]}
    made = design_of(["a", "b", "not finished"])
    costs = costs_of(made, train_images_per_second={"a": 8.0, "not finished": 16.0})
    frame = pareto_frame(cells_of(tops), made, costs)
    assert frame[["variant", "metric", "n", "on_front"]].to_numpy().tolist() == [["a", SPEED, 2, True]]
    empty = pareto_frame(cells_of(tops), made, None)
    assert empty.empty
    assert list(empty.columns) == list(frame.columns)


def test_the_figure_shows_each_variant_and_rings_the_front() -> None:
    tops = {"none": [70.0], "sa": [72.0], "se": [69.0]}
    speeds = {"none": 1280.0, "sa": 1000.0, "se": 1024.0}
    memory = {"none": 10.0, "sa": 20.0, "se": 15.0}
    names = list(tops)
    frame = frame_of(tops, speeds, memory)
    drawn = draw_pareto(frame, dict.fromkeys(names, "none"), "caption")
    assert [axes.get_xlabel() for axes in drawn.axes] == [
        "Training (images/s), more is better",
        "Peak memory (MiB), less is better",
    ]
    for axes, costs in zip(drawn.axes, (speeds, memory), strict=True):
        assert points(axes).keys() >= {(costs[name], tops[name][0]) for name in names}
        rings = next(one for one in axes.collections if one.get_label() == "Pareto-optimal")
        expected = sorted((costs[name], tops[name][0]) for name in ("none", "sa"))
        assert sorted(map(tuple, np.asarray(rings.get_offsets()).tolist())) == expected
        assert points(axes)[costs["none"], 70.0] == style.BASELINE
    assert drawn.axes[0].get_ylabel() == "Top-1 (%)"
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["Pareto-optimal", *names]
    assert cut(drawn) == overlapping(drawn) == []


def test_the_legend_has_variants_with_measured_memory_only() -> None:
    tops = {"a": [70.0], "b": [72.0]}
    drawn = draw_pareto(frame_of(tops, {"a": 8.0}, {"a": 10.0, "b": 11.0}), {}, "caption")
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["Pareto-optimal", "a", "b"]


@given(st.lists(st.one_of(st.integers(0, 20), st.floats(0.1, 1000), st.just(7.0)), min_size=1, max_size=14))
def test_dodged_positions_keep_their_order_and_do_not_overlap(costs: list[float]) -> None:
    values = pd.Series(costs, dtype=float, index=[f"row {number}" for number in range(len(costs))])
    places = aside(values)
    assert list(places.index) == list(values.index)
    scale = np.log if is_wide(values) else np.asarray
    exact, found = np.asarray(scale(values.to_numpy())), np.asarray(scale(places.to_numpy()))
    step = 0.02 * (np.ptp(exact) or abs(exact).max() or 1.0)
    order = np.argsort(exact, kind="stable")
    assert (np.diff(found[order]) >= step * (1 - 1e-6)).all()
    # Values far enough from all others do not move.
    if (np.diff(exact[order]) > step).all():
        assert found == pytest.approx(exact)
    assert abs(found - exact).max() <= step * len(costs)


@STRANGE
@STUDIES
def test_unusual_studies_are_drawn_and_nothing_is_cut(names: list[str], replicates: int, tops: str) -> None:
    frame = pareto_frame(*strange_study(names, replicates, TOPS[tops]))
    drawn = draw_pareto(frame, dict.fromkeys(names, names[0]), "A caption of many words. " * 12)
    assert cut(drawn) == []
    assert overlapping(drawn) == []
    assert len(drawn.axes) == 2
    assert all(is_percent(axes.get_ylim()) for axes in drawn.axes)
    assert {"".join(name.split()) for name in names} <= {"".join(text.split()) for text in written(drawn)}
    for axes in drawn.axes:
        assert axes.get_position().width > 0.1  # names leave space for the panel
