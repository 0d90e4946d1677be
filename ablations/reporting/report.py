"""A study's report: its sentences, tables and figures, and the text of `report.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.analysis.study import StudyAnalysis
from ablations.common.files import refusals_explained, write_whole
from ablations.reporting.figures import FIGURES
from ablations.reporting.figures.gallery import Gallery, draw_figures
from ablations.reporting.markdown import details_text, opening_text
from ablations.reporting.tables.sections import Section, make_sections
from ablations.reporting.text.conclusions import conclusions
from ablations.storage.paths import GO_ON


@dataclass(frozen=True)
class Report:
    """A study's report: the sentences, further tables, the figures, and the Markdown text.

    `opening` is the part of the text that needs no figures: question, sentences and tables.
    """

    analysis: StudyAnalysis
    sentences: list[str]
    sections: list[Section]
    gallery: Gallery
    opening: str
    text: str

    @property
    def folder(self) -> Path:
        """Where everything stands."""
        return self.analysis.folder

    @property
    def path(self) -> Path:
        """Where the report stands."""
        return self.folder / "report.md"


def make_report(analysis: StudyAnalysis, figures: Sequence[str] = tuple(FIGURES)) -> Report:
    """Draws the figures of these names and writes `report.md` into the study's folder.

    Where no cell is finished, the report says why, and has no figures.

    Raises:
        UsageError: if the folder cannot be written.
    """
    sentences = conclusions(
        analysis.summaries, analysis.contrasts, analysis.results, analysis.design, analysis.looks, analysis.shown
    )
    sections = make_sections(analysis)
    with refusals_explained("results_dir", analysis.folder, GO_ON, names_file=True):
        gallery = draw_figures(analysis, figures)
        opening = opening_text(analysis, sentences, sections)
        text = opening + details_text(analysis, gallery)
        report = Report(analysis, sentences, sections, gallery, opening, text)
        write_whole(report.path, text)
    return report
