"""Images on the device: batches are cut, augmented and normalised there, all images of a batch at once.

What is random is drawn on the CPU from named streams, an epoch at a time, so that a replicate sees the same images in
the same order with the same augmentation whatever the variant and the device. The idea of a loader that lives on the
device is that of airbench (github.com/KellerJordan/cifar10-airbench).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ablations.data.images import Images, ImageSet
from sa_core.seeds import stream_seed

Batch = tuple[Tensor, Tensor]


class DeviceImages:
    """A data set on a device as uint8; batches come out as float32 of shape (B, 3, H, W), normalised, with labels (B,).

    Args:
        images: the data set.
        device: where the pixels and labels stay.
        crop: how many pixels a training image is shifted at most, in each direction; its border is reflected.
        flip: whether training images are mirrored left to right, one in two.
    """

    def __init__(self, images: Images, device: torch.device, *, crop: int, flip: bool) -> None:
        self.classes = images.classes
        self.crop, self.flip, self.device = crop, flip, device
        self._train = _to_device(images.train, device)
        self._test = _to_device(images.test, device)
        channel_mean, channel_std = _moments(self._train[0])
        self._mean, self._scale = channel_mean, 1 / channel_std
        height, width = images.train.pixels.shape[1:3]
        self._rows = _reflected(height, crop).to(device)
        self._columns = _reflected(width, crop).to(device)

    def train_images(self, batch_size: int) -> int:
        """Returns how many images an epoch trains on: the last batch is left out where it would be smaller."""
        return len(self._train[1]) // batch_size * batch_size

    @property
    def test_images(self) -> int:
        """How many images an evaluation looks at."""
        return len(self._test[1])

    def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """Yields an epoch's training batches; equal arguments yield equal batches, on any device."""
        pixels, labels = self._train
        count = self.train_images(batch_size)
        order = torch.randperm(len(labels), generator=_generator(seed, "order", epoch))[:count]
        random = _generator(seed, "augmentation", epoch)
        shifts = torch.randint(2 * self.crop + 1, (2, count), generator=random)
        mirrored = torch.randint(2, (count,), generator=random) == 1
        order, shifts, mirrored = (drawn.to(self.device) for drawn in (order, shifts, mirrored))
        for start in range(0, count, batch_size):
            part = slice(start, start + batch_size)
            rows, columns = self._rows[shifts[0, part]], self._columns[shifts[1, part]]
            if self.flip:
                columns = torch.where(mirrored[part, None], columns.flip(1), columns)
            cut = pixels[order[part, None, None], rows[:, :, None], columns[:, None, :]]
            yield self._normalise(cut), labels[order[part]]

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields all test images in order, as they are."""
        for pixels, labels in zip(*(part.split(batch_size) for part in self._test), strict=True):
            yield self._normalise(pixels), labels

    def _normalise(self, pixels: Tensor) -> Tensor:
        # (B, H, W, 3) seen as (B, 3, H, W) is channels_last already.
        return ((pixels - self._mean) * self._scale).permute(0, 3, 1, 2)


def _to_device(part: ImageSet, device: torch.device) -> Batch:
    return torch.from_numpy(part.pixels).to(device), torch.from_numpy(part.labels).to(device)


def _moments(pixels: Tensor) -> Batch:
    """Returns the mean and standard deviation of each colour channel in grey levels, shapes (3,)."""
    total, squares = torch.zeros(2, 3, dtype=torch.float64)
    for part in pixels.cpu().split(4096):
        grey = part.to(torch.float64)
        total += grey.sum((0, 1, 2))
        squares += grey.square().sum((0, 1, 2))
    count = pixels[..., 0].numel()
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(1e-12).sqrt()
    return mean.float().to(pixels.device), std.float().to(pixels.device)


def _reflected(size: int, margin: int) -> Tensor:
    """Returns for each shift of 0 to 2 * margin which source lines an image of `size` lines is made of."""
    lines = torch.arange(2 * margin + 1)[:, None] + torch.arange(size) - margin
    return (size - 1) - ((size - 1) - lines.abs()).abs()


def _generator(seed: int, stream: str, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, stream, epoch))
