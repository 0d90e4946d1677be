"""Unstable variants: some of their runs fall far below the others, or they spread far more than other variants do.

Tests of means assume symmetric differences. One run in ten that loses 4 points is not symmetric, and makes them wrong
in 8 to 14 % of studies; and a mean of runs that collapse and runs that do not describes neither. So instability is a
finding of its own. Two statistics of each variant are compared with what normal values of equal spread give:

    the shortfall of the worst replicate below the variant's median, in robust standard deviations (the greater of the
    variant's own and the typical one, by the median absolute deviation), which finds single failures
    the standard deviation relative to the median of all variants', which finds variants that are two things at once

A variant is unstable where one of them is above the 97.5 % quantile of the maximum over all variants, so a study of
equally stable variants has an unstable one in 5 % of cases; and only where the margin says that it matters, and the
standard deviation is 1.75 times that of the others: many replicates tell spreads apart that differ by less. The rule
was chosen by simulation (`tests/simulations`). Long tails are what it finds: of values of Student's t with 3 degrees of
freedom, or exponential ones with the tail below, it calls some unstable in most studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ablations.stats.significance import ALPHA

Array = NDArray[np.float64]

LEAST = 3  # replicates that something can be said of
_STUDIES = 20_000  # that the quantiles are taken from, fewer of many values
_MOST = 4_000_000  # values that are drawn for them
_STRAY = 3.0  # robust standard deviations
_FAR = 1.75  # times the standard deviation of the others
_NORMAL = 1.4826  # a normal standard deviation over the median absolute deviation


@dataclass(frozen=True)
class Stability:
    """How the runs of a variant scatter, in the metric's unit.

    Attributes:
        variant: its name.
        n: its replicates.
        shortfall: of the worst of them, below the median.
        failures: those that are as far below it as runs of stable variants are not; 0 of a variant without any.
        strays: those that are more than three robust standard deviations and more than the margin below it.
        spread: the standard deviation.
        typical: the median standard deviation of the variants that it is compared with.
        is_unstable: whether it has failures, or spreads more than stable variants do.
    """

    variant: str
    n: int
    shortfall: float
    failures: int
    strays: int
    spread: float
    typical: float
    is_unstable: bool


def stabilities(
    names: Sequence[str], values: Sequence[Array], margin: float, step: float = 0.0
) -> dict[str, Stability]:
    """Returns by name how stable variants are that are compared with each other; of those with three replicates.

    Args:
        names, values: of the variants; the replicates of each, greater ones being better.
        margin: the least difference that matters.
        step: of coarse values, which no robust standard deviation is less than.
    """
    known = [(name, own) for name, own in zip(names, values, strict=True) if len(own) >= LEAST]
    if len(known) < 2:
        return {}
    shortfalls, ratios, scales, spreads = _statistics([own[None] for _, own in known], step)
    of_shortfalls, of_ratios = _quantiles(tuple(sorted(len(own) for _, own in known)))
    typical = float(np.median(spreads))
    found = {}
    for place, (name, own) in enumerate(known):
        below, spread = float(np.median(own)) - own, float(spreads[0, place])
        scale, fails = scales[0, place], shortfalls[0, place] > of_shortfalls
        failures = int(np.count_nonzero(below > max(margin, of_shortfalls * scale))) if fails else 0
        strays = int(np.count_nonzero(below > max(margin, _STRAY * scale)))
        others = float(np.median(np.delete(spreads, place)))
        scatters = bool(ratios[0, place] > of_ratios and spread > max(margin, _FAR * others))
        found[name] = Stability(
            name, len(own), float(below.max()), failures, strays, spread, typical, failures > 0 or scatters
        )
    return found


def _statistics(values: Sequence[Array], step: float) -> tuple[Array, Array, Array, Array]:
    """Returns by study and variant: shortfalls and spreads in units of others', robust scales, and spreads.

    Args:
        values: of each variant the replicates by study, (s, n).
        step: as of `stabilities`.
    """
    below = [np.median(own, axis=1, keepdims=True) - own for own in values]
    # What is coarse was rounded, and a median of it may be half a step too small.
    deviations = np.column_stack([np.median(np.abs(own), axis=1) + step / 2 for own in below]) * _NORMAL
    scales = np.maximum(np.maximum(deviations, np.median(deviations, axis=1, keepdims=True)), max(step, 1e-12))
    shortfalls = np.column_stack([own.max(axis=1) for own in below]) / scales
    spreads = np.maximum(np.column_stack([own.std(axis=1, ddof=1) for own in values]), max(step / 12**0.5, 1e-12))
    return shortfalls, spreads / np.median(spreads, axis=1, keepdims=True), scales, spreads


@lru_cache(maxsize=32)
def _quantiles(counts: tuple[int, ...]) -> tuple[float, float]:
    """Returns what the greatest shortfall and the greatest ratio of normal values stay below, each in 97.5 %."""
    studies = max(400, min(_STUDIES, _MOST // sum(counts)))
    draws = np.random.default_rng(len(counts))
    shortfalls, ratios, _, _ = _statistics([draws.standard_normal((studies, n)) for n in counts], 0.0)
    level = 1 - ALPHA / 2
    return float(np.quantile(shortfalls.max(axis=1), level)), float(np.quantile(ratios.max(axis=1), level))
