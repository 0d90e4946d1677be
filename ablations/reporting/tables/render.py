"""Tables, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablations.reporting.text.markdown import markdown_text


def print_table(console: Console, headers: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> None:
    """Prints a table whose first `names` columns are text and whose others are numbers."""
    table = Table(title=None, header_style="bold")
    for number, header in enumerate(headers):
        table.add_column(Text(header), justify="left" if number < names else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in Markdown."""
    first, *others = [[markdown_text(cell).replace("|", "\\|") for cell in line] for line in (headers, *rows)]
    return ["| " + " | ".join(line) + " |" for line in (first, ["---"] * len(headers), *others)]
