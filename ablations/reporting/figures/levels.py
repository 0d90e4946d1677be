"""Top-1 against the levels of a sweep, with the baseline as a line and the cost beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

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
        is 1. `level` is the level of a sweep with one factor, else
        the variant's name.
    """
    rows: list[dict[str, object]] = []
    baselines = design.baselines
    groups = cells_by_variant(cells)
    for variant in design.variants:
        own = groups.get(variant.name, cells.iloc[:0])
        level = next(iter(variant.levels.values())) if len(variant.levels) == 1 else variant.name
        place = {"variant": variant.name, "level": level, "is_baseline": baselines.get(variant.name) == variant.name}
        for metric in _SHOWN:
            values = own[metric].to_numpy()
            known = ~np.isnan(values)  # costs are not measured of every cell
            if not known.any():
                continue
            rows += [
                place | {"metric": metric, "kind": "replicate", "replicate": replicate, "value": value}
                for replicate, value in zip(own["replicate"].to_numpy()[known], values[known], strict=True)
            ]
            rows.append(place | {"metric": metric} | _summary(metric, values[known]))
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

    Levels that are numbers stand along the horizontal axis, joined by a line; otherwise variants are rows, as names
    need room.

    Args:
        frame: from `levels_frame`.
        factor: what the levels are levels of.
        caption: what stands below.
    """
    levels = frame[(frame["kind"] != "replicate") & ~frame["is_baseline"]].drop_duplicates("variant")
    shown = shown_metrics(frame)
    numeric = all(isinstance(level, Real) and not isinstance(level, bool) for level in levels["level"])
    labels = style.row_labels(levels["variant"])
    height = 2.6 if numeric else 0.9 + max(style.rows_height(labels), 0.8)
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        panels = panels_of(drawn, shown, sharey=not numeric)
        for axes, metric in zip(panels, shown, strict=True):
            panel = frame[frame["metric"] == metric]
            title = METRICS[metric].axis
            if numeric:
                _draw_curve(axes, panel)
                axes.set_xticks(range(len(levels)), [str(level) for level in levels["level"]])
                axes.set_xlim(-0.5, max(len(levels), 1) - 0.5)
                axes.set(xlabel=factor, ylabel=title)
                axes.grid(visible=False, axis="x")
                axes.set_ylim(_limits(metric, axes.get_ylim(), axes.dataLim.ymax))
            else:
                _draw_rows(axes, panel)
                style.name_rows(axes, labels)
                axes.set_xlabel(title)
                axes.set_xlim(_limits(metric, axes.get_xlim(), axes.dataLim.xmax))
        handles, labels = panels[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper left", ncols=3)
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


def _draw_curve(axes: Axes, frame: pd.DataFrame) -> None:
    baseline, levels, dots, label = _parts(frame)
    for _, line in baseline.iterrows():
        axes.axhline(line["value"], color=style.BASELINE, linestyle="--", label=f"{line['variant']} (baseline)")
        if line["n"] > 1:
            axes.axhspan(line["low"], line["high"], color=style.BASELINE, alpha=0.12, linewidth=0)
    axes.plot(levels.index, levels["value"], color=style.COLOURS[0], marker="o", label=label, zorder=3)
    axes.fill_between(levels.index, levels["low"], levels["high"], color=style.COLOURS[0], alpha=0.18, linewidth=0)
    if len(dots):
        axes.plot(dots["place"], dots["value"], label="replicates", **style.DOTS)


def _draw_rows(axes: Axes, frame: pd.DataFrame) -> None:
    baseline, levels, dots, label = _parts(frame)
    for _, line in baseline.iterrows():
        axes.axvline(line["value"], color=style.BASELINE, linestyle="--", label=f"{line['variant']} (baseline)")
        if line["n"] > 1:
            axes.axvspan(line["low"], line["high"], color=style.BASELINE, alpha=0.12, linewidth=0)
    axes.plot(levels["value"], levels.index, color=style.COLOURS[0], linestyle="", marker="o", label=label, zorder=3)
    axes.hlines(levels.index, levels["low"], levels["high"], color=style.COLOURS[0])
    if len(dots):
        axes.plot(dots["value"], dots["place"], label="replicates", **style.DOTS)


def _parts(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]:
    """Returns the baseline's mean, the other variants' means by place, their replicates, and what a mean is called.

    Where there is one replicate of each, it is the mean, and not returned again.
    """
    means = frame[frame["kind"] != "replicate"]
    levels = means[~means["is_baseline"]].reset_index(drop=True)
    dots = frame[(frame["kind"] == "replicate") & ~frame["is_baseline"]]
    places = {variant: place for place, variant in enumerate(levels["variant"])}
    most = levels["n"].max() if len(levels) else 0
    dots = dots if most > 1 else dots.iloc[:0]
    label = "mean and 95 % CI" if most > 1 else "one run"
    return means[means["is_baseline"]], levels, dots.assign(place=dots["variant"].map(places)), label
