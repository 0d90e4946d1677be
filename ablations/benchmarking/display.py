"""What a benchmark shows while it measures, and its tables when it has."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ablations.benchmarking.plan import Comparison
from ablations.benchmarking.report import NOTE
from ablations.reporting.tables.render import print_table
from ablations.reporting.tables.sections import Section


class Display:
    """Shows the progress of a benchmark: a bar on a terminal, a line for each comparison elsewhere.

    Args:
        console: where it is shown.
        total: number of comparisons.
    """

    def __init__(self, console: Console, total: int) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._console = console
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, comparison: Comparison) -> None:
        """Announces the next comparison."""
        if not self._console.is_terminal:
            self._console.print(comparison.title, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Shows the current action."""
        self._progress.update(self._task, description=text)

    def done(self) -> None:
        """Counts a finished comparison."""
        self._progress.advance(self._task)


def print_sections(console: Console, sections: Sequence[Section]) -> None:
    """Prints the tables of a benchmark with their notes."""
    for section in sections:
        console.print(f"\n[bold]{section.title}[/]")
        print_table(console, section.headers, section.rows, section.names)
        console.print(section.note, markup=False, soft_wrap=True)
    console.print(f"\n{NOTE}", markup=False, soft_wrap=True)
