"""Studies with unusual names and values, and checks of figures for cut or overlapping texts."""

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
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablations.analysis.costs import StudyCosts
from ablations.design import Design
from ablations.design.variants import Variant
from tests.builders.cells import design
from tests.builders.costs import costs_of

SPEED, MEMORY = "train_images_per_second", "peak_memory_mib"
SHORT = [f"v{number}" for number in range(12)]
LONG = [f"variant {number} whose name has a good many words and 60 letters"[:60] for number in range(12)]
UNBROKEN = [f"v{number}_" + "x" * 34 for number in range(12)]  # the longest line without a break
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


def cells_of(values: Mapping[str, Sequence[float]], parameters: Mapping[str, int] | None = None) -> pd.DataFrame:
    """The finished cells of a study: top-1 by variant, and parameters, by default NaN."""
    rows = [
        (variant, replicate, float(top1), (parameters or {}).get(variant, math.nan))
        for variant, tops in values.items()
        for replicate, top1 in enumerate(tops)
    ]
    return pd.DataFrame(rows, columns=["variant", "replicate", "top1", "parameters"])


def rendered(drawn: Figure) -> tuple[FigureCanvasAgg, dict[Text, str]]:
    """Draws a figure; returns its visible texts, without tick labels outside of the axes' limits."""
    drawn.set_dpi(200)  # as in saved figures, because widths of letters depend on it
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
    """Returns the texts that the edges of a figure cut."""
    canvas, texts = rendered(drawn)
    boxes = {name: text.get_window_extent(canvas.get_renderer()) for text, name in texts.items()}
    edge = drawn.bbox
    return [
        name
        for name, box in boxes.items()
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > edge.x1 + 0.5 or box.y1 > edge.y1 + 0.5
    ]


def overlapping(drawn: Figure) -> list[tuple[str, str]]:
    """Returns the pairs of texts in a figure that overlap by more than a pixel."""
    canvas, texts = rendered(drawn)
    boxes = [(name, text.get_window_extent(canvas.get_renderer()).padded(-0.5)) for text, name in texts.items()]
    return [(name1, name2) for (name1, box1), (name2, box2) in combinations(boxes, 2) if box1.overlaps(box2)]


def written(drawn: Figure) -> list[str]:
    """Returns the visible texts of a figure."""
    return list(rendered(drawn)[1].values())


def words(text: str) -> str:
    """Returns the words of a text, without line breaks, colons and commas."""
    return " ".join(re.findall(r"[^\s:,]+", text))


def is_percent(limits: tuple[float, float]) -> bool:
    return min(limits) >= 0 and max(limits) <= 100


def strange_study(
    names: Sequence[str], replicates: int, top1: Callable[[int], float]
) -> tuple[pd.DataFrame, Design, StudyCosts]:
    """Cells, design and costs of variants: pairs of them have equal speed, and all have equal memory."""
    tops = {name: [top1(number) + 0.01 * (i % 3) for i in range(replicates)] for number, name in enumerate(names)}
    tops = {name: [min(max(value, 0.0), 100.0) for value in values] for name, values in tops.items()}
    cells = cells_of(tops, {name: 75_290 + 84 * number for number, name in enumerate(names)})
    relative = {name: [1.0 + 0.07 * number] * replicates for number, name in enumerate(names)}
    study_design = design_of(names)
    costs = costs_of(
        study_design,
        train_images_per_second={name: 1000.0 + 137.0 * (number // 2) for number, name in enumerate(names)},
        peak_memory_mib=dict.fromkeys(names, 512.0),
        train_time_ratio=relative,
        test_time_ratio=relative,
    )
    return cells, study_design, costs


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


def points(axes: Axes) -> dict[tuple[float, float], str]:
    """Returns the colour of each point by its coordinates; for a point without fill, that of its edge."""
    found = {}
    for group in axes.collections:
        if isinstance(group, PathCollection):
            faces, edges = np.asarray(group.get_facecolor()).tolist(), np.asarray(group.get_edgecolor()).tolist()
            for number, (x, y) in enumerate(np.asarray(group.get_offsets()).tolist()):
                face = to_hex(faces[number]) if len(faces) else "#ffffff"
                found[x, y] = to_hex(edges[number % len(edges)]) if face == "#ffffff" else face
    return found


def spans(axes: Axes) -> list[tuple[float, float, float, float]]:
    """Returns the ends of each interval in a figure: x, y, x, y."""
    found = []
    for group in axes.collections:
        for path in group.get_paths() if isinstance(group, LineCollection) else ():
            (x, y), (end_x, end_y) = np.asarray(path.vertices).tolist()
            found.append((x, y, end_x, end_y))
    return found


def legend_of(drawn: Figure) -> list[str]:
    """Returns the texts of the legend of a figure."""
    (legend,) = drawn.legends
    return [text.get_text() for text in legend.get_texts()]
