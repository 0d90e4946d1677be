"""Learning curves: training loss and test accuracy after every epoch, a line per variant."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablations.common.metrics import METRICS
from ablations.design import Design
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import draw_lines, handle

_SHOWN = ("top1", "train_loss")


def curves_frame(curves: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Returns one row per variant, epoch and metric: `n`, `mean`, and the range from `low` to `high`, empty if n is 1.

    A range instead of a confidence interval, because replicates start to learn at different epochs, and an interval
    that assumes normality would exceed the scale.
    """
    order = {variant.name: place for place, variant in enumerate(design.variants)}
    long = curves.melt(["variant", "epoch"], list(_SHOWN), var_name="metric")
    parts = long.groupby(["variant", "epoch", "metric"], sort=True)["value"]
    frame = parts.agg(n="count", mean="mean", low="min", high="max").reset_index()
    frame.loc[frame["n"] == 1, ["low", "high"]] = float("nan")
    return frame.sort_values("variant", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def draw_curves(frame: pd.DataFrame, baseline: str | None, caption: str) -> Figure:
    """Draws a panel per metric, with a single baseline in grey; bands are ranges."""
    variants = list(dict.fromkeys(frame["variant"]))
    appearances: dict[str, dict[str, Any]] = {}
    for index, variant in enumerate(variant for variant in variants if variant != baseline):
        dashes = style.DASHES[index // len(style.COLOURS) % len(style.DASHES)]
        appearances[variant] = style.appearance_of(index) | {"linestyle": dashes}
    if baseline is not None and baseline in variants:
        appearances = {baseline: {"color": style.BASELINE, "linestyle": "--", "marker": "X"}} | appearances
    labels = dict(zip(variants, style.row_labels(variants), strict=True))
    height = max(2.6, 0.6 + style.rows_height(labels.values()))
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        panels = drawn.subplots(1, len(_SHOWN))
        for axes, metric in zip(panels, _SHOWN, strict=True):
            draw_lines(axes, frame[frame["metric"] == metric], "epoch", "mean", "variant", appearances)
            axes.set(xlabel="Epoch", ylabel=METRICS[metric].axis)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if frame["epoch"].max() == 1:
                axes.set_xlim(0.5, 1.5)
        handles = [handle(labels[variant], **appearances[variant]) for variant in variants]
        drawn.legend(handles=handles, loc="outside right upper")
    return drawn
