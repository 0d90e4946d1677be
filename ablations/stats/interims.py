"""Interim analyses: judging a study before it is complete, at the same error rate.

Replicates are added in batches, and the study is judged after each batch; decided contrasts get no more replicates.
Repeated interim analyses inflate the false-positive rate, so each may spend only a part of the 5 %. With at most N
replicates, the analyses up to n replicates spend (n / N)^2 of it, the quadratic member of Kim and DeMets's family of
spending functions (Biometrika 1987). The level of each analysis follows from the joint distribution of a test's
statistics at all analyses, that of Brownian motion at the times n / N (Lan and DeMets 1983; Armitage, McPherson and
Rowe 1969 for the recursion), for a contrast with an equal share of the family's 5 %. This uses the error rate that
Bonferroni's inequality over the interim analyses would leave unused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ablations.stats.significance import ALPHA, FLIPPED, least_p

_GROWTH = 4 / 3  # of the replicates between interim analyses
_LEAST_BATCH = 3  # replicates between two interim analyses
_GRID = 401  # points at which densities are integrated
_HALVINGS = 60


@dataclass(frozen=True)
class InterimAnalyses:
    """The numbers of replicates at which a study is judged, ascending; the last is the maximum to be trained."""

    sizes: tuple[int, ...]

    def levels(self, contrasts: int) -> tuple[float, ...]:
        """Returns the level of each interim analysis for family-wise p-values of so many contrasts."""
        bounds = critical_values(self.sizes, ALPHA / contrasts)
        return tuple(float(min(ALPHA, contrasts * 2 * ndtr(-bound))) for bound in bounds)

    @classmethod
    def planned(cls, most: int) -> InterimAnalyses | None:
        """Plans interim analyses: the first where sign flips can decide, then after a third more replicates each.

        None if even `most` replicates cannot decide.
        """
        able = (n for n in range(FLIPPED, most + 1) if least_p(n) <= ALPHA * (n / most) ** 2 * (1 + 1e-9))
        following = next(able, None)
        if following is None:
            return None
        sizes = []
        while following <= most - _LEAST_BATCH:
            sizes.append(following)
            following = max(following + _LEAST_BATCH, round(following * _GROWTH))
        return cls((*sizes, most))

    @classmethod
    def stored(cls, sizes: Sequence[int] | None) -> InterimAnalyses | None:
        """Returns the stored interim analyses of a study; None without any."""
        return cls(tuple(sizes)) if sizes else None


@lru_cache(maxsize=64)
def critical_values(sizes: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """Returns the bounds of |z| at interim analyses, whose error rates add up to `alpha` at the last one."""
    times = np.array(sizes) / sizes[-1]
    spent = alpha * times**2
    bounds = [float(-ndtri(spent[0] / 2))]
    path = Survival.started(times[0], bounds[0])
    for number in range(1, len(sizes)):
        allowed, step = spent[number] - spent[number - 1], times[number] - times[number - 1]
        low, high = 0.0, 40.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            far = path.beyond(middle * times[number] ** 0.5, step)
            low, high = (low, middle) if far < allowed else (middle, high)
        bounds.append(high)
        path = path.continued(times[number], step, high)
    return tuple(bounds)


@lru_cache(maxsize=4096)
def median_unbiased(sizes: tuple[int, ...], alpha: float, interim: int, z: float, bound: float) -> float:
    """Returns the conditional median-unbiased estimate of z, given the interim analysis that decided.

    An effect that is decided early is overestimated, because it was selected for being large. The estimate is the drift
    under which half of all paths that cross the bound of |z| at this analysis, on this side, exceed `z`; 0 if no
    positive drift does, and at most the observed z. A large effect that earlier analyses did not decide is
    underestimated here, which is not corrected.

    Args:
        sizes, alpha: as in `critical_values`.
        interim: index of the interim analysis that decided.
        z: its statistic, above 0.
        bound: the bound of z at this analysis.
    """
    bounds, times = critical_values(sizes, alpha), [size / sizes[-1] for size in sizes]
    time = times[interim]

    def excess(drift: float) -> float:
        if interim == 0:
            beyond, crossed = (float(ndtr(drift * time**0.5 - value)) for value in (z, bound))
        else:
            path = Survival.started(times[0], bounds[0], drift)
            for number in range(1, interim):
                path = path.continued(times[number], times[number] - times[number - 1], bounds[number])
            step = time - times[interim - 1]
            beyond, crossed = (path.above(value * time**0.5, step) for value in (z, bound))
        return beyond / crossed - 0.5 if crossed > 0 else 0.0

    low, high = 0.0, z / time**0.5
    if excess(low) >= 0:
        return 0.0
    for _ in range(_HALVINGS // 3):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return float(high * time**0.5)


@dataclass(frozen=True)
class Survival:
    """The density of Brownian motion, with an optional drift, that has not crossed a bound yet."""

    points: NDArray[np.float64]
    mass: NDArray[np.float64]
    drift: float = 0.0

    @classmethod
    def started(cls, time: float, bound: float, drift: float = 0.0) -> Survival:
        """Returns the density at the first interim analysis, at a time up to 1; `bound` is of |z|."""
        points, width = _grid(bound * time**0.5)
        return cls(points, _density(points - drift * time, time) * width, drift)

    def continued(self, time: float, step: float, bound: float) -> Survival:
        """Returns the density at the next interim analysis, `step` later."""
        points, width = _grid(bound * time**0.5)
        moved = _density(points[:, None] - self.points[None, :] - self.drift * step, step)
        return Survival(points, moved @ self.mass * width, self.drift)

    def beyond(self, value: float, step: float) -> float:
        """Returns the probability that the absolute value exceeds `value` after `step`."""
        return self.above(value, step) + self.below(-value, step)

    def above(self, value: float, step: float) -> float:
        """Returns the probability of being above `value` after `step`."""
        return float(self.mass @ ndtr((self.points + self.drift * step - value) / step**0.5))

    def below(self, value: float, step: float) -> float:
        """Returns the probability of being below `value` after `step`."""
        return float(self.mass @ ndtr((value - self.points - self.drift * step) / step**0.5))


def _grid(bound: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns points from -bound to bound with the weights of Simpson's rule."""
    points = np.linspace(-bound, bound, _GRID)
    weights = np.full(_GRID, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return points, weights * (points[1] - points[0]) / 3


def _density(values: NDArray[np.float64], variance: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-(values**2) / (2 * variance)) / (2 * np.pi * variance) ** 0.5)
