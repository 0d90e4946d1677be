"""Top-1 against the cost of variants, speed and memory, with the Pareto front."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from ablations.analysis.costs import StudyCosts
from ablations.analysis.tradeoffs import is_on_front
from ablations.common.metrics import METRICS
from ablations.design import Design
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import draw_points, handle
from ablations.stats import cells_by_variant

_COSTS = ("train_images_per_second", "peak_memory_mib")


def pareto_frame(cells: pd.DataFrame, design: Design, costs: StudyCosts | None) -> pd.DataFrame:
    """Returns one row per variant and measured cost.

    Columns: `variant`, `metric` (`train_images_per_second` or `peak_memory_mib`), `n`, `top1` (mean) with its 95 % CI
    from `low` to `high` (empty where n is 1), `cost`, and `on_front`, whether no other variant has both a higher top-1
    and a better cost.
    """
    rows = []
    groups = cells_by_variant(cells)
    for metric, variant in itertools.product(_COSTS, design.variants):
        own = groups.get(variant.name)
        cost = costs.of(variant.name).metrics.get(metric) if costs else None
        if own is not None and cost is not None:
            rows.append(
                {"variant": variant.name, "metric": metric, **style.top1_of(own)} | {"cost": cost, "on_front": False}
            )
    columns = ["variant", "metric", "n", "top1", "low", "high", "cost", "on_front"]
    frame = pd.DataFrame(rows, columns=columns)
    for cost_metric, part in frame.groupby("metric"):
        directions = [METRICS["top1"].direction, METRICS[str(cost_metric)].direction]
        frame.loc[part.index, "on_front"] = is_on_front(part[["top1", "cost"]].to_numpy(), directions)
    return frame


def draw_pareto(frame: pd.DataFrame, baselines: Mapping[str, str], caption: str) -> Figure:
    """Draws a panel per cost, with baselines in grey; better is up and, for speed, right, for memory, left."""
    variants = list(dict.fromkeys(frame["variant"]))
    appearances = style.appearances_of(variants, {name for name in variants if baselines.get(name) == name})
    labels = dict(zip(variants, style.row_labels(variants), strict=True))
    metrics = [metric for metric in _COSTS if metric in set(frame["metric"])]
    height = max(2.7, 0.4 + style.rows_height(labels.values()))
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        panels = drawn.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            own = frame[frame["metric"] == metric]
            own = own.assign(place=style.aside(own["cost"]))
            front = own[own["on_front"]].sort_values("place")
            axes.plot(front["place"], front["top1"], color="#bbbbbb", linewidth=1, zorder=1)
            ring = {"s": 70, "facecolors": "none", "edgecolors": "#222222", "linewidths": 0.8}
            axes.scatter(front["place"], front["top1"], label="Pareto-optimal", clip_on=False, **ring)
            draw_points(
                axes, own, "place", "top1", "variant", appearances, along="y", intervals=(("low", "high", 0.9),)
            )
            better = "more" if METRICS[metric].direction == "maximize" else "less"
            axes.set_xlabel(f"{METRICS[metric].axis}, {better} is better")
            axes.margins(x=0.12)
            style.scale_of_costs(axes, own["cost"])
            axes.label_outer()
        panels[0].set_ylabel(METRICS["top1"].axis)
        style.keep_to_percent(panels[0])
        rings = panels[0].get_legend_handles_labels()[0]
        handles = [handle(labels[name], **appearances[name]) for name in variants]
        drawn.legend(handles=[*rings, *handles], loc="outside right upper")
    return drawn
