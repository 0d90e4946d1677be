"""What happens to a cell, told to all who keep or show it: store, MLflow, display, weights and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ablations.common import machine
from ablations.common.wording import last_line
from ablations.design import Cell
from ablations.execution.progress import Display
from ablations.storage.errors import StorageError
from ablations.storage.files import Checkpoints, Weights
from ablations.storage.study import StudyStore
from ablations.training.events import DIVERGED, Epoch, Failed
from ablations.training.job import Job, environment

if TYPE_CHECKING:
    from ablations.data.images import Images
    from ablations.tracking.base import StudyMirror


class Recorder:
    """Writes down what a driver hears.

    The store comes first, as it is the memory; a mirror, a picture or a file that fails costs no result.

    Args:
        store: the study's memory.
        mirror: shows it in MLflow.
        display: shows it on the terminal.
        weights: where trained weights are kept.
        checkpoints: where cells in training are kept.
    """

    def __init__(
        self, store: StudyStore, mirror: StudyMirror, display: Display, weights: Weights, checkpoints: Checkpoints
    ) -> None:
        self._store, self._mirror, self.display = store, mirror, display
        self._weights, self.checkpoints = weights, checkpoints
        self._at_once = 1

    def begin(self, data_name: str, images: Images, description: str, at_once: int) -> None:
        """Notes what the study's cells are trained on, before the first one.

        Args:
            data_name: of the data set.
            images: the data set.
            description: of it, for the display.
            at_once: cells that are trained at once.

        Raises:
            StorageError: if the study's other cells were trained on other images.
        """
        stored = self._store.attributes.get("data_fingerprint", images.fingerprint)
        if stored != images.fingerprint:
            reason = (
                f"has fingerprint {images.fingerprint}, the study's other cells were trained on {stored}; "
                f"to start another study, add study={self._store.name}-2 (or any name)"
            )
            raise StorageError("data", data_name, reason)
        self._store.remember("data_fingerprint", images.fingerprint)
        counts = {"train": len(images.train), "test": len(images.test), "classes": images.classes}
        self._store.remember("data", counts)
        self.display.say(f"Data: {description}")
        self._mirror.begin(images.fingerprint, machine.git_commit())
        self._at_once = at_once

    def wants_weights(self, cell: Cell) -> bool:
        """Whether the trained weights of a cell are kept."""
        return self._weights.wants(cell)

    def start(self, cell: Cell) -> None:
        """Notes that an attempt at a cell begins."""
        self._store.start(cell)
        self.restart(cell)

    def restart(self, cell: Cell) -> None:
        """Notes that a cell is trained from its beginning or its last checkpoint, within the same attempt."""
        self.display.start_cell(cell.name)
        self._mirror.start_cell(cell, machine.git_commit())

    def epoch(self, cell: Cell, epoch: Epoch) -> None:
        """Notes what a cell has come to after an epoch."""
        self._store.report(cell, epoch)
        self.display.epoch(cell.name, epoch.top1)
        self._mirror.epoch(cell, epoch)

    def checkpoint(self, cell: Cell, content: bytes) -> None:
        """Keeps a checkpoint of a cell."""
        try:
            self.checkpoints.write(cell, content)
        except OSError as error:  # the result is worth more
            self.display.say(f"The checkpoint of {cell.name} is not kept: {error.strerror or error}.")

    def weights(self, cell: Cell, content: bytes) -> None:
        """Keeps the trained weights of a cell."""
        try:
            self._weights.write(cell, content)
        except OSError as error:  # the result is worth more
            self.display.say(f"The weights of {cell.name} are not kept: {error.strerror or error}.")

    def finish(self, job: Job, result: dict[str, Any], environment: dict[str, str]) -> None:
        """Notes the result of a cell, and the machine that it comes from."""
        self._store_outcome(job, {"result": result, "environment": environment})
        speed = result["train_images_per_second"]
        self.display.finish_cell(job.cell.name, result["top1"], result["seconds"], speed)

    def prune(self, job: Job, epochs: Iterable[Epoch], reason: str) -> None:
        """Notes that a cell was given up, after which epochs, and why."""
        result = {"epochs": [vars(epoch) for epoch in epochs]}
        outcome = {"result": result, "pruned": reason, "environment": environment(job.threads)}
        self._store_outcome(job, outcome)
        self.display.prune_cell(job.cell.name, reason)

    def fail(self, cell: Cell, failed: Failed, *, keeps_checkpoint: bool) -> None:
        """Notes why a cell has no result."""
        self._store.fail(cell, failed.kind, failed.reason)
        if not keeps_checkpoint:
            self.drop_checkpoint(cell)
        self._mirror.fail_cell(cell, failed.reason)
        how = "diverged" if failed.kind == DIVERGED else "failed"
        self.display.fail_cell(cell.name, how, last_line(failed.reason))

    def interrupt(self, cell: Cell) -> None:
        """Notes, as far as that goes, that a cell was given up unfinished; what fails is mended by the next run."""
        with suppress(Exception):
            self._store.interrupt(cell)
        self._mirror.release_cell(cell)

    def drop_checkpoint(self, cell: Cell) -> None:
        """Removes the checkpoint of a cell."""
        with suppress(OSError):
            self.checkpoints.remove(cell)

    def _store_outcome(self, job: Job, outcome: dict[str, Any]) -> None:
        # What was in the way of a result belongs to it.
        outcome |= {"micro_batches": job.micro_batches} if job.micro_batches > 1 else {}
        outcome |= {"lost": job.lost} if job.lost else {}
        if self._at_once > 1:  # they slow each other down
            outcome["environment"] = outcome["environment"] | {"cells at once": str(self._at_once)}
        self._store.finish(job.cell, outcome)
        self.drop_checkpoint(job.cell)
        self._mirror.finish_cell(job.cell, outcome)
