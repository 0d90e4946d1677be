"""Launchers: who trains the cells that a driver hands over.

`serial` does so in this process, `local` (launcher=auto) in worker processes of this machine, `ray` also on others.

A launcher takes jobs (`start`) while it has room (`slots`), and tells what they say (`events`); it knows nothing of
Optuna, MLflow or files.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.console import Console

from ablations.common.errors import UsageError
from ablations.config import DataConfig, TrainConfig
from ablations.data import DataSet, load_data
from ablations.data.images import Images
from ablations.design import Design, Split
from ablations.design.variants import Variant
from ablations.execution.launchers.worker import Place, ProbeTask, Returned
from ablations.training.events import Probe, Progress
from ablations.training.job import Job
from ablations.training.predictions import TOP


class WorkerLostError(RuntimeError):
    """The worker process ended before it returned a result; the message gives the reason."""


@dataclass(eq=False)
class Launcher(ABC):
    """What all launchers have: a design's recipe and data; the console shows how loading them gets on."""

    capacity = 1  # how many cells are trained at once
    is_local = True  # whether cells are trained on this machine
    in_process = True  # whether cells are trained in this process, while events are waited for

    design: Design
    data: DataConfig
    console: Console | None = None
    threads: int = 1  # that a cell is computed with on the CPU

    def __post_init__(self) -> None:
        self.cells, self.peak_mib = 0, math.nan
        self.recipe = TrainConfig(**self.design.protocol["train"])

    @cached_property
    def data_set(self) -> DataSet:
        """The data set, loaded once; DataError if it is not to be had."""
        return load_data(self.data, self.design.validation, self.console)

    @cached_property
    def images(self) -> Images:
        """The images of the first replicate, which has as many as any other.

        Raises:
            UsageError: if they are not to be had, fewer than a batch, with the validation images or without them, or
                lack a metric that a search looks for.
        """
        images = self._checked(Split.TEST, "training images")
        if self.design.validation:
            self._checked(Split.VALIDATION, "training images without the validation images")
        return images

    def _checked(self, split: Split, what: str) -> Images:
        images = self.data_set.images(self.design.seed(0, split), split)
        for option, size in self._batch_sizes.items():
            if len(images.train) < size:
                raise UsageError(option, size, f"exceeds the number of {what} ({len(images.train):,})")
        wanted = {"sweep.objectives": self.design.objectives, "judge.metric": (self.design.metric,)}
        for option, metrics in wanted.items():
            if "top5" in metrics and len(images.classes) <= TOP:
                reason = f"requires more than {TOP} classes; the data set has {len(images.classes)}"
                raise UsageError(option, "top5", reason)
        return images

    @property
    def _batch_sizes(self) -> dict[str, int]:
        """The largest batches that cells are trained with, by the option that asks for them."""
        option, tuning = "train.batch_size", self.design.tuning
        sizes = {option: self.recipe.batch_size}
        if tuning and option in tuning.space:
            sizes[f"tune.space.{option}"] = int(max(tuning.space[option].choices or tuning.space[option].ends))
        return sizes

    def describe_images(self) -> str:
        """Says how many images cells see, and which of them differ between cells."""
        text = self.images.describe(self.data.side)
        if note := self.data_set.note:
            text += f"; {note}"
        if self.design.validation:
            held = len(self.data_set.images(self.design.seed(0, Split.VALIDATION), Split.VALIDATION).test)
            text += f"; {held:,} of the training images are held out for validation"
        return text

    def count_parameters(self, variant: Variant) -> int:
        """Counts what a variant would learn, without giving it memory."""
        import torch

        from ablations.measure.memory import parameter_count
        from ablations.training.learner import build_network

        with torch.device("meta"):
            return parameter_count(build_network(variant.network, len(self.images.classes), seed=0))

    @property
    def place(self) -> Place:
        """What worker processes are told of the images."""
        return Place(self.data_set.fingerprint, self.data, self.design.protocol["device"])

    def probe_task(self, variant: Variant, seconds: float) -> ProbeTask:
        """Returns what worker processes are told to probe a variant."""
        return ProbeTask(variant.network, self.recipe, self.design.seed(0), seconds, self.threads)

    def warm_up(self) -> None:
        """Begins in the background what takes seconds, where there will be cells to train."""
        return

    def expect(self, cells: int, memory_mib: float) -> None:
        """Notes how many cells are to be trained, and the most MiB that a step takes; nan where none is known."""
        self.cells, self.peak_mib = cells, memory_mib

    @abstractmethod
    def prepare(self) -> str:
        """Makes ready for the first cell, so that it takes as long as any other; says in a sentence what the data are.

        Raises:
            UsageError: if cells cannot be trained in this way here.
        """

    @abstractmethod
    def probe(self, variants: Sequence[Variant], seconds: float) -> Mapping[str, Probe | str]:
        """Finds out what a cell of each variant costs, by steps that take so many seconds; or says why not."""

    @abstractmethod
    def alone(self, function: Callable[..., Returned], *arguments: object) -> Returned:
        """Runs a function in one worker, with the study's number of threads, while no cell is trained; waits for it.

        Function, arguments and result are pickled where the worker is another process, so the function must be defined
        at the top level of a module. An interrupt ends the function, too.

        Raises:
            WorkerLostError: if the worker process ended before the function returned.
            Exception: what the function raised.
        """

    @abstractmethod
    def start(self, job: Job) -> None:
        """Begins to train a cell."""

    @abstractmethod
    def events(self) -> Iterator[tuple[str, Progress]]:
        """Waits a moment, and yields what the cells in hand say, each by its key; each ends with its last word."""

    @abstractmethod
    def stop(self, key: str) -> None:
        """Gives up the cell of this key; it says nothing more."""

    @abstractmethod
    def close(self) -> None:
        """Gives up all cells, and whatever else is held."""
