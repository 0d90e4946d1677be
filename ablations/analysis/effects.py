"""Main effects and interactions of factors that are fully crossed.

A main effect is the difference that a level makes to its factor's first level, averaged over all combinations of the
other factors. An interaction is by how much such a difference changes with the level of another factor: the difference
of the differences, averaged over the factors that are left. Each is computed in every replicate, whose cells share
backbone weights and batches, and estimated from these numbers (Montgomery, Design and Analysis of Experiments, chapters
5 and 6, without the halving that 2-level designs often have: effects are in the units of the metric).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.design import Design
from ablations.design.variants import level_name
from ablations.stats import Estimate, estimate

_MOST = 24  # more effects than this are no table to read


@dataclass(frozen=True)
class Effect:
    """An effect; `order` is the number of factors in it, 1 for a main effect.

    `name` says which levels, `reference` those that they are compared with.
    """

    order: int
    name: str
    reference: str
    estimate: Estimate


def factorial_effects(cells: pd.DataFrame, design: Design) -> list[Effect]:
    """Estimates main effects on top-1, then interactions of two, of three and so on while they are not too many.

    There are none where fewer than two factors vary, or no replicate has all combinations. Named variants are in no
    crossing and play no part.
    """
    factors = {path: levels for path, levels in design.factors.items() if len(levels) > 1}
    if design.is_search or len(factors) < 2 or len(factors) < len(design.factors):
        return []
    values = _crossing(cells, design)
    if not len(values):
        return []
    others = [len(levels) - 1 for levels in factors.values()]  # than the first, which these are compared with
    effects: list[Effect] = []
    for order in range(1, len(factors) + 1):
        combinations = list(itertools.combinations(range(len(factors)), order))
        more = sum(math.prod(others[index] for index in chosen) for chosen in combinations)
        if order > 1 and len(effects) + more > _MOST:
            break
        effects += [effect for chosen in combinations for effect in _effects(values, list(factors.items()), chosen)]
    return effects


def effects_frame(effects: Sequence[Effect]) -> pd.DataFrame:
    """Returns a row an effect: `order`, `name`, `reference`, `n`, `mean`, and `low` and `high`, empty where n is 1."""
    rows = [
        {"order": effect.order, "name": effect.name, "reference": effect.reference} | asdict(effect.estimate)
        for effect in effects
    ]
    return pd.DataFrame(rows, columns=["order", "name", "reference", "n", "mean", "low", "high"])


def _crossing(cells: pd.DataFrame, design: Design) -> NDArray[np.float64]:
    """Returns top-1 by replicate and the level of each factor; only replicates with all combinations."""
    crossed = [variant for variant in design.variants if variant.levels]  # in the order of itertools.product
    wide = cells.pivot_table(index="replicate", columns="variant", values="top1")
    wide = wide.reindex(columns=[variant.name for variant in crossed]).dropna()
    return wide.to_numpy().reshape(len(wide), *(len(levels) for levels in design.factors.values()))


def _effects(
    values: NDArray[np.float64], factors: list[tuple[str, list[object]]], chosen: tuple[int, ...]
) -> list[Effect]:
    """Returns the effects of the chosen factors: one for every combination of levels that are not the first."""
    effects = []
    for levels in itertools.product(*(range(1, len(factors[index][1])) for index in chosen)):
        contrast = values
        for axis in reversed(range(len(factors))):  # from the last axis, so that those before keep their numbers
            taken = [np.take(contrast, level, axis=axis + 1) for level in range(len(factors[axis][1]))]
            contrast = taken[levels[chosen.index(axis)]] - taken[0] if axis in chosen else np.mean(taken, axis=0)
        taken_levels = [factors[index][1][level] for index, level in zip(chosen, levels, strict=True)]
        names = [level_name(factors[index][0], level) for index, level in zip(chosen, taken_levels, strict=True)]
        references = [level_name(factors[index][0], factors[index][1][0]) for index in chosen]
        effects.append(Effect(len(chosen), " x ".join(names), " x ".join(references), estimate(contrast)))
    return effects
