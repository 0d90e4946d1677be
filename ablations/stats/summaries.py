"""Summaries of each variant's replicates, for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ablations.stats.estimates import Estimate, cells_by_variant, estimate
from ablations.stats.verdicts import Contrast


@dataclass(frozen=True)
class VariantSummary:
    """A variant's estimates of top-1 and the judged metric, with its contrast (None for a baseline).

    The means exclude the `diverged` replicates.
    """

    variant: str
    baseline: str | None
    top1: Estimate
    judged: Estimate
    contrast: Contrast | None
    parameters: int
    diverged: int = 0

    @property
    def replicates(self) -> str:
        """The number of replicates in the means, and the number that diverged: `2 (+1 diverged)`."""
        return f"{self.top1.n}" + (f" (+{self.diverged} diverged)" if self.diverged else "")

    @property
    def is_baseline(self) -> bool:
        """Whether it is a baseline."""
        return self.baseline == self.variant


def summarise(
    cells: pd.DataFrame,
    variants: Sequence[str],
    baselines: Mapping[str, str],
    contrasts: Sequence[Contrast],
    diverged: Mapping[str, int] | None = None,
    metric: str = "top1",
) -> list[VariantSummary]:
    """Summarises each variant that has a finished cell, in the given order.

    `baselines` maps each variant to its baseline, a baseline to itself; `diverged` counts the replicates of a variant
    without a result, and `metric` is the judged one.
    """
    by_variant = {contrast.variant: contrast for contrast in contrasts}
    groups = cells_by_variant(cells)
    return [
        VariantSummary(
            variant=variant,
            baseline=baselines.get(variant),
            top1=estimate(rows["top1"].to_numpy()),
            judged=estimate(rows[metric].to_numpy()),
            contrast=by_variant.get(variant),
            parameters=int(rows["parameters"].iloc[0]),
            diverged=(diverged or {}).get(variant, 0),
        )
        for variant in variants
        if (rows := groups.get(variant)) is not None
    ]
