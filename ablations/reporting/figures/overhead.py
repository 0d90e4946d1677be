"""The overhead of attention as predicted by multiply-adds, and as measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ablations.analysis.costs import StudyCosts
from ablations.design import Design
from ablations.design.variants import NO_ATTENTION
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import draw_points, handle
from ablations.reporting.figures.rows import SETTING, SUBJECT, labels, one_setting, percent
from ablations.stats import Estimate

_MODES = {"forward": "Inference", "training step": "Training step"}
_PROMISED, _MEASURED = "predicted by multiply-adds", "measured time, 95 % CI"
_LOOKS: dict[str, dict[str, Any]] = {
    _PROMISED: {"color": style.COLOURS[1], "marker": "D"},
    _MEASURED: {"color": style.COLOURS[0], "marker": "o"},
}
_NUMBERS = ["predicted", "measured", "low", "high", "noise_low", "noise_high"]


def overhead_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per mode and network with attention of a benchmark (`Measurement.to_row`), fastest first.

    Columns: `place` (the backbone), `batch`, `name`, `label`, `mode`, and the setting (`compile`, `precision`,
    `layout`); and by how many percent they exceed the plain network's: `predicted` of the multiply-adds, `measured` of
    the time, with its 95 % CI from `low` to `high`, and `noise_low` to `noise_high` of the plain network's own time.
    """
    networks = rows[rows["kind"] == "network"]
    # Multiply-adds do not depend on the mode, so any row of a network may have them.
    networks = networks.assign(multiply_adds=networks.groupby(SUBJECT)["multiply_adds"].transform("first"))
    plain = networks[networks["name"] == NO_ATTENTION].groupby(["place", "batch"])["multiply_adds"].first()
    shown = networks[networks["mode"].isin(_MODES) & (networks["name"] != NO_ATTENTION)]
    shown = shown.merge(plain.rename("plain").reset_index(), on=["place", "batch"])
    shown = one_setting(shown.dropna(subset=["ratio", "multiply_adds", "plain"]))
    shown = shown.assign(
        label=labels(shown),
        predicted=shown["multiply_adds"] / shown["plain"],
        measured=shown["ratio"],
        low=shown["ratio_low"],
        high=shown["ratio_high"],
    )
    shown[_NUMBERS] = 100 * (shown[_NUMBERS] - 1)
    shown = shown.sort_values(["place", "batch", "mode", "measured"], ignore_index=True)
    return shown[[*SUBJECT, "label", "mode", *SETTING, *_NUMBERS]]


def overhead_of_variants(
    costs: StudyCosts | None, design: Design, multiply_adds: Mapping[str, float], plain_adds: Mapping[str, float]
) -> pd.DataFrame:
    """Returns the same for a study's variants, which were timed in alternation with the plain network.

    Only variants with given multiply-adds, of which each backbone without attention must be one, are shown; `n` counts
    copies. `noise_low` to `noise_high` are of a second copy of the plain network, if a variant is plain.
    """
    rows = []
    several = len({variant.model["name"] for variant in design.variants}) > 1
    for mode, name in {"training step": "train_time", "forward": "test_time"}.items():
        times: dict[str, Estimate | None] = {
            variant.name: getattr(costs.of(variant.name), name) if costs else None for variant in design.variants
        }
        plain = {variant.model["name"]: times[variant.name] for variant in design.variants if variant.is_plain}
        for variant in design.variants:
            time, noise = times[variant.name], plain.get(variant.model["name"])
            if time is None or variant.is_plain or variant.name not in multiply_adds:
                continue
            place = variant.model["name"]
            label = f"{place}, {variant.name}" if several and place not in variant.name else variant.name
            predicted = multiply_adds[variant.name] / plain_adds[variant.name]
            noises = (noise.low, noise.high) if noise else (math.nan, math.nan)
            rows.append([place, variant.name, label, mode, time.n, predicted, time.mean, time.low, time.high, *noises])
    frame = pd.DataFrame(rows, columns=["place", "name", "label", "mode", "n", *_NUMBERS])
    frame[_NUMBERS] = 100 * (frame[_NUMBERS] - 1)
    return frame.sort_values(["place", "mode", "measured"], ignore_index=True)


def draw_overhead(frame: pd.DataFrame, caption: str) -> Figure:
    """Draws a row per network and a panel per mode: the predicted overhead, joined to the measured one.

    Both have one linear scale, so that they compare as lengths; predictions are mostly too small to be read off, and
    are written beside the name.
    """
    predicted = frame.drop_duplicates("label").set_index("label")["predicted"]
    folded = zip(style.row_labels(predicted.index), predicted, strict=True)
    names = [f"{label}\npredicted {percent(value)}" for label, value in folded]
    modes = [mode for mode in _MODES if mode in set(frame["mode"])]
    low, high = min(float(frame[_NUMBERS].min().min()), 0.0), float(frame[_NUMBERS].max().max())
    span = (high - low) or 1.0  # both are 0
    with style.figure(style.TWO_COLUMNS, 1.05 + style.rows_height(names), caption) as drawn:
        panels = drawn.subplots(1, len(modes), sharey=True, squeeze=False)[0]
        for axes, mode in zip(panels, modes, strict=True):
            own = frame[frame["mode"] == mode]
            place = own["label"].map(list(predicted.index).index)
            noise, width = "no attention against itself (A/A), 95 % CI", own["noise_high"] - own["noise_low"]
            axes.barh(place, width, height=1, left=own["noise_low"], color="#d4d4d4", linewidth=0, label=noise)
            axes.axvline(0, color=style.BASELINE, linewidth=0.8)
            axes.hlines(place, own["predicted"], own["measured"], color=style.BASELINE, linestyle=":", linewidth=0.9)
            placed = own.assign(row=place, of_time=_MEASURED, of_adds=_PROMISED)
            draw_points(axes, placed, "measured", "row", "of_time", _LOOKS, intervals=(("low", "high", 2.2),))
            draw_points(axes, placed, "predicted", "row", "of_adds", _LOOKS, intervals=(), fill=False)
            ends = own[["measured", "high", "predicted"]].max(axis="columns")
            for row, end, value in zip(place, ends, own["measured"], strict=True):
                axes.annotate(percent(value), (end, row), (6, 0), textcoords="offset points", va="center", fontsize=7)
            axes.set_title(_MODES[mode], loc="left")
            axes.set_xlabel("Overhead over no attention (%)")
            axes.set_xlim(low - 0.05 * span, high + 0.25 * span)  # room for the numbers
            style.name_rows(axes, names)
            axes.label_outer()
        noises = panels[0].get_legend_handles_labels()[0]
        handles = [
            *noises,
            handle(_PROMISED, markerfacecolor="white", **_LOOKS[_PROMISED]),
            handle(_MEASURED, line=True, **_LOOKS[_MEASURED]),
        ]
        drawn.legend(handles=handles, loc="outside upper left", ncols=2)
    return drawn
