"""The Pareto front of a search's variants, and the selection of those that are confirmed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.design import Design


def is_on_front(values: NDArray[np.float64], directions: Sequence[str]) -> NDArray[np.bool_]:
    """Returns a mask of the non-dominated rows: no other is at least as good in all columns and better in one.

    Rows are variants, columns objectives; `directions` are `maximize` or `minimize` for each column.
    """
    gains = np.where([direction == "maximize" for direction in directions], values, -values)
    on_front = np.ones(len(gains), dtype=np.bool_)
    for index, row in enumerate(gains):  # a loop: all pairs of thousands of variants would fill the memory
        on_front[index] = not np.any((gains >= row).all(1) & (gains > row).any(1))
    return on_front


def tradeoffs(cells: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Returns a row per variant with a result on the validation images, in the order of the trials.

    Columns: `variant`, `picked` (sampled by the search; false for named variants), the objectives and `parameters`,
    `fits` (within the limit on parameters), `on_front` (of the variants that fit), `label` (on the front from `A`, the
    best in the first objective; otherwise empty), and `rank` (from 1 for sampled variants to be confirmed, otherwise
    0).
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
    """Returns the sampled variants to be confirmed, the best first.

    With a single objective these are the best values. With several they are from the Pareto front: the best in each
    objective, then those with the largest crowding distance (Deb et al. 2002), whose neighbours are far.
    """
    values = picks[list(design.objectives)].to_numpy(dtype=float)
    if not len(values):
        return []
    losses = np.where([direction == "maximize" for direction in design.directions], -values, values)
    if len(design.objectives) == 1:
        order = np.argsort(losses[:, 0], kind="stable")
    else:
        front = np.flatnonzero(is_on_front(values, design.directions))
        on_front = losses[front]
        by_crowding = np.argsort(-_crowding(on_front), kind="stable")
        order = front[list(dict.fromkeys([*on_front.argmin(0), *by_crowding]))]
    return [str(picks.index[row]) for row in order[: design.confirm]]


def _crowding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the crowding distance of each row: the sum over columns of the gap between its neighbours / the range."""
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
