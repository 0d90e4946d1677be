from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.stats import t as student

from ablations.analysis.published import published_results
from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.reporting.figures.complexity import complexity_frame, draw_complexity, published_frame
from tests.builders.drawings import (
    LONG,
    SHORT,
    STRANGE,
    STUDIES,
    TOPS,
    cells_of,
    cut,
    design_of,
    is_percent,
    overlapping,
    rendered,
    strange_study,
    words,
    written,
)

RIVALS = ["none", "sa", "se", "eca"]


def rivals() -> tuple[pd.DataFrame, Design]:
    tops = {"none": [70.0, 71.0], "sa": [72.0, 74.0], "se": [71.0], "eca": []}
    counts = {"none": 100_000, "sa": 150_000, "se": 200_000}
    made = design_of(RIVALS, RIVALS)
    adds = {"none": 4e6, "sa": 5e6, "se": 8e6}
    return complexity_frame(cells_of(tops, counts), made, adds), made


def test_a_row_has_mean_interval_parameters_and_multiply_adds() -> None:
    frame, _ = rivals()
    assert frame["variant"].tolist() == ["none", "sa", "se"]
    row = frame.iloc[1]
    half = student.ppf(0.975, 1) * np.std([72.0, 74.0], ddof=1) / math.sqrt(2)
    assert (row["n"], row["top1"], row["parameters"], row["multiply_adds"]) == (2, 73, 150_000, 5e6)
    assert (row["low"], row["high"]) == pytest.approx((73 - half, 73 + half))
    assert (row["attention"], row["model"], row["source"]) == ("sa", "resnet8", "")
    assert math.isnan(frame.iloc[2]["low"])


@pytest.mark.parametrize(
    ("attentions", "shown"),
    [
        (["none", "sa"], []),  # as in most sweeps
        (["none", "sa", "sa"], []),
        (["sa", "frozen", "constant", "permute", "identity"], []),
        (["none", "sa", "se_matched"], []),
        (["none", "sa", "se"], ["none", "sa", "se"]),
        (["none", "sa", "gc"], ["none", "sa"]),  # no published results of gc on these backbones
        (["none", "sa", "se", "eca", "cbam", "sge"], ["none", "sa", "se", "eca", "cbam", "sge"]),
    ],
)
def test_published_numbers_are_shown_for_studies_that_compare_modules(attentions: list[str], shown: list[str]) -> None:
    frame = published_frame(design_of(SHORT[: len(attentions)], attentions))
    assert set(frame["attention"]) == set(shown)
    assert len(frame) == 2 * len(shown)
    assert list(frame.columns) == list(rivals()[0].columns)
    if shown:
        known = published_results().set_index(["attention", "backbone"])
        for row in frame.to_dict("records"):
            expected = known.loc[(row["attention"], row["model"])]
            assert row["variant"] == f"{row['attention']} {row['model']}"
            for name in ("top1", "parameters", "multiply_adds", "source"):
                assert row[name] == expected[name]
            assert math.isnan(row["low"])


def circles_and_marks(axes: Axes) -> tuple[PathCollection, PathCollection]:
    """The circles for multiply-adds, and the marks in them."""
    circles, shown = (one for one in axes.collections if isinstance(one, PathCollection))
    return circles, shown


def marks(drawn: Figure, panel: int) -> list[tuple[float, float]]:
    return sorted(map(tuple, np.asarray(circles_and_marks(drawn.axes[panel])[1].get_offsets()).tolist()))


def appearances(axes: Axes) -> set[tuple[str, bytes]]:
    """Colour and shape of each mark."""
    shown = circles_and_marks(axes)[1]
    paths = [np.asarray(path.vertices).tobytes() for path in shown.get_paths()]
    return set(zip(map(to_hex, np.asarray(shown.get_facecolor()).tolist()), paths, strict=True))


def test_each_network_is_a_mark_with_a_circle_for_its_multiply_adds() -> None:
    frame, made = rivals()
    drawn = draw_complexity(frame, published_frame(design_of(RIVALS[:2], RIVALS[:2])), made.baselines, "caption")
    assert len(drawn.axes) == 1
    assert marks(drawn, 0) == [(1e5, 70.5), (1.5e5, 73.0), (2e5, 71.0)]
    circles, _ = circles_and_marks(drawn.axes[0])
    areas = dict(zip(np.asarray(circles.get_offsets())[:, 0].tolist(), circles.get_sizes(), strict=True))
    assert areas[1e5] / areas[2e5] == pytest.approx(0.5)
    assert areas[1.5e5] / areas[2e5] == pytest.approx(5 / 8)
    assert words(drawn.axes[0].get_title(loc="left")) == "This study 0.004 to 0.008 GFLOPs"
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["none", "sa", "se"]
    assert cut(drawn) == overlapping(drawn) == []


@STRANGE
def test_published_numbers_have_a_separate_panel_with_the_same_colours() -> None:
    frame, made = rivals()
    published = published_frame(made)
    drawn = draw_complexity(frame, published, made.baselines, "caption")
    assert len(drawn.axes) == 2
    assert "Published ImageNet-1k" in words(drawn.axes[1].get_title(loc="left"))
    assert len(marks(drawn, 1)) == 8
    assert sorted(round(y, 3) for _, y in marks(drawn, 1)) == sorted(round(y, 3) for y in published["top1"])
    assert {"ResNet-50", "ResNet-101"} <= set(written(drawn))
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == RIVALS
    here, published_looks = map(appearances, drawn.axes)
    assert here < published_looks
    assert cut(drawn) == overlapping(drawn) == []


def test_colours_are_modules_and_markers_backbones_if_a_study_has_several() -> None:
    overrides = ["sweep=backbones", "sweep.factors={model: [resnet8, resnet20], attention: [none, sa, se, eca]}"]
    made = make_design(compose_config(overrides))
    adds = {variant.name: 1e7 * (1 + 2 * (variant.model["name"] == "resnet20")) for variant in made.variants}
    counts = {name: int(adds[name] / 100) for name in adds}
    frame = complexity_frame(cells_of({name: [60.0, 61.0] for name in adds}, counts), made, adds)
    drawn = draw_complexity(frame, published_frame(made), made.baselines, "A caption.")
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == [
        "none",
        "sa",
        "se",
        "eca",
        "resnet8",
        "resnet20",
    ]
    found = appearances(drawn.axes[0])
    assert len(found) == 8
    assert len({colour for colour, _ in found}) == 4
    assert len({marker for _, marker in found}) == 2
    assert cut(drawn) == []


@STRANGE
@STUDIES
def test_unusual_studies_are_drawn_and_nothing_is_cut(names: list[str], replicates: int, tops: str) -> None:
    kinds = [RIVALS[number % 4] for number in range(len(names))]
    made = design_of(names, kinds)
    adds = {name: 12.5e6 + 1e4 * number for number, name in enumerate(names)}
    frame = complexity_frame(strange_study(names, replicates, TOPS[tops])[0], made, adds)
    drawn = draw_complexity(frame, published_frame(made), made.baselines, "A caption of many words. " * 12)
    assert cut(drawn) == []
    assert overlapping(drawn) == []
    assert len(drawn.axes) == (2 if len(names) > 2 else 1)
    assert all(is_percent(axes.get_ylim()) for axes in drawn.axes)
    assert {"".join(name.split()) for name in names} <= {"".join(text.split()) for text in written(drawn)}
    for axes in drawn.axes:
        assert axes.get_window_extent().width > 0.8 * drawn.dpi  # inches


@STRANGE
@pytest.mark.parametrize(
    "parameters",
    [
        [75_290, 75_374],
        [75_290, 75_291, 75_293],
        [75_290, 75_290],
        [9_999_000, 10_001_000],
        [11_173_962, 11_175_000, 11_174_802],  # resnet18 with a few groups
        [25_557_032, 25_557_740],
        [270_000, 11_174_000, 25_557_000],
        [75_290, 44_549_160],
    ],
)
def test_ticks_of_parameters_have_distinct_labels(parameters: Sequence[int]) -> None:
    names = SHORT[: len(parameters)]
    tops = {name: [50.0 + number] for number, name in enumerate(names)}
    counts = dict(zip(names, parameters, strict=True))
    made = design_of(names)
    frame = complexity_frame(cells_of(tops, counts), made, dict.fromkeys(names, 1e7))
    drawn = draw_complexity(frame, published_frame(made), made.baselines, "caption")
    rendered(drawn)
    axes = drawn.axes[0]
    low, high = axes.get_xlim()
    ticks = [
        tick.label1.get_text()
        for tick in axes.xaxis.get_major_ticks()
        if low <= tick.get_loc() <= high and tick.label1.get_text()
    ]
    assert len(ticks) > 1 or len(set(parameters)) == 1
    assert ticks
    assert len(set(ticks)) == len(ticks)
    assert overlapping(drawn) == []


@STRANGE
def test_long_names_leave_room_for_two_panels() -> None:
    made = design_of(LONG, [RIVALS[number % 4] for number in range(12)])
    adds = dict.fromkeys(LONG, 1e9)
    frame = complexity_frame(strange_study(LONG, 2, TOPS["spread"])[0], made, adds)
    drawn = draw_complexity(frame, published_frame(made), made.baselines, "caption")
    assert words(drawn.axes[0].get_title(loc="left")) == "This study 1 GFLOPs"
    assert overlapping(drawn) == []
