"""The report on several protocols: its sentences, one table, one figure, what differs between them, and `report.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape

from ablations.analysis.multiverse import MultiverseAnalysis
from ablations.analysis.study import ENDS, MOST_SHOWN
from ablations.common.files import refusals_explained, write_whole
from ablations.common.metrics import METRICS
from ablations.common.urls import relative_link
from ablations.common.wording import count
from ablations.reporting.figures import style
from ablations.reporting.figures.protocols import draw_protocols
from ablations.reporting.tables.protocols import protocols_table, sizes_text
from ablations.reporting.tables.render import markdown_table, print_table
from ablations.reporting.tables.sections import Section
from ablations.reporting.text.markdown import code_block, code_span, markdown_text
from ablations.reporting.text.multiverse import (
    differing_options,
    machine_text,
    margin_text,
    missing_sentences,
    multiverse_sentences,
    protocol_lines,
)
from ablations.storage.paths import GO_ON

_NAME = "protocols"  # of table and figure


def report_multiverse(analysis: MultiverseAnalysis, console: Console) -> Path:
    """Writes the report on several protocols into its folder and prints it; returns the path of `report.md`.

    Raises:
        UsageError: if the folder cannot be written.
    """
    frame, metric, folder = shown_frame(analysis.frame), METRICS[analysis.metric], analysis.folder
    table, sentences = protocols_table(frame, analysis.margins, metric), multiverse_sentences(analysis)
    if len(frame) < len(analysis.frame):
        contrasts = len(analysis.frame) // len(analysis.studies)
        sentences.append(
            f"Of {contrasts:,} contrasts, the {ENDS} with the highest and the {ENDS} with the lowest mean are shown; "
            f"tables/{_NAME}.csv has all."
        )
    with refusals_explained("results_dir", folder, GO_ON, names_file=True):
        write_whole(folder / "tables" / f"{_NAME}.csv", analysis.frame.to_csv(index=False, float_format="%.10g"))
        pictures = []
        if (drawable := frame[frame["n"] > 0]).size:
            caption = _caption(analysis, drawable)
            drawn = draw_protocols(drawable, analysis.margins, metric, caption)
            pictures = style.save(drawn, drawable, folder / "figures" / _NAME)
        write_whole(folder / "report.md", _text(analysis, table, sentences, has_figure=bool(pictures)))
    console.print(f"\n[bold]{analysis.multiverse.name}[/]: {escape(analysis.question)}", soft_wrap=True)
    print_table(console, table.headers, table.rows)
    places = [f"Report:     {folder / 'report.md'}", *(f"Figure:     {png}" for png in pictures[:1])]
    for text in (table.note, *sentences, *places):
        console.print(text, soft_wrap=True, markup=False)
    return folder / "report.md"


def shown_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of the contrasts that are shown: of very many, those with the highest and the lowest means."""
    means = frame.groupby("variant", sort=False)["mean"].mean()
    if len(means) <= MOST_SHOWN:
        return frame
    ordered = list(means.sort_values().index)
    return frame[frame["variant"].isin([*ordered[:ENDS], *ordered[-ENDS:]])].reset_index(drop=True)


def _caption(analysis: MultiverseAnalysis, frame: pd.DataFrame) -> str:
    correction = f"corrected for {count(int((analysis.frame['n'] > 1).sum()), 'contrast')} of all protocols"
    lines = "; ".join(f"{name}: {line}" for name, line in protocol_lines(analysis).items())
    parts = [
        analysis.question,
        f"Bars: 95 % CI, each on its own; verdicts: {correction}; filled markers: decided; shaded: within the "
        f"equivalence margin of {margin_text(analysis.margins, METRICS[analysis.metric])}.",
        f"n = {sizes_text(frame)} replicates.",
        f"{lines}; {machine_text(analysis)}.",
        *missing_sentences(analysis),
    ]
    return " ".join(parts)


def _text(analysis: MultiverseAnalysis, table: Section, sentences: Sequence[str], *, has_figure: bool) -> str:
    multiverse = analysis.multiverse
    lines = [f"# {markdown_text(multiverse.name)}", "", markdown_text(analysis.question), ""]
    lines += [*(f"- {markdown_text(sentence)}" for sentence in sentences), ""]
    lines += [*markdown_table(table.headers, table.rows), "", markdown_text(table.note), ""]
    if has_figure:
        lines += [f"![{table.title}](figures/{_NAME}.png)", ""]
    lines += ["## Protocols", ""]
    for protocol in multiverse.protocols:
        study = analysis.studies.get(protocol.name)
        if study is None:
            lines.append(f"- {markdown_text(protocol.name)}: no cells. Command: {code_span(protocol.command)}")
            continue
        line = markdown_text(f"{protocol.name}: {protocol_lines(analysis)[protocol.name]}.")
        report = relative_link(study.folder / "report.md", analysis.folder)
        lines.append(f"- {line} Study: [{markdown_text(study.design.study)}]({report})")
    if differing := differing_options(analysis):
        rows = [[option, *values.values()] for option, values in differing.items()]
        lines += ["", "Options that differ:", "", *markdown_table(("option", *analysis.studies), rows)]
    lines += ["", f"Machine: {markdown_text(machine_text(analysis))}", ""]
    lines += ["## Made by", "", *code_block(multiverse.command), ""]
    return "\n".join(lines)
