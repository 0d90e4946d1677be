"""Tests of paired differences: whether there is one, whether it is small, and how many were asked at a time.

Whether there is a difference is asked of the differences' signs: if a variant does nothing, each difference is as
likely to have the other sign, whatever its distribution, so the mean under all 2^n choices of signs is what chance
makes of it (Fisher 1935). Nothing is assumed about normality, and few replicates cannot decide: with n of them no p is
less than 2^(1 - n).

Whether it is small is asked by two one-sided t-tests against a margin (TOST, Schuirmann 1987).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from ablations.stats.estimates import CONFIDENCE

ALPHA = 1 - CONFIDENCE  # wrong claims of a kind, in a share of studies at most
EXACT = 14  # differences of which every choice of signs is looked at
_DRAWN = 19_999  # choices of signs of more differences
_BLOCK = 2**18  # signs that are drawn at a time
_KEPT = 2**20  # signs that are kept for the next contrast
_ZERO = 1e-9  # of accuracies in percent, which are shares of whole images


@lru_cache(maxsize=16)
def signs(n: int) -> NDArray[np.float64]:
    """Returns choices of signs for `n` differences, a row each: all of them, or a sample where those are too many.

    The first sign of all of them is +: turning all signs round does not change how large a mean is.
    """
    if n > EXACT:
        return np.vstack(list(_sampled_signs(n)))
    numbers = np.arange(2 ** (n - 1), dtype=np.int64)[:, None] >> np.arange(n - 2, -1, -1)
    others = 1.0 - 2.0 * (numbers & 1)
    return np.hstack([np.ones((len(others), 1)), others])


def _blocks_of_signs(n: int) -> Iterable[NDArray[np.float64]]:
    """Returns what `signs` does, in blocks where the whole would fill the memory: 300 MiB for 2,000 differences."""
    return [signs(n)] if n <= EXACT or n * _DRAWN <= _KEPT else _sampled_signs(n)


def _sampled_signs(n: int) -> Iterator[NDArray[np.float64]]:
    draws = np.random.default_rng(n)
    rows = max(1, _BLOCK // n)
    for start in range(0, _DRAWN, rows):
        others = draws.choice([-1.0, 1.0], size=(min(rows, _DRAWN - start), n - 1))
        yield np.hstack([np.ones((len(others), 1)), others])


def sign_flip_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Returns the two-sided p of the paired permutation test of a mean difference; 1 where there are no differences.

    Exact with up to 14 differences that are not 0, otherwise of 19,999 random choices of signs beside the one that was
    seen, which makes p valid and never 0 (Phipson and Smyth 2010).
    """
    values = _nonzero(differences)
    if not len(values):
        return 1.0
    seen = abs(values.sum()) * (1 - 1e-9)
    as_far = sum(int(np.count_nonzero(np.abs(some @ values) >= seen)) for some in _blocks_of_signs(len(values)))
    if len(values) <= EXACT:
        return as_far / len(signs(len(values)))
    return (as_far + 1) / (_DRAWN + 1)


def least_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Returns the least p that the test could give of so many differences; those that are 0 do not count."""
    return _least_p(len(_nonzero(differences)))


def fewest_pairs(contrasts: int, level: float = ALPHA) -> int:
    """Returns how many replicates the test must have to be able to decide, of so many contrasts, at a level."""
    return math.ceil(1 + math.log2(contrasts / level) - 1e-12)


def can_decide(pairs: int, contrasts: int, level: float = ALPHA) -> bool:
    """Returns whether the test of so many replicates can decide, of so many contrasts, at a level."""
    return _least_p(pairs) * contrasts <= level * (1 + 1e-12)


def equivalence_p(differences: Sequence[float] | NDArray[np.float64], margin: float) -> float:
    """Returns the p of the claim that a mean difference is less than `margin` either way; 1 of a single one.

    Raises:
        ValueError: if the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin={margin}: must be more than 0")
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return 1.0
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    distance = abs(float(values.mean())) - margin  # to the nearer bound, whose p is the greater one
    if error < _ZERO:
        return 1.0  # without a spread nothing can be said
    return float(stdtr(len(values) - 1, distance / error))


def holm(ps: Sequence[float]) -> list[float]:
    """Returns p values that are corrected for how many there are, by Holm's method (1979)."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    corrected = [1.0] * len(ps)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = highest
    return corrected


def _least_p(count: int) -> float:
    return 1.0 if count == 0 else max(2.0 ** (1 - count), 1 / (_DRAWN + 1) if count > EXACT else 0.0)


def _nonzero(differences: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(differences, dtype=np.float64)
    return values[np.abs(values) > _ZERO]
