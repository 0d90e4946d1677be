"""Top-1 against training time: a point per variant, with its replicates."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from ablations.common.metrics import METRICS
from ablations.design import Design
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import draw_points, handle
from ablations.stats import cells_by_variant, estimate


def time_frame(cells: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Returns one row per finished cell (`kind` is `replicate`) and per variant (`mean`), in the study's order.

    Columns: `variant`, `kind`, `replicate`, `n`, `seconds` and `top1`, with the bounds of the 95 % CI of their means
    (`seconds_low`, `seconds_high`, `top1_low`, `top1_high`; empty where n is 1). The seconds of a cell include training
    and all evaluation.
    """
    rows: list[dict[str, object]] = []
    groups = cells_by_variant(cells)
    for variant in design.variants:
        own = groups.get(variant.name)
        own = own.dropna(subset=["seconds", "top1"]) if own is not None else cells.iloc[:0]
        if own.empty:
            continue
        mean: dict[str, object] = {"variant": variant.name, "kind": "mean", "n": len(own)}
        for metric in ("seconds", "top1"):
            interval = estimate(own[metric].to_numpy())
            mean |= {metric: interval.mean, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        replicates = own[["replicate", "seconds", "top1"]].to_dict("records")
        rows += [
            mean,
            *(
                {"variant": variant.name, "kind": "replicate", **{str(key): value for key, value in row.items()}}
                for row in replicates
            ),
        ]
    columns = ["variant", "kind", "replicate", "n", "seconds", "seconds_low", "seconds_high", "top1"]
    return pd.DataFrame(rows, columns=[*columns, "top1_low", "top1_high"])


def draw_time(frame: pd.DataFrame, baselines: Mapping[str, str], caption: str) -> Figure:
    """Draws means with intervals in both directions, and replicates as small dots; baselines are grey."""
    variants = list(dict.fromkeys(frame["variant"]))
    appearances = style.appearances_of(variants, {name for name in variants if baselines.get(name) == name})
    labels = dict(zip(variants, style.row_labels(variants), strict=True))
    means, replicates = frame[frame["kind"] == "mean"], frame[frame["kind"] == "replicate"]
    with style.figure(style.TWO_COLUMNS, max(2.9, 0.5 + style.rows_height(labels.values())), caption) as drawn:
        axes = drawn.subplots()
        if len(replicates) > len(means):
            draw_points(axes, replicates, "seconds", "top1", "variant", appearances, intervals=(), size=2.6, alpha=0.5)
        for along, metric in (("x", "seconds"), ("y", "top1")):
            ends = ((f"{metric}_low", f"{metric}_high", 1.1),)
            draw_points(axes, means, "seconds", "top1", "variant", appearances, intervals=ends, along=along)
        axes.margins(x=0.08)
        style.keep_to_percent(axes)
        style.scale_of_costs(axes, frame["seconds"])
        axes.set(xlabel="Time to train a cell (s), less is better", ylabel=METRICS["top1"].axis)
        drawn.legend(
            handles=[handle(labels[name], **appearances[name]) for name in variants], loc="outside right upper"
        )
    return drawn
