"""Accuracy by class: a row per variant, a column per class, with the difference to the baseline in each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablations.analysis.predictions import StudyPredictions, classes_frame
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import draw_points

MOST_CLASSES = 30
_WIDEST_LABEL = 20  # letters
_WITH_DECIMALS = 12  # classes


def shown_classes(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of `classes_frame` in the figure: compared variants, and the classes that differ most.

    Of more than 30 classes, those with the largest difference in any variant.
    """
    compared = frame[frame["difference"].notna()]
    largest = compared.assign(size=compared["difference"].abs()).groupby("label")["size"].max()
    labels = largest.nlargest(MOST_CLASSES).index
    return compared[compared["label"].isin(labels)].reset_index(drop=True)


def draw_classes(found: StudyPredictions, caption: str) -> Figure:
    """Draws differences in points as colours, bold if the 95 % CI excludes 0; for two variants, with intervals."""
    import seaborn as sns  # takes seconds

    frame = classes_frame(found)
    shown = shown_classes(frame)
    if found.is_pair:
        return _draw_pair(shown, frame[frame["variant"] == found.reference], found.reference, caption)
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
        axes.set(xlabel=f"Class (accuracy of {found.compared_with} in %)", ylabel="")
        axes.grid(visible=False)
        _embolden(shown, table, axes.texts)
    return drawn


def _draw_pair(shown: pd.DataFrame, reference: pd.DataFrame, name: str, caption: str) -> Figure:
    """Draws the difference of two variants, a row per class, largest gain first, filled if its interval excludes 0."""
    ordered = shown.sort_values("difference", ascending=False, kind="stable", ignore_index=True)
    accuracy = reference.set_index("label")["accuracy"]
    classes = zip(ordered["class"], ordered["label"], strict=True)
    labels = [f"{style.shorten(text, _WIDEST_LABEL)} ({accuracy[label]:.0f})" for text, label in classes]
    clear = (ordered["low"] > 0) | (ordered["high"] < 0)
    rows = ordered.assign(row=range(len(ordered)), sign=np.where(ordered["difference"] < 0, "loss", "gain"))
    appearances = {
        "gain": {"color": style.COLOURS[0], "marker": "o"},
        "loss": {"color": style.COLOURS[1], "marker": "s"},
    }
    with style.figure(style.TWO_COLUMNS, 0.9 + style.rows_height(labels), caption) as drawn:
        axes = drawn.subplots()
        axes.axvline(0, color=style.BASELINE, linestyle="--", linewidth=1)
        for some, fill in ((rows[~clear], False), (rows[clear], True)):
            draw_points(axes, some, "difference", "row", "sign", appearances, fill=fill)
        style.name_rows(axes, labels)
        variant = shown["variant"].iloc[0]
        axes.set_xlabel("\n".join(style.fold(f"Accuracy of {variant} less that of {name} (points)", 90)))
        axes.set_ylabel("\n".join(style.fold(f"Class (accuracy of {name} in %)", 30)))
    return drawn


def _number_size(labels: Sequence[str], classes: int, decimals: int) -> float:
    """Returns the font size in points at which a number fits into a cell."""
    widest = max(len(line) for label in labels for line in label.split("\n"))
    cell = 72 * (style.TWO_COLUMNS - 0.07 * widest - 0.8) / classes
    return min(6.0, cell / (0.7 * (3 + 2 * decimals)))


def _embolden(shown: pd.DataFrame, table: pd.DataFrame, texts: Sequence[Text]) -> None:
    """Sets differences whose interval excludes 0 in bold; a single replicate has no interval."""
    is_clear = (shown["low"] > 0) | (shown["high"] < 0)
    clear = set(zip(shown["variant"][is_clear], shown["label"][is_clear], strict=True))
    places = [
        (variant, label)
        for variant, row in zip(table.index, table.to_numpy().tolist(), strict=True)
        for label, value in zip(table.columns, row, strict=True)
        if not math.isnan(value)  # not printed
    ]
    for text, place in zip(texts, places, strict=True):
        if place in clear:
            text.set_fontweight("bold")
