"""A study's tables as files: CSV with plain numbers, Markdown and LaTeX in the layout of papers, and LaTeX macros."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from ablations.analysis.study import StudyAnalysis
from ablations.common.files import write_whole
from ablations.common.parts import RAISE, Parts
from ablations.reporting.tables.costs import costs_frame
from ablations.reporting.tables.latex import latex_table, number_macros
from ablations.reporting.tables.predictions import prediction_tables
from ablations.reporting.tables.render import markdown_table
from ablations.reporting.tables.sections import Section, main_frame, main_section
from ablations.reporting.tables.tuning import tuning_frames
from ablations.reporting.tables.variants import protocol_note, variants_frame, variants_table
from ablations.reporting.text.markdown import markdown_text


def write_tables(analysis: StudyAnalysis, parts: Parts = RAISE) -> list[Path]:
    """Writes a study's tables to `<folder>/tables` and returns the files; none without a finished cell.

    Failures are recorded in `parts`.
    """
    if parts.make("list of variants with a finished cell", False, lambda: not analysis.summaries):
        return []
    written = []
    for name, make in parts.make("tables", {}, _texts, analysis, parts).items():
        path = analysis.folder / "tables" / name
        written += parts.make(f"table {name}", [], _write, path, make)
    return written


def _write(path: Path, make: Callable[[], str]) -> list[Path]:
    write_whole(path, make())
    return [path]


def _texts(analysis: StudyAnalysis, parts: Parts) -> dict[str, Callable[[], str]]:
    """Returns by file name the function that makes its text."""
    question, label = analysis.design.question, f"tab:{analysis.design.study}"
    frames = parts.make("table of effects or selection", {}, _main_frame, analysis)
    for name, frames_of in (("costs", _costs_frame), ("tuning", tuning_frames), ("predictions", prediction_tables)):
        frames |= parts.make(f"tables of {name}", {}, frames_of, analysis)
    texts = {"variants.csv": lambda: _csv(variants_frame(analysis))}
    texts |= {f"{name}.csv": partial(_csv, frame) for name, frame in frames.items()}
    texts |= {
        "variants.md": lambda: _markdown(variants_table(analysis), question),
        "variants.tex": lambda: _latex(variants_table(analysis, is_short=True), question, label),
    }
    for name, table in parts.make("table of effects or selection", {}, _main_table, analysis).items():
        texts |= {
            f"{name}.md": partial(_markdown, table, question),
            f"{name}.tex": partial(_latex, table, question, f"{label}-{name}"),
        }
    return texts | {"numbers.tex": lambda: number_macros(analysis)}


def _main_frame(analysis: StudyAnalysis) -> dict[str, pd.DataFrame]:
    """Returns the frame of effects or of a selection by name; empty if there is neither."""
    return dict([main_frame(analysis)]) if _main_section(analysis) else {}


def _main_table(analysis: StudyAnalysis) -> dict[str, Section]:
    """Returns the table of effects or of a selection by name; empty if there is neither."""
    if (section := _main_section(analysis)) is None:
        return {}
    name, _ = main_frame(analysis)
    return {name: replace(section, note=f"{section.title}. {section.note} {protocol_note(analysis)}")}


def _main_section(analysis: StudyAnalysis) -> Section | None:
    # For a search only the selection, because importances are not a table for a paper.
    section = main_section(analysis)
    return section if section and section.rows else None


def _costs_frame(analysis: StudyAnalysis) -> dict[str, pd.DataFrame]:
    return {} if (frame := costs_frame(analysis)) is None else {"costs": frame}


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.10g")


def _markdown(table: Section, question: str) -> str:
    # A table in a paper must be self-contained, so the study's question precedes the note.
    return "\n".join(
        [*markdown_table(table.headers, table.rows), "", markdown_text(f"{question} {table.note}".strip()), ""]
    )


def _latex(table: Section, question: str, label: str) -> str:
    return latex_table(table, f"{question} {table.note}".strip(), label)
