"""Labelled uint8 images: the representation of every data set before it is put on a device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablations.common.sizes import MIB

_STEP = 64 * MIB  # bytes that are hashed at a time


@dataclass(frozen=True)
class ImageSet:
    """Labelled images, in memory or memory-mapped from a file.

    Args:
        pixels: uint8 of shape (M, 3, H, W); several sets may share the array.
        labels: int64 of shape (N,), the labels of this set's images.
        rows: int64 of shape (N,), their indices in `pixels`; None for all in order.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, places: NDArray[np.int64]) -> ImageSet:
        """Returns the images at these indices without copying pixels."""
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
        """The bytes of all arrays of pixels, including images of other sets that share them."""
        return sum(pixels.nbytes for pixels in self.arrays)

    @property
    def arrays(self) -> list[NDArray[np.uint8]]:
        """The arrays of pixels; a single one if training and test images share it."""
        arrays = [self.train.pixels, self.test.pixels]
        return arrays if arrays[0] is not arrays[1] else arrays[:1]

    def describe(self, side: int) -> str:
        """Returns the numbers of images and classes in words; `side` is that of the network's input."""
        counts = f"{len(self.train):,} training and {len(self.test):,} test images"
        return f"{counts} of {side}x{side} pixels in {len(self.classes)} classes"


def in_memory(train: ImageSet, test: ImageSet, classes: tuple[str, ...]) -> Images:
    """Returns a data set of images in memory, with its fingerprint."""
    return Images(train, test, classes, fingerprint_of((train, test), classes))


def evenly_spaced(labels: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Returns the sorted indices of `number` images: the same share of each class, evenly spaced within it."""
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.arange(number) * len(labels) // number])


def fingerprint_of(parts: Sequence[ImageSet], classes: Sequence[str]) -> str:
    """Returns a hash of images, labels and classes, 16 hex digits."""
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    for part in parts:
        digest.update(repr(part.pixels.shape).encode())
        rows = max(1, _STEP // max(1, part.pixels[0].nbytes))
        for start in range(0, len(part), rows):
            digest.update(np.ascontiguousarray(part.pixels[start : start + rows]).data)
        digest.update(np.ascontiguousarray(part.labels).data)
    return digest.hexdigest()[:16]
