"""Drives a study: starts the cells of a schedule, processes their events, and retries lost cells."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from ablations.common.wording import last_line
from ablations.design import Cell
from ablations.design.tuning import recipe_of
from ablations.design.variants import Variant
from ablations.execution.costs import CostMeasurer
from ablations.execution.interrupts import Interrupts, StudyInterruptedError
from ablations.execution.launchers.base import Launcher
from ablations.execution.recorder import Recorder
from ablations.execution.reuse import TrainedCell
from ablations.execution.schedules.base import Measure, Schedule
from ablations.training.events import DIVERGED, ERROR, LOST, OUT_OF_MEMORY, Epoch, Failed, Finished, Progress, Step
from ablations.training.job import Job

_NO_MORE = object()


@dataclass
class _Attempt:
    """A cell in training, and the events received from it."""

    job: Job
    epochs: list[Epoch] = field(default_factory=list)
    has_stepped: bool = False


class Driver:
    """Keeps the launcher at capacity and processes events until all cells have ended.

    Args:
        costs: measures the costs of variants; None to measure none.
        reusable: cells of other studies by key, whose results are used instead of training them again.
        seconds: time limit of a cell; 0 for no limit.
        retries: how often a cell is restarted after its worker was lost.

    Attributes:
        failed: number of cells that failed in this run.
        diverged: number of cells that diverged in this run.
    """

    def __init__(
        self,
        schedule: Schedule,
        launcher: Launcher,
        recorder: Recorder,
        costs: CostMeasurer | None = None,
        *,
        reusable: Mapping[str, TrainedCell] | None = None,
        seconds: float = 0.0,
        retries: int = 2,
    ) -> None:
        self._schedule, self._launcher, self._recorder, self._costs = schedule, launcher, recorder, costs
        self._reusable = reusable or {}
        self._seconds, self._retries = seconds, retries
        self._attempts: dict[str, _Attempt] = {}
        self._to_restart: deque[Job] = deque()
        self._waits = False  # whether the schedule needs a cell in training to end before it yields the next one
        self._to_measure: Measure | None = None  # measured before the next cell, once no cell is in training
        self.failed = self.diverged = 0

    def train(self) -> None:
        """Trains the cells of the schedule.

        Raises:
            StorageError: if the study's other cells were trained on other images.
            StudyInterruptedError: after a signal; the next run restarts the interrupted cells.
        """
        with Interrupts() as interrupts:
            try:
                self._recorder.begin(self._launcher)
                interrupts.check()
                self._measure(self._schedule.measured_first, interrupts)
                waiting = self._schedule.cells()
                while self._fill(waiting, interrupts):
                    with interrupts.at_once() if self._launcher.in_process else nullcontext():
                        events = list(self._launcher.events())
                    for key, event in events:
                        if key in self._attempts:  # an earlier event may have stopped the cell
                            self._on_event(self._attempts[key], event)
                    interrupts.check()
            except (Exception, KeyboardInterrupt, StudyInterruptedError):
                for job in (*(attempt.job for attempt in self._attempts.values()), *self._to_restart):
                    self._recorder.interrupt(job.cell)
                raise

    def _measure(self, variants: Sequence[Variant], interrupts: Interrupts) -> None:
        if self._costs is not None:
            self._costs.measure(variants, interrupts)

    def _fill(self, waiting: Iterator[Cell | Measure | None], interrupts: Interrupts) -> bool:
        """Starts cells up to the launcher's capacity; returns whether any cell is in training."""
        while len(self._attempts) < (capacity := self._launcher.capacity):
            interrupts.check()
            if self._to_restart:
                job = self._to_restart.popleft()
                self._recorder.restart(job.cell)
                self._start(job)
                continue
            if self._to_measure:
                if self._attempts:
                    break
                self._measure(self._to_measure.variants, interrupts)
                self._to_measure = None
            if self._waits and self._attempts:
                break
            self._schedule.at_once = capacity
            cell = next(waiting, _NO_MORE)
            self._waits = cell is None
            if isinstance(cell, Measure):
                self._to_measure = cell
            elif isinstance(cell, Cell):
                self._recorder.start(cell)
                if reason := self._costs.reason_against(cell.variant) if self._costs else "":
                    self._fail(cell, Failed(ERROR, f"An objective is unknown: {reason}"), keeps_checkpoint=False)
                    continue
                if trained := self._reusable.get(cell.key):
                    self._recorder.reuse(cell, trained, self._objectives_of(cell))
                else:
                    self._start(self._job(cell))
            elif cell is _NO_MORE:
                break
        return bool(self._attempts)

    def _objectives_of(self, cell: Cell) -> dict[str, float]:
        """Returns the costs among the study's objectives, which are part of a cell's result."""
        return self._costs.objectives_of(cell.variant) if self._costs else {}

    def _job(self, cell: Cell) -> Job:
        launcher, recorder = self._launcher, self._recorder
        return Job(
            cell,
            recipe_of(launcher.recipe, cell.variant),
            threads=launcher.threads,
            keeps_weights=recorder.weights.wants(cell),
            keeps_predictions=recorder.predictions.wants(cell),
            seconds=self._seconds,
            checkpoint_every=recorder.checkpoints.every,
            checkpoint=recorder.checkpoints.read(cell),
        )

    def _start(self, job: Job) -> None:
        self._attempts[job.cell.key] = _Attempt(job)
        self._launcher.start(job)

    def _on_event(self, attempt: _Attempt, event: Progress) -> None:
        cell = attempt.job.cell
        self._recorder.record(cell, event)
        match event:
            case Step():
                attempt.has_stepped = True
            case Epoch():
                attempt.epochs.append(event)
                if reason := self._schedule.reason_to_stop(cell, attempt.epochs):
                    self._launcher.stop(cell.key)
                    self._recorder.prune(attempt.job, attempt.epochs, reason)
                    self._end(cell)
            case Finished():
                self._recorder.finish(attempt.job, replace(event, result=event.result | self._objectives_of(cell)))
                self._end(cell)
            case Failed():
                self._on_failure(attempt, event)

    def _on_failure(self, attempt: _Attempt, failed: Failed) -> None:
        """Schedules a retry of a cell if the failure is transient; otherwise records the failure."""
        job, cell, recorder = attempt.job, attempt.job.cell, self._recorder
        self._end(cell)
        if failed.kind == OUT_OF_MEMORY and job.micro_batches == 1:
            recorder.display.notify(f"{cell.name} ran out of memory; retrying with two micro-batches per batch.")
            recorder.drop_checkpoint(cell)
            self._to_restart.append(replace(job, micro_batches=2, checkpoint=None))
        elif failed.kind == LOST and job.lost < self._retries:
            recorder.display.notify(f"{cell.name} was lost: {last_line(failed.reason)} Restarting it.")
            self._to_restart.append(replace(job, lost=job.lost + 1, checkpoint=recorder.checkpoints.read(cell)))
        else:
            # A checkpoint from which a cell cannot take a step is useless.
            is_useful = failed.kind != DIVERGED and (failed.kind != ERROR or attempt.has_stepped)
            self._fail(cell, failed, keeps_checkpoint=is_useful)

    def _fail(self, cell: Cell, failed: Failed, *, keeps_checkpoint: bool) -> None:
        """Records why a cell has no result."""
        self._recorder.fail(cell, failed, keeps_checkpoint=keeps_checkpoint)
        if failed.kind == DIVERGED:
            self.diverged += 1
        else:
            self.failed += 1

    def _end(self, cell: Cell) -> None:
        del self._attempts[cell.key]
        self._waits = False
