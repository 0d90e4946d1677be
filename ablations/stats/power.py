"""Power: the difference that a study can detect, the margin it can confirm, and the replicates that either needs.

Power is that of the verdict for one contrast of a study, where the others have no effect and share its baseline, for
normal differences of known standard deviation. Below 6 replicates the moderated t-test is applied to simulated studies,
up to 12 the sign flips; beyond, sign flips are as powerful as Student's t-test at the level of the maximum |t| of so
many correlated contrasts, whose power is a formula (noncentral t).

Five replicates have more power than six, because the moderated t-test pools the variances of all variants and assumes
normal differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np
import pandas as pd
from scipy.special import chdtri, nctdtr, ndtr, stdtr, stdtrit

from ablations.stats.estimates import CONFIDENCE
from ablations.stats.layout import Layout
from ablations.stats.significance import ALPHA, FLIPPED, Array, holm, least_p, moderated, signs, t_ps

POWER = 0.8
_SIMULATED = 12  # replicates up to which sign flips are simulated
_MANY = 32  # contrasts up to which sign flips are simulated
_FAMILY = 200  # contrasts up to which the maximum |t| is simulated
_LIKE_NORMAL = 60  # replicates from which on that level is constant
_STUDIES = 4000
_FLIPPED_STUDIES = 1500
_DRAWN = 4_000_000  # values of simulated studies, at most
_MOST = 100_000  # replicates
_GREATEST = 64.0  # differences and margins, in standard deviations
_POINTS = 200  # quantiles of a standard deviation, which are averaged over


@dataclass(frozen=True)
class Spread:
    """The standard deviation of a contrast's `n` paired differences in the metric's unit, with its 95 % CI."""

    value: float
    low: float
    high: float
    n: int


def power(effect: float, sd: float, n: int, contrasts: int = 1, level: float = ALPHA) -> float:
    """Returns the power to detect the difference of a contrast with n replicates.

    Args:
        effect, sd: true difference and standard deviation (above 0) of paired differences, in the same unit.
        contrasts: number of contrasts of the study.
        level: of the last interim analysis (`InterimAnalyses.levels`); 5 % without interim analyses.
    """
    return _power(abs(effect) / sd, n, contrasts, level)


def detectable(sd: float, n: int, contrasts: int = 1, level: float = ALPHA) -> float | None:
    """Returns the minimum detectable effect at 80 % power, in the unit of `sd`; None if n cannot decide."""
    found = _standard(n, contrasts, level)
    return None if found is None else sd * found


def replicates_for(effect: float, sd: float, contrasts: int = 1) -> int | None:
    """Returns the number of replicates that detect a difference with 80 % power; None if more than 100,000.

    Raises:
        ValueError: if the difference is not above 0.
    """
    if not effect > 0:
        raise ValueError(f"effect={effect}: must be more than 0")
    if sd <= 0:
        return 2
    return _fewest(partial(_finds, effect / sd, contrasts))


def reachable_margin(sd: float, n: int, contrasts: int = 1) -> float | None:
    """Returns the smallest margin within which a contrast without effect is found equivalent with 80 % power.

    In the unit of `sd`; None below two replicates. This is the worst case over the other contrasts: the more of them
    are equivalent, the higher the power (Holm's method).
    """
    if n < 2:
        return None
    low, high = 0.0, _GREATEST
    while high - low > 0.002 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _confirms(middle, contrasts, n) else (middle, high)
    return sd * high


def replicates_for_margin(margin: float, sd: float, contrasts: int = 1) -> int | None:
    """Returns the number of replicates with which a margin is reachable; None if more than 100,000.

    Raises:
        ValueError: if the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin={margin}: must be more than 0")
    return 2 if sd <= 0 else _fewest(partial(_confirms, margin / sd, contrasts))


def spreads(cells: pd.DataFrame, baselines: Mapping[str, str], metric: str = "top1") -> dict[str, Spread]:
    """Returns by variant the standard deviation of its contrast's differences, if it has two replicates or more.

    They are not pooled, because one unstable variant would raise the number of replicates needed by all others.
    """
    layout, found = Layout.of(cells, metric), {}
    tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)  # above which the quantiles lie
    for variant, baseline in baselines.items():
        differences = layout.column(variant) - layout.column(baseline)
        finite = differences[~np.isnan(differences)]
        if variant != baseline and len(finite) > 1:
            freedom, variance = len(finite) - 1, float(finite.var(ddof=1))
            low, high = (math.sqrt(freedom * variance / float(chdtri(freedom, tail))) for tail in tails)
            found[variant] = Spread(math.sqrt(variance), low, high, len(finite))
    return found


def baseline_shares(cells: pd.DataFrame, baselines: Mapping[str, str], metric: str = "top1") -> dict[str, float]:
    """Returns by baseline its share of a typical contrast's variance, if it has three replicates.

    With m baseline runs per run of a variant, the standard deviation of the contrast is multiplied by
    sqrt(1 - share + share / m), from 6 replicates of the variant on (`stats.layout`).
    """
    layout, shares = Layout.of(cells, metric), {}
    for baseline in dict.fromkeys(baselines.values()):
        partners = [name for name, other in baselines.items() if other == baseline and name != baseline]
        variances = [float(own.var(ddof=1)) for name in partners if len(own := layout.results(name)) > 2]
        own = layout.results(baseline)
        if variances and len(own) > 2 and (total := float(own.var(ddof=1)) + float(np.median(variances))) > 0:
            shares[baseline] = float(own.var(ddof=1)) / total
    return shares


def _fewest(suffices: Callable[[int], bool]) -> int | None:
    """Returns the smallest sufficient number of replicates; from 6 on, any larger number is sufficient."""
    few = next((n for n in range(2, FLIPPED) if suffices(n)), None)
    if few is not None:
        return few
    low, high = FLIPPED - 1, FLIPPED
    while not suffices(high):
        if high == _MOST:
            return None
        low, high = high, min(2 * high, _MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _finds(effect: float, contrasts: int, n: int) -> bool:
    return _power(effect, n, contrasts, ALPHA) >= POWER


@cache
def _standard(n: int, contrasts: int, level: float) -> float | None:
    """Returns the difference in standard deviations that is detected with 80 % power; None if there is none."""
    if _power(_GREATEST, n, contrasts, level) < POWER:
        return None
    low, high = 0.0, _GREATEST
    while high - low > 0.005 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, n, contrasts, level) >= POWER else (middle, high)
    return high


def _power(effect: float, n: int, contrasts: int, level: float) -> float:
    """Returns the power for a difference in standard deviations."""
    if n < FLIPPED:
        return _moderated_power(effect, n, contrasts) if n > 1 and level >= ALPHA else 0.0
    if least_p(n) > level * (1 + 1e-12):
        return 0.0
    if n <= _SIMULATED and contrasts <= _MANY:
        return _flipped_power(effect, n, contrasts, level)
    return _formula(effect, n, n - 1, _level_of_each(min(n, _LIKE_NORMAL), contrasts, level))


def _formula(effect: float, n: int, freedom: int, level: float) -> float:
    """Returns the power of a single two-sided t-test."""
    shift, critical = effect * math.sqrt(n), float(stdtrit(freedom, 1 - level / 2))
    below, above = (float(nctdtr(freedom, shift, bound)) for bound in (-critical, critical))
    if math.isnan(above):  # far from 0 the function returns NaN; the normal approximation is accurate there
        above = float(ndtr((critical - shift) / math.sqrt(1 + critical**2 / (2 * freedom))))
    return 1 - above + (0.0 if math.isnan(below) else below)


def _moderated_power(effect: float, n: int, contrasts: int) -> float:
    if contrasts > _MANY:  # the pooled variance is precise, so Holm's first step decides
        return _formula(effect, n, (n - 1) * contrasts, ALPHA / contrasts)
    means, errors, freedom = _moderated_studies(n, contrasts)
    moved = means + effect * (np.arange(contrasts) == 0)
    return float(np.mean(holm(t_ps(moved, errors, freedom))[:, 0] <= ALPHA))


@cache
def _moderated_studies(n: int, contrasts: int) -> tuple[Array, Array, Array]:
    """Returns mean differences of simulated studies, their standard errors and degrees of freedom, (s, k) each."""
    values = np.random.default_rng(n).standard_normal((_STUDIES, n, contrasts + 1)) / math.sqrt(2)
    differences = values[..., 1:] - values[..., :1]
    own, freedom = differences.var(axis=1, ddof=1), np.full((_STUDIES, contrasts), n - 1.0)
    if contrasts > 1:
        own, freedom = moderated(values, own, freedom[0], np.full(contrasts, 2.0))
    return differences.mean(axis=1), np.sqrt(own / n), freedom


def _flipped_power(effect: float, n: int, contrasts: int, level: float) -> float:
    sums, squares, others = _flipped_studies(n, contrasts)
    heights = signs(n).sum(axis=1)
    norms = np.sqrt(squares + 2 * effect * sums[:, :1] + n * effect**2)
    moved = np.abs(sums + effect * heights) / (norms * math.sqrt(n))
    as_far = np.count_nonzero(np.maximum(moved, others) >= moved[:, :1] * (1 - 1e-9), axis=1)
    return float(np.mean(as_far <= int(level * len(heights) * (1 + 1e-12))))


@lru_cache(maxsize=8)  # up to 49 MB each
def _flipped_studies(n: int, contrasts: int) -> tuple[Array, Array, Array]:
    """Returns the statistics of simulated studies from which the power for any effect follows.

    They are the sums of the first contrast's differences under each choice of signs, (s, c), their sum of squares,
    (s, 1), and the greatest statistic of the other contrasts, (s, c).
    """
    values = np.random.default_rng(n).standard_normal((_FLIPPED_STUDIES, n, contrasts + 1)) / math.sqrt(2)
    differences = values[..., 1:] - values[..., :1]
    norms = np.sqrt((differences**2).sum(axis=1, keepdims=True))
    others = np.zeros((_FLIPPED_STUDIES, len(signs(n))))
    for study in range(_FLIPPED_STUDIES if contrasts > 1 else 0):
        shares = np.abs(signs(n) @ (differences[study, :, 1:] / norms[study, :, 1:]))
        others[study] = shares.max(axis=1) / math.sqrt(n)
    return differences[..., 0] @ signs(n).T, norms[:, 0, :1] ** 2, others


@cache
def _level_of_each(n: int, contrasts: int, level: float) -> float:
    """Returns the level of each contrast at which the family-wise error rate is `level`.

    Contrasts share a baseline, so their correlation is 0.5.
    """
    if contrasts == 1:
        return level
    if contrasts > _FAMILY:  # Bonferroni's inequality from there on
        return _level_of_each(n, _FAMILY, level) * _FAMILY / contrasts
    studies = max(4000, min(10 * _STUDIES, _DRAWN // contrasts))
    draws = np.random.default_rng(contrasts)
    values = draws.standard_normal((studies, contrasts + 1)) / math.sqrt(2)
    errors = np.sqrt(draws.chisquare(n - 1, (studies, contrasts)) / (n - 1))
    least = 2 * stdtr(n - 1, -np.abs((values[:, 1:] - values[:, :1]) / errors).max(axis=1))
    return float(np.quantile(least, level))


def _confirms(margin: float, contrasts: int, n: int) -> bool:
    """Returns whether equivalence within a margin in standard deviations has 80 % power without a difference."""
    freedom = (n - 1) * (contrasts if n < FLIPPED else 1)
    critical = float(stdtrit(freedom, 1 - ALPHA / contrasts))
    tails = (np.arange(_POINTS) + 0.5) / _POINTS
    deviations = np.sqrt(chdtri(freedom, tails) / freedom)
    return float(np.mean(np.maximum(2 * ndtr(margin * math.sqrt(n) - critical * deviations) - 1, 0.0))) >= POWER
