"""The text of `report.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ablations.analysis.study import StudyAnalysis
from ablations.config import ATTENTION
from ablations.reporting.figures.gallery import Gallery
from ablations.reporting.tables.overview import summary_table, unfinished_table
from ablations.reporting.tables.render import markdown_table
from ablations.reporting.tables.sections import Section
from ablations.reporting.text.protocol import protocol_options

_NAMED_CLASSES = 100


def opening_text(analysis: StudyAnalysis, sentences: Sequence[str], sections: Sequence[Section]) -> str:
    """Writes the part of a report that needs no figures: question, sentences and tables."""
    design, variants = analysis.design, summary_table(analysis)
    lines = [f"# {design.study}", "", design.question, "", *(f"- {sentence}" for sentence in sentences), ""]
    lines += markdown_table(variants.headers, variants.rows)
    lines += ["", variants.note]
    for section in sections:
        lines += ["", f"## {section.title}", "", section.note]
        lines += ["", *markdown_table(section.headers, section.rows)] if section.rows else []
    return "\n".join([*lines, "", ""])


def details_text(analysis: StudyAnalysis, gallery: Gallery) -> str:
    """Writes the rest: what is not finished, the figures, networks, protocol and origin."""
    design, results, attributes = analysis.design, analysis.results, analysis.attributes
    lines: list[str] = []
    if len(results.unfinished):
        lines += ["**Not finished:**", ""]
        unfinished = unfinished_table(analysis)
        lines += [*markdown_table(unfinished.headers, unfinished.rows), ""]
    for drawn in gallery.drawn:
        lines += [f"![{drawn.title}]({drawn.png.relative_to(analysis.folder).as_posix()})", ""]
    if gallery.left_out:
        lines += ["Figures that were left out:", ""]
        lines += [*(f"- {name}: {reason}" for name, reason in gallery.left_out.items()), ""]
    lines += ["## Networks", ""]
    # Those without a finished cell too, unless there are too many.
    listed = [variant for variant in design.variants if analysis.shows_all or variant.name in analysis.shown]
    networks = [[variant.name, _model(variant.model), _attention(variant.attention)] for variant in listed]
    lines += [*markdown_table(("variant", "model", "attention"), networks), ""]
    lines += ["Knobs that are not named have their defaults, which `--help` lists.", ""]
    for variant in listed:
        if variant.clamped:
            places = ", ".join(f"{groups} on {channels} channels" for channels, groups in variant.clamped.items())
            lines += [f"{variant.name} has fewer groups on narrow places: {places}.", ""]
    lines += ["## Protocol", "", "What all cells share:", ""]
    rows = [list(row) for row in protocol_options(analysis).items()]
    lines += [*markdown_table(("option", "value"), rows), "", *_data(attributes.get("data"))]
    lines += ["## Made by", "", "```", str(attributes.get("command", "unknown")), "```", ""]
    for environment in results.environments:
        lines += [*markdown_table(("environment", ""), [[name, value] for name, value in environment.items()]), ""]
    return "\n".join(lines)


def _data(data: Mapping[str, Any] | None) -> list[str]:
    if data is None:
        return []
    names = ", ".join(data["classes"][:_NAMED_CLASSES]) + (", ..." if len(data["classes"]) > _NAMED_CLASSES else "")
    images = f"{data['train']:,} training and {data['test']:,} test images"
    return [f"Data: {images} of {len(data['classes'])} classes: {names}.", ""]


def _model(model: Mapping[str, Any]) -> str:
    return " ".join([model["name"], *(f"{key}={value}" for key, value in model.items() if key != "name")])


def _attention(attention: Mapping[str, Any]) -> str:
    """Names a module with its groups and whatever else is not its default."""
    defaults = vars(ATTENTION[attention["name"]]())
    shown = [f"{knob}={value}" for knob, value in attention.items() if knob == "groups" or value != defaults[knob]]
    return " ".join([attention["name"], *(text for text in shown if not text.startswith("name="))])
