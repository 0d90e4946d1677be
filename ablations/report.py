"""Tables and text: what a study found, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ablations.design import Design, flatten
from ablations.errors import UsageError
from ablations.figures import style
from ablations.figures.curves import curves_frame, draw_curves
from ablations.figures.levels import draw_levels, levels_frame
from ablations.metrics import METRICS
from ablations.results import Results
from ablations.stats import Estimate, VariantSummary, summarise

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
        results: its cells.
        attributes: what the store remembers of the study, as the command that ran it.
        folder: `results/<study>`.

    Raises:
        UsageError: if no cell is finished, or the folder cannot be written.
    """
    if results.cells.empty:
        raise UsageError("study", design.study, "no cell of this sweep is finished yet; `run` trains them")
    names = [variant.name for variant in design.variants]
    summaries = summarise(results.cells, names, design.baseline)
    sentences = conclusions(summaries, design)
    try:
        figures = _draw(design, results, folder / "figures")
        findings = _findings(design, summaries, sentences)
        text = findings + _details(design, results, attributes, figures, folder)
        (folder / "report.md").write_text(text)
    except OSError as error:
        raise UsageError("results_dir", folder, f"cannot be written: {error.strerror}") from None
    return Report(summaries, sentences, folder, figures, findings, text)


def print_report(console: Console, report: Report) -> None:
    """Prints the table and the sentences."""
    table = Table(*_HEADERS, title=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for summary in report.summaries:
        table.add_row(*_row(summary))
    console.print(table)
    for sentence in report.sentences:
        console.print(sentence, soft_wrap=True)


def conclusions(summaries: Sequence[VariantSummary], design: Design) -> list[str]:
    """Says in plain words what the study shows, and how sure that is."""
    best = max(summaries, key=lambda summary: summary.top1.mean)
    sentences = [f"Highest mean top-1: {best.variant}, {_top1(best.top1)} % (n = {best.top1.n})."]
    contrasts = [summary for summary in summaries if summary.difference is not None]
    for summary in contrasts:
        assert summary.difference is not None
        sentences.append(_contrast(summary.variant, design.baseline, summary.difference))
    if any(summary.difference is not None and summary.difference.has_interval for summary in contrasts):
        sentences.append(
            f"Each interval is a paired 95 % CI on its own; it is not corrected for the {len(contrasts)} comparisons."
            if len(contrasts) > 1
            else "The interval is a paired 95 % CI."
        )
    return sentences


def protocol_line(design: Design, results: Results) -> str:
    """Says in a line under which protocol and on which machine the cells were trained."""
    protocol = design.protocol
    machines = " and ".join(
        dict.fromkeys(known["gpu"] if protocol["device"] == "cuda" else known["cpu"] for known in results.environments)
    )
    return (
        f"{protocol['data']['name']}, {protocol['model']['name']}, {protocol['train']['epochs']} epochs, "
        f"{protocol['train']['precision']}, last epoch; {machines}"
    )


def _contrast(variant: str, baseline: str, difference: Estimate) -> str:
    size = f"{difference.mean:+.1f} points against {baseline}"
    if not difference.has_interval:
        return f"{variant}: {size}; one replicate says nothing about how sure that is."
    where = f"n = {difference.n}, 95 % CI {difference.low:+.1f} to {difference.high:+.1f}"
    if difference.low > 0 or difference.high < 0:
        return f"{variant}: {size} ({where}): the interval excludes 0."
    return f"{variant}: {size} ({where}): undecided, the interval includes 0."


def _top1(top1: Estimate) -> str:
    shown = METRICS["top1"].format
    interval = f" [{shown(top1.low)}, {shown(top1.high)}]" if top1.has_interval else ""
    return shown(top1.mean) + interval


def _row(summary: VariantSummary) -> list[str]:
    difference = summary.difference
    if difference is None:
        shown = "baseline" if summary.is_baseline else "no pair"
    else:
        interval = f" [{difference.low:+.1f}, {difference.high:+.1f}]" if difference.has_interval else ""
        shown = f"{difference.mean:+.1f}{interval}"
    cost = (
        METRICS[key].format(getattr(summary, key))
        for key in ("train_images_per_second", "peak_memory_mib", "parameters")
    )
    return [summary.variant, str(summary.top1.n), _top1(summary.top1), shown, *cost]


def _draw(design: Design, results: Results, folder: Path) -> list[Path]:
    counts = results.cells.groupby("variant")["replicate"].count()
    n = str(counts.min()) if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    protocol = f"n = {n} replicates a variant. {protocol_line(design, results)}."
    paths = list(dict.fromkeys(path for variant in design.variants for path in variant.levels))
    factor = paths[0].removeprefix("attention.").replace("_", " ").capitalize() if len(paths) == 1 else "Variant"

    frame = levels_frame(results.cells, design)
    drawn = draw_levels(
        frame,
        factor,
        f"{design.question} Dots: replicates; bands and bars: 95 % CI of the mean (Student's t). {protocol}",
    )
    written = style.save(drawn, frame, folder / design.sweep)
    frame = curves_frame(results.curves, design)
    drawn = draw_curves(
        frame, design.baseline, f"Lines: mean over replicates; bands: from the lowest to the highest. {protocol}"
    )
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
    lines += ["## Protocol", ""]
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


def _last_line(reason: object) -> str:
    return str(reason).strip().splitlines()[-1] if isinstance(reason, str) and reason.strip() else ""
