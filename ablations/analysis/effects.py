"""Main effects and interactions of fully crossed factors, with their verdicts.

A main effect is the difference between a level and its factor's first level, averaged over all combinations of the
other factors. An interaction is the change of such a difference with the level of another factor: the difference of
the differences, averaged over the remaining factors. Each is computed within every replicate, whose cells share
backbone weights and batches, and estimated from these values (Montgomery, Design and Analysis of Experiments, chapters
5 and 6, without the halving usual in 2-level designs: effects are in the units of the metric).

All effects of a study are one family, tested like its contrasts (`ablations.stats.significance`), below 6 replicates
each with its own variance. Main effects have the most power of all comparisons, because they average over many cells.
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

_MOST = 24  # effects; longer tables are unreadable


@dataclass(frozen=True)
class Effect:
    """An effect of `order` factors, 1 for a main effect.

    `name` has its levels, `reference` the levels that they are compared with. p-values are corrected for all effects of
    the study; they are None with a single replicate.
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
    """An effect as a weighted sum over the cells of a replicate; `weights` has one axis per factor."""

    order: int
    name: str
    reference: str
    weights: NDArray[np.float64]


def factorial_effects(cells: pd.DataFrame, design: Design, interims: InterimAnalyses | None = None) -> list[Effect]:
    """Judges main effects on the study's metric, then interactions of two, three and more factors up to a limit.

    Empty if fewer than two factors vary, or no replicate has all combinations. Named variants are not part of the
    crossing and are ignored.

    Args:
        cells, interims: as in `ablations.stats.judge`.
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
        complete = values[is_whole & (layout.replicates < size)] if size is not None else values[is_whole]
        # Not pooled: replicates may respond differently to a level, which only an effect's own differences show.
        return Responses(complete, complete @ weights.T, (weights**2).sum(axis=1), is_pooled=False)

    inferences = infer(responses_at, len(formulas), design.margin, interims)
    lost = sum(layout.lost(name) for name in names)
    return [_effect(formula, inference, design, lost) for formula, inference in zip(formulas, inferences, strict=True)]


def _is_crossed(design: Design) -> bool:
    """Returns whether a study trains every combination of the levels of two or more factors."""
    several = [path for path, levels in design.factors.items() if len(levels) > 1]
    return not design.is_search and len(several) == len(design.factors) > 1


def _combinations(layout: Layout, design: Design) -> tuple[list[str], Array, NDArray[np.bool_]]:
    """Returns the crossed variants, their values by replicate, and a mask of the replicates that all of them have."""
    names = [variant.name for variant in design.variants if variant.levels]  # in the order of itertools.product
    values = np.column_stack([layout.column(name) for name in names])
    return names, values, np.asarray(~np.isnan(values).any(axis=1), dtype=np.bool_)


def interactions_frame(cells: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Returns the mean of each pair of levels of two crossed factors, averaged over all other factors.

    The departure of a pair of levels is the difference between its mean and the sum of the overall mean and both main
    effects: 0 if the factors do not interact. It is computed within every replicate that all combinations have.

    Returns:
        A row per pair of levels: `factor`, `level`, `other`, `other_level` (as in names of variants), `n` (replicates),
        `mean` (of the study's metric), `departure` with the bounds `low` and `high` of its 95 % CI (Student's t, not
        corrected for multiplicity; empty if n is 1). Empty if the factors are not crossed.
    """
    columns = ["factor", "level", "other", "other_level", "n", "mean", "departure", "low", "high"]
    rows: list[tuple[object, ...]] = []
    if _is_crossed(design) and not cells.empty:
        factors = list(design.factors.items())
        _, values, is_whole = _combinations(Layout.of(cells, design.metric), design)
        crossed = values[is_whole].reshape(-1, *(len(levels) for _, levels in factors))
        pairs = itertools.combinations(range(len(factors)), 2) if len(crossed) else ()
        for first, second in pairs:
            averaged = tuple(1 + axis for axis in range(len(factors)) if axis not in (first, second))
            rows += _pair_rows(crossed.mean(axis=averaged), factors[first], factors[second])
    return pd.DataFrame(rows, columns=columns)


def _pair_rows(
    means: Array, factor: tuple[str, list[object]], other: tuple[str, list[object]]
) -> Iterator[tuple[object, ...]]:
    """Yields the rows of two factors; `means` is (replicates, levels, levels of the other factor)."""
    departures = means - means.mean(1, keepdims=True) - means.mean(2, keepdims=True) + means.mean((1, 2), keepdims=True)
    (path, levels), (other_path, other_levels) = factor, other
    for row, column in itertools.product(range(len(levels)), range(len(other_levels))):
        departure = estimate(departures[:, row, column])
        names = path, level_name(path, levels[row]), other_path, level_name(other_path, other_levels[column])
        mean = float(means[:, row, column].mean())
        yield (*names, departure.n, mean, departure.mean, departure.low, departure.high)


def _effect(formula: _Formula, inference: Inference, design: Design, lost: int) -> Effect:
    assert inference.estimate is not None
    verdict = decide(inference, sign_of(design.metric), lost)
    effect = Effect(formula.order, formula.name, formula.reference, inference.estimate, verdict)
    if verdict is Verdict.NONE:
        return effect
    p, p_equivalence = inference.p, inference.p_equivalence
    return replace(effect, p=p, p_equivalence=p_equivalence, assumes_normal=inference.assumes_normal)


def effects_frame(effects: Sequence[Effect]) -> pd.DataFrame:
    """Returns a row per effect.

    Columns: `order`, `name`, `reference`, `n`, `mean`, `low`, `high` (empty if n is 1), `p`, `p_equivalence`
    (corrected), `verdict`, and `assumes_normal` (whether the tests do).
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
    """Returns the effects of crossed factors: main effects, then interactions up to `_MOST` effects in total."""
    contrasts = [len(levels) - 1 for levels in factors.values()]  # of all levels but the first with the first
    formulas: list[_Formula] = []
    for order in range(1, len(factors) + 1):
        combinations = list(itertools.combinations(range(len(factors)), order))
        more = sum(math.prod(contrasts[index] for index in chosen) for chosen in combinations)
        if order > 1 and len(formulas) + more > _MOST:
            break
        formulas += [formula for chosen in combinations for formula in _formulas_of(list(factors.items()), chosen)]
    return formulas


def _formulas_of(factors: list[tuple[str, list[object]]], chosen: tuple[int, ...]) -> list[_Formula]:
    """Returns the effects of the chosen factors: one for every combination of their levels but the first."""
    formulas = []
    for combination in itertools.product(*(range(1, len(factors[index][1])) for index in chosen)):
        level_of = dict(zip(chosen, combination, strict=True))
        weights = np.ones(())
        for index, (_, levels) in enumerate(factors):
            of_factor = np.full(len(levels), 1 / len(levels))
            if index in level_of:
                of_factor = np.zeros(len(levels))
                of_factor[[0, level_of[index]]] = -1.0, 1.0
            weights = np.multiply.outer(weights, of_factor)
        names = [level_name(factors[index][0], factors[index][1][level]) for index, level in level_of.items()]
        references = [level_name(factors[index][0], factors[index][1][0]) for index in chosen]
        formulas.append(_Formula(len(chosen), " x ".join(names), " x ".join(references), weights))
    return formulas
