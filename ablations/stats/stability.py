"""Unstable variants: some of their runs fall far below the others, or they spread far more than other variants.

Tests of means assume symmetric differences. If one run in ten loses 4 points, they are wrong in 8 to 14 % of studies,
and a mean over collapsed and other runs describes neither. So instability is a separate verdict. Two statistics of each
variant are compared with their distributions for normal values of equal spread:

    the shortfall of the worst replicate below the variant's median, in robust standard deviations (the larger of the
    variant's and the typical one, by the median absolute deviation), which detects single failures
    the standard deviation relative to the median over variants, which detects variants with bimodal results

A variant is unstable if one of them exceeds the 97.5 % quantile of the maximum over all variants, so that a study of
equally stable variants has an unstable one in 5 % of cases. In addition the excess must be above the margin, and the
standard deviation 1.75 times that of the others, because many replicates detect even small differences in spread. The
rule was chosen by simulation (`tests/simulations`). It detects long tails: for values of Student's t with 3 degrees of
freedom, or exponential values with the tail below, most studies have an unstable variant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ablations.stats.significance import ALPHA

Array = NDArray[np.float64]

LEAST = 3  # replicates that a variant needs
_STUDIES = 20_000  # simulated for the quantiles; fewer if a study has many values
_MOST = 4_000_000  # values drawn for the quantiles
_STRAY = 3.0  # robust standard deviations
_FAR = 1.75  # times the standard deviation of the others
_NORMAL = 1.4826  # a normal standard deviation over the median absolute deviation


@dataclass(frozen=True)
class Stability:
    """The scatter of a variant's runs, in the metric's unit.

    Attributes:
        variant: its name.
        n: the number of replicates.
        shortfall: of the worst replicate, below the median.
        failures: number of replicates farther below the median than runs of stable variants.
        strays: number of replicates below the median by more than three robust standard deviations and the margin.
        spread: the standard deviation.
        typical: the median standard deviation of the variants compared with each other.
        is_unstable: whether it has failures, or spreads more than stable variants.
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
    """Returns the stability, by name, of variants that are compared with each other and have three replicates.

    Args:
        names, values: of the variants; the replicates of each, where greater is better.
        margin: smallest difference of interest.
        step: resolution of coarse values, the lower bound of a robust standard deviation.
    """
    known = [(name, results) for name, results in zip(names, values, strict=True) if len(results) >= LEAST]
    if len(known) < 2:
        return {}
    shortfalls, ratios, scales, spreads = _statistics([results[None] for _, results in known], step)
    of_shortfalls, of_ratios = _quantiles(tuple(sorted(len(results) for _, results in known)))
    typical = float(np.median(spreads))
    found = {}
    for place, (name, results) in enumerate(known):
        below, spread = float(np.median(results)) - results, float(spreads[0, place])
        scale, fails = scales[0, place], shortfalls[0, place] > of_shortfalls
        failures = int(np.count_nonzero(below > max(margin, of_shortfalls * scale))) if fails else 0
        strays = int(np.count_nonzero(below > max(margin, _STRAY * scale)))
        others = float(np.median(np.delete(spreads, place)))
        scatters = bool(ratios[0, place] > of_ratios and spread > max(margin, _FAR * others))
        found[name] = Stability(
            name, len(results), float(below.max()), failures, strays, spread, typical, failures > 0 or scatters
        )
    return found


def _statistics(values: Sequence[Array], step: float) -> tuple[Array, Array, Array, Array]:
    """Returns by study and variant: scaled shortfalls, relative spreads, robust scales, and spreads.

    Args:
        values: for each variant its replicates by study, (s, n).
        step: as in `stabilities`.
    """
    below = [np.median(results, axis=1, keepdims=True) - results for results in values]
    # Coarse values were rounded, so their median absolute deviation may be half a step too small.
    deviations = np.column_stack([np.median(np.abs(results), axis=1) + step / 2 for results in below]) * _NORMAL
    scales = np.maximum(np.maximum(deviations, np.median(deviations, axis=1, keepdims=True)), max(step, 1e-12))
    shortfalls = np.column_stack([results.max(axis=1) for results in below]) / scales
    spreads = np.maximum(
        np.column_stack([results.std(axis=1, ddof=1) for results in values]), max(step / 12**0.5, 1e-12)
    )
    return shortfalls, spreads / np.median(spreads, axis=1, keepdims=True), scales, spreads


@lru_cache(maxsize=32)
def _quantiles(counts: tuple[int, ...]) -> tuple[float, float]:
    """Returns the 97.5 % quantiles of the maximum shortfall and the maximum ratio for normal values."""
    studies = max(400, min(_STUDIES, _MOST // sum(counts)))
    draws = np.random.default_rng(len(counts))
    shortfalls, ratios, _, _ = _statistics([draws.standard_normal((studies, n)) for n in counts], 0.0)
    level = 1 - ALPHA / 2
    return float(np.quantile(shortfalls.max(axis=1), level)), float(np.quantile(ratios.max(axis=1), level))
