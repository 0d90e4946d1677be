"""Top-1 and cost of variants against the levels of a sweep, with the baseline as a line.

If there are several baselines, such as backbones with and without attention, each pair is a row.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ablations.analysis.costs import StudyCosts, VariantCost
from ablations.common.metrics import METRICS
from ablations.design import Design
from ablations.design.variants import level_name
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import draw_lines, draw_points, handle
from ablations.stats import Estimate, cells_by_variant, estimate

_SHOWN = ("top1", "train_time_ratio", "peak_memory_mib")
_MEAN: dict[str, Any] = {"color": style.COLOURS[0], "marker": "o"}
_REPLICATE: dict[str, Any] = {"color": "#222222", "marker": "o"}
_BASELINE: dict[str, Any] = {"color": style.BASELINE, "linestyle": "--", "linewidth": 1.4}
_BAND: dict[str, Any] = {"color": style.BASELINE, "alpha": 0.12, "linewidth": 0}


def levels_frame(cells: pd.DataFrame, design: Design, costs: StudyCosts | None) -> pd.DataFrame:
    """Returns one row per finished cell (`kind` is `replicate`), and one per variant and metric, with `n`.

    The latter have the `mean` and its 95 % CI: of top-1 over replicates, of step times over copies; memory, and n = 1,
    have no interval. `level` is the level of a sweep with one factor, otherwise the variant's name.
    """
    rows: list[dict[str, object]] = []
    groups = cells_by_variant(cells)
    for variant in design.variants:
        own = groups.get(variant.name, cells.iloc[:0])
        level = next(iter(variant.levels.values())) if len(variant.levels) == 1 else variant.name
        is_baseline = design.baselines.get(variant.name) == variant.name
        place = {"variant": variant.name, "level": level, "is_baseline": is_baseline, "metric": "top1"}
        if not len(own):
            continue
        values = own["top1"].to_numpy()
        rows += [
            place | {"kind": "replicate", "replicate": replicate, "value": value}
            for replicate, value in zip(own["replicate"].to_numpy(), values, strict=True)
        ]
        rows.append(place | _mean(estimate(values)))
        cost = costs.of(variant.name) if costs else VariantCost()
        if cost.train_time:
            rows.append(place | {"metric": "train_time_ratio"} | _mean(cost.train_time))
        if not math.isnan(cost.peak_memory_mib):
            memory = Estimate(1, cost.peak_memory_mib, math.nan, math.nan)
            rows.append(place | {"metric": "peak_memory_mib"} | _mean(memory))
    columns = ["variant", "level", "is_baseline", "metric", "kind", "replicate", "value", "n", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _mean(known: Estimate) -> dict[str, object]:
    return {"kind": "mean", "value": known.mean, "n": known.n, "low": known.low, "high": known.high}


def draw_levels(frame: pd.DataFrame, factor: str, caption: str) -> Figure:
    """Draws a panel each for top-1, time and memory of a training step, if measured.

    Numeric levels are on the horizontal axis, joined by a line; otherwise variants are rows, because names need space.
    """
    levels = frame[(frame["kind"] != "replicate") & ~frame["is_baseline"]].drop_duplicates("variant")
    numeric = all(isinstance(level, Real) and not isinstance(level, bool) for level in levels["level"])
    labels = style.row_labels(levels["variant"])
    height = 2.6 if numeric else 0.9 + max(style.rows_height(labels), 0.8)
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        panels = _panels(drawn, frame, sharey=not numeric)
        for metric, axes in panels.items():
            _draw_metric(axes, frame[frame["metric"] == metric], along=numeric)
            if numeric:
                axes.set_xticks(range(len(levels)), [str(level) for level in levels["level"]])
                axes.set_xlim(-0.5, max(len(levels), 1) - 0.5)
                axes.set(xlabel=factor, ylabel=METRICS[metric].axis)
                axes.grid(visible=False, axis="x")
                axes.set_ylim(_limits(metric, axes.get_ylim(), axes.dataLim.ymax))
            else:
                style.name_rows(axes, labels)
                axes.label_outer()
                axes.set_xlabel(METRICS[metric].axis)
                axes.set_xlim(_limits(metric, axes.get_xlim(), axes.dataLim.xmax))
                axes.locator_params(axis="x", nbins=6)  # labels such as 80.25 are wide
        drawn.legend(handles=_handles(frame, along=numeric), loc="outside upper left", ncols=4)
    return drawn


def _handles(frame: pd.DataFrame, *, along: bool) -> list[Artist]:
    """Returns the legend handles of `draw_levels`: baselines, means, and replicates if there are several."""
    top1 = frame[frame["metric"] == "top1"]
    means = top1[top1["kind"] == "mean"]
    baselines, levels = means[means["is_baseline"]], means[~means["is_baseline"]]
    handles: list[Artist] = [Line2D([], [], label=_baseline_name(name), **_BASELINE) for name in baselines["variant"]]
    if _is_repeated(baselines):
        handles.append(Patch(label="its 95 % CI" if len(baselines) == 1 else "their 95 % CI", **_BAND))
    if len(levels):
        handles.append(handle("mean and 95 % CI" if _is_repeated(levels) else "one run", line=along, **_MEAN))
    if _is_repeated(levels):
        handles.append(handle("replicates", alpha=0.7, **_REPLICATE | {"markersize": 2.6}))
    return handles


def _panels(drawn: Figure, frame: pd.DataFrame, *, sharey: bool) -> dict[str, Axes]:
    """Creates a panel for each metric in the frame, the first one, of top-1, wider than the others."""
    metrics = [metric for metric in _SHOWN if (frame["metric"] == metric).any()]
    widths = [1.7] + [1.0] * (len(metrics) - 1)
    panels = drawn.subplots(1, len(metrics), width_ratios=widths, sharey=sharey, squeeze=False)[0]
    return dict(zip(metrics, panels, strict=True))


def _limits(metric: str, automatic: tuple[float, float], highest: float) -> tuple[float, float]:
    """Returns the limits of an axis: automatic for accuracies; costs start at 0, to be compared as ratios."""
    if metric == "top1":
        return max(automatic[0], 0.0), min(automatic[1], 100.0)
    return 0.0, highest * 1.08 if highest > 0 else 1.0


def _draw_metric(axes: Axes, frame: pd.DataFrame, *, along: bool) -> None:
    """Draws levels `along` the horizontal axis as a line with a band, or as rows with bars, across the baseline.

    A single replicate is the mean, and not drawn again.
    """
    is_mean = frame["kind"] != "replicate"
    levels = frame[is_mean & ~frame["is_baseline"]].reset_index(drop=True)
    dots = frame[~is_mean & ~frame["is_baseline"]]
    line, span = (axes.axhline, axes.axhspan) if along else (axes.axvline, axes.axvspan)
    for _, mean in frame[is_mean & frame["is_baseline"]].iterrows():
        line(mean["value"], label=_baseline_name(mean["variant"]), **_BASELINE)
        if mean["n"] > 1:
            span(mean["low"], mean["high"], **_BAND)
    places = list(levels["variant"])
    means, replicates = (own.assign(place=own["variant"].map(places.index)) for own in (levels, dots))
    x, y = ("place", "value") if along else ("value", "place")
    if along:
        draw_lines(axes, means, x, y, "kind", {"mean": _MEAN}, opacity=0.18)
    else:
        draw_points(axes, means, x, y, "kind", {"mean": _MEAN})
    if _is_repeated(levels):
        draw_points(axes, replicates, x, y, "kind", {"replicate": _REPLICATE}, intervals=(), size=2.6, alpha=0.7)


def _is_repeated(frame: pd.DataFrame) -> bool:
    return len(frame) > 0 and bool(frame["n"].max() > 1)


def _baseline_name(variant: str) -> str:
    return style.legend_label(f"{variant} (baseline)")


def pairs_frame(cells: pd.DataFrame, design: Design, costs: StudyCosts | None) -> pd.DataFrame:
    """Returns `levels_frame` with each variant's `row` (the levels that a pair shares) and `series`.

    The series is the level of the factor that the baseline is a level of; named variants have separate rows.
    """
    frame, factor = levels_frame(cells, design, costs), design.baseline_factor
    rows = {variant.name: variant.name for variant in design.variants}
    series = dict(rows)
    for variant in design.variants:
        if factor in variant.levels:
            names = {path: level_name(path, level) for path, level in variant.levels.items()}
            series[variant.name] = names.pop(factor)
            rows[variant.name] = ", ".join(names.values())
    return frame.assign(row=frame["variant"].map(rows), series=frame["variant"].map(series))


def draw_pairs(frame: pd.DataFrame, caption: str) -> Figure:
    """Draws the same as `draw_levels`; costs have logarithmic scales, on which ratios are lengths."""
    rows = list(dict.fromkeys(frame["row"]))
    series = sorted(
        dict.fromkeys(frame["series"]), key=lambda name: not frame["is_baseline"][frame["series"] == name].any()
    )
    with style.figure(style.TWO_COLUMNS, 1.2 + 0.3 * max(len(rows), 3), caption) as drawn:
        panels = _panels(drawn, frame, sharey=True)
        appearances: dict[str, dict[str, Any]] = {}
        for index, name in enumerate(series):
            is_baseline = frame.loc[frame["series"] == name, "is_baseline"].all()
            appearances[name] = style.appearance_of(index) | ({"color": style.BASELINE} if is_baseline else {})
        shifts = {name: 0.28 * (index / max(len(series) - 1, 1) - 0.5) for index, name in enumerate(series)}
        if len(series) == 1:
            shifts = dict.fromkeys(series, 0.0)
        placed = frame.assign(place=frame["row"].map(rows.index) + frame["series"].map(shifts))
        repeated = _is_repeated(frame[frame["metric"] == "top1"])
        for metric, axes in panels.items():
            own = placed[placed["metric"] == metric]
            draw_points(axes, own[own["kind"] == "mean"], "value", "place", "series", appearances)
            if repeated:
                dots = {"replicate": _REPLICATE}
                draw_points(axes, own, "value", "place", "kind", dots, intervals=(), size=2.6, alpha=0.7)
            if metric != "top1":
                axes.set_xscale("log")
                values = frame.loc[frame["metric"] == metric, "value"]
                wide = values.min() > 0 and values.max() / values.min() > 8
                axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
                axes.xaxis.set_minor_formatter(NullFormatter())
                axes.margins(x=0.12)
            else:
                low, high = axes.get_xlim()
                axes.set_xlim(max(low, 0), min(high, 100))
            axes.set_xlabel(METRICS[metric].axis)
            style.name_rows(axes, style.row_labels(rows))
            axes.label_outer()
        handles = [handle(name, **appearance) for name, appearance in appearances.items()]
        handles += [handle("replicates", alpha=0.7, **_REPLICATE | {"markersize": 2.6})] if repeated else []
        drawn.legend(handles=handles, loc="outside upper left", ncols=4)
    return drawn
