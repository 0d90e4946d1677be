"""The selection of a search: trade-offs, or the progress with a single objective, and importances of factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis.importances import ALPHA
from ablations.common.metrics import METRICS
from ablations.reporting.figures import style
from ablations.reporting.text.numbers import on_validation


def draw_search(frame: pd.DataFrame, importances: pd.DataFrame, objectives: Sequence[str], caption: str) -> Figure:
    """Draws the trade-off of the first two objectives, with the third as colour, and the importances, if any.

    A single objective is drawn over the course of the search: every evaluated variant, and the best so far.
    """
    factors = list(dict.fromkeys(importances["factor"]))
    with style.figure(style.TWO_COLUMNS, 3.2, caption) as drawn:
        panels = drawn.subplots(1, 2 if factors else 1, width_ratios=[1.9, 1] if factors else [1], squeeze=False)[0]
        if len(objectives) == 1:
            _draw_course(panels[0], frame, objectives[0])
        else:
            _draw_tradeoff(drawn, panels[0], frame, objectives)
        if factors:
            _draw_importances(panels[1], importances, factors, objectives)
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return drawn


def _draw_tradeoff(drawn: Figure, axes: Axes, frame: pd.DataFrame, objectives: Sequence[str]) -> None:
    vertical, horizontal = objectives[:2]
    third = objectives[2] if len(objectives) > 2 else None
    front = frame[frame["on_front"]].sort_values(horizontal)
    limits = {"vmin": frame[third].min(), "vmax": frame[third].max(), "cmap": "viridis"} if third else {}
    if len(objectives) == 2:
        axes.plot(front[horizontal], front[vertical], color="#bbbbbb", linewidth=0.8, zorder=1)
    points = None
    for picked, marker, label in ((True, "o", "picked"), (False, "X", "named variant")):
        own = frame[frame["picked"] == picked]
        if len(own):
            colours = {"c": own[third], **limits} if third else {"color": style.COLOURS[0]}
            points = axes.scatter(own[horizontal], own[vertical], s=22, marker=marker, label=label, **colours)
    ring: dict[str, Any] = {"s": 70, "facecolors": "none", "edgecolors": "#D55E00"}
    axes.scatter(front[horizontal], front[vertical], label="Pareto-optimal", **ring)
    _number_picks(axes, frame, horizontal, vertical)
    over = frame[~frame["fits"]]
    if len(over):
        axes.plot(over[horizontal], over[vertical], "x", color="#222222", markersize=8, label="too many parameters")
    for _, row in front.iterrows():
        place = (row[horizontal], row[vertical])
        axes.annotate(row["label"], place, (5, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel=on_validation(horizontal), ylabel=on_validation(vertical))
    if third and points is not None:
        drawn.colorbar(points, ax=axes, label=on_validation(third))


def _number_picks(axes: Axes, frame: pd.DataFrame, horizontal: str, vertical: str) -> None:
    """Writes the rank below each confirmed pick."""
    for _, row in frame[frame["rank"] > 0].iterrows():
        place = (row[horizontal], row[vertical])
        axes.annotate(str(row["rank"]), place, (0, -11), textcoords="offset points", fontsize=7, ha="center")


def _draw_course(axes: Axes, frame: pd.DataFrame, objective: str) -> None:
    tried = frame[frame["picked"] & frame["fits"]].reset_index(drop=True)
    values = tried[objective]
    best = values.cummax() if METRICS[objective].direction == "maximize" else values.cummin()
    axes.plot(tried.index + 1, values, "o", color=style.COLOURS[0], label="picked")
    axes.plot(tried.index + 1, best, color=style.COLOURS[1], drawstyle="steps-post", label="best so far")
    _number_picks(axes, tried.assign(order=tried.index + 1), "order", objective)
    for index, (_, named) in enumerate(frame[~frame["picked"]].iterrows()):
        dashes = style.DASHES[(index + 1) % len(style.DASHES)]
        axes.axhline(
            named[objective], color=style.BASELINE, linestyle=dashes, label=style.legend_label(named["variant"])
        )
    axes.set(xlabel="Variant, in the order of the search", ylabel=on_validation(objective))


def _draw_importances(axes: Axes, frame: pd.DataFrame, factors: Sequence[str], objectives: Sequence[str]) -> None:
    shown = [objective for objective in objectives if (frame["objective"] == objective).any()]
    height = 0.8 / len(shown)
    for index, objective in enumerate(shown):
        own = frame[frame["objective"] == objective].set_index("factor").reindex(list(factors))
        places = [place + height * (index - (len(shown) - 1) / 2) for place in range(len(factors))]
        colour = style.COLOURS[index % len(style.COLOURS)]
        axes.barh(places, own["importance"], height * 0.9, color=colour, label=METRICS[objective].label)
        low, high = ([place + height * 0.45 * side for place in places] for side in (-1, 1))
        label = "95 % quantile under permutation" if index == len(shown) - 1 else "_"  # one legend entry for all
        axes.vlines(own["null_95"], low, high, color="black", linewidth=1.2, label=label)
        for place, (_, row) in zip(places, own.iterrows(), strict=True):
            if row["p_family"] <= ALPHA:
                at = max(row["importance"], row["null_95"]) + 0.02
                axes.text(at, place, "*", va="center", fontsize=9)
    style.name_rows(axes, factors)
    axes.set_xlabel("Importance (share of variance)")
    axes.set_xlim(0, 1)
    axes.legend(fontsize=6.5, loc="lower right", bbox_to_anchor=(1, 1))  # outside, so that it hides no bars
