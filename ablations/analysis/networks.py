"""The trained networks that a study kept, and what they do with test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import nn

from ablations.analysis.observe import Observation, observe
from ablations.analysis.sample import Sample, images_of_each_class
from ablations.common.errors import UsageError
from ablations.config import DataConfig
from ablations.data import load_images
from ablations.data.augment import augmentation_of
from ablations.data.device import DeviceImages
from ablations.design import Cell
from ablations.design.variants import Variant
from ablations.storage.weights import Weights

BUDGET = 4e11  # multiply-adds that looking at all variants may take: some seconds on two cores
MOST = 1000  # images


class TrainedNetworks:
    """What figures need of a study's trained networks: those of one replicate, on the CPU, and a sample of test images.

    Args:
        study: its name, for messages.
        cells: finished cells, one of each variant, in the order of the study.
        weights: where the weights are kept of those cells that have some.
        data: the images that the networks were trained and tested on.
        fingerprint: of these images when the cells were trained.
        multiply_adds: of an image, by variant.

    Raises:
        UsageError: if no weights are there, or (later) the images that they were trained on are not.
    """

    def __init__(
        self,
        study: str,
        cells: Sequence[Cell],
        weights: Weights,
        data: DataConfig,
        fingerprint: str | None,
        multiply_adds: Mapping[str, float],
    ) -> None:
        self._weights, self._data, self._fingerprint, self._adds = weights, data, fingerprint, multiply_adds
        self.cells = {cell.variant.name: cell for cell in cells if weights.path(cell).is_file()}
        if not self.cells:
            reason = f"no weights are kept in {weights.folder}; `run study=<another name> weights=first` keeps them"
            raise UsageError("study", study, reason)

    @property
    def variants(self) -> list[Variant]:
        """The variants whose weights are there, in the order of the study."""
        return [cell.variant for cell in self.cells.values()]

    def load(self, variant: Variant) -> nn.Module:
        """Builds a variant's network as it was trained.

        Raises:
            UsageError: if the file cannot be read.
        """
        path = self._weights.path(self.cells[variant.name])
        try:
            return self._weights.load(self.cells[variant.name])
        except (OSError, ValueError) as error:
            reason = f"cannot be read ({error})"
            raise UsageError("weights", path, reason) from None

    @cached_property
    def observations(self) -> dict[str, Observation]:
        """What each network does with the sample, by variant."""
        return {variant.name: observe(self.load(variant), variant.network, self.sample) for variant in self.variants}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self._images.classes

    @cached_property
    def _images(self) -> DeviceImages:
        images = load_images(self._data, fetch=False)
        if images.fingerprint != self._fingerprint:
            reason = f"has fingerprint {images.fingerprint}; the study's networks were trained on {self._fingerprint}"
            raise UsageError("data", self._data.name, reason)
        augmentation = augmentation_of(self._data, images.train.pixels.shape[-1])
        return DeviceImages(images, torch.device("cpu"), augmentation, memory="mapped")

    @cached_property
    def sample(self) -> Sample:
        """As many test images as can be looked at in seconds with every variant, the same number of each class."""
        images = self._images
        cost = sum(self._adds[variant.name] for variant in self.variants)
        allowed = int(min(MOST, BUDGET / max(cost, 1.0)))
        return images_of_each_class(images, max(1, allowed // len(images.classes)))
