"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): each image of a batch is mixed with another one, labels too.

One lambda is drawn per batch, as in the code of both papers. An image's partner is the one before it: batches come in
a random order already, and of a random permutation one image per batch would be its own partner on average, as would
the middle one of a flipped batch. (torchvision pairs images likewise, timm flips the batch.) Where both are on, each
batch gets one of the two with equal probability, as in the training scripts of torchvision and timm.

All is drawn on the CPU from a named stream, an epoch at a time, so that it is the same for all variants of a replicate,
on every device, and however many parts a batch is taken in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

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

    def apply(self, pixels: Tensor, labels: Tensor, classes: int) -> Batch:
        """Mixes a batch in place.

        Args:
            pixels: normalised, of shape (B, 3, H, W).
            labels: int64 of shape (B,).
            classes: how many there are.

        Returns:
            The pixels, and the labels' distributions, of shape (B, classes) and the type of the pixels.
        """
        targets = F.one_hot(labels, classes).to(pixels.dtype)
        if self.box is None:
            pixels.lerp_(pixels.roll(1, 0), 1 - self.share)
        else:
            top, bottom, left, right = self.box
            region = pixels[:, :, top:bottom, left:right]
            region.copy_(region.roll(1, 0))
        return pixels, targets.lerp_(targets.roll(1, 0), 1 - self.share)


def training_batches(images: DeviceImages, recipe: TrainConfig, seed: int, epoch: int) -> Iterator[Batch]:
    """Yields an epoch's batches as a recipe mixes them: with labels or, where mixed, with distributions of labels."""
    batches = images.train_batches(recipe.batch_size, seed, epoch)
    if not (recipe.mixup or recipe.cutmix):
        yield from batches
        return
    count = images.train_images(recipe.batch_size) // recipe.batch_size
    mixes = draw_mixes(recipe.mixup, recipe.cutmix, count, images.augmentation.side, stream_seed(seed, "mixing", epoch))
    for mix, batch in zip(mixes, batches, strict=True):
        yield mix.apply(*batch, len(images.classes))


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
