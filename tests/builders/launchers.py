"""A serial launcher that calls a function before each cell."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

from ablations.config import Config
from ablations.design import Cell, make_design
from ablations.execution.launchers.serial import SerialLauncher
from ablations.training.events import (
    ERROR,
    Failed,
    Progress,
)
from ablations.training.job import Job


class Launcher(SerialLauncher):
    """A serial launcher that calls `before` with each cell before training it."""

    def __init__(self, config: Config, before: Callable[[Cell], None] = lambda _: None) -> None:
        super().__init__(make_design(config), config.data)
        self.before, self.trained = before, list[str]()

    def work(self, job: Job) -> Iterator[Progress]:
        self.trained.append(job.cell.name)
        try:
            self.before(job.cell)
        except Exception:
            yield Failed(ERROR, traceback.format_exc())
            return
        yield from super().work(job)
