"""Top-1 against the levels of a sweep, with the baseline as a line and the cost beside it."""

from __future__ import annotations

from numbers import Real

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.design import Design
from ablations.figures import style
from ablations.metrics import METRICS
from ablations.stats import estimate

_SHOWN = ("top1", "train_images_per_second", "peak_memory_mib")


def levels_frame(cells: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Computes what the figure shows.

    Returns:
        One row a finished cell and metric (`kind` is `replicate`), and one a variant and metric (`kind` is `mean`, with
        `n` and the bounds of the 95 % CI, empty where n is 1). `level` is the level of a sweep with one factor, else
        the variant's name.
    """
    rows: list[dict[str, object]] = []
    for variant in design.variants:
        own = cells[cells["variant"] == variant.name]
        level = next(iter(variant.levels.values())) if len(variant.levels) == 1 else variant.name
        place = {"variant": variant.name, "level": level, "is_baseline": variant.name == design.baseline}
        for metric in _SHOWN if len(own) else ():
            rows += [
                place | {"metric": metric, "kind": "replicate", "replicate": replicate, "value": value}
                for replicate, value in zip(own["replicate"], own[metric], strict=True)
            ]
            mean = estimate(own[metric].to_numpy())
            rows.append(
                place
                | {
                    "metric": metric,
                    "kind": "mean",
                    "value": mean.mean,
                    "n": mean.n,
                    "low": mean.low,
                    "high": mean.high,
                }
            )
    columns = ["variant", "level", "is_baseline", "metric", "kind", "replicate", "value", "n", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def draw_levels(frame: pd.DataFrame, factor: str, caption: str) -> Figure:
    """Draws top-1, training speed and memory, a panel each.

    Args:
        frame: from `levels_frame`.
        factor: label of the horizontal axis.
        caption: what stands below.
    """
    with style.figure(style.TWO_COLUMNS, 2.6, caption) as drawn:
        panels = drawn.subplots(1, len(_SHOWN), width_ratios=[1.7, 1, 1])
        for axes, metric in zip(panels, _SHOWN, strict=True):
            _draw_panel(axes, frame[frame["metric"] == metric])
            axes.set_ylabel(METRICS[metric].axis)
            axes.set_xlabel(factor)
            if metric == "top1":
                low, high = axes.get_ylim()
                axes.set_ylim(max(low, 0), min(high, 100))
            else:
                highest = axes.dataLim.ymax
                axes.set_ylim(0, highest * 1.08 if highest > 0 else 1)  # from zero: a cost is read as a ratio
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return drawn


def _draw_panel(axes: Axes, frame: pd.DataFrame) -> None:
    means = frame[frame["kind"] == "mean"]
    levels = means[~means["is_baseline"]].reset_index(drop=True)
    numeric = bool(len(levels)) and all(
        isinstance(level, Real) and not isinstance(level, bool) for level in levels["level"]
    )
    colour = style.COLOURS[0]
    for _, baseline in means[means["is_baseline"]].iterrows():
        axes.axhline(baseline["value"], color=style.BASELINE, linestyle="--", label=f"{baseline['variant']} (baseline)")
        if baseline["n"] > 1:
            axes.axhspan(baseline["low"], baseline["high"], color=style.BASELINE, alpha=0.12, linewidth=0)
    places = range(len(levels))
    spread = levels["n"].min() > 1 if len(levels) else False
    label = "mean and 95 % CI" if spread else "mean" if len(levels) and levels["n"].max() > 1 else "one run"
    if numeric:
        axes.plot(places, levels["value"], color=colour, marker="o", label=label, zorder=3)
        if spread:
            axes.fill_between(places, levels["low"], levels["high"], color=colour, alpha=0.18, linewidth=0)
    else:
        errors = [levels["value"] - levels["low"], levels["high"] - levels["value"]]
        axes.errorbar(
            places,
            levels["value"],
            yerr=errors if spread else None,
            color=colour,
            fmt="o",
            capsize=2.5,
            label=label,
            zorder=3,
        )
    positions = {variant: place for place, variant in enumerate(levels["variant"])}
    dots = frame[(frame["kind"] == "replicate") & ~frame["is_baseline"]]
    axes.plot(
        dots["variant"].map(positions),
        dots["value"],
        linestyle="",
        marker="o",
        markersize=2.4,
        color="#222222",
        alpha=0.7,
        label="replicates",
        zorder=4,
    )
    crowded = not numeric and (len(levels) > 4 or max((len(str(level)) for level in levels["level"]), default=0) > 8)
    axes.set_xticks(
        list(places),
        [str(level) for level in levels["level"]],
        rotation=30 if crowded else 0,
        ha="right" if crowded else "center",
    )
    axes.set_xlim(-0.5, max(len(levels), 1) - 0.5)
    axes.grid(visible=False, axis="x")
