"""The serial launcher: trains cells in this process, one after the other."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from ablations import machine
from ablations.config import DataConfig, TrainConfig
from ablations.data import load_images
from ablations.design import Cell, Design
from ablations.variants import Variant

if TYPE_CHECKING:
    from ablations.data.device import DeviceImages
    from ablations.data.images import Images
    from ablations.train import Result, Watcher


class SerialLauncher:
    """Trains a design's cells; torch is imported and data are loaded when the first cell needs them."""

    def __init__(self, design: Design, data: DataConfig) -> None:
        self._design, self._data = design, data
        self._recipe = TrainConfig(**design.protocol["train"])

    @cached_property
    def images(self) -> Images:
        """The data set, loaded once."""
        return load_images(self._data)

    @cached_property
    def _device_images(self) -> DeviceImages:
        machine.keep_freed_memory()
        # Kineto, behind torch's profiler, writes notices to standard error where there is no GPU.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        import torch

        from ablations.data.device import DeviceImages

        device = torch.device(self._design.protocol["device"])
        return DeviceImages(self.images, device, crop=self._data.crop, flip=self._data.flip)

    def prepare(self) -> None:
        """Imports torch and moves the data to the device, so that the first cell takes as long as any other."""
        _ = self._device_images

    @property
    def threads(self) -> int:
        """How many threads torch computes with on the CPU: the last digits of a result depend on it."""
        import torch

        return torch.get_num_threads()

    def count_parameters(self, variant: Variant) -> int:
        """Counts what a variant would learn, without giving it memory."""
        import torch

        from ablations.measure import parameter_count
        from ablations.train import build_network

        with torch.device("meta"):
            return parameter_count(build_network(variant.network, len(self.images.classes), seed=0))

    def train(self, cell: Cell, watcher: Watcher) -> Result:
        """Trains one cell."""
        images = self._device_images
        from ablations.train import train

        return train(cell.variant.network, self._recipe, images, cell.seed, watcher)
