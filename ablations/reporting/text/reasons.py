"""Reasons of verdicts as text: the only place that converts the codes of `ablations.stats` to clauses."""

from __future__ import annotations

from ablations.common.wording import count
from ablations.stats import Contrast, Reason, ReasonCode, Stability

# Clauses by code; {0} is the number of the reason.
_CLAUSES = {
    ReasonCode.NO_PAIR: "no replicate is finished for both",
    ReasonCode.ONE_REPLICATE: "a single replicate gives no estimate of uncertainty",
    ReasonCode.BEFORE_FIRST_ANALYSIS: "the first interim analysis is at {0:g} replicates",
    ReasonCode.NO_SPREAD: "the difference is the same in every replicate, so its variance is unknown",
    ReasonCode.ATTAINABLE_P: "too few replicates differ: the smallest attainable p-value is {0:.2g}",
    ReasonCode.MULTIPLICITY: "its uncorrected interval excludes 0, but not after correction for {0:g} contrasts",
}


def reason_clause(contrast: Contrast) -> str:
    """Returns why a contrast has no verdict, is undecided or is unstable, as a clause; empty without a reason."""
    if contrast.reason is None:
        return ""
    if contrast.reason.code is ReasonCode.UNSTABLE:
        return "; ".join(instability_clause(one) for one in contrast.stabilities if one.is_unstable)
    return _clause(contrast.reason)


def instability_clause(stability: Stability) -> str:
    """Returns how a variant is unstable, in the metric's unit."""
    runs, below = f"of {stability.n} runs of {stability.variant}", f"{stability.shortfall:.2g}"
    if stability.failures == 1:
        return f"1 {runs} is an outlier, {below} below its median"
    if stability.failures:
        return f"{stability.failures} {runs} are outliers below its median, the worst by {below}"
    return (
        f"the standard deviation of {stability.variant} is {stability.spread:.2g}, "
        f"{stability.spread / stability.typical:.2g} times the typical one, and its worst run is "
        f"{stability.shortfall:.2g} below its median"
    )


def not_equivalent(why: str) -> str:
    """Returns the clause for equivalence that is not concluded despite significant tests."""
    return f"equivalence is not concluded: {why}"


def _clause(reason: Reason) -> str:
    if reason.code is ReasonCode.LOST_REPLICATES:
        return not_equivalent(f"{count(int(reason.number or 0), 'replicate')} diverged or failed")
    if reason.code is ReasonCode.STRAY_RUNS:
        return not_equivalent(outlier_clause(int(reason.number or 0)))
    return _CLAUSES[reason.code].format(reason.number)


def outlier_clause(runs: int) -> str:
    """Returns the number of outliers: `1 run is an outlier`."""
    return "1 run is an outlier" if runs == 1 else f"{runs:,} runs are outliers"
