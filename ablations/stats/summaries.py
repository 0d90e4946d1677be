"""What the replicates of each variant say, for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ablations.stats.estimates import Estimate, cells_by_variant, estimate
from ablations.stats.verdicts import Contrast


@dataclass(frozen=True)
class VariantSummary:
    """What the replicates of a variant say: top-1, what is judged, and the contrast (of a baseline, None).

    Replicates that `diverged` are in no mean.
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
        """How many replicates the means are of, and how many there are beside them: `2 (+1 diverged)`."""
        return f"{self.top1.n}" + (f" (+{self.diverged} diverged)" if self.diverged else "")

    @property
    def is_baseline(self) -> bool:
        """Whether others are compared with this one."""
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

    `baselines` says what a variant is compared with, a baseline with itself; `diverged` counts its replicates that have
    no result, and `metric` is the one that is judged.
    """
    by_variant = {contrast.variant: contrast for contrast in contrasts}
    groups = cells_by_variant(cells)
    return [
        VariantSummary(
            variant=variant,
            baseline=baselines.get(variant),
            top1=estimate(own["top1"].to_numpy()),
            judged=estimate(own[metric].to_numpy()),
            contrast=by_variant.get(variant),
            parameters=int(own["parameters"].iloc[0]),
            diverged=(diverged or {}).get(variant, 0),
        )
        for variant in variants
        if (own := groups.get(variant)) is not None
    ]
