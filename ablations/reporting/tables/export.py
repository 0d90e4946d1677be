"""A study's tables as files: CSV with plain numbers, Markdown and LaTeX as papers print them, and numbers as macros."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ablations.analysis.study import StudyAnalysis
from ablations.common.files import write_whole
from ablations.reporting.tables.costs import costs_frame
from ablations.reporting.tables.latex import latex_table, number_macros
from ablations.reporting.tables.predictions import prediction_tables
from ablations.reporting.tables.render import markdown_table
from ablations.reporting.tables.sections import main_frame, make_sections
from ablations.reporting.tables.tuning import tuning_frames
from ablations.reporting.tables.variants import protocol_note, variants_frame, variants_table
from ablations.reporting.text.markdown import markdown_text


def write_tables(analysis: StudyAnalysis) -> list[Path]:
    """Writes a study's tables into `<folder>/tables` and returns the files; writes none where no cell is finished."""
    if not analysis.summaries:
        return []
    question, label = analysis.design.question, f"tab:{analysis.design.study}"
    frames = {"variants": variants_frame(analysis)}
    tables = {"variants": (variants_table(analysis), variants_table(analysis, is_short=True), label)}
    first = next(
        iter(make_sections(analysis)), None
    )  # of a search, the selection: importances are no table for a paper
    if first and first.rows:
        name, frame = main_frame(analysis)
        frames[name] = frame
        whole = replace(first, note=f"{first.title}. {first.note} {protocol_note(analysis)}")
        tables[name] = whole, whole, f"{label}-{name}"
    if (costs := costs_frame(analysis)) is not None:
        frames["costs"] = costs
    frames |= tuning_frames(analysis) | prediction_tables(analysis)
    texts = {f"{name}.csv": frame.to_csv(index=False, float_format="%.10g") for name, frame in frames.items()}
    for name, (whole, short, own_label) in tables.items():
        # A table on paper stands by itself: the study's question comes before the note.
        lines = [*markdown_table(whole.headers, whole.rows), "", markdown_text(f"{question} {whole.note}".strip()), ""]
        texts[f"{name}.md"] = "\n".join(lines)
        texts[f"{name}.tex"] = latex_table(short, f"{question} {short.note}".strip(), own_label)
    texts["numbers.tex"] = number_macros(analysis)
    folder = analysis.folder / "tables"
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]
