"""Memory of attention: activations saved for backward, and the peak of a training step."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ablations.design.variants import NO_ATTENTION
from ablations.reporting.figures import style
from ablations.reporting.figures.rows import SETTING, SUBJECT, labels, one_setting, percent

_PANELS = {"saved_mib": "Saved activations", "peak_mib": "Peak of a training step"}


def memory_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per quantity and network of a benchmark (`Measurement.to_row`), plain and smallest first.

    Columns: `place` (the backbone), `batch`, `name`, `label`, the setting (`compile`, `precision`, `layout`),
    `quantity` (`saved_mib`, of any mode, or `peak_mib`, of a training step), `mib` for the batch, `plain_mib` of the
    plain network, and `over` it in percent. Empty without a network with attention.
    """
    networks = rows[rows["kind"] == "network"]
    networks = networks.assign(peak_mib=networks["peak_mib"].where(networks["mode"] == "training step"))
    networks = one_setting(networks.dropna(subset=[*_PANELS], how="all"))
    long = networks.melt([*SUBJECT, *SETTING], [*_PANELS], "quantity", "mib").dropna(subset="mib")
    long = long.drop_duplicates([*SUBJECT, "quantity"])
    plain = long.loc[long["name"] == NO_ATTENTION, ["place", "batch", "quantity", "mib"]]
    long = long.merge(plain.rename(columns={"mib": "plain_mib"}), on=["place", "batch", "quantity"])
    long = long.assign(
        label=labels(long),
        over=100 * (long["mib"] / long["plain_mib"] - 1),
        panel=long["quantity"].map([*_PANELS].index),
        attended=long["name"] != NO_ATTENTION,
    )
    long = long.sort_values(["panel", "place", "batch", "attended", "mib"], ignore_index=True)
    shown = long if long["attended"].any() else long.iloc[:0]
    return shown[[*SUBJECT, "label", *SETTING, "quantity", "mib", "plain_mib", "over"]]


def draw_memory(frame: pd.DataFrame, caption: str) -> Figure:
    """Draws a row per network and a panel per quantity, in MiB: the plain network's memory, and the added one."""
    names = list(dict.fromkeys(frame["label"]))
    quantities = [quantity for quantity in _PANELS if quantity in set(frame["quantity"])]
    with style.figure(style.TWO_COLUMNS, 0.9 + 1.2 * style.rows_height(names), caption) as drawn:
        panels = drawn.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
        for axes, quantity in zip(panels, quantities, strict=True):
            own = frame[frame["quantity"] == quantity]
            place = own["label"].map(names.index)
            added = own["mib"] - own["plain_mib"]
            axes.barh(place, own["plain_mib"], height=0.62, color="#c4c4c4", label="without attention")
            appearance = {"color": style.COLOURS[0], "edgecolor": "white", "hatch": "////", "linewidth": 0}
            axes.barh(place, added, height=0.62, left=own["plain_mib"], label="added by attention", **appearance)
            ends = own[["mib", "plain_mib"]].max(axis="columns")
            for row, end, mib, name, over in zip(place, ends, own["mib"], own["name"], own["over"], strict=True):
                text = f"{mib:,.0f}" if name == NO_ATTENTION else f"{mib:,.0f} ({percent(over)})"
                axes.annotate(text, (end, row), (3, 0), textcoords="offset points", va="center", fontsize=7)
            axes.set_title(_PANELS[quantity], loc="left")
            axes.set_xlabel("MiB")
            axes.set_xlim(0, 1.5 * ends.max())  # room for the numbers
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            style.name_rows(axes, style.row_labels(names))
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return drawn
