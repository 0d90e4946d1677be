"""The interface of launchers, which train the cells of a study.

`serial` trains in this process, `local` (launcher=auto) in worker processes of this machine, `ray` also on a cluster.

A launcher accepts jobs (`start`) up to its `capacity`, and yields their events (`events`); it uses neither Optuna nor
MLflow nor the study's files.
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
    """The base class of launchers: holds the recipe and the data of a design; the console shows loading progress."""

    capacity = 1  # how many cells are trained in parallel
    is_local = True  # whether all cells are trained on this machine
    in_process = True  # whether `events` trains the cells, in this process

    design: Design
    data: DataConfig
    console: Console | None = None
    threads: int = 1  # CPU threads per cell

    def __post_init__(self) -> None:
        self.cells, self.peak_mib = 0, math.nan
        self.recipe = TrainConfig(**self.design.protocol["train"])

    @cached_property
    def data_set(self) -> DataSet:
        """The data set, loaded once; raises DataError if it is not available."""
        return load_data(self.data, self.design.validation, self.console)

    @cached_property
    def images(self) -> Images:
        """The images of the first replicate; all replicates have the same number of images.

        Raises:
            UsageError: if the training images, with or without the validation images, are fewer than a batch, or the
                number of classes rules out a configured metric.
            DataError: if the images are not available.
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
        """The largest batch sizes of training, by the option that sets them."""
        option, tuning = "train.batch_size", self.design.tuning
        sizes = {option: self.recipe.batch_size}
        if tuning and option in tuning.space:
            sizes[f"tune.space.{option}"] = int(max(tuning.space[option].choices or tuning.space[option].ends))
        return sizes

    def describe_images(self) -> str:
        """Describes the number of images per cell, and which images differ between cells."""
        text = self.images.describe(self.data.side)
        if note := self.data_set.note:
            text += f"; {note}"
        if self.design.validation:
            held = len(self.data_set.images(self.design.seed(0, Split.VALIDATION), Split.VALIDATION).test)
            text += f"; {held:,} of the training images are held out for validation"
        return text

    def count_parameters(self, variant: Variant) -> int:
        """Counts the trainable parameters of a variant without allocating them."""
        import torch

        from ablations.measure.memory import parameter_count
        from ablations.training.learner import build_network

        with torch.device("meta"):
            return parameter_count(build_network(variant.network, len(self.images.classes), seed=0))

    @property
    def place(self) -> Place:
        """The description of the images that worker processes receive."""
        return Place(self.data_set.fingerprint, self.data, self.design.protocol["device"])

    def probe_task(self, variant: Variant, seconds: float) -> ProbeTask:
        """Returns the task with which a worker process probes a variant."""
        return ProbeTask(variant.network, self.recipe, self.design.seed(0), seconds, self.threads)

    def warm_up(self) -> None:
        """Starts slow initialization in the background; called if cells are to be trained."""
        return

    def expect(self, cells: int, memory_mib: float) -> None:
        """Sets how many cells will be trained, and the peak memory of a training step in MiB; NaN if unknown."""
        self.cells, self.peak_mib = cells, memory_mib

    @abstractmethod
    def prepare(self) -> str:
        """Initializes training, so that the first cell takes no longer than others; returns a sentence on the data.

        Raises:
            UsageError: if this launcher cannot train cells in this environment.
        """

    @abstractmethod
    def probe(self, variants: Sequence[Variant], seconds: float) -> Mapping[str, Probe | str]:
        """Estimates the cost of a cell of each variant from training steps of `seconds`; on failure, the reason."""

    @abstractmethod
    def alone(self, function: Callable[..., Returned], *arguments: object) -> Returned:
        """Runs a function in one worker with the study's number of threads, while no cell is trained; waits for it.

        If the worker is another process, function, arguments and result are pickled, so the function must be defined
        at the top level of a module. An interrupt also ends the function.

        Raises:
            WorkerLostError: if the worker process ended before the function returned.
            Exception: any exception that the function raises.
        """

    @abstractmethod
    def start(self, job: Job) -> None:
        """Starts training a cell."""

    @abstractmethod
    def events(self) -> Iterator[tuple[str, Progress]]:
        """Waits briefly and yields events of cells with their keys; each cell ends with Finished or Failed."""

    @abstractmethod
    def stop(self, key: str) -> None:
        """Stops the cell with this key; it yields no further events."""

    @abstractmethod
    def close(self) -> None:
        """Stops all cells and releases all resources."""
