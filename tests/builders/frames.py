"""Cells of fabricated studies as data frames, and the baselines of their variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

BASELINE = "none"


def frame(values: Mapping[str, Mapping[int, float] | Sequence[float]], metric: str = "top1") -> pd.DataFrame:
    """Returns finished cells: the metric of each variant by replicate; NaN if it diverged."""
    rows = [
        {"variant": variant, "replicate": replicate, metric: value}
        for variant, reached in values.items()
        for replicate, value in (reached.items() if isinstance(reached, Mapping) else enumerate(reached))
    ]
    return pd.DataFrame(rows, columns=["variant", "replicate", metric])


def against_nothing(*variants: str) -> dict[str, str]:
    """Returns the baselines of a study that compares these variants with the plain network."""
    return dict.fromkeys((BASELINE, *variants), BASELINE)
