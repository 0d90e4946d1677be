"""The one look of all figures: seaborn's theme for papers, colours for the colour-blind and for grey printers."""

from __future__ import annotations

import io
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from scipy.optimize import isotonic_regression

from ablations.common.files import write_whole
from ablations.reporting.figures import fonts
from ablations.stats import estimate

TWO_COLUMNS = 7.2  # inches
_LABEL_WIDTH = 38  # letters
_WIDE = (
    "[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\U00020000-\U0003fffd]"
)
_CLOSING = "[\u3001\u3002\u300b\u300d\u300f\u3011\uff01\uff09\uff0c\uff1a\uff1b\uff1f]"  # with what no line begins

# Okabe and Ito 2008, without yellow, which is too light on white; lightness differs, markers and dashes too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
BASELINE = "#4d4d4d"

# A replicate beside the mean of its variant.
DOTS: dict[str, Any] = {
    "linestyle": "", "marker": "o", "markersize": 2.4, "color": "#222222", "alpha": 0.7, "zorder": 4,
}  # fmt: skip

# What differs from seaborn's theme.
STYLE: dict[Any, Any] = {
    "font.family": fonts.USUAL,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8c8c8c",
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "lines.solid_capstyle": "butt",  # an interval ends where its line does
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 200,
}
_FONT_SIZE = 8.0  # points; seaborn's theme for papers has 9.6


@cache
def theme() -> dict[Any, Any]:
    """Returns seaborn's white grid at the size of a paper, with what is the suite's own."""
    import seaborn as sns  # takes seconds

    sized = sns.plotting_context("paper", font_scale=_FONT_SIZE / sns.plotting_context("paper")["font.size"])
    return {**sns.axes_style("whitegrid"), **sized, **STYLE}


def appearance_of(index: int) -> dict[str, Any]:
    """Returns colour and marker of a thing of this number, of up to six."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def appearances_of(names: Sequence[str], grey: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Returns colour and marker of each name, so that 36 of them can be told apart; those in `grey` are grey."""
    appearances = {name: {"color": BASELINE, "marker": "X*ph"[index % 4]} for index, name in enumerate(sorted(grey))}
    for index, name in enumerate(name for name in names if name not in grey):
        marker = MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
        appearances[name] = {"color": COLOURS[index % len(COLOURS)], "marker": marker}
    return appearances


def _styled() -> AbstractContextManager[None]:
    """Applies the suite's style to matplotlib's defaults; a user's matplotlibrc has no effect."""
    return matplotlib.style.context(["default", theme()])


@contextmanager
def figure(width: float, height: float, caption: str) -> Iterator[Figure]:
    """Yields an empty figure in the suite's style, of so many inches; its caption stands below, folded to its width."""
    with _styled(), _each_glyph_unmentioned():
        lines = fold(caption, int(width * 20))
        room = 0.13 * len(lines) + 0.08
        above = ConstrainedLayoutEngine(rect=(0, room / (height + room), 1, height / (height + room)))
        drawn = Figure(figsize=(width, height + room), layout=above)
        yield drawn
        drawn.text(0.01, 0.04 / (height + room), "\n".join(lines), fontsize=6.5, color="#555555", va="bottom")
        fonts.FALLBACK.complete(drawn)


@contextmanager
def _each_glyph_unmentioned() -> Iterator[None]:
    """Leaves out matplotlib's warning of each missing glyph: `fonts` warns of all of them once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def save(drawn: Figure, frame: pd.DataFrame, path: Path) -> list[Path]:
    """Writes a figure as PNG and PDF, and beside them the frame that it was drawn from; returns what was written."""
    png, pdf = io.BytesIO(), io.BytesIO()
    with _styled(), _each_glyph_unmentioned():
        drawn.savefig(png, format="png")
        drawn.set_layout_engine(None)  # everything has its place now; finding it again would take as long
        drawn.savefig(pdf, format="pdf", metadata={"CreationDate": None})  # equal figures are equal files
    contents: dict[str, bytes | str] = {
        ".png": png.getvalue(),
        ".pdf": pdf.getvalue(),
        ".csv": frame.to_csv(index=False),
    }
    for suffix, content in contents.items():
        write_whole(path.with_suffix(suffix), content)
    return [path.with_suffix(suffix) for suffix in contents]


def keep_to_percent(axes: Axes) -> None:
    """Cuts an axis of percentages at 0 and 100, which intervals of few replicates go beyond."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 100))


def is_wide(values: pd.Series[float]) -> bool:
    """Whether values are so far apart that a linear scale would press most of them into a corner."""
    return bool(values.min() > 0 and values.max() / values.min() > 4)


def scale_of_costs(axes: Axes, values: pd.Series[float]) -> None:
    """Gives a horizontal axis of costs few ticks, and a logarithmic scale where they are far apart."""
    if is_wide(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if values.max() / values.min() < 50 else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    if values.min() == values.max():  # what stands side by side costs the same
        axes.xaxis.set_major_locator(FixedLocator([float(values.iloc[0])]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def aside(values: pd.Series[float]) -> pd.Series[float]:
    """Returns places on an axis at which values that would hide each other stand side by side, in their order.

    Values that are a fiftieth of what the axis shows apart, or more, stay where they are, unless others push them; on
    the scale that `is_wide` asks for.
    """
    wide = is_wide(values)
    exact = np.log(values.to_numpy(dtype=float)) if wide else values.to_numpy(dtype=float)
    step = 0.02 * (float(np.ptp(exact)) or abs(exact).max(initial=0.0) or 1.0)
    order = np.argsort(exact, kind="stable")
    # The nearest places (by least squares) that keep their order and a step between them.
    steps = step * np.arange(len(exact))
    places = np.empty_like(exact)
    places[order] = isotonic_regression(exact[order] - steps).x + steps
    return pd.Series(np.exp(places) if wide else places, index=values.index)


def top1_of(cells: pd.DataFrame) -> dict[str, float]:
    """Returns what figures show of the top-1 of a variant's cells: `n`, `top1` (mean), and its 95 % CI."""
    top1 = estimate(cells["top1"].to_numpy())
    return {"n": top1.n, "top1": top1.mean, "low": top1.low, "high": top1.high}


def row_labels(names: Iterable[str]) -> list[str]:
    """Folds the names of rows, so that there is room beside them for what they are the names of."""
    return ["\n".join(fold(legend_label(name), _LABEL_WIDTH)) for name in names]


def name_rows(axes: Axes, labels: Sequence[str], **appearance: Any) -> None:
    """Writes the names of rows beside an axis on which row 0, 1, ... stand one below the other."""
    axes.set_yticks(range(len(labels)), labels, **appearance)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def rows_height(labels: Iterable[str]) -> float:
    """Returns the height in inches that rows with such labels need."""
    return sum(0.08 + 0.12 * (label.count("\n") + 1) for label in labels)


def shorten(text: str, width: int) -> str:
    """Cuts a text off that is wider than so many letters, and says so by an ellipsis."""
    if columns(text) <= width:
        return text
    kept = list(text[:width])
    while columns(kept) > width - 1:
        kept.pop()
    return f"{''.join(kept)}…"


def fold(text: str, width: int) -> list[str]:
    """Breaks a text into lines of up to so many letters, one at least; longer words are left whole.

    Chinese and Japanese have no spaces: lines may end after any of their characters, each as wide as two letters.
    """
    words = " ".join(text.split())
    if columns(words) == len(words):
        return textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False) or [""]
    lines = [""]
    for piece in re.findall(f"{_WIDE}{_CLOSING}*|(?:(?!{_WIDE})\\S)+|\\s", words):
        if columns(lines[-1] + piece) > width and lines[-1].strip() and not piece.isspace():
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines]


def columns(text: Iterable[str]) -> int:
    """Returns how wide a text is in letters; a Chinese, Japanese or Korean character is as wide as two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def legend_label(name: str) -> str:
    """Returns a name as the label of something in a legend, from which matplotlib leaves out what begins with `_`."""
    return f"\u2060{name}" if name.startswith("_") else name  # an invisible character that joins words
