"""The gates of shuffle attention on test images, by stage and class, after the paper's analysis of activations.

The paper plots the average gate of each channel for a few classes, at several depths, and concludes from the distance
between the curves that deep stages attend to classes. Here this is quantified by the share of the gates' variance over
images that is between classes. For n images in k classes its expectation by chance is (k - 1) / (n - 1), which is
subtracted (epsilon squared, Kelley 1935), so that gates independent of classes have mean 0.
"""

from __future__ import annotations

import itertools
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
from ablations.reporting.figures.marks import draw_points, handle

_QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
_LOOKS = {
    CHANNEL: {"color": style.COLOURS[0], "marker": "o"},
    SPATIAL: {"color": style.COLOURS[1], "marker": "s"},
}
_SHIFTS = {CHANNEL: -0.18, SPATIAL: 0.18}  # relative to the row
_VARIANTS, _CLASSES = 4, 10  # drawn; the frame has all


def gates_frame(networks: TrainedNetworks) -> pd.DataFrame:
    """Returns one row per variant, stage, branch and class.

    Columns: `variant`, `stage` (from 1), `module` (path of the stage's last), `branch` (`channel` or `spatial`),
    `class`, `images`, `mean`, the quantiles `p5` to `p95` of the gates of the class's images, `between` (share of the
    gates' variance over images that is between classes, corrected for chance), and `start`, the gates' initial value.
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
    """Returns the share of the variance of (images, gates) over images that is between classes, corrected for chance.

    At most 1; about 0 (or slightly below) if gates do not depend on classes; NaN if gates are constant, or a class has
    fewer than two images.
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
    """Returns the initial value of gates by the bias of F_c; NaN for other transforms and gates."""
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
    """Draws a row of panels per variant (up to four), a panel per stage, with rows of classes (up to ten) by branch."""
    variants, classes = list(dict.fromkeys(frame["variant"])), list(dict.fromkeys(frame["class"]))
    stages = sorted(set(frame["stage"]))
    more = ((len(variants) - _VARIANTS, "variant", "variants"), (len(classes) - _CLASSES, "class", "classes"))
    left_out = [count(number, f"more {noun}", f"more {nouns}") for number, noun, nouns in more if number > 0]
    caption = " ".join([caption, *(f"In the CSV beside: {what}." for what in left_out)])
    variants, classes = variants[:_VARIANTS], classes[:_CLASSES]
    names = {variant: style.fold(variant, 24) for variant in variants}  # vertical, beside their row
    longest = max(len(line) for lines in names.values() for line in lines)
    height = len(variants) * max(0.75 + 0.15 * len(classes), 0.5 + 0.068 * longest) + 0.5
    shown = frame[frame["variant"].isin(variants) & frame["class"].isin(classes)]
    rows = shown.assign(row=shown["class"].map(classes.index) + shown["branch"].map(_SHIFTS))
    panels = dict(list(shown.groupby(["variant", "stage"])))
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        draw_points(
            drawn, rows, "p50", "row", "branch", _LOOKS, intervals=(("p5", "p95", 0.8), ("p25", "p75", 3.0)), size=3.4,
            fill=False, facet={"row": "variant", "col": "stage"},
        )  # fmt: skip
        for axes, (variant, stage) in zip(drawn.axes, itertools.product(variants, stages), strict=True):
            axes.set_title("")
            _complete(axes, panels.get((variant, stage)), stage, classes)
            if stage == stages[0]:
                axes.set_ylabel("\n".join(names[variant]))
            if variant == variants[-1] and axes.has_data():
                axes.set_xlabel("Gate")
        branches = [branch for branch in _LOOKS if branch in set(shown["branch"])]
        handles = [
            handle(f"{branch} branch", markerfacecolor="white", line=True, **_LOOKS[branch]) for branch in branches
        ]
        starts = [line for axes in drawn.axes for line in axes.get_legend_handles_labels()[0]]
        drawn.legend(handles=[*handles, *starts[:1]], loc="outside upper left", ncols=4)
    return drawn


def _complete(axes: Axes, frame: pd.DataFrame | None, stage: int, classes: list[str]) -> None:
    """Labels the rows of a panel and draws the gates' initial value; clears it if the variant lacks the stage."""
    if frame is None:  # only another variant has this stage; the first panel keeps the labels
        axes.spines[:].set_visible(False)
        axes.tick_params(left=False, bottom=False, labelbottom=False)
        axes.grid(visible=False)
        return
    start = frame["start"].dropna()
    if len(start):
        axes.axvline(start.iloc[0], color=style.BASELINE, linestyle="--", linewidth=0.8, label="start")
    axes.set_title(_title(frame, stage), loc="left", fontsize=7.5)
    style.name_rows(axes, [style.shorten(name, 16) for name in classes], fontsize=6.5)


def _title(frame: pd.DataFrame, stage: int) -> str:
    """Returns the stage, and the share of each branch's variance between classes."""
    shares = frame.drop_duplicates("branch").set_index("branch")["between"]
    said = [f"{branch} {max(100 * share, 0):.0f} %" for branch, share in shares.dropna().items()]
    return "\n".join([f"Stage {stage}", *said])
