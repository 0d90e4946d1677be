"""Contrasts under several protocols: a row per contrast, and a marker with interval and verdict per protocol."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ablations.common.metrics import Metric
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import draw_points, handle
from ablations.reporting.text.multiverse import is_decided
from ablations.reporting.text.verdicts import marked
from ablations.stats import Verdict

_STEP = 0.125  # inches from one protocol's marker to the next in a row
_GAP = 0.11  # inches between two rows
_NAMES_OUTSIDE = 4  # columns of the legend


def draw_protocols(frame: pd.DataFrame, margins: Mapping[str, float], metric: Metric, caption: str) -> Figure:
    """Draws a row per contrast with a marker per protocol, filled if its verdict, on the right, is decided.

    Args:
        frame: one row per contrast and protocol: `protocol`, `variant`, `baseline`, `n`, `mean`, `low`, `high` (NaN if
            missing), `verdict`, and optionally `assumes_normal`.
        margins: the equivalence margin of each protocol: one band if they are equal, otherwise one per marker.
        metric: the judged metric.
        caption: the text below.
    """
    several = len(set(frame["baseline"])) > 1
    contrasts = list(dict.fromkeys(zip(frame["variant"], frame["baseline"], strict=True)))
    protocols = list(dict.fromkeys(frame["protocol"]))
    labels = style.row_labels(
        f"{variant} against {baseline}" if several else variant for variant, baseline in contrasts
    )
    lines = max(len(protocols), *(1 + label.count("\n") for label in labels))
    height = len(contrasts) * (lines * _STEP + _GAP)
    step = _STEP / (lines * _STEP + _GAP)  # in rows
    shift = {name: (place - (len(protocols) - 1) / 2) * step for place, name in enumerate(protocols)}
    row = {contrast: number for number, contrast in enumerate(contrasts)}
    keys = zip(frame["variant"], frame["baseline"], frame["protocol"], strict=True)
    placed = frame.assign(place=[row[variant, baseline] + shift[name] for variant, baseline, name in keys])
    with style.figure(style.TWO_COLUMNS, 0.75 + height, caption) as drawn:
        axes = drawn.subplots()
        appearances = style.appearances_of(protocols)
        bands = _draw_margins(axes, placed, margins, step, metric)
        axes.axvline(0, color=style.BASELINE, linestyle="--", linewidth=1)
        for number in range(1, len(contrasts)):
            axes.axhline(number - 0.5, color="#e6e6e6", linewidth=0.6)
        is_decided_here = placed["verdict"].map(is_decided)
        for some, fill in ((placed[~is_decided_here], False), (placed[is_decided_here], True)):
            draw_points(
                axes,
                some,
                "mean",
                "place",
                "protocol",
                appearances,
                intervals=(("low", "high", 1.2),),
                size=4.0,
                fill=fill,
            )
        for shown in placed.to_dict("records"):
            _name_verdict(axes, shown, appearances[shown["protocol"]]["color"])
        style.name_rows(axes, labels)
        axes.tick_params(axis="y", length=0)
        baseline = "its baseline" if several else frame["baseline"].iloc[0]
        unit = "percentage points" if metric.in_points else metric.unit
        axes.set_xlabel(f"Difference in {metric.label.lower()} to {baseline}" + (f" ({unit})" if unit else ""))
        margins_shown = [Patch(label=name, **band) for name, band in bands.items()]
        handles = [handle(name, line=True, **appearances[name]) for name in protocols]
        drawn.legend(handles=[*handles, *margins_shown], loc="outside upper left", ncols=_NAMES_OUTSIDE)
    return drawn


def _draw_margins(
    axes: Axes, placed: pd.DataFrame, margins: Mapping[str, float], step: float, metric: Metric
) -> dict[str, dict[str, Any]]:
    """Draws one band if all margins are equal, otherwise one behind each marker; returns its legend entry."""
    shown = {name: margins[name] for name in placed["protocol"]}
    band: dict[str, Any] = {"color": style.BASELINE, "alpha": 0.12, "linewidth": 0}
    if len(set(shown.values())) == 1:
        margin = next(iter(shown.values()))
        axes.axvspan(-margin, margin, **band)
        return {f"within {metric.quantity(margin)}": band}
    for name, place in zip(placed["protocol"], placed["place"], strict=True):
        axes.add_patch(Rectangle((-shown[name], place - step / 2), 2 * shown[name], step, **band))
    return {"within the equivalence margin": band}


def _name_verdict(axes: Axes, row: Mapping[Hashable, Any], colour: str) -> None:
    verdict = marked(Verdict(row["verdict"]), bool(row.get("assumes_normal", False)))
    axes.annotate(
        f"{verdict} (n = {row['n']})",
        (1.01, row["place"]),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=6.5,
        color=colour,
        annotation_clip=False,
    )
