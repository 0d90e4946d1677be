"""Records the events of cells in the store, in MLflow, on the display, and in the files of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ablations.common import machine
from ablations.common.wording import last_line
from ablations.design import Cell
from ablations.execution.launchers.base import Launcher
from ablations.execution.progress import Display
from ablations.execution.reuse import TrainedCell
from ablations.storage.errors import StorageError
from ablations.storage.files import CellFiles, Checkpoints, PredictionFiles, Weights
from ablations.storage.study import StudyStore
from ablations.tracking import StudyMirror
from ablations.training.events import (
    DIVERGED,
    Epoch,
    Failed,
    Finished,
    Learnt,
    Note,
    Predicted,
    Progress,
    Saved,
    Step,
)
from ablations.training.job import Job, environment


@dataclass
class Recorder:
    """Records the events that a driver receives.

    The store is written first, as it holds the results; an error in MLflow, the display or a file loses no result.
    """

    store: StudyStore
    mirror: StudyMirror
    display: Display
    weights: Weights
    checkpoints: Checkpoints
    predictions: PredictionFiles
    _at_once: int = field(default=1, init=False)  # cells trained in parallel

    def begin(self, launcher: Launcher) -> None:
        """Prepares a launcher, and records the data that the study's cells are trained on.

        Raises:
            StorageError: if the study's other cells were trained on other images.
        """
        images, fingerprint, description = launcher.images, launcher.data_set.fingerprint, launcher.prepare()
        stored = self.store.attributes.get("data_fingerprint", fingerprint)
        if stored != fingerprint:
            reason = (
                f"has fingerprint {fingerprint}, but the study's other cells were trained on {stored}; to start a new "
                f"study, add study={self.store.name}-2 (or any name)"
            )
            raise StorageError("data", launcher.data.name, reason)
        self.store.remember("data_fingerprint", fingerprint)
        counts = {"train": len(images.train), "test": len(images.test), "classes": images.classes}
        self.store.remember("data", counts)
        self.display.notify(f"Data: {description}")
        self.mirror.begin(fingerprint, machine.git_commit())
        self._at_once = launcher.capacity

    def start(self, cell: Cell) -> None:
        """Records the start of an attempt at a cell."""
        self.store.start(cell)
        self.restart(cell)

    def restart(self, cell: Cell) -> None:
        """Records that a cell restarts from its beginning or its last checkpoint, within the same attempt."""
        self.display.start_cell(cell.name)
        self.mirror.start_cell(cell, machine.git_commit())

    def record(self, cell: Cell, event: Progress) -> None:
        """Records an event of a cell in training; `finish`, `prune` and `fail` record its end."""
        match event:
            case Step(done, total):
                self.display.step(cell.name, done, total)
            case Epoch():
                self.store.report(cell, event)
                self.display.epoch(cell.name, event.top1)
                self.mirror.epoch(cell, event)
            case Note(text):
                self.display.notify(text)
            case Saved(content):
                self._keep(self.checkpoints, f"The checkpoint of {cell.name} is", cell, content)
            case Learnt(content):
                self._keep(self.weights, f"The weights of {cell.name} are", cell, content)
            case Predicted(content):
                self._keep(self.predictions, f"The predictions of {cell.name} are", cell, content)

    def finish(self, job: Job, finished: Finished) -> None:
        """Records the result of a cell and the machine that trained it."""
        result = finished.result
        self._store_outcome(job, {"result": result, "images": finished.images, "environment": finished.environment})
        self.display.finish_cell(job.cell.name, result["top1"], result["seconds"])

    def reuse(self, cell: Cell, trained: TrainedCell, costs: Mapping[str, float]) -> None:
        """Records the result of an equal cell of another study, with its origin, and copies that cell's files.

        `costs` are the costs of the cell's variant among the objectives of this study.
        """
        outcome = {**trained.outcome, "result": trained.outcome["result"] | costs, "origin": trained.study}
        for stored in outcome["result"]["epochs"]:
            self.record(cell, Epoch(**stored))
        kept: list[tuple[str, Weights | PredictionFiles]] = [
            ("weights", self.weights),
            ("predictions", self.predictions),
        ]
        for what, files in kept:
            if files.wants(cell) and (content := trained.file(files, cell)) is not None:
                self._keep(files, f"The {what} of {cell.name} are", cell, content)
        self.store.finish(cell, outcome)
        self.mirror.finish_cell(cell, outcome)
        self.display.reuse_cell(cell.name, outcome["result"]["top1"], trained.study)

    def prune(self, job: Job, epochs: Sequence[Epoch], reason: str) -> None:
        """Records that a cell was pruned, after which epochs, and why."""
        result = {"epochs": [vars(epoch) for epoch in epochs]}
        self._store_outcome(job, {"result": result, "pruned": reason, "environment": environment(job.threads)})
        self.display.end_cell(job.cell.name, f"pruned: {reason}")

    def fail(self, cell: Cell, failed: Failed, *, keeps_checkpoint: bool) -> None:
        """Records why a cell has no result."""
        self.store.fail(cell, failed.kind, failed.reason)
        if not keeps_checkpoint:
            self.drop_checkpoint(cell)
        self.mirror.fail_cell(cell, failed.reason)
        how = "diverged" if failed.kind == DIVERGED else "failed"
        self.display.end_cell(cell.name, f"{how}: {last_line(failed.reason)}")

    def interrupt(self, cell: Cell) -> None:
        """Records that a cell was interrupted; if this fails, the next run corrects the state of the cell."""
        with suppress(Exception):
            self.store.interrupt(cell)
        self.mirror.release_cell(cell)

    def drop_checkpoint(self, cell: Cell) -> None:
        """Removes the checkpoint of a cell."""
        with suppress(OSError):
            self.checkpoints.remove(cell)

    def _keep(self, files: CellFiles, what: str, cell: Cell, content: bytes) -> None:
        try:
            files.write(cell, content)
        except OSError as error:  # a missing file must not lose the result
            self.display.notify(f"{what} not saved: {error.strerror or error}.")

    def _store_outcome(self, job: Job, outcome: dict[str, Any]) -> None:
        # The outcome includes the retries that it took.
        outcome |= {"micro_batches": job.micro_batches} if job.micro_batches > 1 else {}
        outcome |= {"lost": job.lost} if job.lost else {}
        if self._at_once > 1:  # parallel cells slow each other down
            outcome["environment"] = outcome["environment"] | {"cells at once": str(self._at_once)}
        self.store.finish(job.cell, outcome)
        self.drop_checkpoint(job.cell)
        self.mirror.finish_cell(job.cell, outcome)
