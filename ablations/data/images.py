"""Labelled images in memory: what every data set becomes before it reaches a device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageSet:
    """Images as uint8 of shape (N, H, W, 3), labels as int64 of shape (N,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Images:
    """A data set: its two parts and the names of its classes, in the order of the labels."""

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]

    def fingerprint(self) -> str:
        """Returns 16 hex digits that tell these images and labels from any others."""
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            digest.update(repr(part.pixels.shape).encode())
            digest.update(np.ascontiguousarray(part.pixels).data)
            digest.update(np.ascontiguousarray(part.labels).data)
        digest.update(repr(self.classes).encode())
        return digest.hexdigest()[:16]
