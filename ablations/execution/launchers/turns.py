"""Several cells in one process: each takes a training step in its turn.

On a GPU a step is launched and not waited for, and each cell has a stream of its own, so that steps of several cells
are computed at the same time. A cell's result does not depend on the others (`ablations.training.isolation`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from ablations.training.events import Failed, Finished, Progress, Step

_STEPS_APART = 0.5  # seconds between steps of a cell that are reported


class SeldomSteps:
    """Selects the events of a cell that are reported: all but most of its steps."""

    def __init__(self) -> None:
        self._reported = 0.0

    def reports(self, event: Progress) -> bool:
        """Returns whether an event is reported."""
        if not isinstance(event, Step):
            return True
        now = time.monotonic()
        if now - self._reported < _STEPS_APART:
            return False
        self._reported = now
        return True


class Turns:
    """The cells that are trained in this process, by their keys."""

    def __init__(self) -> None:
        self._cells: dict[str, tuple[Iterator[Progress], SeldomSteps]] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def begin(self, key: str, events: Iterator[Progress]) -> None:
        """Adds a cell, whose events are taken one by one."""
        self._cells[key] = events, SeldomSteps()

    def stop(self, key: str) -> None:
        """Gives a cell up, if it is trained here."""
        self._cells.pop(key, None)

    def take(self) -> Iterator[tuple[str, Progress]]:
        """Takes an event of each cell, and yields those that are reported; a cell's last one ends it."""
        for key, (events, reported) in list(self._cells.items()):
            event = next(events)
            if isinstance(event, (Finished, Failed)):
                del self._cells[key]
            if reported.reports(event):
                yield key, event
