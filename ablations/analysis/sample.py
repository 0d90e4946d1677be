"""Test images to look at networks with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablations.data.device import DeviceImages

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


def images_of_each_class(images: DeviceImages, number: int) -> Sample:
    """Returns the first test images of each class, up to a number of each, in the order of the test set."""
    labels = images.test_labels
    of_class = [(labels == label).nonzero().flatten()[:number] for label in range(len(images.classes))]
    places = torch.cat(of_class).sort().values
    pixels, shown = images.some_tests(places)
    return Sample(pixels, labels[places], shown.permute(0, 2, 3, 1).numpy())


def batches(pixels: Tensor) -> list[Tensor]:
    """Splits images into batches that fit into the caches' neighbourhood."""
    return list(pixels.split(max(1, _BATCH_PIXELS // pixels[0, 0].numel())))
