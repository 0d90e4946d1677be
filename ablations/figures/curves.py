"""Learning curves: training loss and test accuracy after every epoch, a line a variant."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablations.design import Design
from ablations.figures import style
from ablations.metrics import METRICS
from ablations.stats import estimate

_SHOWN = ("top1", "train_loss")


def curves_frame(curves: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Computes the mean over replicates of each metric after each epoch.

    Returns:
        One row a variant, epoch and metric: `n`, `mean`, and the bounds of the 95 % CI, empty where n is 1.
    """
    rows = []
    order = [variant.name for variant in design.variants]
    for (variant, epoch), part in curves.groupby(["variant", "epoch"], sort=True):
        for metric in _SHOWN:
            mean = estimate(part[metric].to_numpy())
            rows.append(
                {
                    "variant": variant,
                    "epoch": epoch,
                    "metric": metric,
                    "n": mean.n,
                    "mean": mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                }
            )
    frame = pd.DataFrame(rows, columns=["variant", "epoch", "metric", "n", "mean", "low", "high"])
    return frame.sort_values("variant", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def draw_curves(frame: pd.DataFrame, baseline: str, caption: str) -> Figure:
    """Draws a panel a metric; bands are 95 % CIs where there are replicates.

    Args:
        frame: from `curves_frame`.
        baseline: the variant that is drawn in grey.
        caption: what stands below.
    """
    variants = list(dict.fromkeys(frame["variant"]))
    others = [variant for variant in variants if variant != baseline]
    with style.figure(style.TWO_COLUMNS, 2.6, caption) as drawn:
        panels = drawn.subplots(1, len(_SHOWN))
        for axes, metric in zip(panels, _SHOWN, strict=True):
            for variant in variants:
                own = frame[(frame["variant"] == variant) & (frame["metric"] == metric)]
                index = others.index(variant) if variant != baseline else 0
                colour = style.BASELINE if variant == baseline else style.COLOURS[index % len(style.COLOURS)]
                dashes = "--" if variant == baseline else style.DASHES[index // len(style.COLOURS) % len(style.DASHES)]
                marker = "x" if variant == baseline else style.MARKERS[index % len(style.MARKERS)]
                axes.plot(
                    own["epoch"],
                    own["mean"],
                    color=colour,
                    linestyle=dashes,
                    marker=marker,
                    markevery=max(1, len(own) // 10),
                    label=variant,
                )
                if own["n"].min() > 1:
                    axes.fill_between(own["epoch"], own["low"], own["high"], color=colour, alpha=0.10, linewidth=0)
            axes.set_xlabel("Epoch")
            axes.set_ylabel(METRICS[metric].axis)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_ylim(bottom=max(0.0, panels[0].get_ylim()[0]), top=min(100.0, panels[0].get_ylim()[1]))
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return drawn
