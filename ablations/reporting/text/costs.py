"""What variants cost, in words: verdicts on times, and where, when and how they were measured."""

from __future__ import annotations

from ablations.analysis.costs import StudyCosts, VariantCost
from ablations.common.metrics import METRICS
from ablations.stats import Estimate
from ablations.stats.costs import CostContrast, CostVerdict

NOT_MEASURED = "costs were not measured; the same command with measure=only measures them"


def relative_time(ratio: Estimate | None, *, with_interval: bool = True) -> str:
    """Writes a time over the plain network's: `1.28 [1.27, 1.29]`, or a dash."""
    shown = METRICS["train_time_ratio"].format
    if ratio is None:
        return "–"
    interval = f" [{shown(ratio.low)}, {shown(ratio.high)}]" if with_interval and ratio.has_interval else ""
    return f"{shown(ratio.mean)}{interval}"


def cost_verdict(contrast: CostContrast | None, margin: float) -> str:
    """Writes a verdict on a time: `slower`, `faster`, `same within 5 %`, `undecided`; empty without a contrast."""
    if contrast is None:
        return ""
    word = contrast.verdict.value
    return f"{word} within {100 * margin:g} %" if contrast.verdict is CostVerdict.SAME else word


def measured_sentence(costs: StudyCosts) -> str:
    """Says on which processor costs were measured, with how many threads, when, and of how many copies they are."""
    known = costs.machine.environment
    processor = known["gpu"] if known.get("device") == "cuda" else known["cpu"]
    threads = "" if known.get("device") == "cuda" else f", threads: {known['threads']}"
    copies = [time.n for cost in costs.variants.values() for time in _times(cost)]
    n = f"{min(copies)} to {max(copies)}" if copies and min(copies) < max(copies) else f"{max(copies, default=0)}"
    return (
        f"Measured by itself on {processor}{threads}, torch {known['torch']}, {costs.machine.taken[:10]}; copies of "
        f"each network: {n}."
    )


def failures_sentence(costs: StudyCosts) -> str:
    """Says which variants could not be measured, and why; empty where all could."""
    failed = [f"{name}: {cost.failed}" for name, cost in costs.variants.items() if cost.failed]
    return f"Not measured: {'; '.join(failed)}." if failed else ""


def _times(cost: VariantCost) -> list[Estimate]:
    return [time for time in (cost.train_time, cost.test_time) if time]
