from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.stats import t as student

from ablations.design import Design
from ablations.design.variants import Variant
from ablations.reporting.figures.pareto import draw_pareto, pareto_frame
from ablations.reporting.figures.style import aside, is_wide
from tests.ablations.analysis.test_results import design

SPEED, MEMORY = "train_images_per_second", "peak_memory_mib"
SHORT = [f"v{number}" for number in range(12)]
LONG = [f"variant {number} whose name has a good many words and 60 letters"[:60] for number in range(12)]
UNBROKEN = [f"v{number}_" + "x" * 34 for number in range(12)]  # as long as a line without a break can be
STRANGE = pytest.mark.filterwarnings("error")


base = cache(design)


def design_of(names: Sequence[str], attentions: Sequence[str] = (), models: Sequence[str] = ()) -> Design:
    """A study of variants with these names, attentions and backbones; the first is the baseline."""
    kinds, backbones = list(attentions) or ["sa"] * len(names), list(models) or ["resnet8"] * len(names)
    variants = tuple(
        Variant(name, {"name": model}, {"name": kind}, {}, {})
        for name, kind, model in zip(names, kinds, backbones, strict=True)
    )
    return replace(base(), variants=variants, baseline=names[0])


def cells_of(values: Mapping[str, Sequence[float]], **costs: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """The finished cells of a study: top-1 by variant, and what else was measured; nan is what was not."""
    rows = []
    known = {"train_time_ratio", "test_time_ratio", SPEED, MEMORY, "parameters"}
    for variant, tops in values.items():
        for replicate, top1 in enumerate(tops):
            row = {"variant": variant, "replicate": replicate, "top1": float(top1)}
            measured = {
                name: float(costs[name][variant][replicate]) if name in costs and variant in costs[name] else math.nan
                for name in known
            }
            rows.append(row | measured)
    return pd.DataFrame(rows, columns=["variant", "replicate", "top1", *sorted(known)])


def rendered(drawn: Figure) -> tuple[FigureCanvasAgg, dict[Text, str]]:
    """Draws a figure; returns its texts that are seen, without the tick labels of coordinates that are not."""
    drawn.set_dpi(200)  # as it is saved; letters have other widths at another
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    texts = [*drawn.texts, *(text for legend in drawn.legends for text in legend.get_texts())]
    for axes in drawn.axes:
        texts += [text for text in axes.get_children() if isinstance(text, Text)]
        texts += [axes.xaxis.label, axes.yaxis.label, axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text()]
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            if axes.axison:
                ticks = axis.get_major_ticks()
                low, high = min(limits), max(limits)
                texts += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_visible()]
    return canvas, {text: text.get_text() for text in texts if text.get_visible() and text.get_text().strip()}


def cut(drawn: Figure) -> list[str]:
    """Names the texts that the edges of a figure cut."""
    canvas, texts = rendered(drawn)
    boxes = {name: text.get_window_extent(canvas.get_renderer()) for text, name in texts.items()}
    edge = drawn.bbox
    return [
        name
        for name, box in boxes.items()
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > edge.x1 + 0.5 or box.y1 > edge.y1 + 0.5
    ]


def overlapping(drawn: Figure) -> list[tuple[str, str]]:
    """Names the texts of a figure that lie on each other by more than a pixel."""
    canvas, texts = rendered(drawn)
    boxes = [(name, text.get_window_extent(canvas.get_renderer()).padded(-0.5)) for text, name in texts.items()]
    return [(one, other) for (one, box), (other, place) in combinations(boxes, 2) if box.overlaps(place)]


def written(drawn: Figure) -> list[str]:
    """Returns all that is written in a figure."""
    return list(rendered(drawn)[1].values())


def words(text: str) -> str:
    """Returns what a text says, however it is broken and punctuated."""
    return " ".join(re.findall(r"[^\s:,]+", text))


def is_percent(limits: tuple[float, float]) -> bool:
    return min(limits) >= 0 and max(limits) <= 100


def rows_of(frame: pd.DataFrame, metric: str) -> dict[str, dict[str, object]]:
    return {str(row["variant"]): row for row in frame[frame["metric"] == metric].to_dict("records")}  # type: ignore[misc]


def test_a_row_has_mean_interval_and_median_cost() -> None:
    tops = {"none": [70.0, 72.0, 77.0], "sa": [73.0]}
    speeds = {"none": [100.0, 90.0, 400.0], "sa": [80.0]}
    memory = {"none": [10.0, math.nan, 14.0], "sa": [20.0]}
    cells = cells_of(tops, train_images_per_second=speeds, peak_memory_mib=memory)
    frame = pareto_frame(cells, design_of(["none", "sa"]))
    assert len(frame) == 4
    row = rows_of(frame, SPEED)["none"]
    half = student.ppf(0.975, 2) * np.std([70.0, 72.0, 77.0], ddof=1) / math.sqrt(3)
    assert (row["n"], row["top1"], row["cost"], row["cost_low"], row["cost_high"]) == (3, 73, 100, 90, 400)
    assert (row["low"], row["high"]) == pytest.approx((73 - half, 73 + half))
    single = rows_of(frame, SPEED)["sa"]
    assert (single["n"], single["top1"], single["cost"]) == (1, 73, 80)
    assert math.isnan(single["low"])  # type: ignore[arg-type]
    assert math.isnan(single["high"])  # type: ignore[arg-type]
    row = rows_of(frame, MEMORY)["none"]
    assert (row["cost"], row["cost_low"], row["cost_high"], row["n"]) == (12, 10, 14, 3)


def test_more_images_a_second_and_fewer_mib_are_better() -> None:
    tops = {"a": [70.0], "b": [71.0], "c": [69.0]}
    costs = {"a": [100.0], "b": [100.0], "c": [120.0]}
    cells = cells_of(tops, train_images_per_second=costs, peak_memory_mib=costs)
    frame = pareto_frame(cells, design_of(["a", "b", "c"]))
    assert {name: row["on_front"] for name, row in rows_of(frame, SPEED).items()} == {"a": False, "b": True, "c": True}
    assert {name: row["on_front"] for name, row in rows_of(frame, MEMORY).items()} == {
        "a": False, "b": True, "c": False,
    }  # fmt: skip


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_brute_force_finds(points: list[tuple[int, int]]) -> None:
    names = SHORT[: len(points)]
    tops = {name: [float(top1)] for name, (top1, _) in zip(names, points, strict=True)}
    costs = {name: [float(cost + 1)] for name, (_, cost) in zip(names, points, strict=True)}
    cells = cells_of(tops, train_images_per_second=costs, peak_memory_mib=costs)
    frame = pareto_frame(cells, design_of(names))
    for metric, sign in ((SPEED, 1), (MEMORY, -1)):
        found = rows_of(frame, metric)
        for name, (top1, cost) in zip(names, points, strict=True):
            beaten = any(
                other >= top1 and sign * price >= sign * cost and (other, price) != (top1, cost)
                for other, price in points
            )
            assert found[name]["on_front"] == (not beaten)


def test_equal_variants_are_on_the_front_together() -> None:
    cells = cells_of({"a": [50.0], "b": [50.0]}, peak_memory_mib={"a": [9.0], "b": [9.0]})
    assert pareto_frame(cells, design_of(["a", "b"]))["on_front"].tolist() == [True, True]


def test_what_was_not_measured_is_left_out() -> None:
    tops = {"a": [50.0, 51.0], "b": [52.0, 53.0]}
    cells = cells_of(tops, train_images_per_second={"a": [9.0, math.nan]})
    frame = pareto_frame(cells, design_of(["a", "b", "not finished"]))
    assert frame[["variant", "metric", "n", "on_front"]].to_numpy().tolist() == [["a", SPEED, 2, True]]
    empty = pareto_frame(cells_of(tops), design_of(["a", "b"]))
    assert empty.empty
    assert list(empty.columns) == list(frame.columns)


def test_the_figure_shows_each_variant_at_its_place_and_rings_the_front() -> None:
    tops = {"none": [70.0], "sa": [72.0], "se": [69.0]}
    speeds = {"none": [1200.0], "sa": [1000.0], "se": [1100.0]}
    memory = {"none": [10.0], "sa": [20.0], "se": [15.0]}
    names = list(tops)
    frame = pareto_frame(cells_of(tops, train_images_per_second=speeds, peak_memory_mib=memory), design_of(names))
    drawn = draw_pareto(frame, dict.fromkeys(names, "none"), "caption")
    assert [axes.get_xlabel() for axes in drawn.axes] == [
        "Training (images/s), more is better",
        "Peak memory (MiB), less is better",
    ]
    for axes, costs in zip(drawn.axes, (speeds, memory), strict=True):
        points = {str(line.get_label()): line for line in axes.lines}
        for name in names:
            assert (list(points[name].get_xdata()), list(points[name].get_ydata())) == (costs[name], tops[name])  # type: ignore[arg-type]
        rings = next(one for one in axes.collections if one.get_label() == "no other beats it in both")
        expected = sorted((costs[name][0], tops[name][0]) for name in ("none", "sa"))
        assert sorted(map(tuple, np.asarray(rings.get_offsets()).tolist())) == expected
    assert points["none"].get_color() == "#4d4d4d"
    assert drawn.axes[0].get_ylabel() == "Top-1 (%)"
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["no other beats it in both", *names]
    assert cut(drawn) == overlapping(drawn) == []


def test_the_legend_names_variants_of_which_only_memory_was_measured() -> None:
    tops = {"a": [70.0], "b": [72.0]}
    cells = cells_of(tops, train_images_per_second={"a": [9.0]}, peak_memory_mib={"a": [10.0], "b": [11.0]})
    drawn = draw_pareto(pareto_frame(cells, design_of(["a", "b"])), {}, "caption")
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["no other beats it in both", "a", "b"]


@given(st.lists(st.one_of(st.integers(0, 20), st.floats(0.1, 1000), st.just(7.0)), min_size=1, max_size=14))
def test_places_side_by_side_keep_their_order_and_do_not_hide_each_other(costs: list[float]) -> None:
    values = pd.Series(costs, dtype=float, index=[f"row {number}" for number in range(len(costs))])
    places = aside(values)
    assert list(places.index) == list(values.index)
    scale = np.log if is_wide(values) else np.asarray
    exact, found = np.asarray(scale(values.to_numpy())), np.asarray(scale(places.to_numpy()))
    step = 0.02 * (np.ptp(exact) or abs(exact).max() or 1.0)
    order = np.argsort(exact, kind="stable")
    assert (np.diff(found[order]) >= step * (1 - 1e-6)).all()
    # What is far enough from all others stays where it is.
    if (np.diff(exact[order]) > step).all():
        assert found == pytest.approx(exact)
    assert abs(found - exact).max() <= step * len(costs)


def strange_study(names: Sequence[str], replicates: int, top1: Callable[[int], float]) -> pd.DataFrame:
    """Cells of so many variants: the speed of one is that of another, memory is all the same."""
    tops = {name: [top1(number) + 0.01 * (i % 3) for i in range(replicates)] for number, name in enumerate(names)}
    tops = {name: [min(max(value, 0.0), 100.0) for value in values] for name, values in tops.items()}
    speeds = {name: [1000.0 + 137.0 * (number // 2)] * replicates for number, name in enumerate(names)}
    memory = {name: [512.0] * replicates for name in names}
    counts = {name: [75_290.0 + 84 * number] * replicates for number, name in enumerate(names)}
    ratios = {name: [1.0 + 0.07 * number] * replicates for number, name in enumerate(names)}
    return cells_of(
        tops,
        train_images_per_second=speeds,
        peak_memory_mib=memory,
        parameters=counts,
        train_time_ratio=ratios,
        test_time_ratio=ratios,
    )


TOPS = {
    "spread": lambda number: 40.0 + 5 * number,
    "equal": lambda _: 50.0,
    "none right": lambda _: 0.0,
    "all right": lambda _: 100.0,
    "both ends": lambda number: 100.0 * (number % 2),
}
STUDIES = pytest.mark.parametrize(
    ("names", "replicates", "tops"),
    [
        (SHORT[:1], 1, "spread"),
        (SHORT[:1], 8, "none right"),
        (SHORT[:2], 8, "both ends"),
        (SHORT, 1, "equal"),
        (SHORT, 8, "all right"),
        (SHORT, 1, "none right"),
        (LONG[:1], 1, "all right"),
        (LONG, 8, "spread"),
        (LONG[:5], 2, "both ends"),
        (UNBROKEN, 1, "spread"),
        (UNBROKEN[:3], 8, "equal"),
    ],
)


@STRANGE
@STUDIES
def test_strange_studies_are_drawn_and_nothing_is_cut(names: list[str], replicates: int, tops: str) -> None:
    frame = pareto_frame(strange_study(names, replicates, TOPS[tops]), design_of(names))
    drawn = draw_pareto(frame, dict.fromkeys(names, names[0]), "A caption of many words. " * 12)
    assert cut(drawn) == []
    assert overlapping(drawn) == []
    assert len(drawn.axes) == 2
    assert all(is_percent(axes.get_ylim()) for axes in drawn.axes)
    assert {"".join(name.split()) for name in names} <= {"".join(text.split()) for text in written(drawn)}
    for axes in drawn.axes:
        assert axes.get_position().width > 0.1  # is not squeezed away by names
