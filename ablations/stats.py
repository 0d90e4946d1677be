"""From replicates to estimates: means and paired differences with their 95 % confidence intervals.

A contrast pairs a variant with the baseline replicate by replicate: both started from the same backbone weights and saw
the same batches, so what they share cancels. Intervals are Student's t, each on its own: they are not corrected for
the number of contrasts in a study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

CONFIDENCE = 0.95


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


def estimate(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Estimates a mean by Student's t, which assumes that the mean of so many values is about normal.

    Raises:
        ValueError: if there are no values.
    """
    if len(values) == 0:
        raise ValueError("no values to estimate a mean from")
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(len(values), mean, math.nan, math.nan)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2)) * error
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


def paired_difference(cells: pd.DataFrame, variant: str, baseline: str, metric: str = "top1") -> Estimate | None:
    """Estimates how much `variant` exceeds `baseline` over the replicates that both have; None where there are none."""
    wide = cells[cells["variant"].isin([variant, baseline])].pivot_table(
        index="replicate", columns="variant", values=metric
    )
    if variant not in wide or baseline not in wide:
        return None
    differences = (wide[variant] - wide[baseline]).dropna()
    return estimate(differences.to_numpy()) if len(differences) else None


@dataclass(frozen=True)
class VariantSummary:
    """What the replicates of a variant say: top-1 and cost, and the contrast with its baseline (None for itself).

    What was measured of no replicate is None, or nan.
    """

    variant: str
    baseline: str | None
    top1: Estimate
    difference: Estimate | None
    train_time_ratio: Typical | None
    train_images_per_second: float
    peak_memory_mib: float
    parameters: int

    @property
    def is_baseline(self) -> bool:
        """Whether others are compared with this one."""
        return self.baseline == self.variant


def summarise(cells: pd.DataFrame, variants: Sequence[str], baselines: Mapping[str, str]) -> list[VariantSummary]:
    """Summarises each variant that has a finished cell, in the given order; costs are medians over its replicates.

    Args:
        cells: a row a finished cell, as in `Results`.
        variants: by name.
        baselines: what each is compared with; baselines with themselves, others with nothing.
    """
    summaries = []
    for variant in variants:
        own = cells[cells["variant"] == variant]
        if own.empty:
            continue
        baseline = baselines.get(variant)
        summaries.append(
            VariantSummary(
                variant=variant,
                baseline=baseline,
                top1=estimate(own["top1"].to_numpy()),
                difference=paired_difference(cells, variant, baseline) if baseline not in (None, variant) else None,
                train_time_ratio=typical(own["train_time_ratio"].to_numpy()),
                train_images_per_second=float(own["train_images_per_second"].median()),
                peak_memory_mib=float(own["peak_memory_mib"].median()),
                parameters=int(own["parameters"].iloc[0]),
            )
        )
    return summaries
