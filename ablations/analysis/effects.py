"""Main effects and interactions of factors that are fully crossed, with their verdicts.

A main effect is the difference that a level makes to its factor's first level, averaged over all combinations of the
other factors. An interaction is by how much such a difference changes with the level of another factor: the difference
of the differences, averaged over the factors that are left. Each is computed in every replicate, whose cells share
backbone weights and batches, and estimated from these numbers (Montgomery, Design and Analysis of Experiments, chapters
5 and 6, without the halving that 2-level designs often have: effects are in the units of the metric).

All effects of a study are one family, tested as its contrasts are (`ablations.stats.significance`), below 6 replicates
each by its own variance. A main effect averages over many cells, which makes it the most powerful of comparisons.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.design import Design
from ablations.design.variants import level_name
from ablations.stats import Estimate, InterimAnalyses, Verdict, estimate
from ablations.stats.family import Inference, infer
from ablations.stats.layout import Layout
from ablations.stats.significance import Array, Responses
from ablations.stats.verdicts import decide, sign_of

_MOST = 24  # more effects than this are no table to read


@dataclass(frozen=True)
class Effect:
    """An effect; `order` is the number of factors in it, 1 for a main effect.

    `name` says which levels, `reference` those that they are compared with. p values are corrected for all effects of
    the study; they are None of a single replicate.
    """

    order: int
    name: str
    reference: str
    estimate: Estimate
    verdict: Verdict
    p: float | None = None
    p_equivalence: float | None = None
    assumes_normal: bool = False


@dataclass(frozen=True)
class _Formula:
    """How an effect is made of the cells of a replicate: their weights, in the shape of the crossing."""

    order: int
    name: str
    reference: str
    weights: NDArray[np.float64]


def factorial_effects(cells: pd.DataFrame, design: Design, interims: InterimAnalyses | None = None) -> list[Effect]:
    """Judges main effects on the study's metric, then interactions of two, of three and so on while they are few.

    There are none where fewer than two factors vary, or no replicate has all combinations. Named variants are in no
    crossing and play no part.

    Args:
        cells, interims: as of `ablations.stats.judge`.
        design: the study.
    """
    if not _is_crossed(design) or cells.empty:
        return []
    factors, layout = design.factors, Layout.of(cells, design.metric)
    names, values, is_whole = _combinations(layout, design)
    if not is_whole.any():
        return []
    formulas = _formulas(factors)
    weights = np.stack([formula.weights.ravel() for formula in formulas])

    def responses_at(size: int | None, _: Sequence[int]) -> Responses | None:
        if size is not None and not all(layout.has_ended(name, size) for name in names):
            return None
        known = values[is_whole & (layout.replicates < size)] if size is not None else values[is_whole]
        # Replicates may respond differently to a level, which an effect's own differences show and runs do not.
        return Responses(known, known @ weights.T, (weights**2).sum(axis=1), is_pooled=False)

    inferences = infer(responses_at, len(formulas), design.margin, interims)
    lost = sum(layout.lost(name) for name in names)
    return [_effect(formula, inference, design, lost) for formula, inference in zip(formulas, inferences, strict=True)]


def _is_crossed(design: Design) -> bool:
    """Whether a study trains every combination of the levels of two factors or more."""
    several = [path for path, levels in design.factors.items() if len(levels) > 1]
    return not design.is_search and len(several) == len(design.factors) > 1


def _combinations(layout: Layout, design: Design) -> tuple[list[str], Array, NDArray[np.bool_]]:
    """Returns the crossed variants, their values by replicate, and which replicates all of them have."""
    names = [variant.name for variant in design.variants if variant.levels]  # in the order of itertools.product
    values = np.column_stack([layout.column(name) for name in names])
    return names, values, np.asarray(~np.isnan(values).any(axis=1), dtype=np.bool_)


def interactions_frame(cells: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Returns the mean of every two levels of two crossed factors, averaged over all other factors.

    The departure of two levels is the difference between their mean and the sum of the overall mean and of both main
    effects: 0 everywhere where factors do not interact. It is computed in every replicate that all combinations have.

    Returns:
        A row a pair of levels: `factor`, `level`, `other`, `other_level` (as variants name them), `n` (replicates),
        `mean` (of the study's metric), `departure` with the bounds `low` and `high` of its 95 % CI (Student's t, not
        corrected for how many there are; empty where n is 1). Empty where factors are not crossed.
    """
    columns = ["factor", "level", "other", "other_level", "n", "mean", "departure", "low", "high"]
    rows: list[tuple[object, ...]] = []
    if _is_crossed(design) and not cells.empty:
        factors = list(design.factors.items())
        _, values, is_whole = _combinations(Layout.of(cells, design.metric), design)
        crossed = values[is_whole].reshape(-1, *(len(levels) for _, levels in factors))
        pairs = itertools.combinations(range(len(factors)), 2) if len(crossed) else ()
        for one, other in pairs:
            away = tuple(1 + place for place in range(len(factors)) if place not in (one, other))
            rows += _pair_rows(crossed.mean(axis=away), factors[one], factors[other])
    return pd.DataFrame(rows, columns=columns)


def _pair_rows(
    means: Array, factor: tuple[str, list[object]], other: tuple[str, list[object]]
) -> Iterator[tuple[object, ...]]:
    """Yields the rows of two factors, given means by replicate, level and other level."""
    departures = means - means.mean(1, keepdims=True) - means.mean(2, keepdims=True) + means.mean((1, 2), keepdims=True)
    (path, levels), (other_path, other_levels) = factor, other
    for row, column in itertools.product(range(len(levels)), range(len(other_levels))):
        seen = estimate(departures[:, row, column])
        names = path, level_name(path, levels[row]), other_path, level_name(other_path, other_levels[column])
        yield (*names, seen.n, float(means[:, row, column].mean()), seen.mean, seen.low, seen.high)


def _effect(formula: _Formula, inference: Inference, design: Design, lost: int) -> Effect:
    assert inference.estimate is not None
    verdict = decide(inference, sign_of(design.metric), lost)
    effect = Effect(formula.order, formula.name, formula.reference, inference.estimate, verdict)
    if verdict is Verdict.NONE:
        return effect
    p, p_equivalence = inference.p, inference.p_equivalence
    return replace(effect, p=p, p_equivalence=p_equivalence, assumes_normal=inference.assumes_normal)


def effects_frame(effects: Sequence[Effect]) -> pd.DataFrame:
    """Returns a row an effect: `order`, `name`, `reference`, `n`, `mean`, `low` and `high` (empty where n is 1).

    Then `p`, `p_equivalence` (corrected), `verdict`, and `assumes_normal`, whether the tests do.
    """
    rows = [
        {"order": effect.order, "name": effect.name, "reference": effect.reference}
        | asdict(effect.estimate)
        | {"p": effect.p, "p_equivalence": effect.p_equivalence, "verdict": effect.verdict.value}
        | {"assumes_normal": effect.assumes_normal}
        for effect in effects
    ]
    columns = ["order", "name", "reference", "n", "mean", "low", "high", "p", "p_equivalence", "verdict"]
    return pd.DataFrame(rows, columns=[*columns, "assumes_normal"])


def _formulas(factors: dict[str, list[object]]) -> list[_Formula]:
    """Returns the effects of crossed factors, main effects first; interactions while they are not too many."""
    others = [len(levels) - 1 for levels in factors.values()]  # than the first, which these are compared with
    formulas: list[_Formula] = []
    for order in range(1, len(factors) + 1):
        combinations = list(itertools.combinations(range(len(factors)), order))
        more = sum(math.prod(others[index] for index in chosen) for chosen in combinations)
        if order > 1 and len(formulas) + more > _MOST:
            break
        formulas += [one for chosen in combinations for one in _formulas_of(list(factors.items()), chosen)]
    return formulas


def _formulas_of(factors: list[tuple[str, list[object]]], chosen: tuple[int, ...]) -> list[_Formula]:
    """Returns the effects of the chosen factors: one for every combination of levels that are not the first."""
    formulas = []
    for levels in itertools.product(*(range(1, len(factors[index][1])) for index in chosen)):
        taken = dict(zip(chosen, levels, strict=True))
        weights = np.ones(())
        for index, (_, known) in enumerate(factors):
            of_factor = np.full(len(known), 1 / len(known))
            if index in taken:
                of_factor = np.zeros(len(known))
                of_factor[[0, taken[index]]] = -1.0, 1.0
            weights = np.multiply.outer(weights, of_factor)
        names = [level_name(factors[index][0], factors[index][1][level]) for index, level in taken.items()]
        references = [level_name(factors[index][0], factors[index][1][0]) for index in chosen]
        formulas.append(_Formula(len(chosen), " x ".join(names), " x ".join(references), weights))
    return formulas
