"""Studies with tuning whose cells take no time: results are a function of the recipe with an optimum per variant."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ablations.analysis.load import analyze_stored
from ablations.analysis.study import StudyAnalysis
from ablations.config import Config
from ablations.design import Split, make_design
from ablations.design.tuning import recipe_of
from ablations.training.events import DIVERGED, Failed, Finished, Progress
from ablations.training.job import Job
from ablations.training.train import Epoch, Result
from tests.builders.driven import DrivenStudy
from tests.builders.several import Several

RATE = "train.learning_rate"
OPTIMA = {"none": 0.3, "groups=4": 0.05}  # learning rates
PEAK, WIDTH = 80.0, 20.0


class TunableLauncher(Several):
    """Cells that take no time: top-1 decreases with the squared distance of the learning rate from its optimum.

    Attributes:
        trained: names of the cells, in the order in which they started.
        recipes: learning rate and weight decay of each trial, by variant.
        seeds: seeds of the cells, by split, then by replicate or trial.
    """

    def __init__(
        self,
        config: Config,
        capacity: int = 1,
        *,
        on_test: float = 1.0,
        diverges: Callable[[Job], bool] = lambda _: False,
    ) -> None:
        super().__init__(make_design(config), config.data)
        self.hold(capacity)
        self._on_test, self._diverges = on_test, diverges
        self.trained: list[str] = []
        self.recipes: dict[str, list[tuple[float, float]]] = {}
        self.seeds: dict[Split, dict[int, set[int]]] = {split: {} for split in Split}

    def work(self, job: Job) -> Iterator[Progress]:
        cell = job.cell
        name = cell.variant.name
        self.trained.append(cell.name)
        self.seeds[cell.split].setdefault(cell.replicate, set()).add(cell.seed)
        rate = job.recipe.learning_rate
        assert recipe_of(self.recipe, cell.variant) == job.recipe
        if cell.split is Split.VALIDATION:
            self.recipes.setdefault(name, []).append((rate, job.recipe.weight_decay))
        if self._diverges(job):
            yield Failed(DIVERGED, "DivergedError: the loss is nan")
            return
        top1 = PEAK - WIDTH * math.log10(rate / OPTIMA.get(name, 0.3)) ** 2
        top1 *= self._on_test if cell.split is Split.TEST else 1.0
        random = np.random.default_rng([cell.replicate, sum(map(ord, name)), cell.split is Split.TEST])
        top1 += random.normal(0.0, 0.1)
        tested = (100 - top1, top1) if not cell.is_tested_once else (None, None)
        epochs = (
            Epoch(0, 1.0, *tested, 0.1, 1.0, 1e9),
            Epoch(1, 1.0, 100 - top1, top1, 0.1, 1.0, 1e9 + 1, 10),
        )
        yield from epochs
        yield Finished(Result(top1, 100 - top1, 10, 1.0, epochs).to_dict(), {"cpu": "one"})


class TunedStudy(DrivenStudy):
    """A study of two variants with tuning."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(
            folder, "sweep=groups", "sweep.factors={attention: {groups: [4]}}", "replicates=2", "train.epochs=2",
            "tune.trials=5", "measure=off", "data.train_images=64", "data.test_images=10", "figures=[]",
            f"results_dir={folder}", *overrides,
        )  # fmt: skip

    def analysis(self) -> StudyAnalysis:
        """Returns the analysis of the stored cells."""
        return analyze_stored(self.config, self.design, self.store, self.folder)
