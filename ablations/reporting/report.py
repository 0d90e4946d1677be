"""A study's report: its sentences, tables and figures, and the text of `report.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.analysis.study import StudyAnalysis
from ablations.common.files import write_whole
from ablations.common.urls import relative_link
from ablations.config import ATTENTION
from ablations.design.network import capacities_of
from ablations.reporting.figures import FIGURES
from ablations.reporting.figures.registry import Gallery, draw_figures
from ablations.reporting.tables.costs import costs_sections
from ablations.reporting.tables.predictions import prediction_sections
from ablations.reporting.tables.render import markdown_table
from ablations.reporting.tables.sections import Section, make_sections, unfinished_table
from ablations.reporting.tables.tuning import tuning_sections
from ablations.reporting.tables.variants import summary_table
from ablations.reporting.text.capacity import capacity_clause
from ablations.reporting.text.conclusions import conclusions
from ablations.reporting.text.declaration import declaration_rows, declaration_sentences
from ablations.reporting.text.markdown import code_block, markdown_text
from ablations.reporting.text.scope import protocol_options
from ablations.reporting.text.tuning import tuning_sentences

_NAMED_CLASSES = 100


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
    """
    sections = [
        *make_sections(analysis),
        *costs_sections(analysis),
        *tuning_sections(analysis),
        *prediction_sections(analysis),
    ]
    sentences = [*declaration_sentences(analysis), *conclusions(analysis), *tuning_sentences(analysis)]
    gallery = draw_figures(analysis, figures)
    opening = _opening(analysis, sentences, sections)
    report = Report(analysis, sentences, sections, gallery, opening, opening + _details(analysis, gallery))
    write_whole(report.path, report.text)
    return report


def _opening(analysis: StudyAnalysis, sentences: Sequence[str], sections: Sequence[Section]) -> str:
    design, variants = analysis.design, summary_table(analysis)
    lines = [f"# {markdown_text(design.study)}", "", markdown_text(design.question), ""]
    lines += [*(f"- {markdown_text(sentence)}" for sentence in sentences), ""]
    lines += [*markdown_table(variants.headers, variants.rows), "", markdown_text(variants.note)]
    for section in sections:
        lines += ["", f"## {markdown_text(section.title)}", "", markdown_text(section.note)]
        lines += ["", *markdown_table(section.headers, section.rows)] if section.rows else []
    return "\n".join([*lines, "", ""])


def _details(analysis: StudyAnalysis, gallery: Gallery) -> str:
    """Writes the rest: what is not finished, the figures, networks, protocol and origin."""
    design, attributes, unfinished = analysis.design, analysis.attributes, unfinished_table(analysis)
    lines: list[str] = []
    if unfinished.rows:
        lines += ["**Not finished:**", "", *markdown_table(unfinished.headers, unfinished.rows), ""]
    for drawn in gallery.drawn:
        lines += [f"![{markdown_text(drawn.title)}]({relative_link(drawn.png, analysis.folder)})", ""]
    if gallery.left_out:
        reasons = (f"- {name}: {markdown_text(reason)}" for name, reason in gallery.left_out.items())
        lines += ["Figures that were left out:", "", *reasons, ""]
    # Those without a finished cell too, unless there are too many.
    listed = [variant for variant in design.variants if analysis.shows_all or variant.name in analysis.shown]
    networks = []
    for variant in listed:
        defaults = vars(ATTENTION[variant.attention["name"]]())
        capacity = capacity_clause(capacities_of(variant.network))
        networks.append([variant.name, _spoken(variant.model, {}), _spoken(variant.attention, defaults), capacity])
    lines += ["## Networks", "", *markdown_table(("variant", "model", "attention", "capacity"), networks), ""]
    lines += ["Knobs that are not named have their defaults, which `--help` lists.", ""]
    for variant in listed:
        if variant.clamped:
            places = ", ".join(f"{groups} on {channels} channels" for channels, groups in variant.clamped.items())
            lines += [f"{markdown_text(variant.name)} has fewer groups on narrow places: {places}.", ""]
    if declared := declaration_rows(analysis):
        lines += ["## Declared before the first cell", "", *_pairs("what", "declared", declared)]
    lines += ["## Protocol", "", "What all cells share:", ""]
    lines += [*_pairs("option", "value", protocol_options(analysis)), *_data(attributes.get("data"))]
    lines += ["## Made by", "", *code_block(str(attributes.get("command", "unknown"))), ""]
    for environment in analysis.results.environments:
        lines += _pairs("environment", "", environment)
    return "\n".join(lines)


def _pairs(name: str, value: str, known: Mapping[str, str]) -> list[str]:
    return [*markdown_table((name, value), [list(pair) for pair in known.items()]), ""]


def _data(data: Mapping[str, Any] | None) -> list[str]:
    if data is None:
        return []
    names = ", ".join(data["classes"][:_NAMED_CLASSES]) + (", ..." if len(data["classes"]) > _NAMED_CLASSES else "")
    images = f"{data['train']:,} training and {data['test']:,} test images"
    return [f"Data: {images} of {len(data['classes'])} classes: {markdown_text(names)}.", ""]


def _spoken(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Names a backbone or a module with the options that differ from their defaults.

    Numbers that `auto` stands for, as groups and reduction, are always named: they are stored resolved.
    """
    knobs = {knob: value for knob, value in settings.items() if knob != "name"}
    shown = [knob for knob in knobs if knob not in defaults or knobs[knob] != defaults[knob]]
    return " ".join([settings["name"], *(f"{knob}={knobs[knob]}" for knob in shown)])
