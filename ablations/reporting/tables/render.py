"""Tables for the terminal and in Markdown.

If a table is wider than the terminal, its last columns continue below, with the row names repeated, so that no name or
number is truncated. If the names leave little space, rows are numbered, and the numbers are repeated. Only columns of
sentences are wrapped.
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

_FRAME = 3  # characters per column besides its text: two spaces and a line; a table has one more line
_KEYS = 2 / 3  # maximum share of the terminal's width for the names
_WRAPPED = 20  # minimum width of a wrapped sentence, in characters


@dataclass(frozen=True)
class _Column:
    """A column as text, its header first; key columns name the row and are repeated in every part of a table."""

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
        """The minimum width in characters."""
        return min(self.width, _WRAPPED) if self.is_sentence else self.width


def print_table(
    console: Console,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    names: int = 1,
    sentences: Collection[str] = (),
) -> None:
    """Prints a table, in parts with a note below if it is wider than the terminal.

    Args:
        console: if it is not a terminal, the table is printed in one part.
        headers: of the columns.
        rows: cells of any text, one per column.
        names: number of first columns that name the row; they are left-aligned.
        sentences: headers of columns that may be wrapped and are left-aligned; other columns are right-aligned.
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
    """Yields the columns of each part: the keys, and as many others as fit."""
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
    """Lays out the columns of a part; sentences get the remaining width."""
    widths = [column.least for column in columns]
    room = limit - _total(columns)
    if room < 0:  # one name is longer than the terminal, so it is wrapped
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
