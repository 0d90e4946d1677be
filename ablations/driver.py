"""Runs a study: gives the launcher every cell that has no result yet, and stores what comes back."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from optuna.trial import TrialState

from ablations.design import Cell, Design
from ablations.errors import UsageError
from ablations.launcher import SerialLauncher
from ablations.progress import Display
from ablations.study import StudyStore

if TYPE_CHECKING:
    from torch import nn

    from ablations.track import Tracker
    from ablations.train import Epoch
    from ablations.weights import Weights


_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class StudyInterruptedError(Exception):
    """Someone asked the run to end: Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(signal.Signals(number).name)


class PrunedError(Exception):
    """A search gave a cell up; the message says why."""


class Pruner(Protocol):
    """Who may give up a cell while it is being trained."""

    def reason_to_stop(self, cell: Cell, epochs: Sequence[Epoch]) -> str | None:
        """Says why a cell is hopeless after the given epochs; None while it is not."""


class Interrupts:
    """Turns SIGINT and SIGTERM into an exception at a moment when nothing is half written.

    The first signal is noted, and raised where `check` is called; a second one ends the process as it always would.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def check(self) -> None:
        """Raises StudyInterruptedError if a signal has come."""
        if self._received is not None:
            raise StudyInterruptedError(self._received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}


@dataclass
class CellWatcher:
    """Passes on what a training cell says of itself, and remembers its epochs."""

    cell: Cell
    display: Display
    tracker: Tracker | None
    interrupts: Interrupts
    pruner: Pruner | None
    weights: Weights | None
    classes: tuple[str, ...]
    epochs: list[Epoch] = field(default_factory=list)

    def on_step(self, done: int, total: int) -> None:
        """Shows the step; this is where an interrupted run ends."""
        self.interrupts.check()
        self.display.step(done, total)

    def on_epoch(self, epoch: Epoch) -> None:
        """Shows and mirrors the epoch; this is where a pruned cell ends."""
        self.epochs.append(epoch)
        self.display.epoch(epoch.top1)
        if self.tracker:
            self.tracker.epoch(self.cell, epoch)
        reason = self.pruner.reason_to_stop(self.cell, self.epochs) if self.pruner else None
        if reason:
            raise PrunedError(reason)

    def on_trained(self, model: nn.Module) -> None:
        """Keeps the weights, if this cell's are wanted."""
        if self.weights and self.weights.wants(self.cell):
            try:
                self.weights.keep(self.cell, model, self.classes)
            except OSError as error:  # the result is worth more than they are
                self.display.say(f"The weights of {self.cell.name} are not kept: {error.strerror or error}.")


class Driver:
    """The one process that writes a study; see `ablations.study` for what a cell goes through."""

    def __init__(
        self,
        design: Design,
        store: StudyStore,
        tracker: Tracker | None,
        launcher: SerialLauncher,
        pruner: Pruner | None = None,
        weights: Weights | None = None,
    ) -> None:
        self._design, self._store, self._tracker, self._launcher = design, store, tracker, launcher
        self._pruner, self._weights = pruner, weights

    def missing(self) -> list[Cell]:
        """Returns the cells without a result, after putting in order what a killed driver left."""
        self._store.take_over()
        stored = {cell.key: cell for cell in self._store.cells()}
        given_up = {cell.variant for cell in stored.values() if cell.state == TrialState.PRUNED}
        cells = [cell for cell in self._design.cells() if cell.key in stored or cell.variant.name not in given_up]
        if self._tracker and (outcomes := self._store.outcomes(self._design)):
            self._tracker.sync(outcomes, self._store.attributes["data_fingerprint"])
        # A failed cell is tried again: whatever was in its way may be gone.
        self._store.enqueue(
            cell for cell in cells if cell.key not in stored or stored[cell.key].state == TrialState.FAIL
        )
        finished = {key for key, cell in stored.items() if cell.state in _DONE}
        return [cell for cell in cells if cell.key not in finished]

    def count_finished(self) -> int:
        """Counts the study's cells that need no training any more."""
        wanted = {variant.name for variant in self._design.variants}
        return sum(
            cell.state in _DONE and (cell.variant in wanted or self._design.is_search) for cell in self._store.cells()
        )

    def train(self, cells: Iterable[Cell], environment: Mapping[str, str], display: Display) -> int:
        """Trains cells, which are in the queue, and stores their outcomes; returns how many failed.

        Raises:
            StudyInterruptedError: after a signal; the cell that it stopped is back in the queue.
            UsageError: if the data are not those that the study's other cells were trained on.
        """
        self._check_data()
        display.say(f"Data: {self._launcher.prepare()}")
        if self._tracker:
            self._tracker.begin(self._store.attributes["data_fingerprint"], environment.get("commit"))
        with Interrupts() as interrupts:
            return sum(not self._train_one(cell, environment, display, interrupts) for cell in cells)

    def _train_one(self, cell: Cell, environment: Mapping[str, str], display: Display, interrupts: Interrupts) -> bool:
        interrupts.check()
        display.start_cell(cell.name)
        self._store.claim(cell)
        if self._tracker:
            self._tracker.start_cell(cell, environment)
        classes = self._launcher.images.classes
        watcher = CellWatcher(cell, display, self._tracker, interrupts, self._pruner, self._weights, classes)
        try:
            result = self._launcher.train(cell, watcher)
        except PrunedError as reason:
            self._finish(
                cell,
                {"result": {"epochs": [vars(epoch) for epoch in watcher.epochs]}, "pruned": str(reason)},
                environment,
            )
            display.prune_cell(str(reason))
            return True
        except (StudyInterruptedError, KeyboardInterrupt):
            self._store.release(cell)
            if self._tracker:
                self._tracker.release_cell(cell)
            raise
        except Exception as error:
            self._store.fail(cell, traceback.format_exc())
            if self._tracker:
                self._tracker.fail_cell(cell, traceback.format_exc())
            display.fail_cell(f"{type(error).__name__}: {error}")
            return False
        self._finish(cell, {"result": result.to_dict()}, environment)
        display.finish_cell(result.top1, result.seconds, result.cost.train_images_per_second)
        return True

    def _finish(self, cell: Cell, outcome: dict[str, Any], environment: Mapping[str, str]) -> None:
        outcome["environment"] = dict(environment) | {"threads": str(self._launcher.threads)}
        self._store.finish(cell, outcome)
        if self._tracker:
            self._tracker.finish_cell(cell, outcome)

    def _check_data(self) -> None:
        images = self._launcher.images
        fingerprint = images.fingerprint
        stored = self._store.attributes.get("data_fingerprint", fingerprint)
        if stored != fingerprint:
            raise UsageError(
                "data",
                self._design.protocol["data"]["name"],
                f"has fingerprint {fingerprint}, the study's other cells were trained on {stored}; "
                f"to start another study, add study={self._design.study}-2 (or any name)",
            )
        self._store.remember("data_fingerprint", fingerprint)
        self._store.remember("data", {"train": len(images.train), "test": len(images.test), "classes": images.classes})
