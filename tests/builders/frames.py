"""Cells of made-up studies as data frames, and what their variants are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

BASELINE = "none"


def frame(top1: Mapping[str, Mapping[int, float] | Sequence[float]]) -> pd.DataFrame:
    """Returns cells of what each variant reached, by replicate."""
    rows = [
        {"variant": variant, "replicate": replicate, "top1": value}
        for variant, values in top1.items()
        for replicate, value in (values.items() if isinstance(values, Mapping) else enumerate(values))
    ]
    return pd.DataFrame(rows, columns=["variant", "replicate", "top1"])


def against_nothing(*variants: str) -> dict[str, str]:
    """Returns the baselines of a study that compares so many variants with one."""
    return dict.fromkeys((BASELINE, *variants), BASELINE)
