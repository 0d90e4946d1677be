"""The trained networks that a study kept, and the test images to look at them with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ablations.common.errors import UsageError
from ablations.data import load_images
from ablations.data.augment import augmentation_of
from ablations.data.device import DeviceImages
from ablations.design import Cell
from ablations.design.variants import SMALL_SIDE, Variant
from ablations.measure.complexity import count_operations
from ablations.storage.weights import Weights
from ablations.training.learner import build_network

if TYPE_CHECKING:
    from ablations.analysis.observe import Observation
    from ablations.analysis.study import Findings

_BUDGET = 4e11  # multiply-adds that looking at all variants may take: some seconds on two cores
_MOST = 1000  # images
_BATCH_PIXELS = 128 * 32 * 32


@dataclass(frozen=True)
class Sample:
    """Test images, the first ones of each class, as networks get them: (N, 3, H, W), with their labels.

    `shown` are the same images as uint8 of shape (N, H, W, 3), for people.
    """

    pixels: Tensor
    labels: Tensor
    shown: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)


class TrainedNetworks:
    """What figures need of a study's trained networks: those of one replicate, on the CPU, and a sample of test images.

    Args:
        findings: of the study.

    Raises:
        UsageError: if no weights are there, or the images that they were trained on are not.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        design = findings.design
        self._weights = Weights(findings.folder / "weights")
        finished = {(str(row["variant"]), int(row["replicate"])) for row in findings.results.cells.to_dict("records")}
        kept = [
            cell
            for variant in design.variants
            for cell in [design.cell(variant, 0)]
            if (variant.name, 0) in finished and self._weights.path(cell).is_file()
        ]
        if not kept:
            reason = (
                f"no weights are kept in {self._weights.folder}; `run study=<another name> weights=first` keeps them"
            )
            raise UsageError("study", design.study, reason)
        self.cells: dict[str, Cell] = {cell.variant.name: cell for cell in kept}

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
        from ablations.analysis.observe import observe

        return {variant.name: observe(self.load(variant), variant.network, self.sample) for variant in self.variants}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self._images.classes

    @cached_property
    def _images(self) -> DeviceImages:
        data, known = self._findings.config.data, self._findings.attributes.get("data_fingerprint")
        images = load_images(data, fetch=False)
        if images.fingerprint != known:
            reason = f"has fingerprint {images.fingerprint}; the study's networks were trained on {known}"
            raise UsageError("data", data.name, reason)
        augmentation = augmentation_of(data, images.train.pixels.shape[-1])
        return DeviceImages(images, torch.device("cpu"), augmentation, memory="mapped")

    @cached_property
    def sample(self) -> Sample:
        """As many test images as can be looked at in seconds with every variant, the same number of each class."""
        images = self._images
        cost = sum(self._findings.multiply_adds[variant.name] for variant in self.variants)
        allowed = int(min(_MOST, _BUDGET / max(cost, 1.0)))
        return images_of_each_class(images, max(1, allowed // len(images.classes)))


def images_of_each_class(images: DeviceImages, number: int) -> Sample:
    """Returns the first test images of each class, up to a number of each, in the order of the test set."""
    labels = images.test_labels
    places = torch.cat([_places(labels, label)[:number] for label in range(len(images.classes))]).sort().values
    pixels, shown = images.some_tests(places)
    return Sample(pixels, labels[places], shown.permute(0, 2, 3, 1).numpy())


def count_multiply_adds(network: dict[str, Any], classes: int, side: int) -> float:
    """Counts the multiply-adds of an image of `side` x `side` pixels, as papers count them.

    With large images nothing is computed. With small ones computing is quicker than torch's emulation, which is written
    in Python and imports the compiler.
    """
    with torch.device("cpu" if side <= SMALL_SIDE else "meta"):
        model = build_network(network, classes, seed=0, fused="off").eval()
        return count_operations(model, torch.empty(1, 3, side, side)).multiply_adds


def batches(pixels: Tensor) -> list[Tensor]:
    """Splits images into batches that fit into the caches' neighbourhood."""
    return list(pixels.split(max(1, _BATCH_PIXELS // pixels[0, 0].numel())))


def _places(labels: Tensor, label: int) -> Tensor:
    return (labels == label).nonzero().flatten()
