"""Runs a study: gives the launcher every cell that has no result yet, and stores what comes back."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from optuna.trial import TrialState

from ablations.common import machine
from ablations.common.errors import UsageError
from ablations.common.wording import last_line
from ablations.design import Cell, Design
from ablations.execution.launchers.base import Launcher
from ablations.execution.progress import Display
from ablations.storage.checkpoints import Checkpoints
from ablations.storage.study import StudyStore
from ablations.training.events import (
    DIVERGED,
    ERROR,
    LOST,
    OUT_OF_MEMORY,
    Epoch,
    Failed,
    Finished,
    Learnt,
    Note,
    Progress,
    Saved,
    Step,
)
from ablations.training.job import Job, environment

if TYPE_CHECKING:
    from ablations.storage.weights import Weights
    from ablations.tracking.tracker import Tracker

_NO_MORE = object()
_GRACE = 6.0  # seconds after which a signal ends the process in any case


class StudyInterruptedError(BaseException):
    """Someone asked the run to end: Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(signal.Signals(number).name)


class Pruner(Protocol):
    """Who may give up a cell while it is being trained."""

    def reason_to_stop(self, cell: Cell, epochs: Sequence[Epoch]) -> str | None:
        """Says why a cell is hopeless after the given epochs; None while it is not."""


class Interrupts:
    """Turns SIGINT and SIGTERM into an exception at a moment when nothing is half written.

    The first signal is noted, and raised where `check` is called or while code runs that may be left `at_once`; a
    second one ends the process as it always would. A process that is still at it some seconds later, in an operation
    that takes so long, ends without more ado: the next run puts in order what it leaves.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._at_once = False
        self._previous: dict[int, object] = {}
        self._watchdog: threading.Timer | None = None

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()
        if self._watchdog:
            self._watchdog.cancel()

    def check(self) -> None:
        """Raises StudyInterruptedError if a signal has come."""
        if self._received is not None:
            raise StudyInterruptedError(self._received)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Has a signal interrupt the code inside, instead of waiting for `check`."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = number
        self._restore()
        self._watchdog = threading.Timer(_GRACE, _end, (number,))
        self._watchdog.daemon = True
        self._watchdog.start()
        if self._at_once:
            raise StudyInterruptedError(number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}


def _end(number: int) -> None:
    print("Interrupted, unfinished; the same command goes on.", file=sys.stderr, flush=True)
    os._exit(128 + number)


@dataclass
class _Attempt:
    """A cell in the launcher's hands, and what it has said."""

    job: Job
    epochs: list[Epoch] = field(default_factory=list)
    has_stepped: bool = False


class Driver:
    """The one process that writes a study; see `ablations.storage.study` for what a cell goes through.

    Args:
        design: the study.
        store: its memory.
        tracker: its mirror, if there is one.
        launcher: trains cells.
        pruner: gives up cells of a search.
        weights: where trained weights are kept.
        checkpoints: where cells that are being trained are kept.
        seconds: that a cell may take; 0 is no limit.
        retries: how often a cell is begun again after its worker went away.

    Attributes:
        diverged: cells that were found to diverge in this run.
    """

    def __init__(
        self,
        design: Design,
        store: StudyStore,
        tracker: Tracker | None,
        launcher: Launcher,
        pruner: Pruner | None = None,
        weights: Weights | None = None,
        checkpoints: Checkpoints | None = None,
        *,
        seconds: float = 0.0,
        retries: int = 2,
    ) -> None:
        self._design, self._store, self._tracker, self._launcher = design, store, tracker, launcher
        self._pruner, self._weights, self._checkpoints = pruner, weights, checkpoints
        self._seconds, self._retries = seconds, retries
        self._attempts: dict[str, _Attempt] = {}
        self._again: deque[Job] = deque()
        self._waits = False  # for a cell in hand to come to its end
        self._at_once = 1
        self._failed = 0
        self.diverged = 0

    def missing(self) -> list[Cell]:
        """Returns the cells without an outcome, after putting in order what a killed driver left."""
        self._store.take_over()
        stored = {cell.key: cell for cell in self._store.cells()}
        given_up = {cell.variant for cell in stored.values() if cell.state == TrialState.PRUNED}
        cells = [cell for cell in self._design.cells() if cell.key in stored or cell.variant.name not in given_up]
        if self._tracker and (outcomes := self._store.outcomes(self._design)):
            self._tracker.sync(outcomes, self._store.attributes["data_fingerprint"])
        missing = [cell for cell in cells if cell.key not in stored or not stored[cell.key].is_done]
        # A failed cell is tried again: whatever was in its way may be gone.
        self._store.enqueue(
            cell for cell in missing if cell.key not in stored or stored[cell.key].state == TrialState.FAIL
        )
        return missing

    def count_finished(self) -> int:
        """Counts the study's cells that need no training any more."""
        wanted = {variant.name for variant in self._design.variants}
        return sum(cell.is_done and (cell.variant in wanted or self._design.is_search) for cell in self._store.cells())

    def train(self, cells: Iterable[Cell | None], display: Display) -> int:
        """Trains cells, which are in the queue, and stores their outcomes; returns how many failed.

        Args:
            cells: None among them stands for "not before one of those in hand has come to its end".
            display: shows how the study gets on.

        Raises:
            StudyInterruptedError: after a signal; the cells that it stopped are back in the queue.
            UsageError: if the data are not those that the study's other cells were trained on.
        """
        self._check_data()
        display.say(f"Data: {self._launcher.prepare()}")
        if self._tracker:
            self._tracker.begin(self._store.attributes["data_fingerprint"], machine.git_commit())
        waiting = iter(cells)
        self._at_once = self._launcher.slots
        with Interrupts() as interrupts:
            try:
                while self._fill(waiting, display, interrupts):
                    with interrupts.at_once() if self._launcher.in_process else nullcontext():
                        heard = list(self._launcher.events())
                    for key, event in heard:
                        if key in self._attempts:  # it may have been given up for what it said before
                            self._hear(self._attempts[key], event, display)
                    interrupts.check()
            except (Exception, KeyboardInterrupt, StudyInterruptedError):
                self._release()
                raise
        return self._failed

    def _fill(self, waiting: Iterator[Cell | None], display: Display, interrupts: Interrupts) -> bool:
        """Gives the launcher as many cells as it has room for; returns whether it has any."""
        while len(self._attempts) < self._launcher.slots:
            interrupts.check()
            if self._again:
                self._start(self._again.popleft(), display)
                continue
            if self._waits and self._attempts:
                break
            cell = next(waiting, _NO_MORE)
            self._waits = cell is None
            if isinstance(cell, Cell):
                self._store.claim(cell)
                self._start(self._job(cell), display)
            elif cell is _NO_MORE:
                break
        return bool(self._attempts)

    def _job(self, cell: Cell) -> Job:
        launcher, checkpoints = self._launcher, self._checkpoints
        return Job(
            cell,
            launcher.recipe,
            measure=launcher.measure,
            threads=launcher.threads,
            keeps_weights=self._weights is not None and self._weights.wants(cell),
            seconds=self._seconds,
            checkpoint_every=checkpoints.every if checkpoints else float("inf"),
            checkpoint=checkpoints.read(cell) if checkpoints else None,
        )

    def _start(self, job: Job, display: Display) -> None:
        display.start_cell(job.cell.name)
        if self._tracker:
            self._tracker.start_cell(job.cell, machine.git_commit())
        self._attempts[job.cell.key] = _Attempt(job)
        self._launcher.start(job)

    def _hear(self, attempt: _Attempt, event: Progress, display: Display) -> None:
        cell = attempt.job.cell
        match event:
            case Step(done, total):
                attempt.has_stepped = True
                display.step(cell.name, done, total)
            case Epoch():
                self._hear_epoch(attempt, event, display)
            case Note(text):
                display.say(text)
            case Saved(content):
                self._keep(self._checkpoints, cell, content, "checkpoint", display)
            case Learnt(content):
                self._keep(self._weights, cell, content, "weights", display)
            case Finished(result, environment):
                self._finish(attempt, {"result": result, "environment": environment})
                speed = result["train_images_per_second"]
                display.finish_cell(cell.name, result["top1"], result["seconds"], speed)
            case Failed():
                self._hear_failure(attempt, event, display)

    def _hear_epoch(self, attempt: _Attempt, epoch: Epoch, display: Display) -> None:
        cell = attempt.job.cell
        attempt.epochs.append(epoch)
        display.epoch(cell.name, epoch.top1)
        if self._tracker:
            self._tracker.epoch(cell, epoch)
        reason = self._pruner.reason_to_stop(cell, attempt.epochs) if self._pruner else None
        if reason:
            self._launcher.stop(cell.key)
            epochs = {"epochs": [vars(each) for each in attempt.epochs]}
            self._finish(attempt, {"result": epochs, "pruned": reason, "environment": environment(attempt.job.threads)})
            display.prune_cell(cell.name, reason)

    def _keep(
        self, place: Checkpoints | Weights | None, cell: Cell, content: bytes, what: str, display: Display
    ) -> None:
        if place:
            try:
                place.write(cell, content)
            except OSError as error:  # the result is worth more
                display.say(f"The {what} of {cell.name} {_are(what)} not kept: {error.strerror or error}.")

    def _finish(self, attempt: _Attempt, outcome: dict[str, Any]) -> None:
        job = attempt.job
        # What was in the way of a result belongs to it.
        outcome |= {"micro_batches": job.micro_batches} if job.micro_batches > 1 else {}
        outcome |= {"lost": job.lost} if job.lost else {}
        if self._at_once > 1:  # they slow each other down
            outcome["environment"] = outcome["environment"] | {"cells at once": str(self._at_once)}
        self._store.finish(job.cell, outcome)
        self._end(job.cell)
        if self._tracker:
            self._tracker.finish_cell(job.cell, outcome)

    def _end(self, cell: Cell, *, keeps_checkpoint: bool = False) -> None:
        del self._attempts[cell.key]
        self._waits = False
        if self._checkpoints and not keeps_checkpoint:
            with suppress(OSError):
                self._checkpoints.remove(cell)

    def _hear_failure(self, attempt: _Attempt, failed: Failed, display: Display) -> None:
        """Has a cell tried again, if that may help; otherwise stores why it has no result."""
        job, cell = attempt.job, attempt.job.cell
        if failed.kind == OUT_OF_MEMORY and job.micro_batches == 1:
            display.say(f"{cell.name} ran out of memory; it is tried again with batches in two parts.")
            self._end(cell)
            self._again.append(replace(job, micro_batches=2, checkpoint=None))
            return
        if failed.kind == LOST and job.lost < self._retries:
            display.say(f"{cell.name} was lost: {last_line(failed.reason)} It is begun again.")
            self._end(cell, keeps_checkpoint=True)
            checkpoint = self._checkpoints.read(cell) if self._checkpoints else None
            self._again.append(replace(job, lost=job.lost + 1, checkpoint=checkpoint))
            return
        self._store.fail(cell, failed.kind, failed.reason)
        # One that cannot even be begun with is not worth keeping.
        self._end(cell, keeps_checkpoint=failed.kind != DIVERGED and (failed.kind != ERROR or attempt.has_stepped))
        if self._tracker:
            self._tracker.fail_cell(cell, failed.reason)
        if failed.kind == DIVERGED:
            self.diverged += 1
        else:
            self._failed += 1
        display.fail_cell(cell.name, "diverged" if failed.kind == DIVERGED else "failed", last_line(failed.reason))

    def _release(self) -> None:
        """Puts the cells in hand, and those that were to be tried again, back into the queue, as far as that goes."""
        jobs = [*(attempt.job for attempt in self._attempts.values()), *self._again]
        for job in jobs:
            with suppress(Exception):  # the next run takes over what cannot be released
                self._store.release(job.cell)
            if self._tracker:
                self._tracker.release_cell(job.cell)
        self._attempts = {}

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


def _are(what: str) -> str:
    return "are" if what.endswith("s") else "is"
