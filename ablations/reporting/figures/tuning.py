"""Tuning: accuracy against the tuning budget, a line per variant, and the optima in the search space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ablations.analysis.tuning import EDGE, Tuned
from ablations.design.tuning import Dimension
from ablations.reporting.figures import style
from ablations.reporting.text.numbers import on_validation

_MOST = 3  # drawn options


def tuning_frame(tuned: Tuned) -> pd.DataFrame:
    """Returns one row per trial: `variant`, `trial`, the options, the metric, `best`; and `expected`.

    `expected` is the expected best value of k trials, where k is the row's number from 1.
    """
    expected = tuned.expected.assign(trial=lambda frame: frame["trials"] - 1).drop(columns="trials")
    return tuned.trials.merge(expected, on=["variant", "trial"], how="left")


def draw_tuning(tuned: Tuned, variants: Sequence[str], baselines: Sequence[str], caption: str) -> Figure:
    """Draws the expected best value by budget, and for each option its trials with the best one marked."""
    space = list(tuned.tuning.space.items())[:_MOST]
    appearances = style.appearances_of(list(variants), baselines)
    labels = dict(zip(variants, style.row_labels(variants), strict=True))
    height = max(2.6, 0.9 + 1.5 * style.rows_height(labels.values()))
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        panels = drawn.subplots(1, 1 + len(space), width_ratios=[1.4, *[1] * len(space)])
        _draw_budget(panels[0], tuned, labels, appearances)
        for number, (axes, (path, dimension)) in enumerate(zip(panels[1:], space, strict=True)):
            _draw_optima(axes, tuned.trials, path, dimension, variants, appearances)
            style.name_rows(axes, list(labels.values()) if number == 0 else [""] * len(labels))
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=min(7, len(labels)))
    return drawn


def _draw_budget(axes: Axes, tuned: Tuned, labels: dict[str, str], appearances: dict[str, dict[str, Any]]) -> None:
    for variant, label in labels.items():
        own = tuned.expected[tuned.expected["variant"] == variant]
        every = max(1, len(own) // 10)
        axes.plot(own["trials"], own["expected"], label=label, markevery=every, **appearances[variant])
    axes.set(xlabel="Trials", ylabel=f"Expected best: {on_validation(tuned.design.metric).lower()}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _draw_optima(
    axes: Axes,
    trials: pd.DataFrame,
    path: str,
    dimension: Dimension,
    variants: Sequence[str],
    appearances: dict[str, dict[str, Any]],
) -> None:
    """Draws a row per variant: trials as dots, the best one as its marker; outer tenths of a range are shaded."""
    choices = list(dimension.choices)
    for row, variant in enumerate(variants):
        own = trials[trials["variant"] == variant]
        at = own[path].map(choices.index) if choices else own[path]
        axes.plot(at, [row] * len(own), ".", color="#aaaaaa", markersize=3)
        axes.plot(at[own["best"]], [row] * int(own["best"].sum()), linestyle="", **appearances[variant])
    if choices:
        axes.set_xticks(range(len(choices)), [str(choice) for choice in choices])
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        low, high = dimension.ends
        if dimension.is_log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1,) if high / low >= 50 else (1, 2, 5)))
            axes.xaxis.set_minor_formatter(NullFormatter())
            inner = low * (high / low) ** EDGE, high / (high / low) ** EDGE
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
            inner = low + EDGE * (high - low), high - EDGE * (high - low)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        for start, end in ((low, inner[0]), (inner[1], high)):
            axes.axvspan(start, end, color="#f0f0f0", zorder=0)
        axes.set_xlim(low, high)
        axes.margins(x=0.02)
    axes.set_xlabel(path.partition(".")[2].replace("_", " ").capitalize())
