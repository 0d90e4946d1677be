"""Contrasts with verdicts, and their sentences."""

from __future__ import annotations

import math
from typing import Any

from ablations.stats import Contrast, Estimate, Verdict
from tests.wording import worded

CLEAR = Estimate(8, 1.5, 1.0, 2.0)
LOST = Estimate(8, -1.5, -2.0, -1.0)
SMALL = Estimate(8, -0.03, -0.11, 0.06)
EQUAL = Estimate(4, 1.0, 1.0, 1.0)
SINGLE = Estimate(1, 1.0, math.nan, math.nan)


def contrast(difference: Estimate | None, verdict: Verdict, **others: Any) -> Contrast:
    values: dict[str, Any] = {"p": None, "p_equivalence": None} | others
    return Contrast("sa", "none", difference, verdict=verdict, **values)


SPREAD, OVER_INTERIMS, SINGLY = "conclusions.interval", "conclusions.interval_over_looks", "conclusions.no_interval"


def said_of(
    verdict: str,
    numbers: str,
    points: str,
    low: str = "",
    high: str = "",
    p: str = "",
    *,
    n: int = 8,
    reason: str = "",
    treatment: str = "sa",
) -> str:
    """Returns the sentence of a verdict; `numbers` is the key of the text with the numbers."""
    rest = worded(numbers, n=n, points=points, low=low, high=high) + p
    return (
        worded("conclusions.verdict", treatment=treatment, baseline="none", verdict=verdict, numbers=rest)
        + f"{reason}."
    )
