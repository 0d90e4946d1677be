"""The serial launcher: trains cells in this process, one after the other."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ablations import machine
from ablations.config import COSTS, DataConfig, TrainConfig
from ablations.data import load_images
from ablations.design import Cell, Design
from ablations.errors import UsageError
from ablations.variants import Variant

if TYPE_CHECKING:
    from rich.console import Console

    from ablations.data.device import DeviceImages
    from ablations.data.images import Images
    from ablations.probe import Probe
    from ablations.train import Result, Watcher


class SerialLauncher:
    """Trains a design's cells; torch is imported and data are loaded when the first cell needs them."""

    def __init__(
        self, design: Design, data: DataConfig, console: Console | None = None, measure: str = "quick"
    ) -> None:
        self._design, self._data, self._console = design, data, console
        # A search for what costs little cannot go on without knowing what something costs.
        self._measure = "needed" if set(design.objectives) & COSTS else measure
        self._is_warm = False
        self._recipe = TrainConfig(**design.protocol["train"])

    @cached_property
    def images(self) -> Images:
        """The data set, loaded once.

        Raises:
            UsageError: if it is not to be had, or smaller than a batch.
        """
        images = load_images(self._data, self._console)
        if len(images.train) < self._recipe.batch_size:
            reason = f"is more than the {len(images.train):,} training images"
            raise UsageError("train.batch_size", self._recipe.batch_size, reason)
        return images

    @cached_property
    def _device_images(self) -> DeviceImages:
        machine.keep_freed_memory()
        machine.quiet_profiler()
        import torch

        from ablations.data.augment import augmentation_of
        from ablations.data.device import DeviceImages

        device = torch.device(self._design.protocol["device"])
        augmentation = augmentation_of(self._data, self.images.train.pixels.shape[-1])
        return DeviceImages(self.images, device, augmentation, memory=getattr(self._data, "memory", "auto"))

    def prepare(self) -> str:
        """Imports torch and moves the data to the device, so that the first cell takes as long as any other.

        Returns:
            what the data are, how much they take, and where they are kept.
        """
        where = "on the device" if self._device_images.resident else "mapped from disk"
        return f"{self.images.describe(self._data.side)}; {self.images.nbytes / 2**20:,.1f} MiB {where}."

    @property
    def threads(self) -> int:
        """How many threads torch computes with on the CPU: the last digits of a result depend on it."""
        import torch

        return torch.get_num_threads()

    def count_parameters(self, variant: Variant) -> int:
        """Counts what a variant would learn, without giving it memory."""
        import torch

        from ablations.learner import build_network
        from ablations.measure.memory import parameter_count

        with torch.device("meta"):
            return parameter_count(build_network(variant.network, len(self.images.classes), seed=0))

    def probe(self, variant: Variant, seconds: float) -> Probe:
        """Finds out what a cell of a variant costs, by steps that take so many seconds."""
        images = self._device_images
        from ablations.probe import probe, warm_up

        if not self._is_warm:
            warm_up(variant.network, self._recipe, images)
            self._is_warm = True
        return probe(variant.network, self._recipe, images, seconds, measured=self._measure != "off")

    def train(self, cell: Cell, watcher: Watcher) -> Result:
        """Trains one cell."""
        images = self._device_images
        from ablations.train import train

        return train(cell.variant.network, self._recipe, images, cell.seed, watcher, self._measure)
