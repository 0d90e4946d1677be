"""The roofline of attention modules: their bandwidth relative to that of a copy.

Attention modules have about one operation per byte of memory traffic, and processors can do ten and more: they are in
the memory-bound part of the roofline model (Williams, Waterman and Patterson 2009), where time is bytes over bandwidth.
The roof is measured by a copy of the same shape, and a module's distance from it is the possible saving.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablations.common.sizes import MIB
from ablations.reporting.figures import style
from ablations.reporting.figures.rows import SETTING, SUBJECT, one_setting

_ACROSS = 4  # panels per line
_SHAPE = ["channels", "height", "width"]
_COLOURS = {"sa": style.COLOURS[0], "official": style.COLOURS[1]}
_OTHERS = "#a6a6a6"


def roofline_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per shape and module of a benchmark's forward passes (`Measurement.to_row`), best share first.

    A module's bandwidth is its minimum memory traffic, as a single fused operation, over its time. Columns: `place`
    (the stage), `batch`, `name`, `channels`, `height`, `width`, the setting (`compile`, `precision`, `layout`),
    `operations_per_byte`, `gb_per_s`, `copy_gb_per_s`, `share` (their ratio in percent), and `unfused_share`, the share
    if each operation read and wrote memory at the copy's bandwidth. `official` follows `sa`. Empty without a copy or
    without a module.
    """
    modules = rows[(rows["kind"] == "module") & (rows["mode"] == "forward")]
    modules = one_setting(modules.dropna(subset=["ms", "least_mib"]))
    operations = (modules["multiply_adds"] + modules["uncounted"]) * modules["batch"]
    modules = modules.assign(
        operations_per_byte=operations / (modules["least_mib"] * MIB),
        gb_per_s=modules["least_mib"] * MIB / (modules["ms"] * 1e6),
        unfused_share=100 * modules["least_mib"] / modules["moved_mib"],
    )
    roof = modules.loc[modules["name"] == "copy", ["place", "batch", "gb_per_s"]]
    roof = roof.rename(columns={"gb_per_s": "copy_gb_per_s"})
    shown = modules[modules["name"] != "copy"].merge(roof, on=["place", "batch"])
    shown = shown.assign(share=100 * shown["gb_per_s"] / shown["copy_gb_per_s"])
    mean = shown.groupby("name")["share"].mean()
    shown = shown.assign(
        stage=shown.groupby(["place", "batch"], sort=False).ngroup(),
        mean=shown["name"].replace({"official": "sa"} if "sa" in mean else {}).map(mean),
        second=shown["name"] == "official",
    )
    shown = shown.sort_values(["stage", "mean", "second"], ascending=[True, False, True], ignore_index=True)
    numbers = ["operations_per_byte", "gb_per_s", "copy_gb_per_s", "share", "unfused_share"]
    return shown[[*SUBJECT, *_SHAPE, *SETTING, *numbers]]


def draw_roofline(frame: pd.DataFrame, caption: str) -> Figure:
    """Draws a panel per shape and a row per module: its bandwidth as a share of the copy's."""
    names = list(dict.fromkeys(frame["name"]))
    shapes = [own for _, own in frame.groupby(["place", "batch"], sort=False)]
    across, down = min(len(shapes), _ACROSS), -(-len(shapes) // _ACROSS)
    right = 1.32 * max(100, frame[["share", "unfused_share"]].max().max())  # room for the numbers
    with style.figure(style.TWO_COLUMNS, 0.6 + down * (0.6 + 0.2 * len(names)), caption) as drawn:
        panels = iter(drawn.subplots(down, across, sharey=True, squeeze=False).flat)
        for own, axes in zip(shapes, panels, strict=False):
            place = own["name"].map(names.index)
            colours = own["name"].map(_COLOURS).fillna(_OTHERS)
            hatches = ["////" if name == "official" else "" for name in own["name"]]
            axes.barh(place, own["share"], height=0.68, color=colours, hatch=hatches, edgecolor="white", linewidth=0)
            appearance = {"linestyle": "", "marker": "|", "color": "black", "markersize": 8, "markeredgewidth": 1.4}
            axes.plot(own["unfused_share"], place, label="bound by the copy's bandwidth", **appearance)
            axes.axvline(100, color=style.BASELINE, linestyle="--", linewidth=1, label="copy of the same shape")
            for row, share in zip(place, own["share"], strict=True):
                axes.annotate(_short(share) + " %", (right, row), ha="right", va="center", fontsize=7)
            shape = " x ".join(str(own.iloc[0][side]) for side in ("batch", *_SHAPE))
            title = f"{own.iloc[0]['place']}\n{shape}\ncopy: {_short(own.iloc[0]['copy_gb_per_s'])} GB/s"
            axes.set_title(title, loc="left", fontsize=7.5)
            axes.set_xlabel("Bandwidth (% of copy)")
            axes.set_xlim(0, right)
            axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
            style.name_rows(axes, style.row_labels(names))
        for axes in panels:  # unused ones of the last line
            axes.remove()
        drawn.legend(*drawn.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return drawn


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"
