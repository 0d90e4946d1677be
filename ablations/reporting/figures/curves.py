"""Learning curves: training loss and test accuracy after every epoch, a line a variant."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablations.common.metrics import METRICS
from ablations.design import Design
from ablations.reporting.figures import style

_SHOWN = ("top1", "train_loss")


def curves_frame(curves: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Returns a row a variant, epoch and metric: `n`, `mean`, and the range from `low` to `high`, empty where n is 1.

    The range, not a confidence interval: while networks learn, replicates differ by when they start to, and an
    interval that assumes a normal spread would leave the scale.
    """
    order = {variant.name: place for place, variant in enumerate(design.variants)}
    long = curves.melt(["variant", "epoch"], list(_SHOWN), var_name="metric")
    parts = long.groupby(["variant", "epoch", "metric"], sort=True)["value"]
    frame = parts.agg(n="count", mean="mean", low="min", high="max").reset_index()
    frame.loc[frame["n"] == 1, ["low", "high"]] = float("nan")
    return frame.sort_values("variant", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def draw_curves(frame: pd.DataFrame, baseline: str | None, caption: str) -> Figure:
    """Draws a panel a metric, the baseline in grey where there is just one; bands are from lowest to highest."""
    variants = list(dict.fromkeys(frame["variant"]))
    looks: dict[str | None, dict[str, Any]] = {baseline: {"color": style.BASELINE, "linestyle": "--", "marker": "x"}}
    for index, variant in enumerate(variant for variant in variants if variant != baseline):
        dashes = style.DASHES[index // len(style.COLOURS) % len(style.DASHES)]
        looks[variant] = style.look_of(index) | {"linestyle": dashes}
    labels = dict(zip(variants, style.row_labels(variants), strict=True))
    height = max(2.6, 0.6 + style.rows_height(labels.values()))
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        panels = drawn.subplots(1, len(_SHOWN))
        for axes, metric in zip(panels, _SHOWN, strict=True):
            for variant in variants:
                own = frame[(frame["variant"] == variant) & (frame["metric"] == metric)]
                look, every = looks[variant], max(1, len(own) // 10)
                axes.plot(own["epoch"], own["mean"], label=labels[variant], markevery=every, **look)
                if own["n"].min() > 1:
                    band = {"color": look["color"], "alpha": 0.10, "linewidth": 0}
                    axes.fill_between(own["epoch"], own["low"], own["high"], **band)
            axes.set_xlabel("Epoch")
            axes.set_ylabel(METRICS[metric].axis)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if frame["epoch"].max() == 1:
                axes.set_xlim(0.5, 1.5)
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return drawn
