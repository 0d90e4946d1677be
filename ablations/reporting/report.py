"""A study's report: its sentences, tables and figures, and the text of `report.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.analysis.study import StudyAnalysis
from ablations.common.files import write_whole
from ablations.common.parts import RAISE, TRACEBACKS, Parts
from ablations.common.urls import relative_link
from ablations.config import ATTENTION
from ablations.design.network import capacities_of
from ablations.reporting.figures import FIGURES
from ablations.reporting.figures.registry import Drawn, Gallery, draw_figures
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
from ablations.reporting.text.not_made import not_made_lines
from ablations.reporting.text.scope import protocol_options
from ablations.reporting.text.tuning import tuning_sentences

_NAMED_CLASSES = 100


@dataclass(frozen=True)
class Report:
    """A study's report: the sentences, the tables, the figures, and the Markdown text.

    `variants` is the table of variants, None if it failed; `parts` has all failed parts; `body` and `details` are the
    lines of the text before and after the figures.
    """

    analysis: StudyAnalysis
    parts: Parts
    sentences: list[str]
    variants: Section | None
    sections: list[Section]
    gallery: Gallery
    body: list[str]
    details: list[str]

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.analysis.folder

    @property
    def path(self) -> Path:
        """The file of the report."""
        return self.folder / "report.md"

    @property
    def opening(self) -> str:
        """The text before the figures: question, missing parts, sentences and tables."""
        design = self.analysis.design
        head = [
            f"# {markdown_text(design.study)}",
            "",
            markdown_text(design.question),
            "",
            *not_made_lines(self.parts, TRACEBACKS),
        ]
        return "\n".join([*head, *self.body, "", ""])

    @property
    def text(self) -> str:
        """The complete text, with the parts that have failed so far."""
        return self.opening + "\n".join(self.details)

    def write(self) -> None:
        """Writes `report.md` into the study's folder; raises OSError if it cannot be written."""
        write_whole(self.path, self.text)


def make_report(analysis: StudyAnalysis, figures: Sequence[str] = tuple(FIGURES), parts: Parts = RAISE) -> Report:
    """Draws figures by name and returns the report, which is not written yet.

    Without a finished cell the report states the reason and has no figures. Failures are recorded in `parts`.
    """
    nothing: list[Any] = []
    sections = [
        *parts.make("section of effects or selection", nothing, make_sections, analysis, parts),
        *parts.make("section of costs", nothing, costs_sections, analysis),
        *parts.make("section of tuning", nothing, tuning_sections, analysis, parts),
        *parts.make("section of predictions", nothing, prediction_sections, analysis),
    ]
    sentences = [
        *parts.make("sentences on what was declared", nothing, declaration_sentences, analysis),
        *parts.make("conclusions", nothing, conclusions, analysis),
        *parts.make("sentences on tuning", nothing, tuning_sentences, analysis),
    ]
    parts.make("list of cells that cannot be read", None, _note_unreadable, analysis, parts)
    variants = parts.make("table of variants", None, summary_table, analysis)
    gallery = draw_figures(analysis, figures, parts)
    body = [*parts.make("sentences in the report", nothing, _items, sentences)]
    body += parts.make("table of variants", nothing, _variants, variants) if variants else []
    for section in sections:
        body += parts.make(f"section {section.title}", nothing, _section, section)
    details = _details(analysis, gallery, parts)
    return Report(analysis, parts, sentences, variants, sections, gallery, body, details)


def _note_unreadable(analysis: StudyAnalysis, parts: Parts) -> None:
    for row in analysis.results.unreadable.to_dict("records"):
        parts.leave_out(f"cell {row['variant']} r{row['replicate']}", str(row["reason"]))


def _items(sentences: Sequence[str]) -> list[str]:
    return [*(f"- {markdown_text(sentence)}" for sentence in sentences), ""]


def _variants(variants: Section) -> list[str]:
    return [*markdown_table(variants.headers, variants.rows), "", markdown_text(variants.note)]


def _section(section: Section) -> list[str]:
    table = ["", *markdown_table(section.headers, section.rows)] if section.rows else []
    return ["", f"## {markdown_text(section.title)}", "", markdown_text(section.note), *table]


def _details(analysis: StudyAnalysis, gallery: Gallery, parts: Parts) -> list[str]:
    """Returns the lines on unfinished cells, figures, networks, protocol and origin."""
    attributes, nothing = analysis.attributes, list[str]()
    lines = [*parts.make("table of unfinished cells", nothing, _unfinished, analysis)]
    for drawn in gallery.drawn:
        lines += parts.make(f"figure {drawn.name} in the report", nothing, _figure, drawn, analysis.folder)
    if gallery.left_out:
        lines += parts.make("list of figures that were left out", nothing, _left_out, gallery.left_out)
    lines += parts.make("table of networks", nothing, _networks, analysis)
    lines += parts.make("table of what was declared", nothing, _declared, analysis)
    lines += ["## Protocol", "", "Shared by all cells:", ""]
    lines += parts.make("table of the protocol", nothing, _protocol, analysis)
    lines += parts.make("command", nothing, _command, str(attributes.get("command", "unknown")))
    for environment in analysis.results.environments:
        lines += parts.make("table of the environment", nothing, _pairs, "environment", "", environment)
    return lines


def _figure(drawn: Drawn, folder: Path) -> list[str]:
    return [f"![{markdown_text(drawn.title)}]({relative_link(drawn.png, folder)})", ""]


def _left_out(reasons: Mapping[str, str]) -> list[str]:
    sentences = [f"{name}: {reason}" for name, reason in reasons.items()]
    return ["Figures that cannot be drawn:", "", *_items(sentences)]


def _command(command: str) -> list[str]:
    return ["## Command", "", *code_block(command), ""]


def _declared(analysis: StudyAnalysis) -> list[str]:
    declared = declaration_rows(analysis)
    return ["## Declared before the first cell", "", *_pairs("what", "declared", declared)] if declared else []


def _unfinished(analysis: StudyAnalysis) -> list[str]:
    unfinished = unfinished_table(analysis)
    if not unfinished.rows:
        return []
    return ["**Not finished:**", "", *markdown_table(unfinished.headers, unfinished.rows), ""]


def _networks(analysis: StudyAnalysis) -> list[str]:
    # Includes variants without a finished cell, unless there are too many.
    listed = [variant for variant in analysis.design.variants if analysis.shows_all or variant.name in analysis.shown]
    networks = []
    for variant in listed:
        defaults = vars(ATTENTION[variant.attention["name"]]())
        capacity = capacity_clause(capacities_of(variant.network))
        networks.append([variant.name, _spoken(variant.model, {}), _spoken(variant.attention, defaults), capacity])
    lines = ["## Networks", "", *markdown_table(("variant", "model", "attention", "capacity"), networks), ""]
    lines += ["Options that are not listed have their defaults (see `--help`).", ""]
    for variant in listed:
        if variant.clamped:
            places = ", ".join(f"{groups} on {channels} channels" for channels, groups in variant.clamped.items())
            lines += [f"{markdown_text(variant.name)} has fewer groups at narrow insertion points: {places}.", ""]
    return lines


def _protocol(analysis: StudyAnalysis) -> list[str]:
    return [*_pairs("option", "value", protocol_options(analysis)), *_data(analysis.attributes.get("data"))]


def _pairs(name: str, value: str, known: Mapping[str, str]) -> list[str]:
    return [*markdown_table((name, value), [list(pair) for pair in known.items()]), ""]


def _data(data: Mapping[str, Any] | None) -> list[str]:
    if data is None:
        return []
    names = ", ".join(data["classes"][:_NAMED_CLASSES]) + (", ..." if len(data["classes"]) > _NAMED_CLASSES else "")
    images = f"{data['train']:,} training and {data['test']:,} test images"
    return [f"Data: {images} of {len(data['classes'])} classes: {markdown_text(names)}.", ""]


def _spoken(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Returns the name of a backbone or a module with the options that differ from their defaults.

    Options with the default `auto`, such as groups and reduction, are always included, because they are stored
    resolved.
    """
    knobs = {knob: value for knob, value in settings.items() if knob != "name"}
    shown = [knob for knob in knobs if knob not in defaults or knobs[knob] != defaults[knob]]
    return " ".join([settings["name"], *(f"{knob}={knobs[knob]}" for knob in shown)])
