"""Main effects and interactions of crossed factors, each with its confidence interval."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ablations.common.metrics import METRICS
from ablations.reporting.figures import style


def draw_effects(frame: pd.DataFrame, caption: str) -> Figure:
    """Draws an effect of `effects_frame` a row, in percentage points; main effects above, interactions below."""
    labels = style.row_labels(
        row["name"] if row["order"] > 1 else f"{row['name']} against {row['reference']}" for _, row in frame.iterrows()
    )
    with style.figure(style.TWO_COLUMNS, 0.8 + style.rows_height(labels), caption) as drawn:
        axes = drawn.subplots()
        axes.axvline(0, color=style.BASELINE, linestyle="--", linewidth=1)
        for order in sorted(set(frame["order"])):
            own, look = frame[frame["order"] == order], style.look_of(order - 1)
            label = "main effect" if order == 1 else f"interaction of {order} factors"
            axes.hlines(own.index, own["low"], own["high"], color=look["color"])
            axes.plot(own["mean"], own.index, linestyle="", label=label, **look)
        style.name_rows(axes, labels)
        axes.set_xlabel(f"Effect on {METRICS['top1'].label.lower()} (percentage points)")
        drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return drawn
