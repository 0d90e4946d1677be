"""Top-1 against the levels of a sweep, with the baseline as a line and the cost beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ablations.common.metrics import METRICS
from ablations.design import Design
from ablations.reporting.figures import style
from ablations.stats import cells_by_variant, estimate, typical

_SHOWN = ("top1", "train_time_ratio", "peak_memory_mib")


def levels_frame(cells: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Computes what the figure shows.

    Returns:
        One row a finished cell and metric (`kind` is `replicate`), and one a variant and metric, with `n`: of top-1 the
        `mean` and the bounds of its 95 % CI, of costs the `median` and the lowest and highest; bounds are empty where n
        is 1. `level` is the level of a sweep with one factor, else the variant's name.
    """
    rows: list[dict[str, object]] = []
    groups = cells_by_variant(cells)
    for variant in design.variants:
        own = groups.get(variant.name, cells.iloc[:0])
        level = next(iter(variant.levels.values())) if len(variant.levels) == 1 else variant.name
        is_baseline = design.baselines.get(variant.name) == variant.name
        for metric in _SHOWN:
            place = {"variant": variant.name, "level": level, "is_baseline": is_baseline, "metric": metric}
            values = own[metric].to_numpy()
            known = ~np.isnan(values)  # costs are not measured of every cell
            if not known.any():
                continue
            rows += [
                place | {"kind": "replicate", "replicate": replicate, "value": value}
                for replicate, value in zip(own["replicate"].to_numpy()[known], values[known], strict=True)
            ]
            rows.append(place | _summary(metric, values[known]))
    columns = ["variant", "level", "is_baseline", "metric", "kind", "replicate", "value", "n", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _summary(metric: str, values: NDArray[np.float64]) -> dict[str, object]:
    if metric == "top1":
        mean = estimate(values)
        return {"kind": "mean", "value": mean.mean, "n": mean.n, "low": mean.low, "high": mean.high}
    cost = typical(values)
    assert cost is not None
    low, high = (cost.low, cost.high) if cost.n > 1 else (math.nan, math.nan)
    return {"kind": "median", "value": cost.median, "n": cost.n, "low": low, "high": high}


def draw_levels(frame: pd.DataFrame, factor: str, caption: str) -> Figure:
    """Draws top-1, the time of a training step and its memory, a panel each; what nobody measured has none.

    Levels of the factor that are numbers stand along the horizontal axis, joined by a line; otherwise variants are
    rows, as names need room.
    """
    levels = frame[(frame["kind"] != "replicate") & ~frame["is_baseline"]].drop_duplicates("variant")
    shown = shown_metrics(frame)
    numeric = all(isinstance(level, Real) and not isinstance(level, bool) for level in levels["level"])
    labels = style.row_labels(levels["variant"])
    height = 2.6 if numeric else 0.9 + max(style.rows_height(labels), 0.8)
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        panels = panels_of(drawn, shown, sharey=not numeric)
        for axes, metric in zip(panels, shown, strict=True):
            _draw_metric(axes, frame[frame["metric"] == metric], along=numeric)
            if numeric:
                axes.set_xticks(range(len(levels)), [str(level) for level in levels["level"]])
                axes.set_xlim(-0.5, max(len(levels), 1) - 0.5)
                axes.set(xlabel=factor, ylabel=METRICS[metric].axis)
                axes.grid(visible=False, axis="x")
                axes.set_ylim(_limits(metric, axes.get_ylim(), axes.dataLim.ymax))
            else:
                style.name_rows(axes, labels)
                axes.set_xlabel(METRICS[metric].axis)
                axes.set_xlim(_limits(metric, axes.get_xlim(), axes.dataLim.xmax))
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return drawn


def shown_metrics(frame: pd.DataFrame) -> list[str]:
    """Returns the metrics that a frame has values of, in the order of their panels."""
    return [metric for metric in _SHOWN if (frame["metric"] == metric).any()]


def panels_of(drawn: Figure, metrics: Sequence[str], *, sharey: bool) -> list[Axes]:
    """Makes a panel a metric, the first one, of top-1, wider than the others."""
    widths = [1.7] + [1.0] * (len(metrics) - 1)
    return list(drawn.subplots(1, len(metrics), width_ratios=widths, sharey=sharey, squeeze=False)[0])


def _limits(metric: str, automatic: tuple[float, float], highest: float) -> tuple[float, float]:
    """Returns the limits of an axis: accuracies stay on their scale; costs are read as ratios, so they start at 0."""
    if metric == "top1":
        return max(automatic[0], 0.0), min(automatic[1], 100.0)
    return 0.0, highest * 1.08 if highest > 0 else 1.0


def _draw_metric(axes: Axes, frame: pd.DataFrame, *, along: bool) -> None:
    """Draws levels `along` the horizontal axis as a line with a band, or as rows with bars; the baseline crosses them.

    Where there is one replicate of each variant, it is the mean, and not drawn again.
    """
    is_mean = frame["kind"] != "replicate"
    levels = frame[is_mean & ~frame["is_baseline"]].reset_index(drop=True)
    dots = frame[~is_mean & ~frame["is_baseline"]]
    repeated = len(levels) > 0 and levels["n"].max() > 1
    line, span = (axes.axhline, axes.axhspan) if along else (axes.axvline, axes.axvspan)
    for _, mean in frame[is_mean & frame["is_baseline"]].iterrows():
        line(mean["value"], color=style.BASELINE, linestyle="--", label=f"{mean['variant']} (baseline)")
        if mean["n"] > 1:
            span(mean["low"], mean["high"], color=style.BASELINE, alpha=0.12, linewidth=0)
    bars, places = (levels["low"], levels["high"]), dots["variant"].map(list(levels["variant"]).index)
    look: dict[str, Any] = {"color": style.COLOURS[0], "marker": "o", "zorder": 3}
    look["label"] = "mean and 95 % CI" if repeated else "one run"
    if along:
        axes.plot(levels.index, levels["value"], **look)
        axes.fill_between(levels.index, *bars, color=style.COLOURS[0], alpha=0.18, linewidth=0)
    else:
        axes.plot(levels["value"], levels.index, linestyle="", **look)
        axes.hlines(levels.index, *bars, color=style.COLOURS[0])
    if repeated:
        xs, ys = (places, dots["value"]) if along else (dots["value"], places)
        axes.plot(xs, ys, label="replicates", **style.DOTS)
