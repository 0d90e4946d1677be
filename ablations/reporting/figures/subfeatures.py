"""The accuracy of each group of channels alone, with and without the shuffle: the question of the paper's Figure 4.

Issue #1 of the official code asks how that figure was computed. Here the classifier is linear in the averaged last
feature map, so the logits are sums of the groups' contributions. A sub-feature's score is the top-1 of its contribution
alone.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ablations.analysis.networks import TrainedNetworks
from ablations.analysis.observe import Observation
from ablations.common.metrics import METRICS
from ablations.common.wording import count
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import draw_points, handle

_SHUFFLE = {"on": "sub-feature, shuffle on", "off": "sub-feature, shuffle off", "": "without shuffle attention"}
_PARTS: dict[str, dict[str, Any]] = {
    _SHUFFLE["on"]: {"color": style.COLOURS[0], "marker": "o"},
    _SHUFFLE["off"]: {"color": style.COLOURS[1], "marker": "^"},
    _SHUFFLE[""]: {"color": style.BASELINE, "marker": "X"},
}
_MEAN: dict[str, dict[str, Any]] = {"their mean": {"color": "#222222", "marker": "|"}}
_WHOLE: dict[str, dict[str, Any]] = {"the whole network": {"color": "#222222", "marker": "D"}}


def subfeatures_frame(networks: TrainedNetworks) -> pd.DataFrame:
    """Returns one row per variant and sub-feature, and one per variant for the whole network (`group` is -1).

    Columns: `variant`, `shuffle` (`on`, `off`, or empty without shuffle attention at the end of the last stage),
    `groups`, `group`, `images`, `top1`. Networks without shuffle attention there are split into the most common number
    of groups; the frame is empty if no network has shuffle attention there.
    """
    labels, known = networks.sample.labels.numpy(), networks.observations
    usual = Counter(observation.groups for observation in known.values() if observation.groups)
    columns = ["variant", "shuffle", "groups", "group", "images", "top1"]
    if not usual:
        return pd.DataFrame(columns=columns)
    rows = []
    for variant in (variant for variant in networks.variants if variant.name in known):
        observation = known[variant.name]
        groups = observation.groups or max(usual, key=lambda groups: (usual[groups], groups))
        if observation.features.shape[1] % groups:
            continue
        shuffle = ("on" if variant.attention["shuffle"] else "off") if observation.groups else ""
        place = {"variant": variant.name, "shuffle": shuffle, "groups": groups, "images": len(labels)}
        whole = 100 * float((observation.logits.argmax(1) == labels).mean())
        scores = subfeature_scores(observation, labels, groups).tolist()
        rows += [place | {"group": group, "top1": score} for group, score in enumerate([whole, *scores], start=-1)]
    return pd.DataFrame(rows, columns=columns)


def subfeature_scores(observation: Observation, labels: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """Returns the top-1 in percent of each group's contribution to the logits, (groups,)."""
    images, channels = observation.features.shape
    features = observation.features.reshape(images, groups, channels // groups)
    weight = observation.weight.reshape(-1, groups, channels // groups)
    parts = np.einsum("ngc,kgc->ngk", features, weight)
    scores: NDArray[np.float64] = 100 * (parts.argmax(2) == labels[:, None]).mean(0)
    return scores


def draw_subfeatures(frame: pd.DataFrame, classes: int, caption: str) -> Figure:
    """Draws a row per variant: a dot per sub-feature, their mean, and the whole network; chance is 1 of `classes`."""
    variants = list(dict.fromkeys(frame["variant"]))
    groups = frame.drop_duplicates("variant").set_index("variant")["groups"]
    labels = style.row_labels([f"{variant} ({count(groups[variant], 'group')})" for variant in variants])
    with style.figure(style.TWO_COLUMNS, 0.9 + 1.5 * style.rows_height(labels), caption) as drawn:
        axes = drawn.subplots()
        chance = axes.axvline(100 / classes, color=style.BASELINE, linestyle="--", linewidth=0.8, label="chance")
        parts, whole = frame[frame["group"] >= 0], frame[frame["group"] < 0]
        means = parts.groupby("variant", as_index=False)["top1"].mean()
        for own, kinds, size in (
            (parts.assign(kind=parts["shuffle"].map(_SHUFFLE)), _PARTS, 4.2),
            (means.assign(kind=next(iter(_MEAN))), _MEAN, 13.0),
            (whole.assign(kind=next(iter(_WHOLE))), _WHOLE, 4.8),
        ):
            # Dots of one row are jittered in a fixed order, so that equal scores are visible.
            spread = 0.22 * ((own["group"] * 0.618) % 1 - 0.5) if kinds is _PARTS else 0.0
            rows = own.assign(row=own["variant"].map(variants.index) + spread)
            draw_points(axes, rows, "top1", "row", "kind", kinds, intervals=(), size=size, fill=kinds is not _WHOLE)
        shown = {kind: appearance for kind, appearance in _PARTS.items() if kind in set(parts["shuffle"].map(_SHUFFLE))}
        style.name_rows(axes, labels)
        axes.set_xlim(left=0)
        axes.set_xlabel(METRICS["top1"].axis)
        handles = [chance, *(handle(kind, **appearance) for kind, appearance in (shown | _MEAN).items())]
        handles.append(handle(*_WHOLE, markerfacecolor="white", **_WHOLE["the whole network"]))
        drawn.legend(handles=handles, loc="outside upper left", ncols=4)
    return drawn
