"""A study in a folder with a real store, which a test can drive several times."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from ablations.config.compose import compose_config
from ablations.design import Cell, make_design
from ablations.design.variants import Variant
from ablations.execution.costs import CostMeasurer
from ablations.execution.degenerate import DegeneracyCheck
from ablations.execution.driver import Driver
from ablations.execution.interrupts import Interrupts
from ablations.execution.launchers.base import Launcher
from ablations.execution.progress import Display
from ablations.execution.recorder import Recorder
from ablations.execution.schedules import make_schedule
from ablations.execution.schedules.base import Measure, Outlook, Schedule
from ablations.storage.files import Checkpoints, PredictionFiles, Weights
from ablations.storage.study import StudyStore, open_store
from ablations.tracking.base import StudyMirror
from ablations.training.train import Epoch

Work = Cell | Measure | None  # yielded by a schedule


class CutShort(Schedule):
    """A schedule of which a test selects the cells to train, for example the first ones."""

    def __init__(self, schedule: Schedule, choose: Callable[[Iterator[Work]], Iterator[Work]]) -> None:
        super().__init__(schedule.design, None)
        self._schedule, self._choose = schedule, choose

    def cells(self) -> Iterator[Work]:
        yield from self._choose(self._schedule.cells())

    @property
    def measured_first(self) -> tuple[Variant, ...]:
        return self._schedule.measured_first

    @property
    def at_once(self) -> int:  # type: ignore[override]
        return self._schedule.at_once

    @at_once.setter
    def at_once(self, number: int) -> None:
        self._schedule.at_once = number

    def outlook(self) -> Outlook:
        return self._schedule.outlook()

    @property
    def ending(self) -> str:  # type: ignore[override]
        return self._schedule.ending

    def reason_to_stop(self, cell: Cell, epochs: Sequence[Epoch]) -> str | None:
        return self._schedule.reason_to_stop(cell, epochs)


class DrivenStudy:
    """A study in a folder.

    Attributes:
        said: output of the display.
        found: messages of interim analyses, each with the number of cells of the study at that time.
        last: the schedule that was driven last.
    """

    def __init__(
        self, folder: Path, *overrides: str, count_parameters: Callable[[Variant], int] = lambda _: 10
    ) -> None:
        self.folder, self.config = folder, compose_config(["device=cpu", *overrides])
        self.design = make_design(self.config)
        self.url = f"sqlite:///{folder / 'optuna.db'}"
        self.count_parameters = count_parameters
        self.said = io.StringIO()
        self.found: list[tuple[str, int]] = []

    @property
    def store(self) -> StudyStore:
        """The store, opened again."""
        store = open_store(self.url, self.design.study, create=True, directions=self.design.directions)
        store.initialise(self.design)
        return store

    def schedule(self, store: StudyStore) -> Schedule:
        """Returns a schedule for the stored state of the study."""

        def notify(text: str) -> None:
            self.found.append((text, schedule.total))

        schedule = make_schedule(
            self.config, self.design, store, self.count_parameters, DegeneracyCheck(self.config).refusal_of
        )
        schedule.notify = notify
        if schedule.interims:
            store.remember("looks", list(schedule.interims.sizes))
        return schedule

    def drive(
        self,
        launcher: Launcher,
        *,
        stop_after: int | None = None,
        choose: Callable[[Iterator[Work]], Iterator[Work]] | None = None,
        make_display: Callable[[Console, int, int], Display] = Display,
        mirror: StudyMirror | None = None,
        weights: Weights | None = None,
        checkpoints: Checkpoints | None = None,
        predictions: PredictionFiles | None = None,
        retries: int = 2,
        seconds: float = 0.0,
    ) -> Driver:
        """Continues the study as `run` does, without a report; returns the driver."""
        mirror = mirror or StudyMirror()
        store = self.store
        store.take_over()
        if outcomes := store.outcomes(self.design):
            mirror.sync(outcomes, store.attributes["data_fingerprint"])
        self.last = schedule = self.schedule(store)
        if choose is not None or stop_after is not None:
            schedule = CutShort(schedule, choose or (lambda cells: _first(cells, stop_after or 0)))
        outlook = schedule.outlook()
        console = Console(file=self.said, width=300)
        display = make_display(console, outlook.total, outlook.total - outlook.to_train)
        recorder = Recorder(
            store,
            mirror,
            display,
            weights or Weights(self.folder / "weights", "off"),
            checkpoints or Checkpoints(self.folder / "checkpoints", float("inf")),
            predictions or PredictionFiles(self.folder / "predictions", "off"),
        )
        costs = CostMeasurer(self.config.measure, self.design, store, launcher, mirror, display)
        driver = Driver(schedule, launcher, recorder, costs, seconds=seconds, retries=retries)
        if outlook.to_train:
            with display:
                driver.train()
        return driver

    def measure(self, launcher: Launcher) -> None:
        """Measures the costs of the study's variants, as `run` does with `measure=only`."""
        display = Display(Console(file=self.said, width=300), 0, 0)
        measurer = CostMeasurer(self.config.measure, self.design, self.store, launcher, StudyMirror(), display)
        with Interrupts() as interrupts:
            measurer.measure(self.design.variants, interrupts)


def _first(work: Iterator[Work], number: int) -> Iterator[Work]:
    """Yields from a schedule until it has yielded `number` cells."""
    cells = 0
    while cells < number and (item := next(work, _END)) is not _END:
        cells += isinstance(item, Cell)
        yield item  # type: ignore[misc]


_END = object()
