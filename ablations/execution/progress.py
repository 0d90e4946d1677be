"""Shows the progress of a study: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ablations.common.console import print_text
from ablations.common.metrics import METRICS

_MOST_NAME = 72  # maximum width in characters of the name column


@dataclass
class _Shown:
    """The displayed state of a cell in training."""

    task: TaskID
    share: float = 0.0
    top1: float | None = None

    @property
    def note(self) -> str:
        return "" if self.top1 is None else f"top-1 {METRICS['top1'].format(self.top1)} %"


class Display:
    """Displays the finished cells of a study, the time left, and the cells in training with their current top-1.

    Args:
        total: number of cells of the study known so far.
        finished: number of those cells that need no training.
        name_width: length of the longest cell name.
    """

    def __init__(self, console: Console, total: int, finished: int, name_width: int = 24) -> None:
        self._console, self.total, self._done = console, total, finished
        self._name_width = min(name_width, _MOST_NAME)
        self._started: float | None = None
        self._trained = 0
        self._cells: dict[str, _Shown] = {}
        self._progress = Progress(
            TextColumn("{task.description:32}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_interactive,
        )
        self._study_task = self._progress.add_task("study", total=total, completed=finished, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def notify(self, text: str) -> None:
        """Prints a line above the display."""
        print_text(self._progress.console, text)

    def set_total(self, total: int) -> None:
        """Sets the number of cells of the study known so far."""
        self.total = total
        self._progress.update(self._study_task, total=total)

    def start_cell(self, name: str) -> None:
        """Adds a cell to the display, or resets the progress of a restarted cell."""
        self._started = self._started or time.monotonic()
        self._forget(name)
        self._cells[name] = _Shown(self._progress.add_task(name, total=None, note="starting"))

    def step(self, name: str, done: int, total: int) -> None:
        """Shows the number of training steps of a cell."""
        cell = self._cells[name]
        cell.share = done / total
        self._progress.update(cell.task, completed=done, total=total, note=cell.note)
        self._progress.update(self._study_task, note=self._time_left())

    def epoch(self, name: str, top1: float | None) -> None:
        """Shows the current top-1 of a cell."""
        cell = self._cells[name]
        cell.top1 = top1
        self._progress.update(cell.task, note=cell.note, refresh=True)

    def finish_cell(self, name: str, top1: float, seconds: float) -> None:
        """Counts a finished cell and prints its top-1 and training time."""
        self.end_cell(name, f"top-1 {METRICS['top1'].format(top1)} %  {seconds:5.1f} s")

    def reuse_cell(self, name: str, top1: float, study: str) -> None:
        """Counts a cell that another study has trained and prints its top-1."""
        self._trained -= 1  # the time left depends on the cells that are trained
        self.end_cell(name, f"top-1 {METRICS['top1'].format(top1)} %  from {study}")

    def end_cell(self, name: str, what: str) -> None:
        """Counts a cell that has ended and prints its outcome."""
        self._done, self._trained = self._done + 1, self._trained + 1
        self._forget(name)
        left = self._time_left()
        self._progress.update(self._study_task, completed=self._done, note=left)
        place = f"[{self._done:{len(str(self.total))}}/{self.total}]"
        behind = "" if self._console.is_interactive or not left else f"  {left}"
        self.notify(f"{place} {name:{self._name_width}} {what}{behind}")

    def _forget(self, name: str) -> None:
        shown = self._cells.pop(name, None)
        if shown:
            self._progress.remove_task(shown.task)

    def _time_left(self) -> str:
        """Returns the time left, extrapolated from the cells finished and in training in this run."""
        begun = sum(cell.share for cell in self._cells.values())
        trained, missing = self._trained + begun, self.total - self._done - begun
        if missing <= 0 or not trained or self._started is None:
            return ""
        return f"{describe_seconds((time.monotonic() - self._started) / trained * missing)} left"


def describe_seconds(seconds: float) -> str:
    """Formats a duration: `45 s`, `3 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"
