"""Accuracy by class: a row a variant, a column a class, with the difference to the baseline in each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablations.analysis.predictions import StudyPredictions, classes_frame
from ablations.reporting.figures import style

MOST_CLASSES = 30
_WIDEST_LABEL = 20  # letters
_WITH_DECIMALS = 12  # classes


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
    table = shown.pivot_table("difference", "variant", "label").loc[variants]
    accuracy = frame[frame["variant"].isin(set(found.baselines.values()))].groupby("label")["accuracy"].mean()
    classes = [
        f"{style.shorten(name, _WIDEST_LABEL)} ({accuracy[label]:.0f})"
        for label, name in enumerate(found.classes)
        if label in table.columns
    ]
    limit = float(np.nanmax(np.abs(table.to_numpy()), initial=0.1))
    labels, decimals = style.row_labels(variants), 1 if len(classes) <= _WITH_DECIMALS else 0
    height = 0.5 + 1.2 * style.rows_height(labels) + 0.07 * max(map(len, classes))
    with style.figure(style.TWO_COLUMNS, max(height, 2.0), caption) as drawn:
        axes = drawn.subplots()
        sns.heatmap(
            table, ax=axes, cmap="RdBu", center=0, vmin=-limit, vmax=limit, annot=True, fmt=f"+.{decimals}f",
            linewidths=0.5, annot_kws={"fontsize": _number_size(labels, len(classes), decimals)},
            cbar_kws={"label": "Points", "pad": 0.02, "ticks": [-limit, 0, limit], "format": "%+.3g"},
        )  # fmt: skip
        axes.set_yticklabels(labels, rotation=0)
        axes.set_xticklabels(classes, rotation=90)
        axes.tick_params(length=0)
        axes.set(xlabel="Class (the baseline's accuracy in %)", ylabel="")
        axes.grid(visible=False)
        _embolden(shown, table, axes.texts)
    return drawn


def _number_size(labels: Sequence[str], classes: int, decimals: int) -> float:
    """Returns the size in points at which a number fits into a cell, beside rows with such labels."""
    widest = max(len(line) for label in labels for line in label.split("\n"))
    cell = 72 * (style.TWO_COLUMNS - 0.07 * widest - 0.8) / classes
    return min(6.0, cell / (0.7 * (3 + 2 * decimals)))


def _embolden(shown: pd.DataFrame, table: pd.DataFrame, texts: Sequence[Text]) -> None:
    """Prints the differences in bold whose interval does not contain 0; those of one replicate have none."""
    is_clear = (shown["low"] > 0) | (shown["high"] < 0)
    clear = set(zip(shown["variant"][is_clear], shown["label"][is_clear], strict=True))
    places = [
        (variant, label)
        for variant, row in zip(table.index, table.to_numpy().tolist(), strict=True)
        for label, value in zip(table.columns, row, strict=True)
        if not math.isnan(value)  # of which nothing is printed
    ]
    for text, place in zip(texts, places, strict=True):
        if place in clear:
            text.set_fontweight("bold")
