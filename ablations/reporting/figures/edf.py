"""The empirical distribution function of a search's trials.

The definition is that of `optuna.visualization.plot_edf`: the share of complete trials whose objective is at most x.
A search space, or an attention module under tuning, is better if its curve is closer to good values (Radosavovic et al.
2020, "Designing Network Design Spaces"). Only variants picked by the search count, not named ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from ablations.common.metrics import METRICS
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import handle
from ablations.reporting.text.numbers import on_validation

PICKED = "picked by the search"  # the one group of a search


def edf_frame(trials: pd.DataFrame, objectives: Sequence[str], by: str = "") -> pd.DataFrame:
    """Returns one row per trial and objective: `group`, `objective`, `value`, and the `share` of the group up to it.

    `trials` has a column per objective; `by` is the column of groups, without which all trials are one group. Trials
    without a result are left out.
    """
    grouped = trials.assign(group=trials[by] if by else PICKED)
    long = grouped.melt("group", list(objectives), var_name="objective").dropna(subset="value")
    share = long.groupby(["group", "objective"], sort=False)["value"].rank(method="max", pct=True)
    frame = long.assign(share=share, place=long["objective"].map(list(objectives).index))
    return frame.sort_values(["place", "group", "value"], kind="stable", ignore_index=True).drop(columns="place")


def draw_edf(
    frame: pd.DataFrame, named: pd.DataFrame, groups: Sequence[str], grey: Sequence[str], caption: str
) -> Figure:
    """Draws a panel per objective and a step curve per group.

    `named` has one row per named variant and objective (`variant`, `objective`, `value`), drawn as a vertical line;
    curves of groups in `grey` are grey.
    """
    import seaborn as sns  # takes seconds

    objectives = list(dict.fromkeys(frame["objective"]))
    colours = {
        group: appearance["color"]
        for group, appearance in style.appearances_of(groups, set(grey) & set(groups)).items()
    }
    variants = list(dict.fromkeys(named["variant"]))
    dashes = {variant: ("--", ":", "-.")[index % 3] for index, variant in enumerate(variants)}
    with style.figure(style.TWO_COLUMNS, 2.7, caption) as drawn:
        panels = drawn.subplots(1, len(objectives), sharey=True, squeeze=False)[0]
        for axes, objective in zip(panels, objectives, strict=True):
            own = frame[frame["objective"] == objective]
            sns.ecdfplot(own, x="value", hue="group", palette=colours, legend=False, ax=axes)
            for row in named[named["objective"] == objective].to_dict("records"):
                axes.axvline(row["value"], color=style.BASELINE, linestyle=dashes[row["variant"]], linewidth=1.0)
            better = "right" if METRICS[objective].direction == "maximize" else "left"
            axes.set(xlabel=f"{on_validation(objective)}, {better} is better", ylabel="Share of trials", ylim=(0, 1))
        handles = [handle(group, line=True, color=colours[group]) for group in groups]
        handles += [handle(name, color=style.BASELINE, linestyle=dash) for name, dash in dashes.items()]
        drawn.legend(handles=handles, loc="outside upper left", ncols=3)
    return drawn
