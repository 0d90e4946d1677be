"""The tables of a study's variants: for the report, in the layout of papers, and in plain numbers.

Values of a single replicate have no interval. Intervals are written as [low, high], because +- is often read as a
standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ablations.analysis.costs import VariantCost
from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import METRICS, Metric
from ablations.reporting.tables.sections import Section
from ablations.reporting.text.costs import NOT_MEASURED, measured_on, relative_time
from ablations.reporting.text.declaration import exploratory_mark, exploratory_sentence
from ablations.reporting.text.numbers import difference_with_interval, in_gflops, mean_with_interval
from ablations.reporting.text.reasons import reason_clause
from ablations.reporting.text.scope import missing_sentence, protocol_line, shown_sentence
from ablations.reporting.text.verdicts import assumptions_sentence, verdict_mark
from ablations.stats import Estimate, VariantSummary

# Column headers by quantity, for the report and for papers.
_REPORTED = {
    "variant": "variant", "n": "n", "top1": "top-1 % [95 % CI]", "difference": "difference [95 % CI]",
    "verdict_of_pair": "verdict", "step_time": "step × no attention", "peak_memory_mib": "peak MiB",
    "parameters": "parameters",
}  # fmt: skip
_PRINTED = {
    "variant": "Variant", "n": "n", "parameters": "Param.", "gflops": "GFLOPs", "top1": "Top-1 (%)",
    "difference": "Difference", "verdict": "Verdict", "step_time": "Step time", "peak_memory_mib": "Peak MiB",
}  # fmt: skip
_COSTS = "Step × no attention: time of a training step relative to the network without attention, 95 % CI; see Costs."


def summary_table(analysis: StudyAnalysis) -> Section:
    """Returns one row per shown variant: accuracy, verdict and costs."""
    notes = (
        exploratory_sentence(analysis),
        assumptions_sentence(analysis.shown_contrasts),
        _COSTS if analysis.costs else f"Step × no attention and peak MiB: {NOT_MEASURED}.",
        shown_sentence(analysis),
    )
    headers = _with_judged(_REPORTED, METRICS[analysis.design.metric], "[95 % CI]")
    return Section("Variants", " ".join(filter(None, notes)), _headers(analysis, headers), _rows(analysis, headers))


def variants_table(analysis: StudyAnalysis, is_short: bool = False) -> Section:
    """Returns the variants in the layout of the SA-Net paper, with differences, verdicts and costs.

    Args:
        analysis: the study.
        is_short: omits the intervals of step times, and n if it is the same for all variants (the note has it), to fit
            the width of a page.
    """
    left_out = set()
    if is_short and len({summary.replicates for summary in analysis.summaries}) == 1:
        left_out.add("n")
    printed = _with_judged(_PRINTED, METRICS[analysis.design.metric])
    headers = {key: header for key, header in printed.items() if key not in left_out}
    rows = _rows(analysis, headers, with_interval=not is_short)
    return Section("Variants", _variants_note(analysis, rows, is_short), _headers(analysis, headers), rows)


def _headers(analysis: StudyAnalysis, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the headers, with a mark on that of verdicts if they are exploratory."""
    mark = exploratory_mark(analysis)
    return tuple(f"{header}{mark}" if key.startswith("verdict") else header for key, header in headers.items())


def _with_judged(headers: Mapping[str, str], metric: Metric, suffix: str = "") -> dict[str, str]:
    """Returns headers with a column for the judged metric unless it is top-1."""
    if metric.key == "top1":
        return dict(headers)
    judged = {}
    for key, header in headers.items():
        judged[key] = f"{header} of {metric.label.lower()}" if key == "difference" and not suffix else header
        if key == "top1":
            judged["judged"] = f"{metric.axis} {suffix}".rstrip()
        elif key == "difference" and suffix:
            judged[key] = f"difference of {metric.label.lower()} {suffix}"
    return judged


def _rows(analysis: StudyAnalysis, keys: Iterable[str], *, with_interval: bool = True) -> list[list[str]]:
    gflops = in_gflops(analysis.multiply_adds) if "gflops" in keys else {}
    metric, costs = METRICS[analysis.design.metric], analysis.costs
    shown = [
        _cells(summary, costs.of(summary.variant) if costs else VariantCost(), metric, with_interval)
        | {"gflops": gflops.get(summary.variant, "")}
        for summary in analysis.shown_summaries
    ]
    return [[cells[key] for key in keys] for cells in shown]


def _cells(summary: VariantSummary, cost: VariantCost, metric: Metric, with_interval: bool) -> dict[str, str]:
    contrast = summary.contrast
    difference = contrast.difference if contrast else None
    verdict = verdict_mark(contrast) if contrast else ""
    pair = difference_with_interval(difference, metric) if difference else "no pair"
    shown = "baseline" if summary.is_baseline else pair
    return {
        "variant": summary.variant,
        "n": summary.replicates,
        "top1": mean_with_interval(summary.top1),
        "judged": mean_with_interval(summary.judged, metric),
        "difference": shown,
        "verdict": verdict,
        "verdict_of_pair": verdict if difference else "",
        "step_time": relative_time(cost.train_time, with_interval=with_interval),
        "peak_memory_mib": METRICS["peak_memory_mib"].format(cost.peak_memory_mib),
        "parameters": METRICS["parameters"].format(summary.parameters),
    }


def _variants_note(analysis: StudyAnalysis, rows: Sequence[Sequence[str]], is_short: bool) -> str:
    """Returns the replicates, explanation and protocol of the table in sentences."""
    design, summaries = analysis.design, analysis.summaries
    least, most = min(summary.top1.n for summary in summaries), max(summary.top1.n for summary in summaries)
    size = f"n = {least}" + (f" to {most}" if most > least else "")
    repeated = (
        "means over replicates, with 95 % CI in brackets"
        if most > 1
        else ("one replicate, therefore without intervals")
    )
    against = "the baseline" if design.baseline_factor is None else "the variant that is equal in all other factors"
    metric = METRICS[design.metric]
    verdicts = f"Verdicts: on {metric.label.lower()}, family-wise error rate at most 5 %, equivalence "
    verdicts += f"margin {metric.quantity(design.margin)}."
    costs = analysis.costs
    over = "geometric mean over copies" + ("" if is_short else ", 95 % CI")
    step = (
        f"Step time: time of a training step relative to the network without attention, {over}; for the network "
        "without attention itself, an A/A comparison."
    )
    parts = [
        f"Top-1: {repeated} ({size}).",
        f"Difference: in {metric.difference_unit}, to {against} ({design.baseline}), paired by replicate.",
        verdicts,
        exploratory_sentence(analysis),
        assumptions_sentence(analysis.shown_contrasts),
        f"{step} Costs measured {measured_on(costs)}." if costs else "",
        "A dash: not measured." if any("–" in cell for row in rows for cell in row) else "",
        shown_sentence(analysis),
        protocol_note(analysis),
    ]
    return " ".join(part for part in parts if part)


def protocol_note(analysis: StudyAnalysis) -> str:
    """Returns the protocol of a table and its missing cells in sentences."""
    line = f"Protocol: {protocol_line(analysis.design, analysis.results)}."
    return f"{line} {missing_sentence(analysis.results)}".strip()


def variants_frame(analysis: StudyAnalysis) -> pd.DataFrame:
    """Returns one row per variant with a finished cell; unknown values are NaN or empty.

    Accuracies and the calibration error are in percent, differences in points, step times relative to the plain
    network; top-5, test loss and calibration error are means.
    """
    variants = {variant.name: variant for variant in analysis.design.variants}
    others = analysis.results.cells.groupby("variant")[["top5", "test_loss", "ece"]].mean()
    rows = []
    for summary in analysis.summaries:
        variant, contrast = variants[summary.variant], summary.contrast
        cost = analysis.costs.of(summary.variant) if analysis.costs else VariantCost()
        rows.append(
            {
                "variant": summary.variant,
                "model": variant.model["name"],
                "attention": variant.attention["name"],
                "parameters": summary.parameters,
                "multiply_adds": analysis.multiply_adds.get(summary.variant),
                "n": summary.top1.n,
                "diverged": summary.diverged,
                **_bounds("top1", summary.top1),
                **_bounds("difference", contrast.difference if contrast else None),
                "metric": analysis.design.metric,
                "baseline": summary.baseline or "",
                "verdict": contrast.verdict.value if contrast else "",
                "reason": reason_clause(contrast) if contrast else "",
                "p": contrast.p if contrast else None,
                "assumes_normal": contrast.assumes_normal if contrast else None,
                "exploratory": analysis.is_exploratory if contrast else None,
                **_bounds("step_time_ratio", cost.train_time),
                "images_per_second": cost.train_images_per_second,
                "peak_memory_mib": cost.peak_memory_mib,
                **{str(key): value for key, value in others.loc[summary.variant].items()},
            }
        )
    # Those of many variants are known of those alone that are shown.
    return pd.DataFrame(rows).astype({"multiply_adds": "Int64"})


def _bounds(name: str, known: Estimate | None) -> dict[str, float]:
    if known is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), math.nan)
    return {name: known.mean, f"{name}_low": known.low, f"{name}_high": known.high}
