"""Calibration: a reliability diagram of the baseline and some variants, and the calibration error of every variant."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis.predictions import StudyPredictions, calibration_frame, predictions_frame
from ablations.common.metrics import METRICS
from ablations.reporting.figures import style

MOST_CURVES = 5  # beside the baselines'
_LEAST = 0.001  # share of a variant's predictions that a bin needs to be drawn


def shown_curves(errors: pd.DataFrame) -> list[str]:
    """Returns the variants whose reliability is drawn: baselines, and those whose error differs most from theirs."""
    is_baseline = errors["variant"] == errors["baseline"]
    known = errors.set_index("variant")["ece"]
    gaps = (errors["ece"] - errors["baseline"].map(known)).abs().set_axis(errors["variant"])
    baselines = list(errors.loc[is_baseline, "variant"])[:1]
    others = gaps.drop(errors.loc[is_baseline, "variant"]).fillna(0.0).nlargest(MOST_CURVES).index
    return [*baselines, *(name for name in errors["variant"] if name in others)]


def draw_calibration(found: StudyPredictions, caption: str) -> Figure:
    """Draws accuracy by confidence, the share of predictions in each bin below, and beside them each variant's ECE."""
    frame, errors = calibration_frame(found), predictions_frame(found)
    shown, labels = shown_curves(errors), style.row_labels(errors["variant"])
    baselines = set(errors.loc[errors["variant"] == errors["baseline"], "variant"])
    looks = style.looks_of(list(errors["variant"]), grey=baselines)
    for look, name in zip(
        map(style.look_of, range(len(shown))), (name for name in shown if name not in baselines), strict=False
    ):
        looks[name] = look
    height = max(3.2, 0.9 + style.rows_height(labels))
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        left, right = drawn.subfigures(1, 2, width_ratios=[1.05, 1.0], squeeze=False)[0]
        above, below = left.subplots(2, 1, height_ratios=[3, 1])
        _draw_reliability(above, below, frame, {name: looks[name] for name in shown})
        axes = right.subplots()
        for place, row in enumerate(errors.to_dict("records")):
            look = looks[row["variant"]] if row["variant"] in shown else {"color": "#9a9a9a", "marker": "."}
            axes.hlines(place, row["ece_low"], row["ece_high"], color=look["color"])
            axes.plot(row["ece"], place, linestyle="", **look)
        style.name_rows(axes, labels)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"ECE ({METRICS['ece'].unit})")
    return drawn


def _draw_reliability(above: Axes, below: Axes, frame: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    above.plot([0, 1], [0, 1], color="#9a9a9a", linewidth=0.8, linestyle="--")
    for name, look in looks.items():
        own = frame[frame["variant"] == name]
        shares = own["count"] / own["count"].sum()
        drawn = own[shares >= _LEAST]
        above.plot(
            drawn["confidence"], drawn["accuracy"], label=style.legend_label(name), markersize=3, linewidth=1.0, **look
        )
        edges = [*own["low"], own["high"].iloc[-1]]
        below.stairs(100 * shares, edges, color=look["color"])
    above.set(ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1), xticklabels=[])
    below.set(xlabel="Confidence", ylabel="Share (%)", xlim=(0, 1))
    below.set_ylim(bottom=0)
