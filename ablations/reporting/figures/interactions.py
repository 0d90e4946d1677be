"""Interactions of crossed factors: a heat map per pair of factors, with departures from the sum of their effects."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.common.metrics import Metric
from ablations.reporting.figures import style

MOST_PAIRS = 6  # drawn pairs of factors; the frame has all
_ACROSS = 3  # panels per line
_WIDEST_LABEL = 20  # letters
_LETTER = 0.068  # inches


def shown_pairs(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Returns the drawn pairs of factors, those with the largest departure first."""
    largest = frame.assign(size=frame["departure"].abs()).groupby(["factor", "other"], sort=False)["size"].max()
    ordered = largest.sort_values(ascending=False, kind="stable")
    return [(str(one), str(other)) for one, other in ordered.index][:MOST_PAIRS]


def draw_interactions(frame: pd.DataFrame, metric: Metric, caption: str) -> Figure:
    """Draws means as numbers, with departures below and as colours, bold if their 95 % CI excludes 0."""
    pairs = shown_pairs(frame)
    across = min(_ACROSS, len(pairs))
    down = math.ceil(len(pairs) / across)
    limit = max(float(frame["departure"].abs().max()), 10.0**-metric.digits)
    rows = max(int(frame.loc[frame["factor"] == one, "level"].nunique()) for one, _ in pairs)
    names = (
        0.07 * _WIDEST_LABEL if any(_is_turned(own, across) for _, own in frame.groupby(["factor", "other"])) else 0.3
    )
    with style.figure(style.TWO_COLUMNS, down * (0.5 + names + 0.42 * rows), caption) as drawn:
        panels = list(drawn.subplots(down, across, squeeze=False).flat)
        for axes, (one, other) in zip(panels, pairs, strict=False):
            _draw_pair(axes, frame[(frame["factor"] == one) & (frame["other"] == other)], metric, limit, across)
        for axes in panels[len(pairs) :]:
            axes.set_axis_off()
        bar = drawn.colorbar(panels[0].collections[0], ax=panels, pad=0.02, aspect=30, ticks=[-limit, 0, limit])
        bar.ax.set_yticklabels([metric.format_difference(value) for value in (-limit, 0, limit)])
        bar.set_label(f"Departure ({metric.difference_unit or 'no unit'})")
        bar.outline.set_visible(False)
    return drawn


def _is_turned(frame: pd.DataFrame, across: int) -> bool:
    """Whether the column labels must be rotated to fit into one of `across` panels."""
    names = frame["other_level"].unique()
    room = (style.TWO_COLUMNS - 0.8) / across - _LETTER * frame["level"].str.len().max()
    return bool(_LETTER * (1 + max(map(len, names))) > room / len(names))


def _draw_pair(axes: Axes, frame: pd.DataFrame, metric: Metric, limit: float, across: int) -> None:
    import seaborn as sns  # takes seconds

    levels, others = (list(dict.fromkeys(frame[name])) for name in ("level", "other_level"))
    numbers = zip(frame["mean"], frame["departure"], strict=True)
    texts = [f"{metric.format(mean)}\n{metric.format_difference(departure)}" for mean, departure in numbers]
    shape = len(levels), len(others)  # by level, then by the other level
    sns.heatmap(
        frame["departure"].to_numpy().reshape(shape), annot=np.array(texts).reshape(shape), fmt="", ax=axes,
        cmap="PuOr", center=0, vmin=-limit, vmax=limit, cbar=False, linewidths=0.6,
        annot_kws={"fontsize": min(6.5, 26 / len(others)), "linespacing": 1.15},
    )  # fmt: skip
    is_clear = (frame["low"] > 0) | (frame["high"] < 0)
    for text, clear in zip(axes.texts, is_clear, strict=True):  # both in row order
        text.set_fontweight("bold" if clear else "normal")
    columns, rows = ([style.shorten(name, _WIDEST_LABEL) for name in names] for names in (others, levels))
    turned = _is_turned(frame, across)
    axes.set_xticks([place + 0.5 for place in range(len(others))], columns, rotation=90 if turned else 0, fontsize=6.5)
    axes.set_yticks([place + 0.5 for place in range(len(levels))], rows, rotation=0, va="center", fontsize=6.5)
    axes.tick_params(length=0)
    axes.set(xlabel="", ylabel="")
    axes.grid(visible=False)
