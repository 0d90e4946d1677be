"""What a search selects by: the variants that no other beats in every objective, and which of them are confirmed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.design import Design


def is_on_front(values: NDArray[np.float64], directions: Sequence[str]) -> NDArray[np.bool_]:
    """Says of each row whether no other is at least as good in every column and better in one.

    Rows are variants, columns objectives; `directions` are `maximize` or `minimize` for each column.
    """
    better = np.where([direction == "maximize" for direction in directions], values, -values)
    on_front = np.ones(len(better), dtype=np.bool_)
    for row, own in enumerate(better):  # one by one: all pairs of thousands of variants would fill the memory
        on_front[row] = not np.any((better >= own).all(1) & (better > own).any(1))
    return on_front


def tradeoffs(cells: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Returns a row a variant with a result on the validation images, in the order in which they were tried.

    Columns: `variant`, `picked` (whether the search picked it; the others were given by name), the objectives and
    `parameters`, `fits` (whether it keeps the limit on parameters), `on_front` (among those that do), `label` (of those
    on the front, `A` being the best in the first objective), and `rank` (from 1, of the picks to be confirmed, the
    others have 0).
    """
    picked = {variant.name: bool(variant.levels) for variant in design.variants}
    columns = list(dict.fromkeys([*design.objectives, "parameters"]))
    tried = cells.set_index("variant")[columns]
    frame = tried.reindex([name for name in picked if name in tried.index])
    frame.insert(0, "picked", [picked[name] for name in frame.index])
    most = design.max_parameters
    frame["fits"] = frame["parameters"] <= most if most else True
    frame["on_front"] = False
    fitting = frame.loc[frame["fits"], list(design.objectives)].to_numpy()
    frame.loc[frame["fits"], "on_front"] = is_on_front(fitting, design.directions)
    front = frame[frame["on_front"]].sort_values(design.objectives[0], ascending=design.directions[0] == "minimize")
    frame["label"] = pd.Series({name: _letters(index) for index, name in enumerate(front.index)}, dtype=object)
    frame["label"] = frame["label"].fillna("")
    frame["rank"] = 0
    for rank, name in enumerate(_best(frame[frame["picked"] & frame["fits"]], design), 1):
        frame.loc[name, "rank"] = rank
    return frame.rename_axis("variant").reset_index()


def _best(picks: pd.DataFrame, design: Design) -> list[str]:
    """Returns the picks to be confirmed, the best first.

    With one objective these are the best in it. With several they are from the front of the picks: the best in each
    objective, then those of the largest crowding distance (Deb et al. 2002), whose neighbours on the front are far.
    """
    values = picks[list(design.objectives)].to_numpy(dtype=float)
    if not len(values):
        return []
    losses = np.where([direction == "maximize" for direction in design.directions], -values, values)
    if len(design.objectives) == 1:
        order = np.argsort(losses[:, 0], kind="stable")
    else:
        front = np.flatnonzero(is_on_front(values, design.directions))
        own = losses[front]
        first = own.argmin(0)
        crowding = _crowding(own)
        order = front[list(dict.fromkeys([*first, *np.argsort(-crowding, kind="stable")]))]
    return [str(picks.index[place]) for place in order[: design.confirm]]


def _crowding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the crowding distance of each row: the gap between its neighbours over the range, summed over columns."""
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ranked, span = column[order], float(np.ptp(column)) or 1.0
        gaps = np.full(len(values), np.inf)
        gaps[1:-1] = (ranked[2:] - ranked[:-2]) / span
        distance[order] += gaps
    return distance


def _letters(index: int) -> str:
    """Returns A to Z, then AA, AB and so on."""
    label = ""
    while index >= 0:
        label, index = chr(ord("A") + index % 26) + label, index // 26 - 1
    return label
