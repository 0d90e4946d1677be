"""Tests of paired differences for a family of contrasts: difference and equivalence.

From 6 replicates on: the studentised maximum under joint sign flips, stepped down (Westfall and Young 1993; Romano and
Wolf 2005). If no variant of the family has an effect and differences are symmetric, the differences of a replicate in
all contrasts are as likely as their negatives, so the maximum |t| under all 2^n choices of signs of replicates is its
null distribution. Joint flips preserve the correlation of contrasts that share a baseline, and the smallest attainable
p-value, 2^(1 - n), does not depend on the number of contrasts.

Below 6 replicates sign flips cannot reach 5 %. There a moderated t-test is used (Smyth 2004), which assumes normal
differences: the heterogeneity of the variants' variances is estimated, each contrast's variance is shrunk accordingly
towards the residual variance of the layout, and p-values are corrected by Holm's method. The residual variance is that
of the two-way layout of replicates and variants, whose degrees of freedom are exact even if contrasts share a baseline.

Equivalence is tested by two one-sided t-tests against a margin (TOST, Schuirmann 1987).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import polygamma, stdtr

from ablations.stats.estimates import CONFIDENCE

Array = NDArray[np.float64]

ALPHA = 1 - CONFIDENCE  # family-wise error rate of each kind of claim
FLIPPED = 6  # replicates from which signs are flipped; 2^(1 - 5) is more than 5 %
EXACT = 14  # replicates up to which every choice of signs is evaluated
_DRAWN = 19_999  # random choices of signs for more replicates
_BLOCK = 2**18  # signs drawn at a time
_KEPT = 2**20  # signs cached for the next family
_ZERO = 1e-9  # differences in percent up to this are rounding errors
_SAME = 1e-6  # lengths up to this are 0 within rounding
_FINEST = 1e-3  # smallest step relative to the range of values
_STEPS = 30  # of Newton's method for the inverse of the trigamma function, which needs about 8


@dataclass(frozen=True)
class Responses:
    """The data of a family of tests.

    Attributes:
        values: a metric by replicate and variant, (n, g); NaN without a result.
        differences: by replicate and contrast, (n, k), each a weighted sum of columns of `values` with weights that add
            up to 0; NaN if a variant of the contrast has no result.
        squared_weights: the sums of squared weights, (k,): 2 for a difference of two variants.
        is_pooled: whether the variance of a contrast may be moderated towards that of single runs.
        layouts: the layout of each contrast (k,) and of each variant (g,); None if there is only one. Variances are
            moderated within a layout, because those of different protocols are unrelated.
    """

    values: Array
    differences: Array
    squared_weights: Array
    is_pooled: bool = True
    layouts: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    @classmethod
    def joined(cls, parts: Sequence[Responses]) -> Responses:
        """Returns the contrasts of several layouts with the same replicates as one family."""
        if len(parts) == 1:
            return parts[0]
        contrasts = [np.full(len(part.squared_weights), number) for number, part in enumerate(parts)]
        variants = [np.full(part.values.shape[1], number) for number, part in enumerate(parts)]
        return cls(
            np.hstack([part.values for part in parts]),
            np.hstack([part.differences for part in parts]),
            np.concatenate([part.squared_weights for part in parts]),
            all(part.is_pooled for part in parts),
            (np.concatenate(contrasts), np.concatenate(variants)),
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of replicates of each contrast, (k,)."""
        return np.asarray(np.count_nonzero(~np.isnan(self.differences), axis=0), dtype=np.int64)

    def of(self, contrasts: NDArray[np.bool_]) -> Responses:
        """Returns the selected contrasts with all variants."""
        layouts = None if self.layouts is None else (self.layouts[0][contrasts], self.layouts[1])
        differences, weights = self.differences[:, contrasts], self.squared_weights[contrasts]
        return Responses(self.values, differences, weights, self.is_pooled, layouts)

    def by_layout(self) -> Iterator[tuple[NDArray[np.bool_], Responses]]:
        """Yields for each layout the mask of its contrasts, (k,), and its responses."""
        if self.layouts is None:
            yield np.ones(len(self.squared_weights), dtype=np.bool_), self
            return
        of_contrasts, of_variants = self.layouts
        for number in np.unique(of_contrasts):
            own = np.asarray(of_contrasts == number, dtype=np.bool_)
            values = self.values[:, of_variants == number]
            yield own, Responses(values, self.differences[:, own], self.squared_weights[own], self.is_pooled)


@dataclass(frozen=True)
class FamilyTests:
    """Test results, one entry per contrast.

    Attributes:
        p: two-sided p-value of no difference, corrected for the family; 1 below two replicates.
        error, freedom: standard error of the mean difference and its degrees of freedom; NaN below two replicates.
        least: the smallest attainable p-value, corrected likewise.
        assumes_normal: whether the test assumes normal differences.
    """

    p: Array
    error: Array
    freedom: Array
    least: Array
    assumes_normal: NDArray[np.bool_]


def family_tests(responses: Responses) -> FamilyTests:
    """Tests every contrast of a family.

    Contrasts with fewer than 6 replicates and with more are two families, each with a proportional share of the error
    rate.
    """
    n, k = responses.counts, len(responses.squared_weights)
    p, least, error, freedom = np.ones(k), np.ones(k), np.full(k, np.nan), np.full(k, np.nan)
    few, many = (n >= 2) & (n < FLIPPED), n >= FLIPPED
    if few.any():
        part = responses.of(few)
        error[few], freedom[few] = moderated_errors(part)
        means, shares = np.nanmean(part.differences, axis=0), np.count_nonzero(n >= 2) / np.count_nonzero(few)
        p[few] = np.minimum(1.0, shares * holm(t_ps(means, error[few], freedom[few])))
        least[few] = 0.0
    if many.any():
        part = responses.of(many)
        error[many] = np.sqrt(_variances(part) / n[many])
        freedom[many] = n[many] - 1
        shares = np.count_nonzero(n >= 2) / np.count_nonzero(many)
        p[many] = np.minimum(1.0, shares * max_t_ps(part.differences))
        nonzero = np.count_nonzero(np.abs(np.nan_to_num(part.differences)) > _ZERO, axis=0)
        least[many] = np.minimum(1.0, [shares * least_p(int(number)) for number in nonzero])
    return FamilyTests(p, error, freedom, least, few)


def max_t_ps(differences: Array) -> Array:
    """Returns stepdown p-values of the studentised maximum under joint sign flips, one per contrast.

    Exact up to 14 replicates, otherwise from 19,999 random choices of signs and the observed one, which makes p valid
    and never 0 (Phipson and Smyth 2010). A contrast whose differences are all 0 has p = 1.

    Args:
        differences: by replicate and contrast, (n, k), with at least 2 replicates each; NaN if missing.
    """
    there = ~np.isnan(differences)
    values = np.where(there & (np.abs(differences) > _ZERO), differences, 0.0)
    counts, norms = there.sum(axis=0), np.sqrt((values**2).sum(axis=0))
    tested = np.flatnonzero(norms > 0)
    ps = np.ones(values.shape[1])
    if not len(tested):
        return ps
    values, counts = values[:, tested] / norms[tested], counts[tested]
    unequal = len(set(counts.tolist())) > 1

    def extremes(sums: Array) -> Array:
        # |sum| / norm increases with |t| if all contrasts have equally many replicates; otherwise compare p of t.
        shares = np.abs(sums) / np.sqrt(counts)
        if not unequal:
            return np.asarray(shares)
        with np.errstate(divide="ignore"):
            t = shares * np.sqrt((counts - 1) / np.maximum(1 - shares**2, 1e-300))
            return np.asarray(-2 * stdtr(counts - 1, -t))

    order = np.argsort(-extremes(values.sum(axis=0)), kind="stable")
    values, counts = values[:, order], counts[order]
    # Round sums, not p-values: if differences are nearly equal, the same sum can have very different p-values.
    bounds = extremes(np.maximum(np.abs(values.sum(axis=0)) - 1e-9, 0.0))
    as_far, drawn = np.zeros(len(order)), 0
    for some in _blocks_of_signs(len(values), len(order)):
        # For each contrast, the maximum over it and all less significant ones.
        highest = np.maximum.accumulate(extremes(some @ values)[:, ::-1], axis=1)[:, ::-1]
        as_far += np.count_nonzero(highest >= bounds, axis=0)
        drawn += len(some)
    added = 0 if len(values) <= EXACT else 1
    stepped = np.maximum.accumulate((as_far + added) / (drawn + added))
    ps[tested[order]] = stepped
    return ps


def moderated_errors(responses: Responses) -> tuple[Array, Array]:
    """Returns the standard errors of mean differences by moderated variances, and their degrees of freedom, (k,) each.

    Layouts are moderated separately. Incomplete replicates count for the contrasts that have them, but not for the
    residual variance.
    """
    errors, freedom = np.empty(len(responses.squared_weights)), np.empty(len(responses.squared_weights))
    for own, part in responses.by_layout():
        errors[own], freedom[own] = _errors_of_layout(part)
    return errors, freedom


def _errors_of_layout(responses: Responses) -> tuple[Array, Array]:
    own, n = _variances(responses), responses.counts
    freedom = np.asarray(n - 1, dtype=np.float64)
    values = responses.values[:, np.count_nonzero(~np.isnan(responses.values), axis=0) >= 2]
    values = values[~np.isnan(values).any(axis=1)]
    # Two variants have one contrast, so no other variance to moderate towards.
    if len(values) < 2 or values.shape[1] < 3 or not responses.is_pooled:
        return np.sqrt(own / n), freedom
    floor = resolution(responses.values) ** 2 / 12
    variances, freedoms = moderated(values[None], own[None], freedom, responses.squared_weights, floor)
    return np.sqrt(variances[0] / n), freedoms[0]


def moderated(values: Array, own: Array, own_freedom: Array, weights: Array, floor: float = 0.0) -> tuple[Array, Array]:
    """Returns moderated variances of differences and their degrees of freedom, (s, k) each, for `s` studies.

    The variants' variances have a scaled inverse chi-squared prior, whose degrees of freedom are estimated by the
    method of moments of Smyth (2004, section 6.2); they are infinite if the variances differ no more than by chance.

    Args:
        values: by study, replicate and variant, (s, n, g), from 2 replicates of 3 variants.
        own, own_freedom: of each contrast, the variance of its differences (s, k) and its degrees of freedom (k,).
        weights: squared weights as in `Responses`, (k,).
        floor: lower bound of a variant's variance.
    """
    n, g = values.shape[1:]
    rows, columns = values.mean(axis=2, keepdims=True), values.mean(axis=1, keepdims=True)
    residuals = values - rows - columns + values.mean(axis=(1, 2), keepdims=True)
    pooled_freedom = (n - 1) * (g - 1)
    pooled = np.maximum((residuals**2).sum(axis=(1, 2)) / pooled_freedom, floor)
    logs = np.log(np.maximum(values.var(axis=1, ddof=1), max(floor, _ZERO**2)))
    excess = logs.var(axis=1, ddof=1) - float(polygamma(1, (n - 1) / 2))
    prior = np.where(excess > 0, 2 * _inverse_trigamma(np.maximum(excess, 1e-6)), np.inf)
    drawn = np.where(np.isinf(prior), 1.0, prior)[:, None]
    share = np.where(np.isinf(prior)[:, None], 1.0, drawn / (drawn + own_freedom))
    variances = share * pooled[:, None] * weights + (1 - share) * own
    freedom = np.maximum(np.minimum(prior[:, None] + own_freedom, pooled_freedom), own_freedom)
    return np.maximum(variances, weights * floor), freedom


def _inverse_trigamma(values: Array) -> Array:
    """Solves trigamma(x) = value, for values above 0, by Newton's method on the reciprocal (Smyth 2004, appendix)."""
    x = 0.5 + 1 / values
    for _ in range(_STEPS):
        trigamma = polygamma(1, x)
        x = x + trigamma * (1 - trigamma / values) / polygamma(2, x)
    return np.asarray(x, dtype=np.float64)


def _variances(responses: Responses) -> Array:
    """Returns the variance of each contrast's differences, (k,), at least that of rounding if values are coarse."""
    own = np.nanvar(responses.differences, axis=0, ddof=1)
    for mask, part in responses.by_layout():
        floor = resolution(part.values) ** 2 / 12
        own[mask] = np.maximum(own[mask], part.squared_weights * floor)
    return np.asarray(own)


def resolution(values: Array) -> float:
    """Returns the step of values on a grid, such as accuracies of few images; 0 if there is none.

    Steps below a thousandth of the range are ignored, so practically continuous values have none.
    """
    known = np.unique(values[~np.isnan(values)])
    gaps = np.diff(known)
    gaps = np.unique(np.round(gaps[gaps > _ZERO], 9))
    step = float(gaps[0]) if len(gaps) else 0.0
    for gap in gaps[1:].tolist():
        step = _common_step(gap, step)
        if step < _FINEST * float(known[-1] - known[0]):
            return 0.0
    return step


def _common_step(first: float, second: float) -> float:
    """Returns the greatest common divisor of two lengths, by Euclid's algorithm on rounded quotients."""
    while second > _SAME:
        first, second = second, abs(first - second * round(first / second))
    return first


def t_ps(means: Array, errors: Array, freedom: Array) -> Array:
    """Returns two-sided p-values of means by Student's t; 1 without spread."""
    known = errors > _ZERO
    return np.asarray(np.where(known, 2 * stdtr(freedom, -np.abs(means) / np.where(known, errors, 1.0)), 1.0))


def equivalence_ps(means: Array, errors: Array, freedom: Array, margin: float | Array) -> Array:
    """Returns p-values of the equivalence of mean differences within `margin`; 1 without spread.

    `margin` is common to all, or has one value per contrast, (k,).
    """
    known = errors > _ZERO  # False for NaN, as of a single replicate
    distances = np.abs(means) - margin  # to the nearer bound, which has the larger p-value
    return np.asarray(np.where(known, stdtr(freedom, distances / np.where(known, errors, 1.0)), 1.0))


def holm(ps: Sequence[float] | Array) -> Array:
    """Returns p-values corrected by Holm's method (1979); the last axis is the family."""
    values = np.asarray(ps, dtype=np.float64)
    order = np.argsort(values, axis=-1, kind="stable")
    sorted_ps = np.take_along_axis(values, order, axis=-1) * np.arange(values.shape[-1], 0, -1)
    corrected = np.empty_like(values)
    stepped = np.minimum(np.maximum.accumulate(sorted_ps, axis=-1), 1.0)
    np.put_along_axis(corrected, order, stepped, axis=-1)
    return corrected


def least_p(count: int) -> float:
    """Returns the smallest attainable p-value of sign flips with `count` nonzero differences."""
    return 1.0 if count == 0 else max(2.0 ** (1 - count), 1 / (_DRAWN + 1) if count > EXACT else 0.0)


@lru_cache(maxsize=16)
def signs(n: int) -> Array:
    """Returns choices of signs for `n` replicates, one per row: all of them up to 14 replicates, otherwise a sample.

    The first sign is always +, because flipping all signs does not change the magnitude of a mean.
    """
    if n > EXACT:
        return np.vstack(list(_sampled_signs(n, _BLOCK // n)))
    numbers = np.arange(2 ** (n - 1), dtype=np.int64)[:, None] >> np.arange(n - 2, -1, -1)
    others = 1.0 - 2.0 * (numbers & 1)
    return np.hstack([np.ones((len(others), 1)), others])


def _blocks_of_signs(n: int, contrasts: int) -> Iterable[Array]:
    """Yields the rows of `signs` in blocks, so that they and their sums fit in memory."""
    if n <= EXACT or n * _DRAWN <= _KEPT:
        rows = max(1, _KEPT // contrasts)
        choices = signs(n)
        return (choices[start : start + rows] for start in range(0, len(choices), rows))
    return _sampled_signs(n, max(1, _BLOCK // max(n, contrasts)))


def _sampled_signs(n: int, rows: int) -> Iterator[Array]:
    draws = np.random.default_rng(n)
    for start in range(0, _DRAWN, rows):
        others = draws.choice([-1.0, 1.0], size=(min(rows, _DRAWN - start), n - 1))
        yield np.hstack([np.ones((len(others), 1)), others])
