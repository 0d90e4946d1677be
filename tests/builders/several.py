"""Concurrent cells in one process, with a deterministic order of events."""

from __future__ import annotations

from collections.abc import Iterator

from ablations.execution.launchers.serial import SerialLauncher
from ablations.training.events import Failed, Finished, Progress
from ablations.training.job import Job


class Several(SerialLauncher):
    """A launcher of several cells in which the last one started sends its events first, so that it ends first."""

    in_process = False

    def hold(self, capacity: int) -> None:
        """Sets the number of concurrent cells."""
        self.capacity = capacity
        self.hands: dict[str, Iterator[Progress]] = {}
        self.most = 0
        self.stopped: list[str] = []

    def prepare(self) -> str:
        return "none"

    def start(self, job: Job) -> None:
        self.hands[job.cell.key] = self.work(job)
        self.most = max(self.most, len(self.hands))

    def events(self) -> Iterator[tuple[str, Progress]]:
        key = list(self.hands)[-1]
        event = next(self.hands[key])
        if isinstance(event, (Finished, Failed)):
            del self.hands[key]
        yield key, event

    def stop(self, key: str) -> None:
        self.stopped.append(key)
        del self.hands[key]
