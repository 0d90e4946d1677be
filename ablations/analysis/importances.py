"""Which factors of a search matter for which objective, and how large an importance noise alone reaches.

Importances are those of fANOVA (Hutter, Hoos and Leyton-Brown 2014) as Optuna computes them: shares of an objective's
variance that each factor explains by itself, over the variants that were tried; the rest is interactions. They say
nothing about direction.

A forest that is fitted to few variants finds importances in noise: 0.14 to 0.31 for the largest of five factors, over
20 variants, and more for factors of many levels. So all is computed again with the objective's values permuted over the
variants, many times: then no factor matters, and what is found is the null distribution of each factor's importance
(Altmann et al. 2010). Over factors it is corrected by the largest importance of any factor in each permutation
(Westfall and Young 1993). That one tends to be of the factor with the most levels, so a factor of two needs a larger
effect to stand out: in simulations of 20 variants and five factors, an effect of 1.5 to 1.8 SD was found in 13 of 16
studies for a factor of four levels and in 6 of 16 for one of two. With standardised importances it was 1 and 11.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from ablations.design import Design

if TYPE_CHECKING:  # it imports scikit-learn
    from optuna.importance import BaseImportanceEvaluator

LEAST_FOR_IMPORTANCES = 6  # variants
MOST_FOR_IMPORTANCES = 150  # variants, drawn at random from more
ALPHA = 0.05
# Fits take 0.04 s with 20 variants and 0.13 s with 150. With either number of permutations 5 % is an attainable level.
_FOREST = {"n_trees": 16, "max_depth": 16}
_PERMUTATIONS, _FEWER_PERMUTATIONS, _MANY = 59, 39, 60
_COLUMNS = ["factor", "objective", "importance", "null_95", "p", "p_family", "permutations"]


def importances(frame: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Estimates each factor's importance for each objective, from the picked variants of a frame from `tradeoffs`.

    Returns:
        A row a factor and objective: `factor`, `objective`, `importance` (a share, from 0 to 1), `null_95` (the 95 %
        quantile of the factor's importance under permutation), `p` (the share of permutations in which the factor's
        importance is as large, the data's own order being one of them), `p_family` (likewise, corrected for how many
        factors there are: at most 5 % of objectives that no factor matters for have a factor with 0.05 or less) and
        `permutations`. An objective that never differed has no rows; nothing has where fewer than six variants were
        tried. Of more than 150 a random sample is taken.
    """
    from optuna.importance import FanovaImportanceEvaluator  # brings scikit-learn, 50 MiB that searches alone need

    rows: list[dict[str, object]] = []
    levels = {variant.name: variant.levels for variant in design.variants}
    tried = frame[frame["picked"]]
    if len(tried) > MOST_FOR_IMPORTANCES:  # beyond that it takes minutes
        tried = tried.sample(MOST_FOR_IMPORTANCES, random_state=0).sort_index()
    settings = [levels[name] for name in tried["variant"]]
    factors = _varied(design, settings)
    shares = partial(_shares, FanovaImportanceEvaluator(**_FOREST, seed=0), settings, factors)
    for objective in design.objectives if len(tried) >= LEAST_FOR_IMPORTANCES and factors else ():
        values = tried[objective].to_numpy(dtype=float)
        if np.ptp(values) <= 1e-9 * max(abs(values).max(), 1.0):
            continue
        found, null = shares(values), _null(shares, values)
        rows += [
            {
                "factor": list(factors)[place].removeprefix("attention."),
                "objective": objective,
                "importance": found[place],
                "null_95": float(np.quantile(null[:, place], 1 - ALPHA)),
                "p": _p(found[place], null[:, place]),
                "p_family": _p(found[place], null.max(1)),
                "permutations": len(null),
            }
            for place in np.argsort(-found, kind="stable")
        ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _null(
    shares: Callable[[NDArray[np.float64]], NDArray[np.float64]], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the importances of permuted values: a row a permutation, a column a factor."""
    random = np.random.default_rng(0)
    number = _PERMUTATIONS if len(values) < _MANY else _FEWER_PERMUTATIONS
    return np.array([shares(random.permutation(values)) for _ in range(number)])


def _shares(
    evaluator: BaseImportanceEvaluator,
    settings: Sequence[Mapping[str, object]],
    factors: Mapping[str, CategoricalDistribution],
    values: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns the importance of each factor."""
    study = optuna.create_study()
    trials = [
        create_trial(value=float(value), params={path: own[path] for path in factors}, distributions=dict(factors))
        for own, value in zip(settings, values, strict=True)
    ]
    study.add_trials(trials)
    shares = evaluator.evaluate(study)
    return np.array([float(shares[path]) for path in factors])


def _p(found: float, null: NDArray[np.float64]) -> float:
    return float((1 + (null >= found).sum()) / (1 + len(null)))


def _varied(design: Design, tried: Sequence[Mapping[str, object]]) -> dict[str, CategoricalDistribution]:
    """Returns the factors of which more than one level was tried, with the levels that were."""
    varied = {}
    for path in design.factors:
        seen = list(dict.fromkeys(levels.get(path) for levels in tried))
        if len(seen) > 1 and None not in seen:
            varied[path] = CategoricalDistribution(seen)  # type: ignore[arg-type]
    return varied
