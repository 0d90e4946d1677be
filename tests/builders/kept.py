"""Studies whose trained networks are kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from torch import nn

from ablations.design import Cell
from ablations.storage.files import Weights
from ablations.training.events import Finished, Progress
from ablations.training.job import Job, pack_weights
from tests.builders.driven import DrivenStudy
from tests.builders.launchers import Launcher


class Keen(Launcher):
    """A launcher that takes a copy of every network when it is trained."""

    def __init__(self, study: DrivenStudy, measure: str = "off") -> None:
        super().__init__(study.config)
        self.measure = measure
        self.networks: dict[str, nn.Module] = {}
        self.results: dict[str, dict[str, Any]] = {}

    def work(self, job: Job) -> Iterator[Progress]:
        def keep(cell: Cell, model: nn.Module, classes: Sequence[str]) -> bytes:
            self.networks[cell.name] = copy.deepcopy(model)
            return pack_weights(cell, model, classes)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ablations.training.job.pack_weights", keep)
            for event in super().work(job):
                if isinstance(event, Finished):
                    self.results[job.cell.name] = event.result
                yield event


def drive(study: DrivenStudy, weights: Weights | None, launcher: Launcher | None = None) -> tuple[int, str]:
    """Trains what is missing; returns how many cells failed, and what was printed so far."""
    driver = study.drive(launcher or Keen(study), weights=weights)
    return driver.failed, study.said.getvalue()
