"""The table of costs: time of a training step and of inference, with verdicts; throughput and memory."""

from __future__ import annotations

import math

import pandas as pd

from ablations.analysis.costs import VariantCost
from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import METRICS
from ablations.measure.costs import CAPTURED, MODES
from ablations.reporting.tables.sections import Section
from ablations.reporting.text.costs import cost_verdict, reading_sentences, relative_time
from ablations.stats import Estimate
from ablations.stats.costs import CostContrast


def costs_sections(analysis: StudyAnalysis) -> list[Section]:
    """Returns the table of costs of the shown variants; nothing if costs were not measured."""
    costs = analysis.costs
    if costs is None:
        return []
    contrasts, margin = analysis.cost_contrasts, analysis.cost_margin
    has_captured = any(cost.has_captured for cost in costs.variants.values())
    rows = []
    for variant in analysis.design.variants:
        if variant.name not in costs.variants or variant.name not in analysis.shown:
            continue
        cost = costs.of(variant.name)
        row = [variant.name]
        for mode in MODES:
            contrast = contrasts[mode].get(variant.name)
            row += [relative_time(getattr(cost, f"{mode}_time")), cost_verdict(contrast, margin)]
        if has_captured:
            row += [relative_time(getattr(cost, f"{CAPTURED}{mode}_time")) for mode in MODES]
        shown = ("train_images_per_second", "test_images_per_second", "peak_memory_mib")
        rows.append(row + [METRICS[key].format(getattr(cost, key)) for key in shown])
    headers = (
        "variant", "step × no attention [95 % CI]", "verdict", "inference × no attention [95 % CI]", "verdict",
        *(("step, captured", "inference, captured") if has_captured else ()), "training images/s",
        "inference images/s", "peak MiB",
    )  # fmt: skip
    return [Section("Costs", reading_sentences(costs, margin), headers, rows)] if rows else []


def costs_frame(analysis: StudyAnalysis) -> pd.DataFrame | None:
    """Returns one row per measured variant; None if there is none.

    Times are relative to the plain network, `*_to_baseline` to the baseline; `measured` is UTC (ISO 8601).
    """
    costs = analysis.costs
    if costs is None:
        return None
    contrasts = analysis.cost_contrasts
    rows = []
    for name, cost in costs.variants.items():
        row: dict[str, object] = {"variant": name, "baseline": analysis.design.baselines.get(name, "")}
        for mode in MODES:
            row |= _times(mode, cost, contrasts[mode].get(name))
            row |= _ratios(f"{CAPTURED}{mode}", cost)
        row |= {"peak_memory_mib": cost.peak_memory_mib, "failed": cost.failed}
        machine = {key: costs.machine.environment[key] for key in ("cpu", "gpu", "threads", "torch")}
        rows.append(row | machine | {"measured": costs.machine.taken})
    return pd.DataFrame(rows)


def _ratios(mode: str, cost: VariantCost) -> dict[str, object]:
    ratio: Estimate | None = getattr(cost, f"{mode}_time")
    known = (ratio.n, ratio.mean, ratio.low, ratio.high) if ratio else (0, math.nan, math.nan, math.nan)
    names = ("copies", "time_ratio", "time_ratio_low", "time_ratio_high")
    return {f"{mode}_{key}": value for key, value in zip(names, known, strict=True)}


def _times(mode: str, cost: VariantCost, contrast: CostContrast | None) -> dict[str, object]:
    row = _ratios(mode, cost)
    row[f"{mode}_images_per_second"] = getattr(cost, f"{mode}_images_per_second")
    if contrast is None:
        return (
            row
            | dict.fromkeys((f"{mode}_to_baseline", f"{mode}_p", f"{mode}_p_equivalence"), math.nan)
            | {f"{mode}_verdict": ""}
        )
    return row | {
        f"{mode}_to_baseline": contrast.ratio,
        f"{mode}_p": contrast.p,
        f"{mode}_p_equivalence": contrast.p_equivalence,
        f"{mode}_verdict": contrast.verdict.value,
    }
