"""Forest plots of a study's contrasts and effects, with confidence intervals and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ablations.common.metrics import Metric
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import draw_points, handle
from ablations.reporting.text.reasons import reason_clause
from ablations.reporting.text.verdicts import marked
from ablations.stats import Contrast, Verdict

_APPEARANCES = {
    Verdict.HELPS.value: {"color": style.COLOURS[2], "marker": "^"},
    Verdict.HURTS.value: {"color": style.COLOURS[1], "marker": "v"},
    Verdict.EQUIVALENT.value: {"color": style.COLOURS[0], "marker": "o"},
    Verdict.UNSTABLE.value: {"color": style.COLOURS[3], "marker": "s"},
    Verdict.UNDECIDED.value: {"color": "#777777", "marker": "D"},
    Verdict.NONE.value: {"color": "#aaaaaa", "marker": "X"},
}

# Style of a text to the right of a row.
_BESIDE: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}


def forest_frame(contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """Returns one row per contrast with a difference.

    Columns: `variant`, `baseline`, `n`, `mean` (in the metric's unit), `low` and `high` (95 % CI, empty where n is 1),
    `adjusted` (median-unbiased, for a difference that an interim analysis decided), `p` and `p_equivalence` (corrected;
    empty if they cannot decide), `verdict`, `assumes_normal`, `reason`, `interim` (the replicates of the last interim
    analysis, if any), `shortfall` (of the variant's worst run below its median) and `unseen_failures` (the failure rate
    that an equivalent variant's replicates cannot exclude).
    """
    rows = []
    for contrast in contrasts:
        if contrast.difference is None:
            continue
        shortfalls = {one.variant: one.shortfall for one in contrast.stabilities}
        rows.append(
            {"variant": contrast.variant, "baseline": contrast.baseline, **vars(contrast.difference)}
            | {"adjusted": contrast.adjusted}
            | {"p": contrast.p, "p_equivalence": contrast.p_equivalence, "verdict": contrast.verdict.value}
            | {
                "assumes_normal": contrast.assumes_normal,
                "reason": reason_clause(contrast),
                "interim": contrast.interim,
            }
            | {"shortfall": shortfalls.get(contrast.variant), "unseen_failures": contrast.unseen_failures}
        )
    columns = ["variant", "baseline", "n", "mean", "low", "high", "adjusted", "p"]
    columns += ["p_equivalence", "verdict", "assumes_normal", "reason", "interim", "shortfall", "unseen_failures"]
    return pd.DataFrame(rows, columns=columns)


def draw_forest(frame: pd.DataFrame, margin: float, metric: Metric, caption: str) -> Figure:
    """Draws a row per contrast with its verdict on the right, and the margin as a band."""
    several = len(set(frame["baseline"])) > 1
    records = frame.to_dict("records")
    names = [f"{row['variant']} against {row['baseline']}" if several else row["variant"] for row in records]
    labels = style.row_labels(names)
    with style.figure(style.TWO_COLUMNS, 0.9 + max(style.rows_height(labels), 0.4), caption) as drawn:
        axes = drawn.subplots()
        within = _draw_margin(axes, margin, metric)
        appearances = {
            verdict: appearance for verdict, appearance in _APPEARANCES.items() if verdict in set(frame["verdict"])
        }
        draw_points(axes, frame.assign(row=range(len(frame))), "mean", "row", "verdict", appearances)
        for place, row in enumerate(records):
            shown = marked(Verdict(row["verdict"]), row["assumes_normal"])
            axes.annotate(f"{shown} (n = {row['n']})", (1.01, place), fontsize=7.5, **_BESIDE)
        style.name_rows(axes, labels)
        baseline = "its baseline" if several else frame["baseline"].iloc[0]
        axes.set_xlabel(f"Difference in {metric.label.lower()} to {baseline} ({_unit(metric)})")
        handles = [within, *(handle(verdict, line=True, **appearance) for verdict, appearance in appearances.items())]
        drawn.legend(handles=handles, loc="outside upper left", ncols=5)
    return drawn


def draw_effects(frame: pd.DataFrame, margin: float, metric: Metric, caption: str) -> Figure:
    """Draws a row per effect of `effects_frame`, with its verdict; main effects above, interactions below."""
    labels = style.row_labels(
        row["name"] if row["order"] > 1 else f"{row['name']} against {row['reference']}" for _, row in frame.iterrows()
    )
    with style.figure(style.TWO_COLUMNS, 0.8 + style.rows_height(labels), caption) as drawn:
        axes = drawn.subplots()
        _draw_margin(axes, margin, metric)
        orders = sorted(set(frame["order"]))
        appearances = {_order_name(order): style.appearance_of(order - 1) for order in orders}
        rows = frame.assign(row=range(len(frame)), kind=frame["order"].map(_order_name))
        draw_points(axes, rows, "mean", "row", "kind", appearances)
        for place, row in enumerate(frame.to_dict("records")):
            shown = marked(Verdict(row["verdict"]), row["assumes_normal"])
            axes.annotate(shown, (1.01, place), fontsize=7.5, **_BESIDE)
        style.name_rows(axes, labels)
        axes.set_xlabel(f"Effect on {metric.label.lower()} ({_unit(metric)})")
        handles = [handle(name, line=True, **appearance) for name, appearance in appearances.items()]
        drawn.legend(handles=handles, loc="outside upper left", ncols=3)
    return drawn


def _order_name(order: int) -> str:
    return "main effect" if order == 1 else f"interaction of {order} factors"


def _draw_margin(axes: Axes, margin: float, metric: Metric) -> Patch:
    """Draws the margin as a band around 0, and returns it for a legend."""
    band: dict[str, Any] = {"color": style.BASELINE, "alpha": 0.12, "linewidth": 0}
    axes.axvspan(-margin, margin, **band)
    axes.axvline(0, color=style.BASELINE, linestyle="--", linewidth=1)
    return Patch(label=f"within {metric.quantity(margin)}", **band)


def _unit(metric: Metric) -> str:
    """Returns the unit of an axis of differences."""
    return f"percentage {metric.difference_unit}" if metric.in_points else metric.unit
