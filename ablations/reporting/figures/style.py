"""The common style of figures: seaborn's theme for papers, with colours for colour-blind readers and grey print."""

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
_CLOSING = "[\u3001\u3002\u300b\u300d\u300f\u3011\uff01\uff09\uff0c\uff1a\uff1b\uff1f]"  # never first in a line

# Okabe and Ito 2008, without yellow, which is too light on white; lightness, markers and dashes differ, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
BASELINE = "#4d4d4d"

# Style of a replicate beside the mean of its variant.
DOTS: dict[str, Any] = {
    "linestyle": "", "marker": "o", "markersize": 2.4, "color": "#222222", "alpha": 0.7, "zorder": 4,
}  # fmt: skip

# Differences from seaborn's theme.
STYLE: dict[Any, Any] = {
    "font.family": fonts.USUAL,
    "text.parse_math": False,  # dollar signs in names are literal
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8c8c8c",
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "lines.solid_capstyle": "butt",  # so that a line ends at its interval's bound
    "pdf.fonttype": 42,  # embeds text as text
    "savefig.dpi": 200,
}
_FONT_SIZE = 8.0  # points; seaborn's theme for papers has 9.6


@cache
def theme() -> dict[Any, Any]:
    """Returns seaborn's white grid theme for papers with the suite's changes."""
    import seaborn as sns  # takes seconds

    sized = sns.plotting_context("paper", font_scale=_FONT_SIZE / sns.plotting_context("paper")["font.size"])
    return {**sns.axes_style("whitegrid"), **sized, **STYLE}


def appearance_of(index: int) -> dict[str, Any]:
    """Returns the colour and marker with an index, of which six are distinct."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def appearances_of(names: Sequence[str], grey: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Returns the colour and marker of each name, distinct for up to 36 names; names in `grey` are grey."""
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
    """Yields an empty figure of a size in inches in the suite's style, with the caption wrapped below it."""
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
    """Suppresses matplotlib's warnings of single missing glyphs, because `fonts` warns once of all of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def save(drawn: Figure, frame: pd.DataFrame, path: Path) -> list[Path]:
    """Writes a figure as PNG and PDF, and its frame as CSV; returns the files."""
    png, pdf = io.BytesIO(), io.BytesIO()
    with _styled(), _each_glyph_unmentioned():
        drawn.savefig(png, format="png")
        drawn.set_layout_engine(None)  # the layout is final; computing it again would take as long
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
    """Limits an axis of percentages to 0 and 100, which intervals of few replicates exceed."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 100))


def is_wide(values: pd.Series[float]) -> bool:
    """Whether the range of values is too wide for a linear scale."""
    return bool(values.min() > 0 and values.max() / values.min() > 4)


def scale_of_costs(axes: Axes, values: pd.Series[float]) -> None:
    """Sets few ticks on a horizontal axis of costs, and a logarithmic scale if their range is wide."""
    if is_wide(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if values.max() / values.min() < 50 else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    if values.min() == values.max():  # dodged points have the same cost
        axes.xaxis.set_major_locator(FixedLocator([float(values.iloc[0])]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def aside(values: pd.Series[float]) -> pd.Series[float]:
    """Returns positions on an axis with overlapping values dodged, in their order.

    Values at a distance of at least a fiftieth of the axis do not move, unless others displace them; on the scale that
    `is_wide` selects.
    """
    wide = is_wide(values)
    exact = np.log(values.to_numpy(dtype=float)) if wide else values.to_numpy(dtype=float)
    step = 0.02 * (float(np.ptp(exact)) or abs(exact).max(initial=0.0) or 1.0)
    order = np.argsort(exact, kind="stable")
    # The nearest positions (by least squares) with a minimum distance in the same order.
    steps = step * np.arange(len(exact))
    places = np.empty_like(exact)
    places[order] = isotonic_regression(exact[order] - steps).x + steps
    return pd.Series(np.exp(places) if wide else places, index=values.index)


def top1_of(cells: pd.DataFrame) -> dict[str, float]:
    """Returns `n`, `top1` (mean), and its 95 % CI for a variant's cells."""
    top1 = estimate(cells["top1"].to_numpy())
    return {"n": top1.n, "top1": top1.mean, "low": top1.low, "high": top1.high}


def row_labels(names: Iterable[str]) -> list[str]:
    """Wraps row names to leave space for the plot."""
    return ["\n".join(fold(legend_label(name), _LABEL_WIDTH)) for name in names]


def name_rows(axes: Axes, labels: Sequence[str], **appearance: Any) -> None:
    """Labels a vertical axis with row names; row 0 is at the top."""
    axes.set_yticks(range(len(labels)), labels, **appearance)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def rows_height(labels: Iterable[str]) -> float:
    """Returns the height in inches of rows with these labels."""
    return sum(0.08 + 0.12 * (label.count("\n") + 1) for label in labels)


def shorten(text: str, width: int) -> str:
    """Truncates a text to a width in letters, with an ellipsis."""
    if columns(text) <= width:
        return text
    kept = list(text[:width])
    while columns(kept) > width - 1:
        kept.pop()
    return f"{''.join(kept)}…"


def fold(text: str, width: int) -> list[str]:
    """Wraps a text to lines of a width in letters, at least one line; longer words are not broken.

    Chinese and Japanese have no spaces, so lines may break after any character, each as wide as two letters.
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
    """Returns the width of a text in letters; Chinese, Japanese and Korean characters count as two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def legend_label(name: str) -> str:
    """Returns a name as a legend label; matplotlib would omit one that begins with `_`."""
    return f"\u2060{name}" if name.startswith("_") else name  # a zero-width word joiner
