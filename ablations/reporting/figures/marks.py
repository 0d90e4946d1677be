"""Marks of figures of estimates, drawn with seaborn: points with intervals, and lines with bands."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablations.reporting.figures import style

# Colour, marker and line style by the value of a column.
Appearances = Mapping[str, Mapping[str, Any]]
SIZE = 4.8  # of a point, in points of 1/72 inch
_MARKERS = 10  # of a line


def draw_points(
    target: Axes | Figure,
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    appearances: Appearances,
    *,
    intervals: Sequence[tuple[str, str, float]] = (("low", "high", 1.4),),
    along: str = "x",
    size: float = SIZE,
    fill: bool = True,
    alpha: float = 1.0,
    facet: Mapping[str, str] | None = None,
) -> None:
    """Draws a point for each row with `x` and `y`, and its intervals, if any.

    Args:
        target: axes, or an empty figure, which gets a grid of panels.
        frame: the data.
        x, y: columns of the coordinates.
        by: column that determines colour and marker.
        appearances: colour and marker by its value; rows with other values are not drawn.
        intervals: columns of the lower and upper bounds, and the line width.
        along: the axis of the intervals.
        size: diameter of points.
        fill: whether points are filled; otherwise they are white.
        alpha: opacity of filled points and of intervals.
        facet: columns for `row` and `col` of a figure's grid, whose panels share `y`, and `x` by row.
    """
    import seaborn.objects as so  # takes seconds

    shown = frame[frame[by].isin(list(appearances))].dropna(subset=[x, y])
    marks: list[tuple[Any, dict[str, Any]]] = []
    for low, high, width in intervals:
        if shown[[low, high]].notna().all(axis="columns").any():
            bounds = {f"{along}min": low, f"{along}max": high, "orient": "y" if along == "x" else "x"}
            marks.append((so.Range(linewidth=width, alpha=alpha), bounds))
    above: dict[str, Any] = {"pointsize": size, "artist_kws": {"zorder": 3, "clip_on": False}}  # than intervals
    filled = so.Dot(alpha=alpha, edgewidth=0, stroke=1.4, **above)
    marks.append((filled if fill else so.Dots(stroke=0.9, fillcolor="white", fillalpha=1.0, **above), {}))
    _draw(target, shown, {"x": x, "y": y, "color": by, "marker": by}, appearances, marks, facet)


def draw_lines(
    axes: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    appearances: Appearances,
    *,
    opacity: float = 0.1,
    size: float = SIZE,
) -> None:
    """Draws a line for each value of `by`, with up to ten markers, and its band from `low` to `high`, if any.

    Args:
        axes, frame, x, y, by: as in `draw_points`; rows are in the order of `x`.
        appearances: colour, marker and `linestyle` by value; rows with other values are not drawn.
        opacity: of the bands.
        size: diameter of the markers.
    """
    import seaborn.objects as so  # takes seconds

    shown = frame[frame[by].isin(list(appearances))].dropna(subset=[x, y])
    place = shown.groupby(by).cumcount()
    every = (shown.groupby(by)[x].transform("size") // _MARKERS).clip(lower=1)
    marks: list[tuple[Any, dict[str, Any]]] = []
    if shown[["low", "high"]].notna().all(axis="columns").any():
        marks.append((so.Band(alpha=opacity, edgewidth=0), {"ymin": "low", "ymax": "high"}))
    marks.append((so.Line(linewidth=0.3 * size), {}))
    marks.append(
        (
            so.Dot(pointsize=size, edgewidth=0, artist_kws={"zorder": 3, "clip_on": False}),
            {"data": shown[place % every == 0]},
        )
    )
    _draw(axes, shown, {"x": x, "y": y, "color": by, "marker": by, "linestyle": by}, appearances, marks)


def _draw(
    target: Axes | Figure,
    frame: pd.DataFrame,
    variables: Mapping[str, str],
    appearances: Appearances,
    marks: Sequence[tuple[Any, Mapping[str, Any]]],
    facet: Mapping[str, str] | None = None,
) -> None:
    """Draws layers of marks, without axis labels."""
    import seaborn.objects as so  # takes seconds

    if frame.empty:
        return
    usual = {"linestyle": "-"}
    scales = {
        name: {value: {**usual, **appearance}[name] for value, appearance in appearances.items()}
        for name in variables
        if name not in ("x", "y")
    }
    plot = so.Plot(frame, **variables).theme(style.theme()).scale(**scales)
    for mark, others in marks:
        plot = plot.add(mark, legend=False, **others)
    kept = {"xlabel": target.get_xlabel(), "ylabel": target.get_ylabel()} if isinstance(target, Axes) else {}
    plot = plot.facet(**facet).share(x="row", y=True).label(x="", y="") if facet else plot
    with warnings.catch_warnings():  # seaborn 0.13 sets an option that is the default of pandas 3
        warnings.filterwarnings("ignore", "The copy keyword is deprecated")
        plot.on(target).plot()
    if isinstance(target, Axes):
        target.set(**kept)


def handle(label: str, *, line: bool = False, **appearance: Any) -> Line2D:
    """Returns a legend handle for points, or for points on a line."""
    usual = {"linestyle": "-" if line else "", "markersize": SIZE}
    return Line2D([], [], label=style.legend_label(label), **{**usual, **appearance})
