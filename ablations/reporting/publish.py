"""Writes a study's report, page, tables and figures, and prints a summary with their paths."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ablations.analysis.study import StudyAnalysis
from ablations.common.console import print_path, print_text
from ablations.common.errors import UsageError
from ablations.common.files import refusals_explained
from ablations.common.parts import TRACEBACKS, Parts
from ablations.reporting.figures import FIGURES
from ablations.reporting.figures.registry import draw_figures
from ablations.reporting.page.page import write_page
from ablations.reporting.report import Report, make_report
from ablations.reporting.tables.export import write_tables
from ablations.reporting.tables.render import print_table
from ablations.reporting.text.not_made import not_made_notice
from ablations.reporting.text.scope import missing_sentence, shown_sentence
from ablations.storage.paths import GO_ON


def report_study(analysis: StudyAnalysis, console: Console, figures: Sequence[str] = tuple(FIGURES)) -> Report:
    """Writes and prints a study's report with the given figures.

    A failed part is left out; `Report.parts`, the report and the page list it with the reason.

    Raises:
        UsageError: if `report.md` cannot be written, after writing everything else.
    """
    # Modules and results stay alive, so exclude them from garbage collection, which saves a fifth of the time for
    # 10,000 cells.
    gc.collect()
    gc.freeze()
    parts = Parts()
    tables = write_tables(analysis, parts)
    report = make_report(analysis, figures, parts)
    page = parts.make("page", None, write_page, report, tables)
    parts.write_tracebacks(report.folder / TRACEBACKS)
    with refusals_explained("results_dir", analysis.folder, GO_ON, names_file=True):
        report.write()
    parts.make("printed report", None, print_report, console, report)
    if missing := parts.make("sentence on missing cells", "", missing_sentence, analysis.results):
        print_text(console, f"{missing} See the report for the reasons.")
    print_path(console, "Report", report.path)
    print_path(console, "Page", *([page] if page else []))
    print_path(console, "Figures", *(drawn.png for drawn in report.gallery.drawn))
    print_text(console, *not_made_notice(parts, parts.write_tracebacks(report.folder / TRACEBACKS)))
    return report


def report_figures(analysis: StudyAnalysis, console: Console, names: Sequence[str]) -> Parts:
    """Draws figures by name and prints their paths; returns the parts that failed.

    Raises:
        UsageError: if the study does not have one of the figures, after drawing the others; or if its folder cannot be
            written.
    """
    parts = Parts()
    gallery = draw_figures(analysis, names, parts)
    for drawn in gallery.drawn:
        print_path(console, drawn.name, *drawn.files)
    print_text(console, *not_made_notice(parts, parts.write_tracebacks(analysis.folder / TRACEBACKS)))
    for name, reason in gallery.left_out.items():
        raise UsageError("figures", name, f"cannot be drawn of this study: {reason}")
    return parts


def add_missing(console: Console, folder: Path, parts: Parts, later: Parts) -> None:
    """Adds parts that failed after a report was written to its parts, and prints them."""
    if later.missing:
        parts.missing += later.missing
        print_text(console, *not_made_notice(later, parts.write_tracebacks(folder / TRACEBACKS)))


def print_report(console: Console, report: Report) -> None:
    """Prints the tables and the sentences."""
    if report.variants:
        print_table(console, report.variants.headers, report.variants.rows)
        print_text(console, *([] if report.analysis.shows_all else [shown_sentence(report.analysis)]))
    print_text(console, *report.sentences)
    for section in report.sections:
        console.print(f"\n[bold]{section.title}[/]")
        if section.rows:
            print_table(console, section.headers, section.rows, section.names)
        print_text(console, section.note)
