"""Tables, for the terminal and as Markdown.

Where a table is wider than the terminal, its last columns continue below, beside the names of the rows again, so that
every name and every number is whole. Where the names leave little room, rows are numbered instead, and the numbers are
repeated. Only columns of sentences are wrapped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablations.common.console import print_text
from ablations.reporting.text.markdown import markdown_text

_FRAME = 3  # characters of a column beside its text: a space on each side and a line; a table has one more line
_KEYS = 2 / 3  # of the terminal's width, that names may take in every part
_WRAPPED = 20  # characters that a sentence is wrapped to where there is no more room


@dataclass(frozen=True)
class _Column:
    """A column as text, its header first; keys name the row, and stand in every part of a table."""

    lines: list[str]
    justify: Literal["left", "right"] = "right"
    is_key: bool = False
    is_sentence: bool = False

    @property
    def width(self) -> int:
        """Characters of the longest line."""
        return max(map(cell_len, self.lines))

    @property
    def least(self) -> int:
        """Characters that it needs."""
        return min(self.width, _WRAPPED) if self.is_sentence else self.width


def print_table(
    console: Console,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    names: int = 1,
    sentences: Collection[str] = (),
) -> None:
    """Prints a table; in parts, with a line below that says so, where it is wider than the terminal.

    Args:
        console: one that is no terminal gets the table in one part, whatever its width.
        headers: of the columns.
        rows: as many cells each, any text.
        names: the first columns, which name the row: they are aligned to the left, as sentences are.
        sentences: the headers of columns that may be wrapped; all others are aligned to the right, as numbers are.
    """
    columns = [
        _Column(
            [str(cell) for cell in cells],
            justify="left" if place < names or cells[0] in sentences else "right",
            is_key=place < names,
            is_sentence=cells[0] in sentences,
        )
        for place, cells in enumerate(zip(headers, *rows, strict=True))
    ]
    limit = console.width if console.is_terminal else max(console.width, _total(columns))
    parts = list(_parts(columns, limit))
    for part in parts:
        console.print(_table(part, limit), crop=False)
    if len(parts) > 1:
        below = ", ".join(column.lines[0] for part in parts[1:] for column in part if not column.is_key)
        print_text(console, f"Continued below (terminal width {limit}): {below}.")


def _parts(columns: Sequence[_Column], limit: int) -> Iterator[list[_Column]]:
    """Yields the columns of each part: the keys, and as many of the others as there is room for."""
    keys = [column for column in columns if column.is_key]
    others = [column for column in columns if not column.is_key]
    fits = all(_total([*keys, column]) <= limit for column in others)
    if _total(columns) > limit and not (fits and _total(keys) <= limit * _KEYS):
        numbers = ["row", *map(str, range(1, len(columns[0].lines)))]
        others = [*(replace(key, is_key=False) for key in keys), *others]
        keys = [_Column(numbers, is_key=True)]
    part = list(keys)
    for column in others:
        if len(part) > len(keys) and _total([*part, column]) > limit:
            yield part
            part = list(keys)
        part.append(column)
    yield part


def _total(columns: Sequence[_Column]) -> int:
    return sum(column.least + _FRAME for column in columns) + 1


def _table(columns: Sequence[_Column], limit: int) -> Table:
    """Lays out the columns of a part; sentences have the room that is left."""
    widths = [column.least for column in columns]
    room = limit - _total(columns)
    if room < 0:  # one name is longer than the terminal; it is folded, as a frame that is wider could not be read
        widths[-1] = max(1, widths[-1] + room)
    for _ in range(room):  # each character to the column whose cells have the most lines
        lines = [column.width / width for column, width in zip(columns, widths, strict=True)]
        if max(lines) > 1:
            widths[lines.index(max(lines))] += 1
    table = Table(header_style="bold", width=sum(width + _FRAME for width in widths) + 1)
    for column, width in zip(columns, widths, strict=True):
        table.add_column(Text(column.lines[0]), justify=column.justify, width=width, overflow="fold")
    for cells in zip(*(column.lines[1:] for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in Markdown."""
    first, *others = [[markdown_text(cell).replace("|", "\\|") for cell in line] for line in (headers, *rows)]
    return ["| " + " | ".join(line) + " |" for line in (first, ["---"] * len(headers), *others)]
