"""Confusion matrices of the baseline and differences of variants; pairs of classes if there are many classes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ablations.analysis.predictions import StudyPredictions, confusion_matrix
from ablations.reporting.figures import style

MOST_CLASSES = 30  # of a readable matrix
MOST_VARIANTS = 5  # in addition to the baseline
MOST_BESIDE = 12  # classes of matrices side by side
_PAIRS = 20
_WIDEST_LABEL = 18  # letters
_LEGEND_WIDTH = 100


def shown_variants(found: StudyPredictions) -> list[str]:
    """Returns the baseline of the figure and its variants that differ most in top-1.

    It is the first baseline with predictions; without any, only the first variant is returned.
    """
    first = next((name for name in found.by_variant if found.baselines.get(name) == name), next(iter(found.by_variant)))
    against = [name for name in found.compared if found.baselines[name] == first]
    top1 = {name: float(np.mean([one.top1 for one in found.by_variant[name].values()])) for name in [first, *against]}
    largest = sorted(against, key=lambda name: -abs(top1[name] - top1[first]))[:MOST_VARIANTS]
    return [first, *(name for name in against if name in largest)]


def confusion_frame(found: StudyPredictions) -> pd.DataFrame:
    """Returns one row per shown variant, true class and predicted class: `share` in percent of the true class.

    With more than 30 classes, only the 20 pairs of classes that any of these variants confuses most.
    """
    variants, classes = shown_variants(found), np.array(found.classes)
    matrices = np.array([confusion_matrix(found, name) for name in variants])
    true, predicted = np.indices(matrices.shape[1:]).reshape(2, -1)
    if len(classes) > MOST_CLASSES:
        highest = np.nan_to_num(matrices.max(0))
        np.fill_diagonal(highest, -1)
        places = np.argsort(-highest.ravel(), kind="stable")[:_PAIRS]
        true, predicted = true[places], predicted[places]
    parts = [
        pd.DataFrame({"variant": name, "true": classes[true], "predicted": classes[predicted]}).assign(
            share=matrix[true, predicted]
        )
        for name, matrix in zip(variants, matrices, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def draw_confusion(found: StudyPredictions, caption: str) -> Figure:
    """Draws the baseline's matrix and the differences of variants to it, or the most confused pairs of many classes."""
    if len(found.classes) > MOST_CLASSES:
        return _draw_pairs(confusion_frame(found), caption)
    if found.is_pair:
        return _draw_two(found, caption)
    variants, classes = shown_variants(found), len(found.classes)
    variants = variants if classes <= MOST_BESIDE else variants[:1]
    matrices = [confusion_matrix(found, name) for name in variants]
    columns = min(3, len(variants))
    rows = math.ceil(len(variants) / columns)
    side = style.TWO_COLUMNS / columns if len(variants) > 1 else min(1.2 + 0.26 * classes, style.TWO_COLUMNS)
    names = [style.shorten(name, _WIDEST_LABEL if len(variants) == 1 else 10) for name in found.classes]
    with style.figure(style.TWO_COLUMNS, rows * (side + 0.3), caption) as drawn:
        panels = list(drawn.subplots(rows, columns, squeeze=False).flat)
        limit = max((float(np.nanmax(np.abs(one - matrices[0]))) for one in matrices[1:]), default=0.0)
        _draw_matrix(panels[0], matrices[0], names, None)
        panels[0].set_title(style.shorten(variants[0], 34))
        for axes, name, matrix in zip(panels[1:], variants[1:], matrices[1:], strict=False):
            _draw_matrix(axes, matrix - matrices[0], names, max(limit, 0.1))
            axes.set_title("\n".join(style.fold(f"{name}, difference", 34)))
        for axes in panels[len(variants) :]:
            axes.set_axis_off()
    return drawn


def _draw_two(found: StudyPredictions, caption: str) -> Figure:
    """Draws the matrices of two variants and their difference, or only the difference if there are many classes."""
    first, second = shown_variants(found)
    reference, matrix = (confusion_matrix(found, name) for name in (first, second))
    limit = max(float(np.nanmax(np.abs(matrix - reference))), 0.1)
    panels: list[tuple[str, NDArray[np.float64], float | None]] = [
        (first, reference, None), (second, matrix, None), (f"{second} less {first}", matrix - reference, limit)
    ]  # fmt: skip
    panels = panels if len(found.classes) <= MOST_BESIDE else panels[-1:]
    side = style.TWO_COLUMNS / len(panels)
    names = [style.shorten(name, 10 if len(panels) > 1 else _WIDEST_LABEL) for name in found.classes]
    titles = ["\n".join(style.fold(title, 34 * (1 if len(panels) > 1 else 3))) for title, *_ in panels]
    room = 0.14 * max(title.count("\n") for title in titles)
    with style.figure(style.TWO_COLUMNS, min(side, 6.2) + 0.4 + room, caption) as drawn:
        grid = drawn.subplots(1, len(panels), squeeze=False)[0]
        for axes, title, (_, shares, most) in zip(grid, titles, panels, strict=True):
            _draw_matrix(axes, shares, names, most)
            axes.set_title(title)
    return drawn


def _draw_matrix(axes: Axes, matrix: NDArray[np.float64], names: list[str], limit: float | None) -> None:
    """Draws shares in percent, or with a `limit` differences in points, where blue is an improvement."""
    import seaborn as sns  # takes seconds

    # Increases on the diagonal and decreases elsewhere are improvements.
    goodness = matrix if limit is None else np.where(np.eye(len(matrix)) > 0, matrix, -matrix)
    sign = "" if limit is None else "+"
    numbers = [
        [f"{value:{sign}.0f}" if round(value) else "" for value in row] for row in np.nan_to_num(matrix).tolist()
    ]
    appearance = (
        {"cmap": "Greys", "vmin": 0, "vmax": 100} if limit is None else {"cmap": "RdBu", "vmin": -limit, "vmax": limit}
    )
    sns.heatmap(
        goodness, ax=axes, square=True, cbar=False, linewidths=0.3, xticklabels=names, yticklabels=names, fmt="",
        annot=np.array(numbers), annot_kws={"fontsize": 5.5}, **appearance,
    )  # fmt: skip
    axes.tick_params(axis="x", rotation=0 if max(map(len, names)) == 1 else 90, labelsize=6, length=0)
    axes.tick_params(axis="y", rotation=0, labelsize=6, length=0)
    axes.set_xlabel("Predicted class", fontsize=7)
    axes.set_ylabel("True class", fontsize=7)
    axes.grid(visible=False)


def _draw_pairs(frame: pd.DataFrame, caption: str) -> Figure:
    """Draws a row per pair of classes, with a mark per variant, the baseline's in grey."""
    variants = list(dict.fromkeys(frame["variant"]))
    appearances = style.appearances_of(variants, grey=variants[:1])
    pairs = pd.Series(list(zip(frame["true"], frame["predicted"], strict=True)), frame.index)
    rows = list(dict.fromkeys(pairs))  # by full names, because shortened ones may be equal
    labels = [" → ".join(style.shorten(name, _WIDEST_LABEL) for name in pair) for pair in rows]
    with style.figure(style.TWO_COLUMNS, 1.0 + style.rows_height(labels), caption) as drawn:
        axes = drawn.subplots()
        for name in variants:
            is_own = frame["variant"] == name
            axes.plot(
                frame["share"][is_own],
                pairs[is_own].map(rows.index),
                linestyle="",
                label=style.legend_label(name),
                **appearances[name],
            )
        style.name_rows(axes, labels)
        axes.set_xlim(left=-0.02 * frame["share"].max())
        axes.set_xlabel("Taken for the other class (% of the true class)")
        columns = max(1, _LEGEND_WIDTH // (6 + max(map(len, variants))))
        drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns)
    return drawn
