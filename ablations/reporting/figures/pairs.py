"""Top-1 and cost where variants have baselines of their own: a row a pair, as a backbone with and without attention."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ablations.common.metrics import METRICS
from ablations.design import Design
from ablations.design.variants import level_name
from ablations.reporting.figures import style
from ablations.reporting.figures.levels import levels_frame, panels_of, shown_metrics


def pairs_frame(cells: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Returns what `levels_frame` does, and for each variant its `row` (the levels that a pair shares) and `series`.

    The series is the level of the factor whose level is the baseline; variants given by name have a row of their own.
    """
    frame, factor = levels_frame(cells, design), design.baseline_factor
    rows = {variant.name: variant.name for variant in design.variants}
    series = dict(rows)
    for variant in design.variants:
        if factor in variant.levels:
            names = {path: level_name(path, level) for path, level in variant.levels.items()}
            series[variant.name] = names.pop(factor)
            rows[variant.name] = ", ".join(names.values())
    return frame.assign(row=frame["variant"].map(rows), series=frame["variant"].map(series))


def draw_pairs(frame: pd.DataFrame, caption: str) -> Figure:
    """Draws what `draw_levels` does; costs have logarithmic scales, where ratios are lengths."""
    rows = list(dict.fromkeys(frame["row"]))
    series = sorted(
        dict.fromkeys(frame["series"]), key=lambda name: not frame["is_baseline"][frame["series"] == name].any()
    )
    with style.figure(style.TWO_COLUMNS, 1.2 + 0.3 * max(len(rows), 3), caption) as drawn:
        shown = shown_metrics(frame)
        panels = panels_of(drawn, shown, sharey=True)
        for axes, metric in zip(panels, shown, strict=True):
            for index, name in enumerate(series):
                own = frame[(frame["metric"] == metric) & (frame["series"] == name)]
                shift = 0.28 * (index - (len(series) - 1) / 2) / max(len(series) - 1, 1)
                place = own["row"].map(rows.index) + shift
                look = style.look_of(index) | ({"color": style.BASELINE} if own["is_baseline"].all() else {})
                means, dots = own["kind"] != "replicate", own["kind"] == "replicate"
                axes.hlines(place[means], own["low"][means], own["high"][means], color=look["color"])
                axes.plot(own["value"][means], place[means], linestyle="", label=name, **look)
                if own["n"].max() > 1:
                    label = "replicates" if index == len(series) - 1 else None
                    axes.plot(own["value"][dots], place[dots], label=label, **style.DOTS)
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
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return drawn
