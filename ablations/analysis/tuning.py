"""The results of tuning: the trials of each variant, its best recipe, and the expected result of smaller budgets.

Trials are cells that are trained without the validation images and evaluated on them. The best recipe of a variant is
that of its best trial. A diverged or failed trial counts as worse than any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.analysis.results import Results, collect
from ablations.common.metrics import METRICS
from ablations.common.settings import Settings
from ablations.design import Design, Split
from ablations.design.tuning import Dimension, Tuning
from ablations.storage.cell_states import CellState, StoredCell

EDGE = 0.1  # share of a range at each of its ends


@dataclass(frozen=True)
class Optimum:
    """The position of a variant's best value in a range of the search space.

    Attributes:
        share: position in the range, from 0 to 1, on the scale of the search (linear or log).
        edge: -1 in the lowest tenth of the range, 1 in the highest, otherwise 0.
    """

    variant: str
    option: str
    value: float
    share: float
    edge: int


@dataclass(frozen=True)
class Tuned:
    """The trials of a study's variants, and the results under their best recipes.

    Attributes:
        design: the study with its variants under the common recipe.
        trials: a row per ended trial: `variant`, `trial`, a column per tuned option, the metric (nan if the trial
            diverged or failed), and `best`, whether it is the best of its variant.
        best: the design with the variants that have a best recipe, under that recipe.
        results: the results of `best`.
        environments: the distinct machines and versions that trained the trials.
    """

    design: Design
    trials: pd.DataFrame
    best: Design
    results: Results
    environments: list[dict[str, str]]

    @property
    def tuning(self) -> Tuning:
        """The search space and budget."""
        assert self.design.tuning is not None
        return self.design.tuning

    @property
    def recipes(self) -> dict[str, Settings]:
        """The best recipe of each variant that has one."""
        return {variant.name: variant.recipe for variant in self.best.variants}

    @property
    def as_results(self) -> Results:
        """The machines of the trials as `Results`, for captions."""
        return replace(self.results, unfinished=self.results.unfinished[:0], environments=self.environments)

    @cached_property
    def expected(self) -> pd.DataFrame:
        """The expected best value on the validation images by number of trials: `variant`, `trials`, `expected`.

        The mean best value over all subsets of that many trials: the unbiased estimator of Tang et al. 2020 (arXiv
        2004.13961) for the quantity of Dodge et al. 2019 (arXiv 1909.03004). A trial without a value counts as the
        worst of the study.
        """
        metric = self.design.metric
        worst = self.trials[metric].min() if _is_maximized(metric) else self.trials[metric].max()
        rows = []
        sign = 1 if _is_maximized(metric) else -1
        for variant, trials in self.trials.groupby("variant", sort=False):
            values = trials[metric].fillna(worst).to_numpy(dtype=np.float64)
            if not np.isnan(values).any():
                expected = sign * expected_best(sign * values)
                rows += [(variant, number, value) for number, value in enumerate(expected.tolist(), start=1)]
        return pd.DataFrame(rows, columns=["variant", "trials", "expected"])

    @cached_property
    def optima(self) -> list[Optimum]:
        """The positions of the best recipes in the ranges of the search space."""
        return [
            _optimum(name, path, self.tuning.space[path], recipe[path])
            for name, recipe in self.recipes.items()
            for path in self.tuning.space
            if not self.tuning.space[path].choices
        ]


def collect_tuned(design: Design, stored: Sequence[StoredCell]) -> Tuned | None:
    """Collects the stored trials of a design's tuning; None without tuning."""
    tuning, metric = design.tuning, design.metric
    if tuning is None:
        return None
    rows: list[dict[str, Any]] = []
    environments: list[dict[str, str]] = []
    started = trials_of(design, stored)
    for (name, number), cell in started.items():
        if not cell.state.is_done and cell.state is not CellState.FAILED:
            continue
        value = math.nan
        if cell.outcome is not None and cell.state is CellState.FINISHED:
            outcome = dict(cell.outcome)
            measured = outcome["result"].get(metric)
            value = math.nan if measured is None else float(measured)
            if outcome["environment"] not in environments:
                environments.append(outcome["environment"])
        rows.append({"variant": name, "trial": number, **cell.recipe, metric: value})
    trials = pd.DataFrame(rows, columns=["variant", "trial", *tuning.space, metric])
    trials = trials.astype({metric: float}).sort_values("trial", kind="stable", ignore_index=True)
    sign = 1 if _is_maximized(metric) else -1
    valued = trials[trials[metric].notna()]
    at_best = [(sign * of_variant[metric]).idxmax() for _, of_variant in valued.groupby("variant", sort=False)]
    trials["best"] = trials.index.isin(at_best)
    best_trials = trials[trials["best"]]
    recipes = {
        str(name): started[str(name), int(number)].recipe
        for name, number in zip(best_trials["variant"], best_trials["trial"], strict=True)
    }
    tuned = [replace(variant, recipe=recipes[variant.name]) for variant in design.variants if variant.name in recipes]
    best = replace(design, variants=tuple(tuned))
    return Tuned(design, trials, best, collect(best, stored), environments)


def trials_of(design: Design, stored: Sequence[StoredCell]) -> dict[tuple[str, int], StoredCell]:
    """Returns the started trials of a design's tuning, by variant and number of the trial."""
    assert design.tuning is not None
    names = {json.dumps(variant.network, sort_keys=True): variant.name for variant in design.variants}
    trials: dict[tuple[str, int], StoredCell] = {}
    for cell in stored:
        is_trial = cell.split is Split.VALIDATION and cell.tuning == design.tuning.id
        if is_trial and cell.replicate < design.tuning.trials:
            name = names.get(json.dumps(cell.network, sort_keys=True))
            trials |= {(name, cell.replicate): cell} if name is not None else {}
    return trials


def expected_best(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the expected maximum of 1, 2, ..., n of the n values, drawn without replacement: (n,) from (n,)."""
    ordered, n = np.sort(values), len(values)
    ranks = np.arange(1, n + 1)
    expected = np.empty(n)
    # The i-th smallest is the maximum of k values in C(i - 1, k - 1) of the C(n, k) subsets.
    weights = np.full(n, 1 / n)  # of k = 1
    for k in ranks.tolist():
        expected[k - 1] = weights @ ordered
        if k < n:  # C(i-1, k) / C(n, k+1) from C(i-1, k-1) / C(n, k)
            weights = weights * (ranks - k).clip(min=0) / k * (k + 1) / (n - k)
    return expected


def _is_maximized(metric: str) -> bool:
    return METRICS[metric].direction == "maximize"


def _optimum(variant: str, path: str, dimension: Dimension, value: float) -> Optimum:
    (low, high), at = dimension.ends, float(value)
    if dimension.is_log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    share = (at - low) / (high - low)
    edge = -1 if share <= EDGE else 1 if share >= 1 - EDGE else 0
    return Optimum(variant, path, float(value), share, edge)
