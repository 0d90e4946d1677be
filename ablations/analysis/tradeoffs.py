"""What a search found: the variants that no other beats in every objective, and which factors matter for which.

Importances are those of fANOVA (Hutter, Hoos and Leyton-Brown 2014) as Optuna computes them: shares of an objective's
variance that each factor explains by itself, over the variants that were tried; the rest is interactions. They say
nothing about direction, and little where few were tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from ablations.design import Design

LEAST_FOR_IMPORTANCES = 6  # variants
MOST_FOR_IMPORTANCES = 150  # variants, drawn at random from more
_FEWER = {"n_trees": 16, "max_depth": 6}  # of the forest, where variants are drawn


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
    """Returns a row a variant with a result, in the order in which they were tried.

    Columns: `variant`, `n`, `picked` (whether the search picked it; the others were given by name), the objectives
    and `parameters` (means over replicates), `fits` (whether it keeps the limit on parameters), `on_front` (among those
    that do), and `label` (of those on the front, `A` being the best in the first objective).
    """
    picked = {variant.name: bool(variant.levels) for variant in design.variants}
    columns = list(dict.fromkeys([*design.objectives, "parameters"]))
    means = cells.groupby("variant", sort=False)[columns].mean()
    frame = means.reindex([name for name in picked if name in means.index])
    frame.insert(0, "n", cells.groupby("variant")["replicate"].count().reindex(frame.index))
    frame.insert(1, "picked", [picked[name] for name in frame.index])
    most = design.max_parameters
    frame["fits"] = frame["parameters"] <= most if most else True
    frame["on_front"] = False
    fitting = frame.loc[frame["fits"], list(design.objectives)].to_numpy()
    frame.loc[frame["fits"], "on_front"] = is_on_front(fitting, design.directions)
    front = frame[frame["on_front"]].sort_values(design.objectives[0], ascending=design.directions[0] == "minimize")
    frame["label"] = pd.Series({name: _letters(index) for index, name in enumerate(front.index)}, dtype=object)
    frame["label"] = frame["label"].fillna("")
    return frame.rename_axis("variant").reset_index()


def _letters(index: int) -> str:
    """Returns A to Z, then AA, AB and so on."""
    label = ""
    while index >= 0:
        label, index = chr(ord("A") + index % 26) + label, index // 26 - 1
    return label


def importances(frame: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Estimates each factor's importance for each objective, from the picked variants of a frame from `tradeoffs`.

    Returns:
        A row a factor and objective: `factor`, `objective`, `importance` (a share, from 0 to 1). An objective that
        never differed has no rows; nothing has where fewer than six variants were tried. Of more than 150 a random
        sample is taken.
    """
    from optuna.importance import FanovaImportanceEvaluator  # brings scikit-learn, 50 MiB that searches alone need

    rows: list[dict[str, object]] = []
    levels = {variant.name: variant.levels for variant in design.variants}
    tried = frame[frame["picked"]]
    is_drawn = len(tried) > MOST_FOR_IMPORTANCES
    if is_drawn:  # beyond that it takes minutes
        tried = tried.sample(MOST_FOR_IMPORTANCES, random_state=0).sort_index()
    factors = _varied(design, [levels[name] for name in tried["variant"]])
    for objective in design.objectives if len(tried) >= LEAST_FOR_IMPORTANCES and factors else ():
        values = tried[objective].to_numpy()
        if np.ptp(values) <= 1e-9 * max(abs(values).max(), 1.0):
            continue
        study = optuna.create_study()
        for name, value in zip(tried["variant"], values, strict=True):
            params = {path: levels[name][path] for path in factors}
            study.add_trial(create_trial(value=float(value), params=params, distributions=dict(factors)))
        shares = FanovaImportanceEvaluator(**(_FEWER if is_drawn else {}), seed=0).evaluate(study)
        rows += [
            {"factor": path.removeprefix("attention."), "objective": objective, "importance": share}
            for path, share in shares.items()
        ]
    return pd.DataFrame(rows, columns=["factor", "objective", "importance"])


def _varied(design: Design, tried: Sequence[Mapping[str, object]]) -> dict[str, CategoricalDistribution]:
    """Returns the factors of which more than one level was tried, with the levels that were."""
    varied = {}
    for path in design.factors:
        seen = list(dict.fromkeys(levels.get(path) for levels in tried))
        if len(seen) > 1 and None not in seen:
            varied[path] = CategoricalDistribution(seen)  # type: ignore[arg-type]
    return varied
