"""Labelled images as bytes: what every data set becomes before it reaches a device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablations.common.sizes import MIB

_STEP = 64 * MIB  # bytes that are read at a time


@dataclass(frozen=True)
class ImageSet:
    """Labelled images: pixels, in memory or mapped from a file, and which of them these are.

    Args:
        pixels: uint8 of shape (M, 3, H, W); several sets may share them.
        labels: int64 of shape (N,), those of this set's images.
        rows: int64 of shape (N,), where in `pixels` they are; None where they are all, in this order.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, places: NDArray[np.int64]) -> ImageSet:
        """Returns the images at these places of the set, without copying any."""
        rows = places if self.rows is None else self.rows[places]
        return ImageSet(self.pixels, self.labels[places], rows)


@dataclass(frozen=True)
class Images:
    """A data set: its two parts, the names of its classes in the order of the labels, and its fingerprint."""

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    fingerprint: str

    @property
    def nbytes(self) -> int:
        """How many bytes all pixels are, those of other images included that share them."""
        return sum(pixels.nbytes for pixels in self.arrays)

    @property
    def arrays(self) -> list[NDArray[np.uint8]]:
        """The arrays that hold the pixels: one where training and test images share it."""
        arrays = [self.train.pixels, self.test.pixels]
        return arrays if arrays[0] is not arrays[1] else arrays[:1]

    def describe(self, side: int) -> str:
        """Says how many images there are; networks see `side` x `side` pixels of each."""
        counts = f"{len(self.train):,} training and {len(self.test):,} test images"
        return f"{counts} of {side}x{side} pixels in {len(self.classes)} classes"


def in_memory(train: ImageSet, test: ImageSet, classes: tuple[str, ...]) -> Images:
    """Makes a data set of images that are in memory."""
    return Images(train, test, classes, fingerprint_of((train, test), classes))


def evenly_spaced(labels: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Returns the places of so many images, in their order: the same share of each class, at equal distances in it."""
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.arange(number) * len(labels) // number])


def fingerprint_of(parts: Sequence[ImageSet], classes: Sequence[str]) -> str:
    """Returns 16 hex digits that tell these images, labels and classes from any others."""
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    for part in parts:
        digest.update(repr(part.pixels.shape).encode())
        rows = max(1, _STEP // max(1, part.pixels[0].nbytes))
        for start in range(0, len(part), rows):
            digest.update(np.ascontiguousarray(part.pixels[start : start + rows]).data)
        digest.update(np.ascontiguousarray(part.labels).data)
    return digest.hexdigest()[:16]
