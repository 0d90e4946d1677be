"""From replicates to estimates: means and paired differences with their 95 % confidence intervals.

A contrast pairs a variant with the baseline replicate by replicate: both started from the same backbone weights and saw
the same batches, so what they share cancels. Intervals are Student's t, each on its own: they are not corrected for
the number of contrasts in a study. The BCa bootstrap is computed beside them and is not what is reported: of so few
replicates as people train, its 95 % intervals contain the truth in 82 (n = 5) to 92 % (n = 20) of all cases where
Student's do in 93 to 95 %, skewed differences included (`tests/ablations/stats/test_simulations.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean of `n` values with its confidence interval; the bounds are nan where n is 1: one value has no spread."""

    n: int
    mean: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether there were values enough for an interval."""
        return not math.isnan(self.low)

    @property
    def has_spread(self) -> bool:
        """Whether the values differed: equal ones, as coarse accuracies can be, say nothing about their spread."""
        return self.has_interval and self.high - self.low > 1e-9


def estimate(values: Sequence[float] | NDArray[np.float64], confidence: float = CONFIDENCE) -> Estimate:
    """Estimates a mean by Student's t, which assumes that the mean of so many values is about normal.

    Args:
        values: one at least.
        confidence: of the interval.

    Raises:
        ValueError: if there are no values.
    """
    if len(values) == 0:
        raise ValueError("no values to estimate a mean from")
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(len(values), mean, math.nan, math.nan)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * error
    return Estimate(len(values), mean, mean - half, mean + half)


@dataclass(frozen=True)
class Typical:
    """The median of `n` values, and the lowest and the highest of them.

    Costs are summed up so: what else a machine did while one of them was measured is no part of what is typical.
    """

    n: int
    median: float
    low: float
    high: float


def typical(values: Sequence[float] | NDArray[np.float64]) -> Typical | None:
    """Sums up the values that are known, which are those that are not nan; None where there are none."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return None
    return Typical(len(known), float(np.median(known)), float(known.min()), float(known.max()))


def bca_interval(values: Sequence[float] | NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Returns the bias-corrected and accelerated bootstrap 95 % interval of a mean (Efron 1987).

    Args:
        values: one at least.
        seed: of the resamples.
    """
    from scipy.stats import bootstrap  # takes a while to import, and only reports need it

    lowest, spread = float(np.min(values)), float(np.ptp(values))
    if spread == 0:  # of which scipy's is nan
        return lowest, lowest
    # On a scale of 0 to 1: cubes of a small spread would underflow in the acceleration, and the interval be nan.
    scaled = (np.asarray(values) - lowest) / spread
    draws = np.random.default_rng(seed)
    found = bootstrap((scaled,), np.mean, n_resamples=_RESAMPLES, confidence_level=CONFIDENCE, method="BCa", rng=draws)
    low, high = found.confidence_interval
    return lowest + spread * float(low), lowest + spread * float(high)


def pairs_of(cells: pd.DataFrame, variant: str, baseline: str, metric: str = "top1") -> pd.DataFrame:
    """Returns the replicates that both variants have, as index, with a column `variant` and a column `baseline`.

    Raises:
        ValueError: if a replicate of a variant is there twice.
    """
    columns = {}
    for name, of in (("variant", variant), ("baseline", baseline)):
        columns[name] = cells[cells["variant"] == of].set_index("replicate")[metric]
        twice = columns[name].index[columns[name].index.duplicated()]
        if len(twice):
            raise ValueError(f"replicate {twice[0]} of {of} is there twice")
    return pd.DataFrame(columns).dropna().sort_index()
