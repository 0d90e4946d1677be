"""What a study will know: which difference it detects, and how many replicates a difference needs.

Power is that of the verdict itself for one of a study's contrasts, the others being nothing: the permutation test at
the level that Holm's method gives the clearest contrast, on normal differences of a known standard deviation. Up to 12
replicates the test is carried out on simulated differences; beyond that it is as powerful as Student's t-test, whose
power is a formula (noncentral t).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy.special import chdtri, nctdtr, ndtr, stdtrit

from ablations.stats.estimates import CONFIDENCE, all_pairs
from ablations.stats.significance import ALPHA, fewest_pairs, signs

POWER = 0.8
_SIMULATED = 12  # replicates
_STUDIES = 4000
_MOST = 100_000  # replicates
_GREATEST = 64.0  # differences, in standard deviations


@dataclass(frozen=True)
class Spread:
    """The standard deviation of paired differences in points, with a 95 % CI, from `n` replicates of contrasts."""

    value: float
    low: float
    high: float
    n: int
    contrasts: int


def power(effect: float, sd: float, n: int, contrasts: int = 1, share: float = 1.0) -> float:
    """Returns the probability that a contrast of n replicates is found to differ.

    Args:
        effect, sd: its true difference, and the standard deviation of paired differences above 0, both in points.
        contrasts: of the study.
        share: what the last look may spend of all errors (`Looks.share`), 1 where there are none.
    """
    return _power(abs(effect) / sd, n, ALPHA * share / contrasts)


def detectable(sd: float, n: int, contrasts: int = 1, share: float = 1.0) -> float | None:
    """Returns the smallest difference that is found with 80 % power, in points; None where n can decide nothing."""
    level = ALPHA * share / contrasts
    return None if n < fewest_pairs(1, level) else sd * _standard(n, level)


def replicates_for(effect: float, sd: float, contrasts: int = 1) -> int | None:
    """Returns how many replicates find a difference with 80 % power; None where 100,000 are too few.

    Raises:
        ValueError: if the difference is not above 0.
    """
    if not effect > 0:
        raise ValueError(f"effect={effect}: must be more than 0")
    level = ALPHA / contrasts
    low = fewest_pairs(1, level)
    if sd <= 0 or _power(effect / sd, low, level) >= POWER:
        return low
    high = low
    while _power(effect / sd, high, level) < POWER:
        if high == _MOST:
            return None
        low, high = high, min(2 * high, _MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(effect / sd, middle, level) >= POWER else (middle, high)
    return high


def spread(cells: pd.DataFrame, baselines: Mapping[str, str]) -> Spread | None:
    """Estimates the standard deviation of a study's paired differences; None where no contrast has two replicates.

    Contrasts are pooled. Those that share a baseline are not independent: with variances alike their differences
    correlate by a half and their variances by a quarter, and so much less do they say together.
    """
    repeated = [pairs for pairs in all_pairs(cells, baselines) if len(pairs.replicates) > 1]
    if not repeated:
        return None
    freedoms = [len(pairs.replicates) - 1 for pairs in repeated]
    pooled = float(np.average([pairs.differences.var(ddof=1) for pairs in repeated], weights=freedoms))
    freedom = sum(freedoms) / (1 + (len(freedoms) - 1) / 4)
    tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)  # above which the quantiles lie
    low, high = (math.sqrt(freedom * pooled / float(chdtri(freedom, tail))) for tail in tails)
    return Spread(math.sqrt(pooled), low, high, max(freedoms) + 1, len(freedoms))


def _power(effect: float, n: int, level: float) -> float:
    """Returns the power at a level for a difference in standard deviations."""
    if n < fewest_pairs(1, level):
        return 0.0
    if n > _SIMULATED:
        freedom, shift = n - 1, effect * math.sqrt(n)
        critical = float(stdtrit(freedom, 1 - level / 2))
        below, above = (float(nctdtr(freedom, shift, bound)) for bound in (-critical, critical))
        if math.isnan(above):  # far from 0 the function gives up; the normal approximation is good there
            above = float(ndtr((critical - shift) / math.sqrt(1 + critical**2 / (2 * freedom))))
        return 1 - above + (0.0 if math.isnan(below) else below)
    sums, heights = _simulated(n)
    allowed = int(level * len(heights) * (1 + 1e-12))  # choices of signs, the one that was seen included
    moved = np.abs(sums + effect * heights)
    return float(np.mean(np.count_nonzero(moved >= moved[:, :1] * (1 - 1e-9), axis=1) <= allowed))


@cache
def _simulated(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sums of simulated differences under each choice of signs, and by how much an effect moves each."""
    noise = np.random.default_rng(n).standard_normal((_STUDIES, n))
    return noise @ signs(n).T, signs(n).sum(axis=1)


@cache
def _standard(n: int, level: float) -> float:
    """Returns the difference in standard deviations that is found with 80 % power."""
    low, high = 0.0, 1.0
    while _power(high, n, level) < POWER and high < _GREATEST:
        low, high = high, 2 * high
    while high - low > 0.005 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, n, level) >= POWER else (middle, high)
    return high
