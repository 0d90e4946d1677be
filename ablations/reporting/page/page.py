"""A study's report as a single HTML file with embedded figures, to be opened from disk, sent by mail or printed.

The page is self-contained: figures are data URIs, and there are no scripts, fonts or external requests. Only its links
to PDF, CSV and table files need the files beside it.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ablations.analysis.study import StudyAnalysis
from ablations.common.files import write_whole
from ablations.common.metrics import METRICS, Metric
from ablations.common.parts import TRACEBACKS
from ablations.common.urls import relative_link
from ablations.common.wording import count
from ablations.reporting.figures.registry import Drawn
from ablations.reporting.report import Report
from ablations.reporting.tables.sections import Section, unfinished_table
from ablations.reporting.tables.variants import variants_table
from ablations.reporting.text.declaration import declaration_rows, exploratory_sentence
from ablations.reporting.text.numbers import difference_with_interval
from ablations.reporting.text.scope import data_line, protocol_line, protocol_options, shown_sentence, state_sentence
from ablations.reporting.text.verdicts import assumptions_sentence, contrast_sentence, tally, verdict_mark
from ablations.stats import Contrast, Estimate

# Intervals beyond these multiples of the largest difference or the margin are truncated, except the narrowest, because
# one very wide interval would make all others too small to see.
_OF_LARGEST, _OF_MARGIN = 2.5, 5.0
_BEYOND = 1.08  # times the longest complete interval


@dataclass(frozen=True)
class _Scale:
    """The common scale of all intervals: `-limit` to `limit` of the metric, in percent of a drawing's width."""

    limit: float
    margin: float
    metric: Metric

    @classmethod
    def of(cls, contrasts: Sequence[Contrast], margin: float, metric: Metric) -> _Scale:
        differences = [contrast.difference for contrast in contrasts if contrast.difference]
        means = [abs(one.mean) for one in differences]
        reaches = [_BEYOND * max(-one.low, one.high) for one in differences if one.has_spread]
        room = max(_OF_LARGEST * max(means, default=0), _OF_MARGIN * margin, min(reaches, default=0))
        return cls(min(room, max([2 * margin, *reaches, *(_BEYOND * mean for mean in means)])), margin, metric)

    def at(self, value: float) -> float:
        """Returns the position of a difference in percent of the width, clipped to the scale."""
        within = max(-self.limit, min(self.limit, value))
        return round(50 + 48 * within / self.limit, 2)


def write_page(report: Report, tables: Sequence[Path]) -> Path:
    """Writes a study's page with links to `tables`, files in the study's folder; returns its path."""
    analysis, design, path = report.analysis, report.analysis.design, report.folder / "index.html"
    # A question, a variant's name or a traceback may have any content, so everything is escaped on insertion.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("ablations.reporting.page") / "page.html").read_text(encoding="utf-8"))
    make, results = report.parts.make, analysis.results
    figures = [
        make(f"figure {drawn.name} on the page", None, _figure, drawn, report.folder) for drawn in report.gallery.drawn
    ]
    context = {
        "state": make("state on the page", "", state_sentence, results),
        "protocol_line": make("protocol on the page", "", protocol_line, design, results),
        "unfinished": make("unfinished cells on the page", None, unfinished_table, analysis),
        "declared": make("declaration on the page", None, declaration_rows, analysis),
        "shown_note": make("note on the variants shown, on the page", "", shown_sentence, analysis),
        "variants": make("table of variants on the page", None, _variants, analysis),
        "figures": [figure for figure in figures if figure],
        "protocol": make("options on the page", dict[str, str](), protocol_options, analysis),
        "data": make("data on the page", dict[str, str](), _data, analysis),
        **make("verdicts on the page", {"rows": [], "sentences": report.sentences}, _verdicts, report),
    }
    page = template.render(
        report=report,
        design=design,
        results=results,
        files=[(file.name, relative_link(file, report.folder)) for file in (*tables, report.path)],
        command=analysis.attributes.get("command", "unknown"),
        tracebacks=TRACEBACKS if any(one.trace for one in report.parts.missing) else "",
        **context,
    )
    write_whole(path, page)
    return path


def _verdicts(report: Report) -> dict[str, Any]:
    """Returns the content on all contrasts, and the report's sentences that are not about one of them."""
    analysis, design = report.analysis, report.analysis.design
    contrasts, metric = analysis.shown_contrasts, METRICS[design.metric]
    said = {contrast_sentence(contrast, design.margin, metric) for contrast in contrasts}
    scale = _Scale.of(contrasts, design.margin, metric)
    return {
        "rows": [_row(contrast, scale) for contrast in contrasts],
        "scale": scale,
        "tally": tally(analysis.contrasts),
        "exploratory": exploratory_sentence(analysis),
        "assumptions": assumptions_sentence(contrasts),
        "sentences": [sentence for sentence in report.sentences if sentence not in said],
    }


def _variants(analysis: StudyAnalysis) -> Section | None:
    return variants_table(analysis) if analysis.summaries else None


def _row(contrast: Contrast, scale: _Scale) -> dict[str, Any]:
    """Returns the content on a contrast."""
    known = contrast.difference
    return {
        "contrast": contrast,
        "shown": difference_with_interval(known, scale.metric) if known else "",
        "mark": verdict_mark(contrast),
        "interval": _interval(known, scale) if known else None,
        "sentence": contrast_sentence(contrast, scale.margin, scale.metric),
    }


def _interval(difference: Estimate, scale: _Scale) -> dict[str, Any]:
    """Returns the drawing of a difference in percent of the width, without a `bar` if it has no interval."""
    has_bar, low, high = difference.has_spread, difference.low, difference.high
    written, unit = scale.metric.format_difference, scale.metric.difference_unit
    between = f", 95 % CI {written(low)} to {written(high)}" if has_bar else ""
    return {
        "dot": scale.at(difference.mean),
        "bar": (scale.at(low), scale.at(high)) if has_bar else None,
        "is_cut_low": has_bar and low < -scale.limit,
        "is_cut_high": has_bar and high > scale.limit,
        "label": f"Difference {written(difference.mean)} {unit}{between}; equivalence margin "
        f"±{scale.metric.quantity(scale.margin)}",
    }


def _figure(drawn: Drawn, folder: Path) -> dict[str, Any]:
    """Returns the content on a figure, with the image as a data URI."""
    content = drawn.png.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # from the PNG header, to reserve the space
    uri = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    links = [(path.suffix[1:].upper(), relative_link(path, folder)) for path in drawn.files]
    return {"drawn": drawn, "uri": uri, "width": width, "height": height, "links": links}


def _data(analysis: StudyAnalysis) -> dict[str, str]:
    """Returns the data set, its numbers of images and its classes."""
    known = analysis.attributes.get("data")
    shown = {"data set": data_line(analysis.design.protocol["data"])}
    return (
        shown
        if known is None
        else shown
        | {
            "training images": f"{known['train']:,}",
            "test images": f"{known['test']:,}",
            f"{count(len(known['classes']), 'class', 'classes')}": ", ".join(map(str, known["classes"])),
        }
    )
