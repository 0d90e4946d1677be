"""The gates that shuffle attention sets on test images, by stage and class: what the paper reads the module's work off.

The paper plots the average gate of each channel for a few classes, at several depths, and reads from how far the curves
lie apart that deep stages attend to classes. Here the same question has a number: the share of the gates' variance over
images that lies between classes. Of n images in k classes chance alone would give (k - 1) / (n - 1); that is taken off
(epsilon squared, Kelley 1935), so that gates which know nothing of classes come to 0 in the mean.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ablations.analysis.networks import TrainedNetworks
from ablations.analysis.observe import CHANNEL, SPATIAL
from ablations.common.wording import count
from ablations.reporting.figures import style

_QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
_LOOKS = {CHANNEL: (style.COLOURS[0], "o", -0.18), SPATIAL: (style.COLOURS[1], "s", 0.18)}
_VARIANTS, _CLASSES = 4, 10  # that are drawn; the frame has all


def gates_frame(networks: TrainedNetworks) -> pd.DataFrame:
    """Returns a row a variant, stage, branch and class.

    Columns: `variant`, `stage` (from 1), `module` (path of the stage's last), `branch` (`channel` or `spatial`),
    `class`, `images`, `mean`, the quantiles `p5` to `p95` of the gates of the class's images, `between` (share of the
    gates' variance over images that is between classes, less what chance would give), and `start`, where gates start.
    """
    labels = networks.sample.labels.numpy()
    rows: list[dict[str, Any]] = []
    known = networks.observations
    for variant in (variant for variant in networks.variants if variant.name in known):
        for gates in known[variant.name].gates:
            place = {"variant": variant.name, "stage": gates.stage, "module": gates.path, "branch": gates.branch}
            place |= {"between": between_classes(gates.opened, labels), "start": gates_start(variant.attention)}
            for label, name in enumerate(networks.classes):
                own = gates.opened[labels == label]
                if len(own):
                    row = {"class": name, "images": len(own), "mean": float(own.mean())}
                    quantiles = np.quantile(own, list(_QUANTILES.values())).tolist()
                    rows.append(place | row | dict(zip(_QUANTILES, quantiles, strict=True)))
    columns = ["variant", "stage", "module", "branch", "class", "images", "mean", *_QUANTILES, "between", "start"]
    return pd.DataFrame(rows, columns=columns)


def between_classes(values: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Returns the share of the variance of (images, gates) over images that is between classes, less that of chance.

    It is up to 1; about 0 (or a little below) where classes make no difference; nan where nothing varies, or a class
    has fewer than two images.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        return math.nan
    exact = values.astype(np.float64)
    total = float(((exact - exact.mean(0)) ** 2).sum())
    within = sum(float(((exact[labels == label] - exact[labels == label].mean(0)) ** 2).sum()) for label in classes)
    if total <= 1e-12 * exact.size:
        return math.nan
    n, k = len(labels), len(classes)
    return 1 - (within / (n - k)) / (total / (n - 1))


def gates_start(attention: dict[str, Any]) -> float:
    """Returns where gates start: F_c is its bias alone, unless it has none, or the gates are not learnt."""
    bias, transform = attention["gate_bias"], attention["transform"]
    if attention["name"] != "sa" or transform not in ("affine", "conv1x1"):
        return math.nan
    starts: dict[str, float] = {
        "sigmoid": 1 / (1 + math.exp(-bias)),
        "hard_sigmoid": min(max(bias / 6 + 0.5, 0.0), 1.0),
        "tanh1": 1 + math.tanh(bias),
    }
    return starts.get(attention["gate"], math.nan)


def draw_gates(frame: pd.DataFrame, caption: str) -> Figure:
    """Draws a row of panels a variant (up to four) and a panel a stage; in it a line a class (up to ten) and branch."""
    variants, classes = list(dict.fromkeys(frame["variant"])), list(dict.fromkeys(frame["class"]))
    stages = sorted(set(frame["stage"]))
    more = ((len(variants) - _VARIANTS, "variant", "variants"), (len(classes) - _CLASSES, "class", "classes"))
    left_out = [count(number, f"more {noun}", f"more {nouns}") for number, noun, nouns in more if number > 0]
    caption = " ".join([caption, *(f"In the CSV beside: {what}." for what in left_out)])
    variants, classes = variants[:_VARIANTS], classes[:_CLASSES]
    names = {variant: style.fold(variant, 24) for variant in variants}  # upright, beside their row
    longest = max(len(line) for lines in names.values() for line in lines)
    height = len(variants) * max(0.75 + 0.15 * len(classes), 0.5 + 0.068 * longest) + 0.5
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        grid = drawn.subplots(len(variants), len(stages), sharex="row", sharey=True, squeeze=False)
        for row, variant in zip(grid, variants, strict=True):
            for axes, stage in zip(row, stages, strict=True):
                own = frame[(frame["variant"] == variant) & (frame["stage"] == stage)]
                if own.empty:  # another variant has this stage; the first panel keeps the names of row and classes
                    axes.spines[:].set_visible(False)
                    axes.tick_params(left=False, bottom=False, labelbottom=False)
                    axes.grid(visible=False)
                    continue
                _draw_stage(axes, own[own["class"].isin(classes)], classes)
                axes.set_title(_title(own, stage), loc="left", fontsize=7.5)
            row[0].set_ylabel("\n".join(names[variant]))
        for axes in grid[-1]:
            if axes.has_data():
                axes.set_xlabel("Gate")
        style.add_legend(drawn, grid.flat, loc="outside upper left", ncols=4)
    return drawn


def _draw_stage(axes: Axes, frame: pd.DataFrame, classes: list[str]) -> None:
    for branch, own in frame.groupby("branch"):
        colour, marker, shift = _LOOKS[str(branch)]
        place = own["class"].map(classes.index) + shift
        axes.hlines(place, own["p5"], own["p95"], color=colour, linewidth=0.8)
        axes.hlines(place, own["p25"], own["p75"], color=colour, linewidth=3)
        look: dict[str, Any] = {"linestyle": "", "marker": marker, "markersize": 3, "markerfacecolor": "white"}
        axes.plot(own["p50"], place, color=colour, label=f"{branch} branch", zorder=3, **look)
    start = frame["start"].dropna()
    if len(start):
        axes.axvline(start.iloc[0], color=style.BASELINE, linestyle="--", linewidth=0.8, label="start")
    style.name_rows(axes, [style.shorten(name, 16) for name in classes], fontsize=6.5)


def _title(frame: pd.DataFrame, stage: int) -> str:
    """Says which stage it is, and how much of each branch's variance is between classes."""
    shares = frame.drop_duplicates("branch").set_index("branch")["between"]
    said = [f"{branch} {max(100 * share, 0):.0f} %" for branch, share in shares.dropna().items()]
    return "\n".join([f"Stage {stage}", *said])
