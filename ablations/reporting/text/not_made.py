"""Failed parts of a report, with reasons and the location of tracebacks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ablations.common.parts import Missing, Parts
from ablations.reporting.text.markdown import markdown_text


def not_made_sentences(missing: Iterable[Missing]) -> list[str]:
    """Returns a sentence for each failed part with its name and the reason."""
    return [f"Not made: {one.name}: {one.reason}" for one in missing]


def not_made_lines(parts: Parts, tracebacks: str) -> list[str]:
    """Returns the paragraph of a Markdown report that lists its failed parts; nothing if it is complete.

    `tracebacks` is the name of the file with the tracebacks.
    """
    if not parts.missing:
        return []
    items = [f"- {markdown_text(sentence)}" for sentence in not_made_sentences(parts.missing)]
    where = f" Tracebacks: {tracebacks}" if any(one.trace for one in parts.missing) else ""
    return [f"**This report is incomplete.**{where}", "", *items, ""]


def not_made_notice(parts: Parts, tracebacks: Path | None) -> list[str]:
    """Returns the lines on failed parts for the terminal; nothing if there are none."""
    where = [f"Tracebacks: {tracebacks}"] if tracebacks else []
    return [*not_made_sentences(parts.missing), *where]
