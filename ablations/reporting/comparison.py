"""The report on a comparison of stored studies: sentences, a table, a figure, differing options, and `report.md`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from ablations.analysis.comparison import StudyComparison
from ablations.common.console import print_path, print_text
from ablations.common.files import refusals_explained, write_whole
from ablations.common.metrics import METRICS
from ablations.common.parts import TRACEBACKS, Parts
from ablations.common.urls import relative_link
from ablations.common.wording import count
from ablations.reporting.figures import style
from ablations.reporting.figures.protocols import draw_protocols
from ablations.reporting.multiverse import shown_frame
from ablations.reporting.tables.protocols import protocols_table, sizes_text
from ablations.reporting.tables.render import markdown_table, print_table
from ablations.reporting.tables.sections import Section
from ablations.reporting.text.comparison import STUDY, comparison_sentences, study_lines
from ablations.reporting.text.markdown import code_block, markdown_text
from ablations.reporting.text.multiverse import margin_text
from ablations.reporting.text.not_made import not_made_lines, not_made_notice
from ablations.storage.paths import GO_ON

_NAME = "comparison"  # of the figure
_LONGEST = 60  # letters of an option's value in the report; the CSV has the complete value


def report_comparison(found: StudyComparison, command: str, console: Console, parts: Parts | None = None) -> Path:
    """Writes the report on a comparison into its folder and prints it; returns the path of `report.md`.

    A failed part is left out and added to `parts` with its reason.

    Raises:
        UsageError: if `report.md` cannot be written, after writing everything else.
    """
    folder, parts = found.folder, parts or Parts()
    table = parts.make("table of studies", None, _table, found)
    sentences = parts.make("sentences on the studies", [], comparison_sentences, found)
    parts.make("tables of the comparison", None, _write_frames, found)
    pictures = parts.make(f"figure {_NAME}", [], _draw, found, parts)
    details = parts.make("list of studies", [], _details, found)
    lines = [f"# {markdown_text(found.name)}", "", *not_made_lines(parts, TRACEBACKS)]
    lines += [*(f"- {markdown_text(sentence)}" for sentence in sentences), ""]
    lines += [*markdown_table(table.headers, table.rows), "", markdown_text(table.note), ""] if table else []
    lines += [f"![{table.title if table else _NAME}](figures/{_NAME}.png)", ""] if pictures else []
    tracebacks = parts.write_tracebacks(folder / TRACEBACKS)
    with refusals_explained("results_dir", folder, GO_ON, names_file=True):
        write_whole(folder / "report.md", "\n".join([*lines, *details, "## Command", "", *code_block(command), ""]))
    if table:
        parts.make("printed table", None, print_table, console, table.headers, table.rows)
    note = [table.note] if table else []
    print_text(console, *note, *sentences)
    print_path(console, "Report", folder / "report.md")
    print_path(console, "Figure", *pictures[:1])
    print_text(console, *not_made_notice(parts, tracebacks))
    return folder / "report.md"


def _as_protocols(found: StudyComparison) -> pd.DataFrame:
    return shown_frame(found.frame.rename(columns={"study": "protocol"}))


def _table(found: StudyComparison) -> Section:
    return protocols_table(_as_protocols(found), found.margins, METRICS[found.metric], STUDY)


def _write_frames(found: StudyComparison) -> None:
    frames = {"contrasts": found.frame, "effects": found.effects, "cells": found.cells, "pairs": found.pairs}
    for name, frame in (frames | {"options": found.options}).items():
        write_whole(found.folder / "tables" / f"{name}.csv", frame.to_csv(index=False, float_format="%.10g"))


def _draw(found: StudyComparison, parts: Parts) -> list[Path]:
    shown = _as_protocols(found)
    frame = shown[shown["n"] > 0]
    if frame.empty:
        return []
    caption = parts.make(f"caption of figure {_NAME}", "", _caption, found, frame)
    drawn = draw_protocols(frame, found.margins, METRICS[found.metric], caption)
    return style.save(drawn, frame.rename(columns={"protocol": "study"}), found.folder / "figures" / _NAME)


def _caption(found: StudyComparison, frame: pd.DataFrame) -> str:
    correction = f"corrected for {count(int((found.frame['n'] > 1).sum()), 'contrast')} of all studies"
    lines = "; ".join(f"{label}: {line}" for label, line in study_lines(found).items())
    return (
        f"Bars: 95 % CI, each on its own; verdicts: {correction}; filled markers: decided; shaded: within the "
        f"equivalence margin of {margin_text(found.margins, METRICS[found.metric])}. n = {sizes_text(frame)} "
        f"replicates. {lines}."
    )


def _details(found: StudyComparison) -> list[str]:
    """Returns the lines on each study, and the table of differing options."""
    lines = ["## Studies", ""]
    for label, line in study_lines(found).items():
        study = found.studies[label]
        report = study.folder / "report.md"
        name = markdown_text(label)
        linked = f"[{name}]({relative_link(report, found.folder)})" if report.is_file() else name
        lines.append(f"- {linked}: {markdown_text(line)}. {markdown_text(study.declared.question)}")
    lines += ["", "## What differs", ""]
    if found.options.empty:
        return [*lines, "Nothing: options, networks, images, machine and versions are the same.", ""]
    rows = [[_shortened(str(value)) for value in row] for row in found.options.to_numpy().tolist()]
    return [*lines, *markdown_table(("option", *found.studies), rows), ""]


def _shortened(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"
