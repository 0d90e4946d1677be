"""Tables, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import rich.table
from rich.console import Console
from rich.text import Text


@dataclass(frozen=True)
class Table:
    """A table as it is printed: the first `names` columns are text, the others numbers; `note` is how to read it."""

    headers: tuple[str, ...]
    rows: list[list[str]]
    note: str
    names: int = 1


def print_table(console: Console, headers: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> None:
    """Prints a table whose first `names` columns are text and whose others are numbers."""
    table = rich.table.Table(*headers, title=None, header_style="bold")
    for column in table.columns[names:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(headers), line(["---"] * len(headers)), *(line(row) for row in rows)]
