"""The report on several protocols: sentences, a table, a figure, differing options, and `report.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from ablations.analysis.multiverse import MultiverseAnalysis
from ablations.analysis.study import ENDS, MOST_SHOWN
from ablations.common.console import print_path, print_text
from ablations.common.files import refusals_explained, write_whole
from ablations.common.metrics import METRICS
from ablations.common.parts import TRACEBACKS, Parts
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
from ablations.reporting.text.not_made import not_made_lines, not_made_notice
from ablations.storage.paths import GO_ON

_NAME = "protocols"  # of the table and the figure


def report_multiverse(analysis: MultiverseAnalysis, console: Console, parts: Parts | None = None) -> Path:
    """Writes the report on several protocols into its folder and prints it; returns the path of `report.md`.

    A failed part is left out and added to `parts` with its reason.

    Raises:
        UsageError: if `report.md` cannot be written, after writing everything else.
    """
    folder, parts = analysis.folder, parts or Parts()
    print_text(console, "Writing the report on all protocols: table and figure.")
    for name, error in analysis.unread.items():
        parts.add(f"study under {name}", error)
    table = parts.make("table of protocols", None, _table, analysis)
    sentences = [
        *parts.make("sentences on the protocols", [], multiverse_sentences, analysis),
        *parts.make("sentence on the contrasts that are shown", [], _shown_sentences, analysis),
    ]
    parts.make(f"table {_NAME}.csv", None, _write_frame, analysis)
    pictures = parts.make(f"figure {_NAME}", [], _draw, analysis, parts)
    protocols = parts.make("list of protocols", [], _protocols, analysis)
    text = _text(analysis, table, sentences, protocols, parts, has_figure=bool(pictures))
    tracebacks = parts.write_tracebacks(folder / TRACEBACKS)
    with refusals_explained("results_dir", folder, GO_ON, names_file=True):
        write_whole(folder / "report.md", text)
    console.print()
    print_text(console, analysis.question, title=analysis.multiverse.name)
    if table:
        parts.make("printed table", None, print_table, console, table.headers, table.rows)
    print_text(console, *([table.note] if table else []), *sentences)
    print_path(console, "Report", folder / "report.md")
    print_path(console, "Figure", *pictures[:1])
    print_text(console, *not_made_notice(parts, tracebacks))
    return folder / "report.md"


def _table(analysis: MultiverseAnalysis) -> Section:
    return protocols_table(shown_frame(analysis.frame), analysis.margins, METRICS[analysis.metric])


def _shown_sentences(analysis: MultiverseAnalysis) -> list[str]:
    if len(shown_frame(analysis.frame)) == len(analysis.frame):
        return []
    contrasts = len(analysis.frame) // len(analysis.studies)
    return [
        f"Of {contrasts:,} contrasts, the {ENDS} with the highest and the {ENDS} with the lowest mean are shown; "
        f"tables/{_NAME}.csv has all."
    ]


def _write_frame(analysis: MultiverseAnalysis) -> None:
    csv = analysis.frame.to_csv(index=False, float_format="%.10g")
    write_whole(analysis.folder / "tables" / f"{_NAME}.csv", csv)


def _draw(analysis: MultiverseAnalysis, parts: Parts) -> list[Path]:
    """Draws the shown contrasts; returns the files, none if no contrast has a pair."""
    shown = shown_frame(analysis.frame)
    frame = shown[shown["n"] > 0]
    if frame.empty:
        return []
    caption = parts.make(f"caption of figure {_NAME}", "", _caption, analysis, frame)
    drawn = draw_protocols(frame, analysis.margins, METRICS[analysis.metric], caption)
    return style.save(drawn, frame, analysis.folder / "figures" / _NAME)


def shown_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of the shown contrasts: those with the highest and the lowest means if there are very many."""
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
        f"Bars: 95 % CI, uncorrected; verdicts: {correction}; filled markers: decided; shaded: within the equivalence "
        f"margin of {margin_text(analysis.margins, METRICS[analysis.metric])}.",
        f"n = {sizes_text(frame)} replicates.",
        f"{lines}; {machine_text(analysis)}.",
        *missing_sentences(analysis),
    ]
    return " ".join(parts)


def _text(
    analysis: MultiverseAnalysis,
    table: Section | None,
    sentences: Sequence[str],
    protocols: Sequence[str],
    parts: Parts,
    *,
    has_figure: bool,
) -> str:
    multiverse = analysis.multiverse
    lines = [
        f"# {markdown_text(multiverse.name)}",
        "",
        markdown_text(analysis.question),
        "",
        *not_made_lines(parts, TRACEBACKS),
    ]
    lines += [*(f"- {markdown_text(sentence)}" for sentence in sentences), ""]
    lines += [*markdown_table(table.headers, table.rows), "", markdown_text(table.note), ""] if table else []
    if has_figure:
        lines += [f"![{table.title if table else _NAME}](figures/{_NAME}.png)", ""]
    lines += ["## Protocols", "", *protocols]
    return "\n".join([*lines, "", "## Command", "", *code_block(multiverse.command), ""])


def _protocols(analysis: MultiverseAnalysis) -> list[str]:
    """Returns the lines on each protocol, the differing options and the machine."""
    lines = []
    for protocol in analysis.multiverse.protocols:
        study = analysis.studies.get(protocol.name)
        if study is None:
            state = "cannot be read" if protocol.name in analysis.unread else "no cells"
            lines.append(f"- {markdown_text(protocol.name)}: {state}. Command: {code_span(protocol.command)}")
            continue
        line = markdown_text(f"{protocol.name}: {protocol_lines(analysis)[protocol.name]}.")
        report = relative_link(study.folder / "report.md", analysis.folder)
        lines.append(f"- {line} Study: [{markdown_text(study.design.study)}]({report})")
    if differing := differing_options(analysis):
        rows = [[option, *values.values()] for option, values in differing.items()]
        lines += ["", "Options that differ:", "", *markdown_table(("option", *analysis.studies), rows)]
    return [*lines, "", f"Machine: {markdown_text(machine_text(analysis))}"]
