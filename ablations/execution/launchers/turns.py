"""Trains several cells in one process by interleaving their training steps.

On a GPU, steps are launched asynchronously and each cell has its own stream, so that the GPU computes the steps of
several cells in parallel. The result of a cell does not depend on the other cells (`ablations.training.isolation`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from ablations.training.events import Failed, Finished, Progress, Step

_STEPS_APART = 0.5  # minimum seconds between reported steps of a cell


class SeldomSteps:
    """Throttles the events of a cell: reports few of its steps and all other events."""

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
    """The cells in training in this process, by key."""

    def __init__(self) -> None:
        self._cells: dict[str, tuple[Iterator[Progress], SeldomSteps]] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def begin(self, key: str, events: Iterator[Progress]) -> None:
        """Adds a cell; advancing `events` trains it."""
        self._cells[key] = events, SeldomSteps()

    def stop(self, key: str) -> None:
        """Stops a cell; ignores unknown keys."""
        self._cells.pop(key, None)

    def take(self) -> Iterator[tuple[str, Progress]]:
        """Advances each cell by one event and yields the reported events; removes cells that ended."""
        for key, (events, reported) in list(self._cells.items()):
            event = next(events)
            if isinstance(event, (Finished, Failed)):
                del self._cells[key]
            if reported.reports(event):
                yield key, event
