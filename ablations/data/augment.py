"""Augmentation of whole batches on the device, random per image: crops, flips, RandAugment, cutout.

Random numbers are drawn on the CPU for a whole epoch, so that they are the same for every device.
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
    """The augmentation of training images, from `stored` x `stored` pixels to a network's input, `side` x `side`.

    Args:
        side: side of the network's input, in pixels; equal to `stored` without resized crops.
        crop: maximum shift in pixels, in each direction, with reflect padding (He et al. 2016 pad with zeros).
        flip: random horizontal flip (p = 0.5).
        cutout: side of a square around a random pixel that is set to the mean colour (DeVries and Taylor 2017); 0
            disables it.
        min_area: minimum area of a random resized crop as a share of the image (Szegedy et al. 2015), with aspect
            ratios of 3:4 to 4:3; None disables it.
        randaugment: operations after crop and flip, before cutout; None disables them.
    """

    stored: int
    side: int
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    min_area: float | None = None
    randaugment: RandAugment | None = None

    def draw(self, count: int, random: torch.Generator) -> Draws:
        """Draws the random parameters of `count` images."""
        drawn = {"shift": torch.randint(2 * self.crop + 1, (2, count), generator=random).T.contiguous()}
        drawn["mirrored"] = (torch.randint(2, (count,), generator=random) == 1) & self.flip
        if self.cutout:
            drawn["hole"] = torch.randint(self.side, (count, 2), generator=random)
        if self.min_area is not None:
            drawn["box"] = _boxes(count, self.min_area, random)
        return drawn

    def train(self, raw: Tensor, drawn: Draws) -> Tensor:
        """Crops and flips raw images (B, 3, stored, stored) to (B, 3, side, side), uint8 or float32."""
        if self.min_area is not None:
            return _resized(raw, drawn["box"], drawn["mirrored"], self.side)
        if self.crop or self.flip:
            return _shifted(raw, drawn["shift"] - self.crop, drawn["mirrored"])
        return raw

    def operate(self, images: Tensor, operations: Tensor | None) -> Tensor:
        """Applies RandAugment operations to images (B, 3, side, side); the result is uint8 if there are operations."""
        if self.randaugment is None or operations is None:
            return images
        # Resized crops are float32; operations are defined on uint8.
        return self.randaugment.apply(images if images.dtype == torch.uint8 else images.round().byte(), operations)

    def test(self, raw: Tensor) -> Tensor:
        """Returns the centre crops of stored test images, (B, 3, side, side)."""
        first = (self.stored - self.side) // 2
        return raw[:, :, first : first + self.side, first : first + self.side]

    def cut_out(self, images: Tensor, drawn: Draws) -> None:
        """Sets a square of each normalized image (B, 3, side, side) to 0, the mean colour; it may cross the border."""
        if self.cutout:
            line = torch.arange(self.side, device=images.device)
            distance = line - drawn["hole"][:, :, None] + self.cutout // 2  # (B, 2, side)
            inside = (distance >= 0) & (distance < self.cutout)
            images.masked_fill_((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0)


def augmentation_of(config: DataConfig, stored: int) -> Augmentation:
    """Returns the augmentation of a data set's options, for stored images of `stored` x `stored` pixels."""
    crop = config.crop if isinstance(config, ShiftedConfig) else 0
    min_area = config.min_area if isinstance(config, ImageTreeConfig) else None
    operations = RandAugment(config.randaugment, config.randaugment_magnitude) if config.randaugment else None
    return Augmentation(stored, config.side, crop, config.flip, config.cutout, min_area, operations)


def _shifted(raw: Tensor, shift: Tensor, mirrored: Tensor) -> Tensor:
    """Shifts each image by (rows, columns) with reflect padding, and flips those that are marked."""
    count, channels, side, _ = raw.shape
    line = torch.arange(side, device=raw.device)
    rows, columns = ((line + shift[:, axis, None]).abs() for axis in (0, 1))
    rows, columns = ((side - 1) - ((side - 1) - lines).abs() for lines in (rows, columns))
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    # One index for the three channels: gather on flattened images is many times faster than indexing pixels.
    index = (rows[:, :, None] * side + columns[:, None, :]).view(count, 1, -1).expand(-1, channels, -1)
    return raw.view(count, channels, -1).gather(2, index).view_as(raw)


def _boxes(count: int, min_area: float, random: torch.Generator) -> Tensor:
    """Draws boxes of (width, height, centre x, centre y) as shares of the image, (N, 4)."""
    size = torch.ones(2, count)  # the whole image if ten boxes do not fit into it, as in torchvision
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
    """Crops each image to its box and resizes it to `side`, bilinearly."""
    size, centre = box[:, :2], box[:, 2:]
    line = (torch.arange(side, device=raw.device) + 0.5) / side - 0.5
    across = torch.where(mirrored[:, None], -line, line)
    # Coordinates of grid_sample, from -1 to 1. affine_grid computes the same in twice the time.
    columns = 2 * (centre[:, :1] + size[:, :1] * across) - 1
    rows = 2 * (centre[:, 1:] + size[:, 1:] * line) - 1
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), dim=3)
    return F.grid_sample(raw.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
