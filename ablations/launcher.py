"""Launchers: who trains the cells that a driver hands over. `serial` does so in this process, one after the other.

A launcher takes jobs (`start`) while it has room (`slots`), and tells what they say (`events`); it knows nothing of
Optuna, MLflow or files. The other launcher is `ablations.ray_launcher`.
"""

from __future__ import annotations

import gc
import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self

from ablations import machine
from ablations.config import COSTS, DataConfig, LauncherConfig, RayConfig, TrainConfig
from ablations.data import load_images
from ablations.design import Design
from ablations.errors import UsageError
from ablations.events import OUT_OF_MEMORY, Failed, Finished, Progress
from ablations.job import Job, work
from ablations.variants import Variant

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from ablations.data.device import DeviceImages
    from ablations.data.images import Images
    from ablations.probe import Probe


_ANY_CLUSTER = "auto"
_PATIENCE = 10.0  # seconds


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

        from ablations.learner import build_network
        from ablations.measure.memory import parameter_count

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


class SerialLauncher(Launcher):
    """Trains cells in this process, one after the other; torch is imported when the first one needs it."""

    _is_warm = False
    _running: tuple[str, Iterator[Progress]] | None = None

    @cached_property
    def _device_images(self) -> DeviceImages:
        from ablations.data.device import on_device

        machine.keep_freed_memory()
        machine.quiet_profiler()
        return on_device(self.images, self._data, self._design.protocol["device"])

    def prepare(self) -> str:
        """Imports torch and moves the data to the device; says what they are, how large, and where they are kept."""
        where = "on the device" if self._device_images.resident else "mapped from disk"
        return f"{self.images.describe(self._data.side)}; {self.images.nbytes / 2**20:,.1f} MiB {where}."

    def probe(self, variants: Sequence[Variant], seconds: float) -> Mapping[str, Probe | str]:
        """Takes steps with one variant after the other."""
        images = self._device_images
        from ablations.probe import probe_or_reason, warm_up

        if variants and not self._is_warm:
            warm_up(variants[0].network, self.recipe, images, self.threads)
            self._is_warm = True
        return {
            variant.name: probe_or_reason(
                variant.network, self.recipe, images, seconds, self.threads, measured=self.measure != "off"
            )
            for variant in variants
        }

    def start(self, job: Job) -> None:
        """Begins to train a cell; what is done is done while events are waited for."""
        self._running = job.cell.key, self.work(job)

    def work(self, job: Job) -> Iterator[Progress]:
        """Trains a cell."""
        return work(job, self._device_images)

    def events(self) -> Iterator[tuple[str, Progress]]:
        """Trains until the cell says something."""
        if self._running is None:
            return
        key, progress = self._running
        event = next(progress)
        if isinstance(event, (Finished, Failed)):
            self._running = None
            if isinstance(event, Failed) and event.kind == OUT_OF_MEMORY:
                _free_memory()
        yield key, event

    def stop(self, key: str) -> None:
        """Gives the cell up."""
        del key
        self._running = None

    def close(self) -> None:
        """Gives up the cell in hand."""
        self._running = None


def check_launcher(config: LauncherConfig) -> None:
    """Checks that there is what a launcher needs.

    Raises:
        UsageError: if its package is not installed, or nobody listens at its address.
    """
    if not isinstance(config, RayConfig):
        return
    if find_spec("ray") is None:
        reason = "needs the Python package ray, which is not installed; pip install -e '.[ray]' does so"
        raise UsageError("launcher", "ray", reason)
    if config.address in ("", _ANY_CLUSTER):
        return
    host, _, port = config.address.rpartition(":")
    if not re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:]+\]", host) or not port.isdecimal() or int(port) > 65_535:
        reason = f"is no address of a cluster; one looks like 10.0.0.1:6379, and {_ANY_CLUSTER} is that of this machine"
        raise UsageError("launcher.address", config.address, reason)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except OSError as error:  # which Ray would find out in minutes
        reason = f"nobody answers there ({error.strerror or error}); `ray start --head` begins a cluster"
        raise UsageError("launcher.address", config.address, reason) from None


def make_launcher(
    config: LauncherConfig, design: Design, data: DataConfig, console: Console, measure: str, threads: int
) -> Launcher:
    """Makes the launcher that was chosen, which is installed."""
    if not isinstance(config, RayConfig):
        return SerialLauncher(design, data, console, measure, threads)
    if not config.address:
        # Read when Ray is imported: one that is started here listens on the loopback interface alone.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    from ablations.ray_launcher import RayLauncher

    return RayLauncher(config, design, data, console, measure, threads)


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
