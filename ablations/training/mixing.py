"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): each image of a batch and its label are mixed with another.

One lambda is drawn per batch, as in the code of both papers. An image's partner is the previous image of the batch, as
in torchvision: batches are already in random order, and a random permutation would pair one image per batch with itself
on average, as would flipping a batch of odd size (timm). If both methods are on, one of them is chosen for each batch
with equal probability, as in the training scripts of torchvision and timm.

All parameters are drawn on the CPU from a named random stream, one epoch at a time. They are therefore the same for all
variants of a replicate, for all devices and for any number of micro-batches. They are stored on the device, where a
training step selects those of its batch by position without reading a CPU value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablations.config import TrainConfig
from ablations.data.device import Batch, DeviceImages
from sa_core.seeds import stream_seed


@dataclass(frozen=True)
class Mix:
    """Parameters that mix a batch.

    Args:
        share: lambda, the weight of an image's own label; the partner's label has 1 - lambda.
        box: first row, last row, first column and last column (last ones exclusive) that are replaced by the
            partner's (CutMix); None blends the two images with weights lambda and 1 - lambda (mixup).
    """

    share: float
    box: tuple[int, int, int, int] | None = None


class Mixing:
    """Mixes the batches of an epoch on the device.

    Args:
        mixup, cutmix: alpha of the Beta distribution of lambda for each method; 0 turns the method off.
        count: number of batches per epoch.
        side: height and width of the images, in pixels.
        classes: number of classes.
        device: the device of the batches.
    """

    def __init__(
        self, mixup: float, cutmix: float, *, count: int, side: int, classes: int, device: torch.device
    ) -> None:
        self._mixup, self._cutmix, self._count = mixup, cutmix, count
        self._line = torch.arange(side, device=device)
        self._classes = torch.arange(classes, device=device)
        # In float64, so that each value is rounded only once, to the type of the pixels.
        self._partners, self._blends = torch.zeros(2, count, dtype=torch.float64, device=device)
        self._boxes = torch.zeros(count, 4, dtype=torch.int64, device=device)

    @property
    def is_on(self) -> bool:
        """Whether batches are mixed."""
        return bool(self._mixup or self._cutmix)

    def begin(self, seed: int, epoch: int) -> None:
        """Draws the mixing parameters of an epoch."""
        if self.is_on:
            side = len(self._line)
            self.load(draw_mixes(self._mixup, self._cutmix, self._count, side, stream_seed(seed, "mixing", epoch)))

    def load(self, mixes: Sequence[Mix]) -> None:
        """Copies the mixing parameters of an epoch to the device."""
        partners = [1 - mix.share for mix in mixes]
        blends = [0.0 if mix.box else 1 - mix.share for mix in mixes]
        self._partners.copy_(torch.tensor(partners, dtype=torch.float64))
        self._blends.copy_(torch.tensor(blends, dtype=torch.float64))
        self._boxes.copy_(torch.tensor([mix.box or (0, 0, 0, 0) for mix in mixes]))

    def apply(self, pixels: Tensor, labels: Tensor, position: Tensor) -> Batch:
        """Mixes a batch; its pixels may be changed in place.

        Args:
            pixels: normalised, of shape (B, 3, side, side).
            labels: int64 of shape (B,).
            position: index of the batch within its epoch, int64 of shape (), on the device.

        Returns:
            The pixels, and the labels: unchanged if mixing is off, otherwise class distributions of shape (B, classes)
            with the type of the pixels.
        """
        if not self.is_on:
            return pixels, labels
        place = position.view(1)
        partner_share = self._partners.index_select(0, place).to(pixels.dtype)
        partners = pixels.roll(1, 0)
        if self._mixup:
            pixels.lerp_(partners, self._blends.index_select(0, place).to(pixels.dtype))
        if self._cutmix:
            top, bottom, left, right = self._boxes.index_select(0, place).view(4, 1)
            rows, columns = ((self._line >= a) & (self._line < b) for a, b in ((top, bottom), (left, right)))
            pixels = torch.where(rows[:, None] & columns, partners, pixels)
        targets = (labels[:, None] == self._classes).to(pixels.dtype)
        return pixels, targets.lerp_(targets.roll(1, 0), partner_share)


def mixing_of(images: DeviceImages, recipe: TrainConfig) -> Mixing:
    """Returns the `Mixing` of a recipe for a data set."""
    return Mixing(
        recipe.mixup,
        recipe.cutmix,
        count=images.train_images(recipe.batch_size) // recipe.batch_size,
        side=images.augmentation.side,
        classes=len(images.classes),
        device=images.device,
    )


def training_batches(images: DeviceImages, recipe: TrainConfig, seed: int, epoch: int) -> Iterator[Batch]:
    """Yields an epoch's batches, mixed as the recipe requires; mixed batches have class distributions as labels."""
    mixing = mixing_of(images, recipe)
    mixing.begin(seed, epoch)
    positions = torch.arange(images.train_images(recipe.batch_size) // recipe.batch_size, device=images.device)
    batches = images.train_batches(recipe.batch_size, seed, epoch)
    for position, (pixels, labels) in zip(positions, batches, strict=True):
        yield mixing.apply(pixels, labels, position)


def draw_mixes(mixup: float, cutmix: float, count: int, side: int, seed: int) -> list[Mix]:
    """Draws the mixing parameters of `count` batches.

    Args:
        mixup, cutmix: alpha of the Beta distribution of lambda for each method; 0 is off, at least one is on.
        count: number of batches.
        side: height and width of the images, in pixels.
        seed: the lowest 32 bits are used.
    """
    random = np.random.RandomState(seed % 2**32)  # its streams are the same in all NumPy versions
    is_cut = random.random_sample(count) < (0.5 if mixup and cutmix else float(not mixup))
    shares = np.where(is_cut, *(random.beta(alpha or 1.0, alpha or 1.0, count) for alpha in (cutmix, mixup)))
    centres = random.randint(side, size=(count, 2))
    return [
        _cut(float(share), (int(row), int(column)), side) if cut else Mix(float(share))
        for cut, share, (row, column) in zip(is_cut, shares, centres, strict=True)
    ]


def _cut(share: float, centre: tuple[int, int], side: int) -> Mix:
    """Places a box with an area of 1 - `share` around a pixel; lambda is the area outside the box clipped at edges."""
    half = int(0.5 * math.sqrt(1 - share) * side)
    (top, bottom), (left, right) = ((max(0, middle - half), min(side, middle + half)) for middle in centre)
    return Mix(1 - (bottom - top) * (right - left) / side**2, (top, bottom, left, right))
