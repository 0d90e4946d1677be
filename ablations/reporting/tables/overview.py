"""The tables of a report: what came of each variant, and which cells are not finished."""

from __future__ import annotations

from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import METRICS
from ablations.common.wording import last_line
from ablations.reporting.tables.render import Table
from ablations.reporting.text.conclusions import step_time, top1_with_interval
from ablations.reporting.text.coverage import shown_sentence
from ablations.reporting.text.numbers import points_with_interval
from ablations.stats import VariantSummary

_HEADERS = (
    "variant", "n", "top-1 % [95 % CI]", "difference [95 % CI]", "verdict", "step time × plain", "images/s",
    "peak MiB", "parameters",
)  # fmt: skip
_COSTS = (
    "Step time is that of a training step over the plain network's, timed in turns with it after training (median over "
    "replicates, lowest to highest); a plain network's own is an A/A comparison and says how far the noise goes. "
    "Images/s are those of training, peak MiB the memory of a training step without the data set: medians over "
    "replicates. "
    "A dash is what was not measured: it would have taken more than a tenth of the cell's time, or `measure=off`."
)
_LISTED = 100  # cells that are not finished


def summary_table(analysis: StudyAnalysis) -> Table:
    """Returns a row a variant that is shown: its accuracy, its verdict and its costs."""
    note = f"{_COSTS} {shown_sentence(analysis)}".strip()
    return Table(_HEADERS, [_row(summary) for summary in analysis.shown_summaries], note)


def _row(summary: VariantSummary) -> list[str]:
    contrast = summary.contrast
    if contrast is not None and contrast.difference is not None:
        shown, verdict = points_with_interval(contrast.difference), contrast.verdict.value
    else:
        shown, verdict = "baseline" if summary.is_baseline else "no pair", ""
    cost = (
        METRICS[key].format(getattr(summary, key))
        for key in ("train_images_per_second", "peak_memory_mib", "parameters")
    )
    top1 = top1_with_interval(summary.top1)
    return [summary.variant, summary.replicates, top1, shown, verdict, step_time(summary.train_time_ratio), *cost]


def unfinished_table(analysis: StudyAnalysis) -> Table:
    """Returns a row a cell that is not finished, the failed ones first where they are too many to be listed."""
    unfinished = analysis.results.unfinished
    if len(unfinished) > _LISTED:
        unfinished = unfinished.sort_values("state", key=lambda states: states != "failed", kind="stable")
    rows = [
        [str(row["variant"]), str(row["replicate"]), str(row["state"]), last_line(row["reason"])]
        for row in unfinished.head(_LISTED).to_dict("records")
    ]
    if len(unfinished) > _LISTED:
        rows.append([f"and {len(unfinished) - _LISTED:,} others", "", "", ""])
    return Table(("variant", "replicate", "state", "reason"), rows, "", names=4)
