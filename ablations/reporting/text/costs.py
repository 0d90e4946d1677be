"""Costs of variants as text: relative times, verdicts, and machine, date and method of the measurement."""

from __future__ import annotations

from ablations.analysis.costs import StudyCosts
from ablations.common.metrics import METRICS
from ablations.common.wording import count
from ablations.stats import Estimate
from ablations.stats.costs import CostContrast, CostVerdict

NOT_MEASURED = "costs were not measured; measure them with the same command and measure=only"


def relative_time(ratio: Estimate | None, *, with_interval: bool = True) -> str:
    """Formats a time relative to the plain network's: `1.28 [1.27, 1.29]`, or a dash."""
    shown = METRICS["train_time_ratio"].format
    if ratio is None:
        return "–"
    interval = f" [{shown(ratio.low)}, {shown(ratio.high)}]" if with_interval and ratio.has_interval else ""
    return f"{shown(ratio.mean)}{interval}"


def cost_verdict(contrast: CostContrast | None, margin: float) -> str:
    """Formats a verdict on a time: `slower`, `faster`, `same within 5 %`, `undecided`; empty if not measured."""
    if contrast is None or contrast.n == 0:
        return ""
    word = contrast.verdict.value
    return f"{word} within {100 * margin:g} %" if contrast.verdict is CostVerdict.SAME else word


def measured_on(costs: StudyCosts) -> str:
    """Returns the processor, threads, date and number of copies of the measurement."""
    known = costs.machine.environment
    is_cuda = known.get("device") == "cuda"
    processor = known["gpu"] if is_cuda else f"{known['cpu']}, {count(int(known['threads']), 'thread')}"
    copies = [time.n for cost in costs.variants.values() for time in (cost.train_time, cost.test_time) if time]
    n = f"{min(copies)} to {max(copies)}" if copies and min(copies) < max(copies) else f"{max(copies, default=0)}"
    return f"on {processor}, torch {known['torch']}, {costs.machine.taken[:10]}; n = {n} copies per network"


def reading_sentences(costs: StudyCosts, margin: float) -> str:
    """Explains the table of costs, with the machine and the variants that could not be measured."""
    has_captured = any(cost.has_captured for cost in costs.variants.values())
    captured = (
        "Times, throughput and verdicts are of calls launched from Python, as a user runs them; captured: replayed as "
        "CUDA graphs, without the time of launches. "
    )
    return (
        "Relative times: time divided by that of the network without attention (interleaved timing); geometric mean "
        "over rebuilt copies, 95 % CI. For the network without attention itself: second copy against the first (A/A "
        f"comparison, measurement noise). Verdicts: relative to the baseline, equivalence margin {100 * margin:g} %, "
        "family-wise error rate at most 5 % for each of training and inference. Peak MiB: memory of a training step, "
        f"without the data set. {captured if has_captured else ''}Measured {measured_on(costs)}. "
        f"{failures_sentence(costs)}"
    ).strip()


def failures_sentence(costs: StudyCosts) -> str:
    """Lists the variants that could not be measured with the reasons; empty if there are none."""
    failed = [f"{name} ({cost.failed})" for name, cost in costs.variants.items() if cost.failed]
    return f"Measurement failed: {', '.join(failed)}." if failed else ""
