"""Tables and text: what a study found, for the terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from ablations.config import ATTENTION
from ablations.design import Design
from ablations.errors import UsageError
from ablations.figures.gallery import draw_figures
from ablations.metrics import METRICS
from ablations.results import Results
from ablations.sections import Section, make_sections
from ablations.stats import Estimate, VariantSummary, paired_difference, summarise
from ablations.tables import markdown_table, print_table
from ablations.variants import flatten
from ablations.wording import count, points, points_with_interval

_HEADERS = (
    "variant", "n", "top-1 % [95 % CI]", "difference [95 % CI]", "step time × plain", "train images/s",
    "peak memory MiB", "parameters",
)  # fmt: skip


_COSTS = (
    "Step time is that of a training step over the plain network's, timed in turns with it after training (median over "
    "replicates, lowest to highest); a plain network's own is an A/A comparison and says how far the noise goes. "
    "Images/s and memory are medians over replicates; peak memory is that of one training step, without the data set. "
    "A dash is what was not measured: it would have taken more than a tenth of the cell's time, or `measure=off`."
)
_NAMED_CLASSES = 100


@dataclass(frozen=True)
class Report:
    """A study's report: the table, the sentences, further tables, and the files that were written.

    `findings` is the part of the Markdown `text` that needs no figures: question, sentences and table.
    """

    summaries: list[VariantSummary]
    sentences: list[str]
    sections: list[Section]
    folder: Path
    figures: list[Path]
    findings: str
    text: str

    @property
    def path(self) -> Path:
        """Where the report stands."""
        return self.folder / "report.md"


def make_report(design: Design, results: Results, attributes: Mapping[str, Any], folder: Path) -> Report:
    """Draws the figures and writes `report.md` into `folder`, from what is stored.

    Args:
        design: the study.
        results: its cells; where none is finished, the report says why, and has no figures.
        attributes: what the store remembers of the study, as the command that ran it.
        folder: `results/<study>`.

    Raises:
        UsageError: if nothing was ever tried, or the folder cannot be written.
    """
    if results.cells.empty and not (results.unfinished["state"] == "failed").any():
        raise UsageError("study", design.study, "no cell of this sweep is finished yet; `run` trains them")
    names = [variant.name for variant in design.variants]
    summaries = summarise(results.cells, names, design.baselines)
    sentences = conclusions(summaries, results, design)
    sections = make_sections(design, results)
    try:
        figures = draw_figures(design, results, folder / "figures") if summaries else []
        findings = _findings(design, summaries, sentences, sections)
        text = findings + _details(design, results, attributes, figures, folder)
        (folder / "report.md").write_text(text)
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise UsageError("results_dir", error.filename or folder, reason) from None
    return Report(summaries, sentences, sections, folder, figures, findings, text)


def print_report(console: Console, report: Report) -> None:
    """Prints the tables and the sentences."""
    print_table(console, _HEADERS, [_row(summary) for summary in report.summaries])
    for sentence in report.sentences:
        console.print(sentence, soft_wrap=True, markup=False)
    for section in report.sections:
        console.print(f"\n[bold]{section.title}[/]")
        if section.rows:
            print_table(console, section.headers, section.rows, section.names)
        console.print(section.note, soft_wrap=True, markup=False)


def conclusions(summaries: Sequence[VariantSummary], results: Results, design: Design) -> list[str]:
    """Says in plain words what the study shows, and how sure that is."""
    if not summaries:
        return ["No cell is finished: every one that was tried failed."]
    contrasts = [summary for summary in summaries if summary.difference is not None]
    sentences = _best_level(summaries, results.cells)
    if design.is_search:
        sentences.append("The differences in the table are those of variants that were picked for being good.")
    elif contrasts and not any(_has_interval(summary) for summary in contrasts):
        sentences.append("One replicate a variant: nothing says how sure the differences in the table are.")
    else:
        sentences += [_contrast(summary) for summary in contrasts]
    if any(_has_interval(summary) for summary in contrasts):
        sentences.append(
            "Intervals are paired 95 % CIs over seeds, on one set of data, each on its own: "
            "they are not corrected for how many there are, nor for looking before adding replicates."
        )
    given_up = int((results.unfinished["state"] == "pruned").sum())
    if given_up:
        verb = "is" if given_up == 1 else "are"
        sentences.append(f"{count(given_up, 'variant')} {verb} in none of these means: the search gave up on them.")
    failed = int((results.unfinished["state"] == "failed").sum())
    if failed:
        verb = "is" if failed == 1 else "are"
        sentences.append(f"{count(failed, 'cell')} failed and {verb} in none of these means.")
    if len(results.environments) > 1:
        sentences.append(
            f"The cells were trained in {len(results.environments)} different environments, listed below: "
            "speeds are not comparable, and accuracies only as far as the environments are."
        )
    return sentences


def _best_level(summaries: Sequence[VariantSummary], cells: pd.DataFrame) -> list[str]:
    """Says which variants are highest, and from which others the study can tell them."""
    if len(summaries) < 3 or len({summary.baseline for summary in summaries}) > 1:
        return []  # of different backbones, the highest says nothing about attention
    highest = max(summary.top1.mean for summary in summaries)
    best, *ties = (summary for summary in summaries if summary.top1.mean > highest - 1e-9)
    names = " and ".join(_called(summary) for summary in (best, *ties))
    shown = METRICS["top1"].format(highest) if ties else _top1(best.top1)
    start = f"Highest: {names}, {shown} % (n = {best.top1.n})"
    if best.top1.n < 2:
        return [f"{start}; one replicate says nothing about how sure that is."]
    sentences = [f"{start}, picked after seeing the results, which flatters it."]
    told: list[str] = []
    not_told: list[str] = []
    for other in summaries if not ties else ():
        if other is not best:
            difference = paired_difference(cells, best.variant, other.variant)
            told_apart = difference is not None and difference.has_spread and difference.low > 0
            (told if told_apart else not_told).append(_called(other))
    if told:
        sentences.append(f"The paired 95 % CI of what it has over {'; '.join(told)} excludes 0.")
    if not_told:
        sentences.append(f"This study cannot tell it from {'; '.join(not_told)}.")
    return [" ".join(sentences)]


def _called(summary: VariantSummary) -> str:
    return f"{summary.variant} (the baseline)" if summary.is_baseline else summary.variant


def _has_interval(summary: VariantSummary) -> bool:
    return summary.difference is not None and summary.difference.has_interval


def _contrast(summary: VariantSummary) -> str:
    variant, difference = summary.variant, summary.difference
    assert difference is not None
    size = f"{points(difference.mean)} points against {summary.baseline}"
    if not difference.has_interval:
        return f"{variant}: {size}; one replicate says nothing about how sure that is."
    if not difference.has_spread:
        return f"{variant}: {size} (n = {difference.n}), the same in every replicate: no spread to judge it by."
    where = f"n = {difference.n}, 95 % CI {points(difference.low)} to {points(difference.high)}"
    if difference.low > 0 or difference.high < 0:
        return f"{variant}: {size} ({where}): the interval excludes 0."
    return f"{variant}: {size} ({where}): undecided, the interval includes 0."


def _top1(top1: Estimate) -> str:
    shown = METRICS["top1"].format
    interval = f" [{shown(top1.low)}, {shown(top1.high)}]" if top1.has_spread else ""
    return shown(top1.mean) + interval


def _row(summary: VariantSummary) -> list[str]:
    if summary.difference is not None:
        shown = points_with_interval(summary.difference)
    else:
        shown = "baseline" if summary.is_baseline else "no pair"
    cost = (
        METRICS[key].format(getattr(summary, key))
        for key in ("train_images_per_second", "peak_memory_mib", "parameters")
    )
    return [summary.variant, str(summary.top1.n), _top1(summary.top1), shown, _step_time(summary), *cost]


def _step_time(summary: VariantSummary) -> str:
    ratio, shown = summary.train_time_ratio, METRICS["train_time_ratio"].format
    if ratio is None:
        return shown(math.nan)
    return shown(ratio.median) + (f" ({shown(ratio.low)} to {shown(ratio.high)})" if ratio.n > 1 else "")


def _findings(
    design: Design, summaries: Sequence[VariantSummary], sentences: Sequence[str], sections: Sequence[Section]
) -> str:
    lines = [f"# {design.study}", "", design.question, "", *(f"- {sentence}" for sentence in sentences), ""]
    lines += markdown_table(_HEADERS, [_row(summary) for summary in summaries])
    lines += ["", _COSTS]
    for section in sections:
        lines += ["", f"## {section.title}", "", section.note]
        lines += ["", *markdown_table(section.headers, section.rows)] if section.rows else []
    return "\n".join([*lines, "", ""])


def _details(
    design: Design, results: Results, attributes: Mapping[str, Any], figures: Sequence[Path], folder: Path
) -> str:
    lines: list[str] = []
    if len(results.unfinished):
        lines += ["**Not finished:**", ""]
        rows = [
            [str(row["variant"]), str(row["replicate"]), str(row["state"]), _last_line(row["reason"])]
            for row in results.unfinished.to_dict("records")
        ]
        lines += [*markdown_table(("variant", "replicate", "state", "reason"), rows), ""]
    lines += [f"![{path.stem}]({path.relative_to(folder).as_posix()})\n" for path in figures if path.suffix == ".png"]
    lines += ["## Networks", ""]
    networks = [[variant.name, _model(variant.model), _attention(variant.attention)] for variant in design.variants]
    lines += [*markdown_table(("variant", "model", "attention"), networks), ""]
    lines += ["Knobs that are not named have their defaults, which `--help` lists.", ""]
    for variant in design.variants:
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


def _last_line(reason: object) -> str:
    return str(reason).strip().splitlines()[-1] if isinstance(reason, str) and reason.strip() else ""
