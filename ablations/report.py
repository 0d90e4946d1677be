"""Tables and text: what a study found, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablations.design import Design, flatten
from ablations.errors import UsageError
from ablations.figures import style
from ablations.figures.curves import curves_frame, draw_curves
from ablations.figures.levels import draw_levels, levels_frame
from ablations.metrics import METRICS
from ablations.results import Results
from ablations.stats import Estimate, VariantSummary, paired_difference, summarise

_HEADERS = (
    "variant", "n", "top-1 % [95 % CI]", "difference [95 % CI]", "train images/s", "peak memory MiB", "parameters",
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """A study's report: the table, the sentences, and the files that were written.

    `findings` is the part of the Markdown `text` that needs no figures: question, sentences and table.
    """

    summaries: list[VariantSummary]
    sentences: list[str]
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
    summaries = summarise(results.cells, names, design.baseline)
    sentences = conclusions(summaries, design, results)
    try:
        figures = _draw(design, results, folder / "figures") if summaries else []
        findings = _findings(design, summaries, sentences)
        text = findings + _details(design, results, attributes, figures, folder)
        (folder / "report.md").write_text(text)
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise UsageError("results_dir", error.filename or folder, reason) from None
    return Report(summaries, sentences, folder, figures, findings, text)


def print_report(console: Console, report: Report) -> None:
    """Prints the table and the sentences."""
    table = Table(*_HEADERS, title=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for summary in report.summaries:
        table.add_row(*(Text(cell) for cell in _row(summary)))
    console.print(table)
    for sentence in report.sentences:
        console.print(sentence, soft_wrap=True, markup=False)


def conclusions(summaries: Sequence[VariantSummary], design: Design, results: Results) -> list[str]:
    """Says in plain words what the study shows, and how sure that is."""
    if not summaries:
        return ["No cell is finished: every one that was tried failed."]
    contrasts = [summary for summary in summaries if summary.difference is not None]
    sentences = _best_level(contrasts, results.cells)
    for summary in contrasts:
        assert summary.difference is not None
        sentences.append(_contrast(summary.variant, design.baseline, summary.difference))
    if any(summary.difference is not None and summary.difference.has_interval for summary in contrasts):
        sentences.append(
            "Intervals are paired 95 % CIs over seeds, on one set of data, each on its own: "
            "they are not corrected for how many there are, nor for looking before adding replicates."
        )
    failed = int((results.unfinished["state"] == "failed").sum())
    if failed:
        verb = "is" if failed == 1 else "are"
        sentences.append(f"{_count(failed, 'cell')} failed and {verb} in none of these means.")
    if len(results.environments) > 1:
        sentences.append(
            f"The cells were trained in {len(results.environments)} different environments, listed below: "
            "speeds are not comparable, and accuracies only as far as the environments are."
        )
    return sentences


def _best_level(contrasts: Sequence[VariantSummary], cells: pd.DataFrame) -> list[str]:
    """Says which variant but the baseline is highest, and from which others the study can tell it."""
    if len(contrasts) < 2:
        return []
    best = max(contrasts, key=lambda summary: summary.top1.mean)
    start = f"Highest of the variants: {best.variant}, {_top1(best.top1)} % (n = {best.top1.n})"
    if best.top1.n < 2:
        return [f"{start}; one replicate says nothing about how sure that is."]
    told: list[str] = []
    not_told: list[str] = []
    for other in contrasts:
        if other is not best:
            difference = paired_difference(cells, best.variant, other.variant)
            told_apart = difference is not None and difference.has_spread and difference.low > 0
            (told if told_apart else not_told).append(other.variant)
    sentences = [f"{start}, picked after seeing the results, which flatters it."]
    if told:
        sentences.append(f"The paired 95 % CI of what it has over {', '.join(told)} excludes 0.")
    if not_told:
        sentences.append(f"This study cannot tell it from {', '.join(not_told)}.")
    return [" ".join(sentences)]


def protocol_line(design: Design, results: Results) -> str:
    """Says in a line under which protocol and on which machine the cells were trained."""
    protocol = design.protocol
    machines = " and ".join(
        dict.fromkeys(known["gpu"] if protocol["device"] == "cuda" else known["cpu"] for known in results.environments)
    )
    models = " and ".join(dict.fromkeys(variant.model["name"] for variant in design.variants))
    return (
        f"{protocol['data']['name']}, {models}, {_count(protocol['train']['epochs'], 'epoch')}, "
        f"{protocol['train']['precision']}, last epoch; {machines}"
    )


def _contrast(variant: str, baseline: str, difference: Estimate) -> str:
    size = f"{_points(difference.mean)} points against {baseline}"
    if not difference.has_interval:
        return f"{variant}: {size}; one replicate says nothing about how sure that is."
    if not difference.has_spread:
        return f"{variant}: {size} (n = {difference.n}), the same in every replicate: no spread to judge it by."
    where = f"n = {difference.n}, 95 % CI {_points(difference.low)} to {_points(difference.high)}"
    if difference.low > 0 or difference.high < 0:
        return f"{variant}: {size} ({where}): the interval excludes 0."
    return f"{variant}: {size} ({where}): undecided, the interval includes 0."


def _points(difference: float) -> str:
    return f"{difference:+.2f}".replace("-0.00", "+0.00")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _top1(top1: Estimate) -> str:
    shown = METRICS["top1"].format
    interval = f" [{shown(top1.low)}, {shown(top1.high)}]" if top1.has_interval else ""
    return shown(top1.mean) + interval


def _row(summary: VariantSummary) -> list[str]:
    difference = summary.difference
    if difference is None:
        shown = "baseline" if summary.is_baseline else "no pair"
    else:
        interval = f" [{_points(difference.low)}, {_points(difference.high)}]" if difference.has_interval else ""
        shown = f"{_points(difference.mean)}{interval}"
    cost = (
        METRICS[key].format(getattr(summary, key))
        for key in ("train_images_per_second", "peak_memory_mib", "parameters")
    )
    return [summary.variant, str(summary.top1.n), _top1(summary.top1), shown, *cost]


def _draw(design: Design, results: Results, folder: Path) -> list[Path]:
    counts = results.cells.groupby("variant")["replicate"].count()
    least, most = counts.min(), counts.max()
    n = f"{least} to {most} replicates" if least != most else _count(most, "replicate")
    protocol = f"n = {n} a variant. {protocol_line(design, results)}."
    paths = list(dict.fromkeys(path for variant in design.variants for path in variant.levels))
    factor = paths[0].removeprefix("attention.").replace("_", " ").capitalize() if len(paths) == 1 else "Variant"

    levels_key = "Dots: replicates; bands and bars: 95 % CI of the mean (Student's t)." if least > 1 else ""
    curves_key = "Lines: means over replicates; bands: lowest to highest." if most > 1 else ""

    frame = levels_frame(results.cells, design)
    drawn = draw_levels(
        frame,
        factor,
        f"{design.question} {levels_key} {protocol}",
    )
    written = style.save(drawn, frame, folder / design.sweep)
    frame = curves_frame(results.curves, design)
    drawn = draw_curves(frame, design.baseline, f"{curves_key} {protocol}")
    return written + style.save(drawn, frame, folder / "learning_curves")


def _findings(design: Design, summaries: Sequence[VariantSummary], sentences: Sequence[str]) -> str:
    lines = [f"# {design.study}", "", design.question, "", *(f"- {sentence}" for sentence in sentences), ""]
    lines += _table(_HEADERS, [_row(summary) for summary in summaries])
    lines += ["", "Costs are medians over replicates; peak memory is that of one training step, without the data set."]
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
        lines += [*_table(("variant", "replicate", "state", "reason"), rows), ""]
    lines += [f"![{path.stem}]({path.relative_to(folder).as_posix()})\n" for path in figures if path.suffix == ".png"]
    lines += ["## Networks", ""]
    networks = [[variant.name, _settings(variant.model), _settings(variant.attention)] for variant in design.variants]
    lines += [*_table(("variant", "model", "attention"), networks), ""]
    lines += ["## Protocol", "", "What all cells share:", ""]
    lines += _table(("option", "value"), [[name, str(value)] for name, value in flatten(design.protocol).items()])
    lines += ["", f"Data fingerprint: {attributes.get('data_fingerprint', 'unknown')}.", ""]
    lines += ["## Made by", "", "```", str(attributes.get("command", "unknown")), "```", ""]
    for environment in results.environments:
        lines += [*_table(("environment", ""), [[name, value] for name, value in environment.items()]), ""]
    return "\n".join(lines)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(headers), line(["---"] * len(headers)), *(line(row) for row in rows)]


def _settings(settings: Mapping[str, Any]) -> str:
    knobs = [f"{knob}={value}" for knob, value in settings.items() if knob != "name"]
    return " ".join([str(settings["name"]), *knobs])


def _last_line(reason: object) -> str:
    return str(reason).strip().splitlines()[-1] if isinstance(reason, str) and reason.strip() else ""
