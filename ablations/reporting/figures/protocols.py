"""Contrasts under several protocols: a row a contrast, a marker with its interval and verdict for each protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ablations.common.metrics import Metric
from ablations.reporting.figures import style
from ablations.reporting.text.multiverse import is_decided
from ablations.reporting.text.verdicts import marked
from ablations.stats import Verdict

_STEP = 0.125  # inches from one protocol's marker to the next in a row
_GAP = 0.11  # inches between two rows
_NAMES_OUTSIDE = 4  # columns of the legend


def draw_protocols(frame: pd.DataFrame, margins: Mapping[str, float], metric: Metric, caption: str) -> Figure:
    """Draws a contrast a row, with a marker a protocol: filled where its verdict, at the right, is decided.

    Args:
        frame: a row a contrast and protocol: `protocol`, `variant`, `baseline`, `n`, `mean`, `low`, `high` (nan where
            there is none), `verdict`; and `assumes_normal`, where its tests are known to.
        margins: the equivalence margin of each protocol: one band where they are the same, otherwise one a marker.
        metric: that verdicts are about.
        caption: what stands below.
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
        looks = style.looks_of(protocols)
        bands = _draw_margins(axes, placed, margins, step, metric)
        axes.axvline(0, color=style.BASELINE, linestyle="--", linewidth=1)
        for number in range(1, len(contrasts)):
            axes.axhline(number - 0.5, color="#e6e6e6", linewidth=0.6)
        for name in protocols:
            _draw_protocol(axes, placed[placed["protocol"] == name], name, looks[name])
        style.name_rows(axes, labels)
        axes.tick_params(axis="y", length=0)
        baseline = "its baseline" if several else frame["baseline"].iloc[0]
        unit = "percentage points" if metric.in_points else metric.unit
        axes.set_xlabel(f"Difference in {metric.label.lower()} to {baseline}" + (f" ({unit})" if unit else ""))
        handles, names = axes.get_legend_handles_labels()
        handles, names = [*handles, *bands.values()], [*names, *bands]
        drawn.legend(handles, names, loc="outside upper left", ncols=_NAMES_OUTSIDE)
    return drawn


def _draw_margins(
    axes: Axes, placed: pd.DataFrame, margins: Mapping[str, float], step: float, metric: Metric
) -> dict[str, Patch]:
    """Draws one band where all margins are the same, otherwise one behind each marker; returns what a legend says."""
    shown = {name: margins[name] for name in placed["protocol"]}
    band: dict[str, Any] = {"color": style.BASELINE, "alpha": 0.12, "linewidth": 0}
    if len(set(shown.values())) == 1:
        margin = next(iter(shown.values()))
        axes.axvspan(-margin, margin, **band)
        return {f"within {metric.quantity(margin)}": Patch(**band)}
    for name, place in zip(placed["protocol"], placed["place"], strict=True):
        axes.add_patch(Rectangle((-shown[name], place - step / 2), 2 * shown[name], step, **band))
    return {"within the protocol's margin": Patch(**band)}


def _draw_protocol(axes: Axes, own: pd.DataFrame, name: str, look: Mapping[str, Any]) -> None:
    decided = own["verdict"].map(is_decided)
    axes.hlines(own["place"], own["low"], own["high"], color=look["color"], linewidth=1.2)
    for some, face in ((own[~decided], "white"), (own[decided], look["color"])):
        axes.plot(some["mean"], some["place"], linestyle="", markerfacecolor=face, **look)
    axes.plot([], [], linestyle="-", label=name, **look)
    for row in own.to_dict("records"):
        verdict = marked(Verdict(row["verdict"]), bool(row.get("assumes_normal", False)))
        axes.annotate(
            f"{verdict} (n = {row['n']})",
            (1.01, row["place"]),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=6.5,
            color=look["color"],
            annotation_clip=False,
        )
