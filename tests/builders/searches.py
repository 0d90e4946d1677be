"""Searches whose cells take no time: results are a function of the levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.analysis.load import Maker, with_found_variants
from ablations.common.settings import Settings
from ablations.config import Config
from ablations.design import Cell, Split, make_design
from ablations.design.variants import Variant
from ablations.execution.schedules.base import Schedule
from ablations.measure.costs import PLAIN, NetworkCost
from ablations.storage.cell_states import CellState
from ablations.storage.study import StudyStore
from ablations.training.cost import measure_costs
from ablations.training.events import Finished, Progress
from ablations.training.job import Job, environment
from ablations.training.train import Epoch, Result
from tests.builders.costs import HERE, ratios, speed
from tests.builders.driven import CutShort, DrivenStudy
from tests.builders.several import Several

EPOCHS = 6
SPACE = "sweep.factors={attention: {groups: [1, 2, 4, 8], branches: [both, channel, spatial], gate: [sigmoid, tanh1]}}"
BEST = {"attention.groups": 4, "attention.branches": "channel", "attention.gate": "tanh1"}


def score(levels: Settings) -> float:
    """Top-1 in percent, which increases with the number of optimal levels."""
    return 25.0 + 25.0 * sum(levels.get(path) == level for path, level in BEST.items())


class FormulaLauncher(Several):
    """Cells that take no time: their top-1 increases to the score of their levels.

    `bonus` is added to the score on validation images. Measurements take no time, either: the memory of a network is
    its number of groups, and the relative time of a training step is 1 plus a tenth of it.

    Attributes:
        measured: the networks of each measurement, with the number of cells that were in training.
    """

    def __init__(
        self,
        config: Config,
        value: Callable[[Settings], float] = score,
        capacity: int = 1,
        bonus: Callable[[Settings], float] = lambda _: 0.0,
    ) -> None:
        super().__init__(make_design(config), config.data)
        self.hold(capacity)
        self._value, self._bonus = value, bonus
        self.trained: list[str] = []
        self.seeds: dict[Split, set[int]] = {split: set() for split in Split}
        self.measured: list[tuple[list[str], int]] = []

    def alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if function is environment:
            return HERE
        assert function is measure_costs
        networks: Mapping[str, Settings] = arguments[0]
        self.measured.append((list(networks), len(self.hands)))
        groups = {name: int(network["attention"].get("groups", 0)) for name, network in networks.items()}
        return {
            name: NetworkCost(10, float(number), speed(ratios(1 + number / 10)), speed(ratios(1 + number / 20)))
            for name, number in {PLAIN: 0, **groups}.items()
        }

    def work(self, job: Job) -> Iterator[Progress]:
        cell = job.cell
        self.trained.append(cell.name)
        self.seeds[cell.split].add(cell.seed)
        value = self._value(cell.variant.levels) + cell.replicate
        value += self._bonus(cell.variant.levels) if cell.split is Split.VALIDATION else 0.0
        epochs = []
        for index in range(EPOCHS):
            top1 = value * (index + 1) / EPOCHS
            epochs.append(Epoch(index, 1.0, 100 - top1, top1, 0.1, 1.0, 1e9 + index))
            yield epochs[-1]
        yield Finished(Result(value, 1.0, 10, 1.0, tuple(epochs)).to_dict(), {"cpu": "one"})


class Unpruned(CutShort):
    """A search without pruning."""

    def reason_to_stop(self, cell: Cell, epochs: Sequence[Epoch]) -> str | None:
        del cell, epochs
        return None


class Study(DrivenStudy):
    """A search in a folder, which a test can continue several times."""

    def __init__(
        self, folder: Path, *overrides: str, count: Callable[[Variant], int] = lambda _: 10, prunes: bool = False
    ) -> None:
        super().__init__(
            folder, "sweep=search", SPACE, "replicates=2", f"train.epochs={EPOCHS}", "sweep.trials=8",
            "sweep.confirm=2", "sweep.objectives=[top1]", "data.train_images=64", "data.test_images=10", *overrides,
            count_parameters=count,
        )  # fmt: skip
        self.prunes = prunes

    def schedule(self, store: StudyStore) -> Schedule:
        schedule = super().schedule(store)
        return schedule if self.prunes else Unpruned(schedule, lambda cells: cells)

    def picked(self) -> list[str]:
        found = with_found_variants(self.design, self.store.cells(), Maker(self.config))
        return [variant.name for variant in found.variants if variant.levels]

    def results(self, objective: str = "top1") -> list[float]:
        """The results of the picks on the validation images, in the order of trials."""
        return [
            cell.outcome["result"][objective]
            for cell in self.store.cells()
            if cell.outcome and cell.state is CellState.FINISHED and cell.split is Split.VALIDATION and cell.levels
        ]

    def confirmed(self) -> list[str]:
        """The picks with cells on test images, in the order in which these started."""
        names = (cell.variant for cell in self.store.cells() if cell.split is Split.TEST and cell.levels)
        return list(dict.fromkeys(names))
