"""The table of a study's variants as papers print it, for Markdown, LaTeX and the page.

A value without an interval (one replicate) is printed without one: there is nothing to be sure of. Intervals are
written as intervals and never as +-, which readers take for a standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence

from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import METRICS
from ablations.reporting.tables.render import Table
from ablations.reporting.text.conclusions import step_time, top1_with_interval
from ablations.reporting.text.coverage import missing_sentence, shown_sentence
from ablations.reporting.text.numbers import in_gflops, points_with_interval
from ablations.reporting.text.protocol import protocol_line


def variants_table(analysis: StudyAnalysis, is_short: bool = False) -> Table:
    """Lays the variants out as the paper does, with what an ablation has to say beside it.

    Args:
        analysis: the study.
        is_short: leaves out the range of step times, and n where all variants have the same, which the note says: a
            page of paper has no room for them.
    """
    design = analysis.design
    gflops = in_gflops(analysis.multiply_adds)
    headers = ["Variant", "n", "Param.", "GFLOPs", "Top-1 (%)", "Difference", "Verdict", "Step time", "Peak MiB"]
    rows = []
    for summary in analysis.shown_summaries:
        contrast = summary.contrast
        difference = points_with_interval(contrast.difference) if contrast and contrast.difference else "no pair"
        rows.append(
            [
                summary.variant,
                summary.replicates,
                METRICS["parameters"].format(summary.parameters),
                gflops[summary.variant],
                top1_with_interval(summary.top1),
                "baseline" if summary.is_baseline else difference,
                contrast.verdict.value if contrast else "",
                step_time(summary.train_time_ratio, with_range=not is_short),
                METRICS["peak_memory_mib"].format(summary.peak_memory_mib),
            ]
        )
    left_out = {"Verdict"} if design.is_search else set()
    if is_short and len({summary.replicates for summary in analysis.summaries}) == 1:
        left_out.add("n")
    kept = [column for column, header in enumerate(headers) if header not in left_out]
    rows = [[row[column] for column in kept] for row in rows]
    return Table(tuple(headers[column] for column in kept), rows, _variants_note(analysis, rows, is_short))


def _variants_note(analysis: StudyAnalysis, rows: Sequence[Sequence[str]], is_short: bool) -> str:
    """Says of how many replicates the table is, how to read it, and under which protocol it holds."""
    design, summaries = analysis.design, analysis.summaries
    least, most = min(summary.top1.n for summary in summaries), max(summary.top1.n for summary in summaries)
    size = f"n = {least}" + (f" to {most}" if most > least else "")
    repeated = "means over replicates, with 95 % CI in brackets" if most > 1 else "one replicate, hence no intervals"
    parts = [f"Top-1: {repeated} ({size})."]
    against = "the baseline" if design.baseline_factor is None else "the variant that is otherwise equal"
    parts.append(f"Difference: in points, to {against} ({design.baseline}), paired by replicate.")
    if design.is_search:
        parts.append("The variants were picked by a search for being good, which flatters them: there are no verdicts.")
    else:
        parts.append(f"Verdicts: Holm-corrected, with a margin of {design.margin:g} points.")
    if any(summary.train_time_ratio for summary in summaries):
        parts.append(
            "Step time: of training, over the plain network's, median"
            + (" (lowest to highest)" if most > 1 and not is_short else "")
            + "; a plain network's own is an A/A comparison and shows the noise."
        )
    if any("–" in cell for row in rows for cell in row):
        parts.append("A dash: not measured.")
    if not analysis.shows_all:
        parts.append(shown_sentence(analysis))
    return " ".join([*parts, protocol_note(analysis)])


def protocol_note(analysis: StudyAnalysis) -> str:
    """Says under which protocol a table holds, and which cells it lacks."""
    line = f"Protocol: {protocol_line(analysis.design, analysis.results)}."
    return f"{line} {missing_sentence(analysis.results)}".strip()
