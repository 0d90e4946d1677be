"""From replicates to verdicts: estimates, tests, power, interim analyses. Numpy and scipy on data frames."""

from ablations.stats.costs import CostContrast, CostVerdict, judge_costs
from ablations.stats.estimates import Estimate, cells_by_variant, estimate
from ablations.stats.interims import InterimAnalyses
from ablations.stats.power import (
    Spread,
    baseline_shares,
    detectable,
    power,
    reachable_margin,
    replicates_for,
    replicates_for_margin,
    spreads,
)
from ablations.stats.protocols import corrected_for_protocols
from ablations.stats.stability import Stability
from ablations.stats.summaries import VariantSummary, summarise
from ablations.stats.verdicts import (
    Contrast,
    Question,
    Reason,
    ReasonCode,
    Verdict,
    family,
    judge,
    judge_together,
    missing_pairs,
    relative_efficiency,
    undecided,
)

__all__ = [
    "Contrast", "CostContrast", "CostVerdict", "Estimate", "InterimAnalyses", "Question", "Reason", "ReasonCode",
    "Spread", "Stability", "VariantSummary", "Verdict", "baseline_shares", "cells_by_variant",
    "corrected_for_protocols", "detectable", "estimate", "family", "judge", "judge_costs", "judge_together",
    "missing_pairs", "power", "reachable_margin", "relative_efficiency", "replicates_for", "replicates_for_margin",
    "spreads", "summarise", "undecided",
]  # fmt: skip
