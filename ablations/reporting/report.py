"""Tables and text: what a study found, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ablations.analysis.study import Findings
from ablations.common.files import refusals_explained, write_whole
from ablations.common.metrics import METRICS
from ablations.common.settings import flatten
from ablations.common.wording import last_line
from ablations.config import ATTENTION
from ablations.reporting.figures import FIGURES
from ablations.reporting.figures.gallery import Gallery, draw_figures
from ablations.reporting.tables.render import markdown_table, print_table
from ablations.reporting.tables.sections import Section, make_sections
from ablations.reporting.text.conclusions import conclusions, step_time, top1_with_interval
from ablations.reporting.text.numbers import points_with_interval
from ablations.stats import VariantSummary
from ablations.storage.folder import GO_ON

_HEADERS = (
    "variant", "n", "top-1 % [95 % CI]", "difference [95 % CI]", "verdict", "step time × plain", "images/s",
    "peak MiB", "parameters",
)  # fmt: skip


_COSTS = (
    "Step time is that of a training step over the plain network's, timed in turns with it after training (median over "
    "replicates, lowest to highest); a plain network's own is an A/A comparison and says how far the noise goes. "
    "Images/s are those of training, peak MiB the memory of a training step without the data set: medians over "
    "replicates. "
    "A dash is what was not measured: it would have taken more than a tenth of the cell's time, or `measure=off`."
)
_NAMED_CLASSES = 100
_LISTED = 100  # cells that are not finished
UNFINISHED = ("variant", "replicate", "state", "reason")


@dataclass(frozen=True)
class Report:
    """A study's report: the sentences, further tables, the figures, and the Markdown text.

    `opening` is the part of the text that needs no figures: question, sentences and tables.
    """

    findings: Findings
    sentences: list[str]
    sections: list[Section]
    gallery: Gallery
    opening: str
    text: str

    @property
    def folder(self) -> Path:
        """Where everything stands."""
        return self.findings.folder

    @property
    def path(self) -> Path:
        """Where the report stands."""
        return self.folder / "report.md"


def make_report(findings: Findings, figures: Sequence[str] = tuple(FIGURES)) -> Report:
    """Draws the figures of these names and writes `report.md` into the study's folder.

    Where no cell is finished, the report says why, and has no figures.

    Raises:
        UsageError: if the folder cannot be written.
    """
    sentences = conclusions(
        findings.summaries, findings.contrasts, findings.results, findings.design, findings.looks, findings.shown
    )
    sections = make_sections(findings)
    with refusals_explained("results_dir", findings.folder, GO_ON, names_file=True):
        gallery = draw_figures(findings, figures)
        opening = _opening(findings, sentences, sections)
        text = opening + _details(findings, gallery)
        write_whole(findings.folder / "report.md", text)
    return Report(findings, sentences, sections, gallery, opening, text)


def print_report(console: Console, report: Report) -> None:
    """Prints the tables and the sentences."""
    print_table(console, _HEADERS, [_row(summary) for summary in report.findings.shown_summaries])
    if report.findings.shown_note:
        console.print(report.findings.shown_note, soft_wrap=True, markup=False)
    for sentence in report.sentences:
        console.print(sentence, soft_wrap=True, markup=False)
    for section in report.sections:
        console.print(f"\n[bold]{section.title}[/]")
        if section.rows:
            print_table(console, section.headers, section.rows, section.names)
        console.print(section.note, soft_wrap=True, markup=False)


def _row(summary: VariantSummary) -> list[str]:
    contrast = summary.contrast
    if contrast is not None and contrast.difference is not None:
        shown, verdict = points_with_interval(contrast.difference), contrast.verdict.value
    else:
        shown, verdict = "baseline" if summary.is_baseline else "no pair", ""
    cost = (
        METRICS[key].format(getattr(summary, key))
        for key in ("train_images_per_second", "peak_memory_mib", "parameters")
    )
    top1 = top1_with_interval(summary.top1)
    return [summary.variant, summary.replicates, top1, shown, verdict, step_time(summary.train_time_ratio), *cost]


def _opening(findings: Findings, sentences: Sequence[str], sections: Sequence[Section]) -> str:
    design = findings.design
    lines = [f"# {design.study}", "", design.question, "", *(f"- {sentence}" for sentence in sentences), ""]
    lines += markdown_table(_HEADERS, [_row(summary) for summary in findings.shown_summaries])
    lines += ["", f"{_COSTS} {findings.shown_note}".strip()]
    for section in sections:
        lines += ["", f"## {section.title}", "", section.note]
        lines += ["", *markdown_table(section.headers, section.rows)] if section.rows else []
    return "\n".join([*lines, "", ""])


def _details(findings: Findings, gallery: Gallery) -> str:
    design, results, attributes = findings.design, findings.results, findings.attributes
    lines: list[str] = []
    if len(results.unfinished):
        lines += ["**Not finished:**", ""]
        lines += [*markdown_table(UNFINISHED, unfinished_rows(findings)), ""]
    for drawn in gallery.drawn:
        lines += [f"![{drawn.title}]({drawn.png.relative_to(findings.folder).as_posix()})", ""]
    if gallery.left_out:
        lines += ["Figures that were left out:", ""]
        lines += [*(f"- {name}: {reason}" for name, reason in gallery.left_out.items()), ""]
    lines += ["## Networks", ""]
    # Those without a finished cell too, unless there are too many.
    listed = [variant for variant in design.variants if not findings.shown_note or variant.name in findings.shown]
    networks = [[variant.name, _model(variant.model), _attention(variant.attention)] for variant in listed]
    lines += [*markdown_table(("variant", "model", "attention"), networks), ""]
    lines += ["Knobs that are not named have their defaults, which `--help` lists.", ""]
    for variant in listed:
        if variant.clamped:
            places = ", ".join(f"{groups} on {channels} channels" for channels, groups in variant.clamped.items())
            lines += [f"{variant.name} has fewer groups on narrow places: {places}.", ""]
    lines += ["## Protocol", "", "What all cells share:", ""]
    rows = [[name, str(value)] for name, value in flatten(design.protocol).items()]
    rows.append(["data fingerprint", str(attributes.get("data_fingerprint", "unknown"))])
    lines += [*markdown_table(("option", "value"), rows), "", *_data(attributes.get("data"))]
    lines += ["## Made by", "", "```", str(attributes.get("command", "unknown")), "```", ""]
    for environment in results.environments:
        lines += [*markdown_table(("environment", ""), [[name, value] for name, value in environment.items()]), ""]
    return "\n".join(lines)


def unfinished_rows(findings: Findings) -> list[list[str]]:
    """Returns a row a cell that is not finished, the failed ones first where they are too many to be listed."""
    unfinished = findings.results.unfinished
    if len(unfinished) > _LISTED:
        unfinished = unfinished.sort_values("state", key=lambda states: states != "failed", kind="stable")
    rows = [
        [str(row["variant"]), str(row["replicate"]), str(row["state"]), last_line(row["reason"])]
        for row in unfinished.head(_LISTED).to_dict("records")
    ]
    if len(unfinished) > _LISTED:
        rows.append([f"and {len(unfinished) - _LISTED:,} others", "", "", ""])
    return rows


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
