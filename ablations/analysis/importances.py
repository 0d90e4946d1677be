"""Importance of each factor of a search for each objective, with permutation tests.

Importances are those of fANOVA (Hutter, Hoos and Leyton-Brown 2014) as implemented in Optuna: the share of an
objective's variance over the tried variants that each factor explains by itself; the rest is interactions. They have no
direction.

A forest fitted to few variants finds importances in noise: 0.14 to 0.31 for the largest of five factors with 20
variants, and more for factors with many levels. Importances are therefore recomputed with permuted values of the
objective, which gives the null distribution of each factor's importance (Altmann et al. 2010). The correction for the
number of factors uses the largest importance in each permutation (Westfall and Young 1993). This is often that of the
factor with the most levels, so factors with two levels need larger effects: in simulations of 20 variants and five
factors, an effect of 1.5 to 1.8 SD was found in 13 of 16 studies for a factor with four levels and in 6 of 16 for one
with two. With standardized importances it was 1 and 11.
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

if TYPE_CHECKING:  # imports scikit-learn
    from optuna.importance import BaseImportanceEvaluator

LEAST_FOR_IMPORTANCES = 6  # variants
MOST_FOR_IMPORTANCES = 150  # variants; a random sample of more
ALPHA = 0.05
# A fit takes 0.04 s with 20 variants and 0.13 s with 150. Both numbers of permutations attain the 5 % level exactly.
_FOREST = {"n_trees": 16, "max_depth": 16}
_PERMUTATIONS, _FEWER_PERMUTATIONS, _MANY = 59, 39, 60
_COLUMNS = ["factor", "objective", "importance", "null_95", "p", "p_family", "permutations"]


def importances(frame: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Estimates each factor's importance for each objective, from the sampled variants of a frame of `tradeoffs`.

    Returns:
        A row per factor and objective: `factor`, `objective`, `importance` (a share, 0 to 1), `null_95` (the 95 %
        quantile of the factor's importance under permutation), `p` (the share of permutations, including the identity,
        with an importance at least as large), `p_family` (the same, corrected for the number of factors: if no factor
        matters, any of them is below 0.05 with a probability of at most 5 %) and `permutations`. A constant objective
        has no rows. Empty with fewer than six variants; of more than 150, a random sample is used.
    """
    from optuna.importance import FanovaImportanceEvaluator  # imports scikit-learn: 50 MiB that only searches need

    rows: list[dict[str, object]] = []
    levels = {variant.name: variant.levels for variant in design.variants}
    tried = frame[frame["picked"]]
    if len(tried) > MOST_FOR_IMPORTANCES:  # all would take minutes
        tried = tried.sample(MOST_FOR_IMPORTANCES, random_state=0).sort_index()
    settings = [levels[name] for name in tried["variant"]]
    factors = _varied(design, settings)
    shares = partial(_shares, FanovaImportanceEvaluator(**_FOREST, seed=0), settings, factors)
    for objective in design.objectives if len(tried) >= LEAST_FOR_IMPORTANCES and factors else ():
        values = tried[objective].to_numpy(dtype=float)
        if np.ptp(values) <= 1e-9 * max(abs(values).max(), 1.0):
            continue
        observed, null = shares(values), _null(shares, values)
        rows += [
            {
                "factor": list(factors)[index].removeprefix("attention."),
                "objective": objective,
                "importance": observed[index],
                "null_95": float(np.quantile(null[:, index], 1 - ALPHA)),
                "p": _p(observed[index], null[:, index]),
                "p_family": _p(observed[index], null.max(1)),
                "permutations": len(null),
            }
            for index in np.argsort(-observed, kind="stable")
        ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _null(
    shares: Callable[[NDArray[np.float64]], NDArray[np.float64]], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the importances of permuted values, (permutations, factors)."""
    random = np.random.default_rng(0)
    number = _PERMUTATIONS if len(values) < _MANY else _FEWER_PERMUTATIONS
    return np.array([shares(random.permutation(values)) for _ in range(number)])


def _shares(
    evaluator: BaseImportanceEvaluator,
    settings: Sequence[Mapping[str, object]],
    factors: Mapping[str, CategoricalDistribution],
    values: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns the importance of each factor, (factors,)."""
    study = optuna.create_study()
    trials = [
        create_trial(value=float(value), params={path: levels[path] for path in factors}, distributions=dict(factors))
        for levels, value in zip(settings, values, strict=True)
    ]
    study.add_trials(trials)
    shares = evaluator.evaluate(study)
    return np.array([float(shares[path]) for path in factors])


def _p(observed: float, null: NDArray[np.float64]) -> float:
    return float((1 + (null >= observed).sum()) / (1 + len(null)))


def _varied(design: Design, tried: Sequence[Mapping[str, object]]) -> dict[str, CategoricalDistribution]:
    """Returns the factors with more than one tried level, with these levels."""
    varied = {}
    for path in design.factors:
        tried_levels = list(dict.fromkeys(levels.get(path) for levels in tried))
        if len(tried_levels) > 1 and None not in tried_levels:
            varied[path] = CategoricalDistribution(tried_levels)  # type: ignore[arg-type]
    return varied
