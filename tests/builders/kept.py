"""Studies with stored weights: of trained networks, or random ones in place of training."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from ablations.analysis.networks import TrainedNetworks
from ablations.analysis.results import collect
from ablations.analysis.study import StudyAnalysis
from ablations.config.compose import compose_config
from ablations.data import load_images
from ablations.data.device import ImageFormat
from ablations.design import Cell, make_design
from ablations.storage.files import Weights
from ablations.training.events import Finished, Progress
from ablations.training.job import Job, pack_weights
from tests.builders.cells import stored
from tests.builders.driven import DrivenStudy
from tests.builders.launchers import Launcher
from tests.builders.networks import random_network

IMAGES = ("device=cpu", "data.train_images=20", "data.test_images=160")  # more than a batch of 128
INPUTS = ImageFormat(32, [128.0] * 3, [64.0] * 3)
GROUPS = ("sweep=groups", "sweep.factors.attention.groups=[2,4]")


class RecordingLauncher(Launcher):
    """A launcher that keeps a copy of every trained network."""

    def __init__(self, study: DrivenStudy) -> None:
        super().__init__(study.config)
        self.networks: dict[str, nn.Module] = {}
        self.results: dict[str, dict[str, Any]] = {}

    def work(self, job: Job) -> Iterator[Progress]:
        def keep(cell: Cell, model: nn.Module, classes: Sequence[str], inputs: ImageFormat) -> bytes:
            self.networks[cell.name] = copy.deepcopy(model)
            return pack_weights(cell, model, classes, inputs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ablations.training.job.pack_weights", keep)
            for event in super().work(job):
                if isinstance(event, Finished):
                    self.results[job.cell.name] = event.result
                yield event


def drive(study: DrivenStudy, weights: Weights | None, launcher: Launcher | None = None) -> tuple[int, str]:
    """Trains the missing cells; returns the number of failed cells, and the output so far."""
    driver = study.drive(launcher or RecordingLauncher(study), weights=weights)
    return driver.failed, study.said.getvalue()


def stored_study(folder: Path, *overrides: str, finished: int | None = None) -> StudyAnalysis:
    """An analysis of a study whose first `finished` cells, by default all, have a result."""
    config = compose_config([*IMAGES, "train.batch_size=8", "replicates=1", *overrides])
    design = make_design(config)
    images = load_images(config.data)
    attributes = {"data_fingerprint": images.fingerprint, "data": {"classes": list(images.classes)}}
    cells = len(list(design.cells())) if finished is None else finished
    return StudyAnalysis(config, design, collect(design, stored(design, cells)), attributes, folder)


def keep_weights(found: StudyAnalysis, *without: str) -> None:
    """Stores random weights of all variants except `without`, as training does."""
    for variant in found.design.variants:
        if variant.name not in without:
            cell = found.design.cell(variant, 0)
            classes = tuple(found.attributes["data"]["classes"])
            content = pack_weights(cell, random_network(variant.network), classes, INPUTS)
            Weights(found.folder / "weights").write(cell, content)


def trained(folder: Path, *overrides: str) -> TrainedNetworks:
    """The networks of a study, with random weights."""
    found = stored_study(folder, *overrides)
    keep_weights(found)
    return found.networks
