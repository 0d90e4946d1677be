"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): each image of a batch is mixed with another one, labels too.

One lambda is drawn per batch, as in the code of both papers. An image's partner is the one before it: batches come in
a random order already, and of a random permutation one image per batch would be its own partner on average, as would
the middle one of a flipped batch. (torchvision pairs images likewise, timm flips the batch.) Where both are on, each
batch gets one of the two with equal probability, as in the training scripts of torchvision and timm.

All is drawn on the CPU from a named stream, an epoch at a time, so that it is the same for all variants of a replicate,
on every device, and however many parts a batch is taken in. The draws of an epoch are tensors on the device: a training
step reads those of its batch by its position, without a value from the CPU.
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
    """How a batch is mixed.

    Args:
        share: lambda, the share of an image's own label; the rest is its partner's.
        box: first and last rows and columns, the last ones excluded, that an image has of its partner; None blends the
            two images, `share` of its own.
    """

    share: float
    box: tuple[int, int, int, int] | None = None


class Mixing:
    """Mixes the batches of an epoch on the device.

    Args:
        mixup, cutmix: alpha of each one's Beta distribution of lambda; 0 is off, and both off mixes nothing.
        count: batches of an epoch.
        side: of the images, in pixels.
        classes: number of classes.
        device: of the batches.
    """

    def __init__(
        self, mixup: float, cutmix: float, *, count: int, side: int, classes: int, device: torch.device
    ) -> None:
        self._mixup, self._cutmix, self._count = mixup, cutmix, count
        self._line = torch.arange(side, device=device)
        self._classes = torch.arange(classes, device=device)
        # In double precision, so that each is rounded once, to the type of the pixels.
        self._partners, self._blends = torch.zeros(2, count, dtype=torch.float64, device=device)
        self._boxes = torch.zeros(count, 4, dtype=torch.int64, device=device)

    @property
    def is_on(self) -> bool:
        """Whether batches are mixed."""
        return bool(self._mixup or self._cutmix)

    def begin(self, seed: int, epoch: int) -> None:
        """Draws how the batches of an epoch are mixed."""
        if self.is_on:
            side = len(self._line)
            self.load(draw_mixes(self._mixup, self._cutmix, self._count, side, stream_seed(seed, "mixing", epoch)))

    def load(self, mixes: Sequence[Mix]) -> None:
        """Copies how the batches of an epoch are mixed to the device."""
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
            position: int64 of shape (), on the device: number of the batch within its epoch.

        Returns:
            The pixels and, where batches are mixed, the labels' distributions, of shape (B, classes) and the type of
            the pixels.
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
    """Returns what mixes a recipe's training batches of a data set."""
    return Mixing(
        recipe.mixup,
        recipe.cutmix,
        count=images.train_images(recipe.batch_size) // recipe.batch_size,
        side=images.augmentation.side,
        classes=len(images.classes),
        device=images.device,
    )


def training_batches(images: DeviceImages, recipe: TrainConfig, seed: int, epoch: int) -> Iterator[Batch]:
    """Yields an epoch's batches as a recipe mixes them: with labels or, where mixed, with distributions of labels."""
    mixing = mixing_of(images, recipe)
    mixing.begin(seed, epoch)
    positions = torch.arange(images.train_images(recipe.batch_size) // recipe.batch_size, device=images.device)
    batches = images.train_batches(recipe.batch_size, seed, epoch)
    for position, (pixels, labels) in zip(positions, batches, strict=True):
        yield mixing.apply(pixels, labels, position)


def draw_mixes(mixup: float, cutmix: float, count: int, side: int, seed: int) -> list[Mix]:
    """Draws how so many batches are mixed, of images of `side` x `side` pixels.

    Args:
        mixup, cutmix: alpha of each one's Beta distribution of lambda; 0 is off, and one of them is on.
        count: batches.
        seed: of which 32 bits count.
    """
    random = np.random.RandomState(seed % 2**32)  # whose streams are frozen
    is_cut = random.random_sample(count) < (0.5 if mixup and cutmix else float(not mixup))
    shares = np.where(is_cut, *(random.beta(alpha or 1.0, alpha or 1.0, count) for alpha in (cutmix, mixup)))
    centres = random.randint(side, size=(count, 2))
    return [
        _cut(float(share), (int(row), int(column)), side) if cut else Mix(float(share))
        for cut, share, (row, column) in zip(is_cut, shares, centres, strict=True)
    ]


def _cut(share: float, centre: tuple[int, int], side: int) -> Mix:
    """Places a box of 1 - `share` of the image around a pixel; it may reach over edges, so lambda is what it leaves."""
    half = int(0.5 * math.sqrt(1 - share) * side)
    (top, bottom), (left, right) = ((max(0, middle - half), min(side, middle + half)) for middle in centre)
    return Mix(1 - (bottom - top) * (right - left) / side**2, (top, bottom, left, right))
