"""Launchers: who trains the cells that a driver hands over. `serial` does so in this process, one after the other.

A launcher takes jobs (`start`) while it has room (`slots`), and tells what they say (`events`); it knows nothing of
Optuna, MLflow or files. The other launcher is `ablations.execution.launchers.ray`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

from ablations.common.errors import UsageError
from ablations.config import COSTS, DataConfig, TrainConfig
from ablations.data import load_images
from ablations.design import Design
from ablations.design.variants import Variant
from ablations.training.events import Progress
from ablations.training.job import Job

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from ablations.data.images import Images
    from ablations.training.probe import Probe


class Launcher(ABC):
    """What both launchers have: a design's recipe and data.

    Args:
        design: whose cells are trained.
        data: where the data are.
        console: shows how loading them gets on.
        measure: as for `train`.
        threads: that a cell is computed with on the CPU.

    Attributes:
        slots: how many cells are trained at once.
        in_process: whether cells are trained in this process, while events are waited for.
    """

    slots: int = 1
    in_process: bool = True

    def __init__(
        self,
        design: Design,
        data: DataConfig,
        console: Console | None = None,
        measure: str = "quick",
        threads: int = 1,
    ) -> None:
        self._design, self._data, self._console, self.threads = design, data, console, threads
        # A search for what costs little cannot go on without knowing what something costs.
        self.measure = "needed" if set(design.objectives) & COSTS else measure
        self.recipe = TrainConfig(**design.protocol["train"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def images(self) -> Images:
        """The data set, loaded once.

        Raises:
            UsageError: if it is not to be had, or smaller than a batch.
        """
        images = load_images(self._data, self._console)
        if len(images.train) < self.recipe.batch_size:
            reason = f"is more than the {len(images.train):,} training images"
            raise UsageError("train.batch_size", self.recipe.batch_size, reason)
        return images

    def count_parameters(self, variant: Variant) -> int:
        """Counts what a variant would learn, without giving it memory."""
        import torch

        from ablations.measure.memory import parameter_count
        from ablations.training.learner import build_network

        with torch.device("meta"):
            return parameter_count(build_network(variant.network, len(self.images.classes), seed=0))

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
