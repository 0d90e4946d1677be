"""From replicates to verdicts: estimates, tests, power, and looks on the way. Plain numpy and scipy on data frames."""

from ablations.stats.estimates import Estimate, Typical, bca_interval, cells_by_variant, estimate, typical
from ablations.stats.looks import Looks
from ablations.stats.power import Spread, detectable, power, replicates_for, spread
from ablations.stats.significance import equivalence_p, fewest_pairs, holm, least_p, sign_flip_p
from ablations.stats.summaries import VariantSummary, summarise
from ablations.stats.verdicts import Contrast, Verdict, family, judge, missing_pairs, pairing_gain, undecided

__all__ = [
    "Contrast", "Estimate", "Looks", "Spread", "Typical", "VariantSummary", "Verdict", "bca_interval",
    "cells_by_variant", "detectable", "equivalence_p", "estimate", "family", "fewest_pairs", "holm", "judge", "least_p",
    "missing_pairs", "pairing_gain", "power", "replicates_for", "sign_flip_p", "spread", "summarise", "typical",
    "undecided",
]  # fmt: skip
