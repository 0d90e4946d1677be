"""A study's tables as files: CSV with plain numbers, Markdown and LaTeX as papers print them, and numbers as macros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ablations.analysis.study import StudyAnalysis
from ablations.common.files import refusals_explained, write_whole
from ablations.design import Design
from ablations.reporting.tables.frames import crossing_frame, front_frame, variants_frame
from ablations.reporting.tables.latex import latex_table
from ablations.reporting.tables.macros import number_macros
from ablations.reporting.tables.render import Table, markdown_table
from ablations.reporting.tables.sections import Section, make_sections
from ablations.reporting.tables.variants import protocol_note, variants_table
from ablations.storage.paths import GO_ON


def write_tables(analysis: StudyAnalysis, sections: Sequence[Section] | None = None) -> list[Path]:
    """Writes a study's tables into `<folder>/tables` and returns what was written; nothing where no cell is finished.

    Args:
        analysis: the study.
        sections: its further tables, where they are made already; making those of a search takes a while.

    Raises:
        UsageError: if the folder cannot be written.
    """
    if not analysis.summaries:
        return []
    design, label = analysis.design, f"tab:{analysis.design.study}"
    texts = {"variants.csv": variants_frame(analysis).to_csv(index=False, float_format="%.10g")}
    tables = {"variants": (variants_table(analysis), variants_table(analysis, is_short=True), label)}
    found = make_sections(analysis) if sections is None else sections
    if found and found[0].rows:  # of a search, the front; the importances are no table for a paper
        name, frame = ("front", front_frame(analysis)) if design.is_search else ("effects", crossing_frame(analysis))
        texts[f"{name}.csv"] = frame.to_csv(index=False, float_format="%.10g")
        section = found[0]
        note = f"{section.title}. {section.note} {protocol_note(analysis)}"
        table = Table(section.headers, section.rows, note, section.names)
        tables[name] = table, table, f"{label}-{name}"
    for name, (whole, short, own_label) in tables.items():
        lines = [*markdown_table(whole.headers, whole.rows), "", _asked(design, whole).note, ""]
        texts[f"{name}.md"] = "\n".join(lines)
        texts[f"{name}.tex"] = latex_table(_asked(design, short), own_label)
    texts["numbers.tex"] = number_macros(analysis)
    folder = analysis.folder / "tables"
    with refusals_explained("results_dir", analysis.folder, GO_ON, names_file=True):
        for name, text in texts.items():
            write_whole(folder / name, text)
    return [folder / name for name in texts]


def _asked(design: Design, table: Table) -> Table:
    """Puts the study's question before the note: a table on paper stands by itself."""
    return replace(table, note=f"{design.question} {table.note}".strip())
