"""Calibration: a reliability diagram of baselines and some variants, and the calibration error of every variant."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis.predictions import StudyPredictions, calibration_frame, predictions_frame
from ablations.common.metrics import METRICS
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import draw_lines, draw_points

MOST_CURVES = 5  # in addition to the baselines'
_LEAST = 0.1  # minimum percentage of a variant's predictions in a drawn bin


def shown_curves(errors: pd.DataFrame) -> list[str]:
    """Returns the variants with a curve: baselines, and variants whose error differs most from their baseline's."""
    is_baseline = errors["variant"] == errors["baseline"]
    known = errors.set_index("variant")["ece"]
    gaps = (errors["ece"] - errors["baseline"].map(known)).abs().set_axis(errors["variant"])
    baselines = list(errors.loc[is_baseline, "variant"])[:1]
    others = gaps.drop(errors.loc[is_baseline, "variant"]).fillna(0.0).nlargest(MOST_CURVES).index
    return [*baselines, *(name for name in errors["variant"] if name in others)]


def draw_calibration(found: StudyPredictions, caption: str) -> Figure:
    """Draws accuracy by confidence above the share of predictions per bin, and each variant's ECE on the right."""
    frame, errors = calibration_frame(found), predictions_frame(found)
    shown, labels = shown_curves(errors), style.row_labels(errors["variant"])
    baselines = set(errors.loc[errors["variant"] == errors["baseline"], "variant"])
    appearances = style.appearances_of(list(errors["variant"]), grey=baselines)
    for appearance, name in zip(
        map(style.appearance_of, range(len(shown))), (name for name in shown if name not in baselines), strict=False
    ):
        appearances[name] = appearance
    height = max(3.2, 0.9 + style.rows_height(labels))
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        left, right = drawn.subfigures(1, 2, width_ratios=[1.05, 1.0], squeeze=False)[0]
        above, below = left.subplots(2, 1, height_ratios=[3, 1])
        _draw_reliability(above, below, frame, {name: appearances[name] for name in shown})
        axes = right.subplots()
        others = {name: {"color": "#9a9a9a", "marker": "."} for name in errors["variant"] if name not in shown}
        rows, ends = errors.assign(row=range(len(errors))), (("ece_low", "ece_high", 1.4),)
        draw_points(axes, rows, "ece", "row", "variant", appearances | others, intervals=ends)
        style.name_rows(axes, labels)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"ECE ({METRICS['ece'].unit})")
    return drawn


def _draw_reliability(above: Axes, below: Axes, frame: pd.DataFrame, appearances: dict[str, dict[str, Any]]) -> None:
    above.plot([0, 1], [0, 1], color="#9a9a9a", linewidth=0.8, linestyle="--")
    totals = frame.groupby("variant")["count"].transform("sum")
    bins = frame.assign(share=100 * frame["count"] / totals, low=math.nan, high=math.nan)
    draw_lines(above, bins[bins["share"] >= _LEAST], "confidence", "accuracy", "variant", appearances, size=3.4)
    for name, appearance in appearances.items():
        bins_of = frame[frame["variant"] == name]
        edges = [*bins_of["low"], bins_of["high"].iloc[-1]]
        below.stairs(bins.loc[bins_of.index, "share"], edges, color=appearance["color"])
    above.set(ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1), xticklabels=[])
    below.set(xlabel="Confidence", ylabel="Share (%)", xlim=(0, 1))
    below.set_ylim(bottom=0)
