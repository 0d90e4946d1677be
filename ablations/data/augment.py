"""Augmentation of whole batches on the device, random per image: crops, mirroring, RandAugment, cutout.

What is random is drawn for a whole epoch at once on the CPU, so that it is the same on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.config import DataConfig, ImageTreeConfig, ShiftedConfig
from ablations.data.randaugment import RandAugment

_TRIES = 10

Draws = dict[str, Tensor]  # each of shape (images,) or (images, k)


@dataclass(frozen=True)
class Augmentation:
    """What becomes of training images of `stored` x `stored` pixels before a network sees `side` x `side` of them.

    Args:
        crop: greatest shift in pixels, in each direction; the border is reflected (He et al. 2016 pad with zeros).
        flip: whether one image in two is mirrored.
        cutout: side of a square that becomes the mean colour, around any pixel (DeVries and Taylor 2017); 0 is none.
        min_area: smallest share of an image that a random resized crop shows (Szegedy et al. 2015), with sides in a
            ratio of 3:4 to 4:3; None is no such crop, and `stored` is `side` then.
        randaugment: operations after crop and mirroring, before cutout; None is none.
    """

    stored: int
    side: int
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    min_area: float | None = None
    randaugment: RandAugment | None = None

    def draw(self, count: int, random: torch.Generator) -> Draws:
        """Draws what is random about `count` images."""
        drawn = {"shift": torch.randint(2 * self.crop + 1, (2, count), generator=random).T.contiguous()}
        drawn["mirrored"] = (torch.randint(2, (count,), generator=random) == 1) & self.flip
        if self.cutout:
            drawn["hole"] = torch.randint(self.side, (count, 2), generator=random)
        if self.min_area is not None:
            drawn["box"] = _boxes(count, self.min_area, random)
        return drawn

    def train(self, raw: Tensor, drawn: Draws) -> Tensor:
        """Returns training images, uint8 or float32 of shape (B, 3, side, side), of raw ones (B, 3, stored, stored)."""
        if self.min_area is not None:
            return _resized(raw, drawn["box"], drawn["mirrored"], self.side)
        if self.crop or self.flip:
            return _shifted(raw, drawn["shift"] - self.crop, drawn["mirrored"])
        return raw

    def operate(self, images: Tensor, operations: Tensor | None) -> Tensor:
        """Returns training images (B, 3, side, side) after their RandAugment operations, uint8 where there are any."""
        if self.randaugment is None or operations is None:
            return images
        # Resized crops are between the grey levels that operations are defined on.
        return self.randaugment.apply(images if images.dtype == torch.uint8 else images.round().byte(), operations)

    def test(self, raw: Tensor) -> Tensor:
        """Returns test images as they are: the middle of the stored ones, (B, 3, side, side)."""
        first = (self.stored - self.side) // 2
        return raw[:, :, first : first + self.side, first : first + self.side]

    def cut_out(self, images: Tensor, drawn: Draws) -> None:
        """Sets a square of each normalised image (B, 3, side, side) to 0, the mean colour; it may reach over edges."""
        if self.cutout:
            line = torch.arange(self.side, device=images.device)
            distance = line - drawn["hole"][:, :, None] + self.cutout // 2  # (B, 2, side)
            inside = (distance >= 0) & (distance < self.cutout)
            images.masked_fill_((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0)


def augmentation_of(config: DataConfig, stored: int) -> Augmentation:
    """Returns the augmentation that a data set's options ask for, of images that are kept as `stored` x `stored`."""
    crop = config.crop if isinstance(config, ShiftedConfig) else 0
    min_area = config.min_area if isinstance(config, ImageTreeConfig) else None
    operations = RandAugment(config.randaugment, config.randaugment_magnitude) if config.randaugment else None
    return Augmentation(stored, config.side, crop, config.flip, config.cutout, min_area, operations)


def _shifted(raw: Tensor, shift: Tensor, mirrored: Tensor) -> Tensor:
    """Moves each image by its shift (rows, columns), reflecting the border, and mirrors some."""
    count, channels, side, _ = raw.shape
    line = torch.arange(side, device=raw.device)
    rows, columns = ((line + shift[:, axis, None]).abs() for axis in (0, 1))
    rows, columns = ((side - 1) - ((side - 1) - lines).abs() for lines in (rows, columns))
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    # One index for the three channels: gathering from rows of bytes is many times as fast as indexing pixels.
    places = (rows[:, :, None] * side + columns[:, None, :]).view(count, 1, -1).expand(-1, channels, -1)
    return raw.view(count, channels, -1).gather(2, places).view_as(raw)


def _boxes(count: int, min_area: float, random: torch.Generator) -> Tensor:
    """Draws boxes of (width, height, centre x, centre y) in shares of the image, (N, 4)."""
    size = torch.ones(2, count)  # as torchvision has it, a box that was longer than the image ten times is all of it
    missing = torch.ones(count, dtype=torch.bool)
    for _ in range(_TRIES):
        area = min_area + (1 - min_area) * torch.rand(count, generator=random)
        ratio = torch.exp(math.log(4 / 3) * (2 * torch.rand(count, generator=random) - 1))
        tried = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()])
        fits = missing & (tried <= 1).all(0)
        size = torch.where(fits, tried, size)
        missing &= ~fits
    centre = size / 2 + (1 - size) * torch.rand(2, count, generator=random)
    return torch.cat([size, centre]).T.contiguous()


def _resized(raw: Tensor, box: Tensor, mirrored: Tensor, side: int) -> Tensor:
    """Cuts each image's box out and scales it to `side`, bilinearly."""
    size, centre = box[:, :2], box[:, 2:]
    line = (torch.arange(side, device=raw.device) + 0.5) / side - 0.5
    across = torch.where(mirrored[:, None], -line, line)
    # Coordinates in the source as grid_sample has them, from -1 to 1. affine_grid makes the same in twice the time.
    columns = 2 * (centre[:, :1] + size[:, :1] * across) - 1
    rows = 2 * (centre[:, 1:] + size[:, 1:] * line) - 1
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), dim=3)
    return F.grid_sample(raw.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
