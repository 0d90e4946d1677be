"""Accuracy by class: a row a class, a column a variant, with the difference to the baseline in each cell."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ablations.analysis.predictions import StudyPredictions, classes_frame
from ablations.reporting.figures import style

MOST_CLASSES = 30
_UPRIGHT = 4  # variants whose names have room beside each other
_WIDEST_LABEL = 22  # letters
_NUMBERED = 12  # variants, of which each cell has its number


def shown_classes(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of `classes_frame` that the figure has: compared variants, the classes that differ most.

    Of more than 30 classes those are shown whose difference is largest in any variant.
    """
    compared = frame[frame["difference"].notna()]
    largest = compared.assign(size=compared["difference"].abs()).groupby("label")["size"].max()
    labels = largest.nlargest(MOST_CLASSES).index
    return compared[compared["label"].isin(labels)].reset_index(drop=True)


def draw_classes(found: StudyPredictions, caption: str) -> Figure:
    """Draws differences in points as colours; bold ones have a 95 % CI without 0."""
    import seaborn as sns  # takes seconds

    frame = classes_frame(found)
    shown = shown_classes(frame)
    variants = list(dict.fromkeys(shown["variant"]))
    table = shown.pivot_table("difference", "label", "variant")[variants]
    accuracy = frame[frame["variant"].isin(set(found.baselines.values()))].groupby("label")["accuracy"].mean()
    names = [f"{style.shorten(found.classes[label], _WIDEST_LABEL)} ({accuracy[label]:.1f})" for label in table.index]
    limit = max(float(np.abs(table.to_numpy()).max(initial=0.1, where=table.notna().to_numpy())), 0.1)
    numbered = len(variants) <= _NUMBERED
    longest = max(map(len, variants)) if len(variants) > _UPRIGHT else 4
    height = 0.6 + 0.2 * len(table) + min(0.05 * longest, 1.0)
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        axes = drawn.subplots()
        sns.heatmap(
            table, ax=axes, cmap="RdBu", center=0, vmin=-limit, vmax=limit, annot=numbered, fmt="+.1f", linewidths=0.5,
            annot_kws={"fontsize": 7}, cbar_kws={"label": "Difference in points", "shrink": 0.8},
        )  # fmt: skip
        axes.set_yticklabels(names, rotation=0)
        folded = ["\n".join(style.fold(name, 16)) for name in variants]
        slanted = {"rotation": 45, "ha": "right"} if len(variants) > _UPRIGHT else {"rotation": 0}
        axes.set_xticklabels(folded, **slanted)
        axes.tick_params(length=0)
        axes.set(xlabel="", ylabel="Class (the baseline's accuracy in %)")
        axes.grid(visible=False)
        if numbered:
            _embolden(shown, table, list(axes.texts))
    return drawn


def _embolden(shown: pd.DataFrame, table: pd.DataFrame, texts: list) -> None:  # type: ignore[type-arg]
    """Prints the differences in bold whose interval does not contain 0; those of one replicate have none."""
    clear = {
        (row["label"], row["variant"]): row["low"] > 0 or row["high"] < 0
        for row in shown.to_dict("records")
        if not math.isnan(row["low"])
    }
    cells = [(label, variant) for label in table.index for variant in table.columns]
    known = [cell for cell in cells if not math.isnan(table.loc[cell[0], cell[1]])]
    for text, cell in zip(texts, known, strict=True):
        if clear.get(cell, False):
            text.set_fontweight("bold")
