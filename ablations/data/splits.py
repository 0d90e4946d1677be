"""The images of a cell, by its split and its replicate.

Cells of results are trained on the training images and evaluated on the test images. Cells of a selection are trained
on the training images without the validation images, and evaluated on the validation images. With `data.seed=replicate`
each replicate has different data, shared by all variants, so that results generalize to the task instead of one subset
(Bouthillier et al. 2021, arXiv 2103.03098): with digits, each replicate has its own scenes and its own split of the
source digits; with stored images, each replicate draws subsets of the official training and test images. The two are
never mixed: no test image of a replicate is a training image of another one.

Validation scenes of digits are a part of the training scenes, so they share the source digits of these; test scenes
have other source digits.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ablations.config import REPLICATE, DataConfig, DigitsConfig, StoredConfig
from ablations.data.digits import draw_digits
from ablations.data.images import Images, ImageSet
from ablations.data.load import load_images
from ablations.data.source import DataError, pick_images
from ablations.design import Split
from sa_core.seeds import stream_seed

View = tuple[Split, int | None]  # equal for cells with the same images


class DataSet(ABC):
    """The data set of a study.

    Attributes:
        validation: the share of the training images that is used for selection; 0 without selection.
    """

    validation: float

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the data set, 16 hex digits; the images of a cell have fingerprints of their own."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The bytes of pixels in memory at a time, for all replicates together."""

    @property
    def note(self) -> str:
        """A clause on how the images of replicates differ; empty if they do not."""
        return ""

    def view(self, seed: int, split: Split) -> View:
        """Returns the same value for cells with the same images; `seed` and `split` are a cell's."""
        del seed
        return split, None

    def images(self, seed: int, split: Split) -> Images:
        """Returns the images that a cell with this seed and split is trained and evaluated on.

        Raises:
            DataError: if there are too few images of a class.
        """
        images, drawn_by = self._drawn(seed)
        return images if split is Split.TEST else held_out(images, self.validation, drawn_by)

    @abstractmethod
    def _drawn(self, seed: int) -> tuple[Images, int]:
        """Returns the training and test images of a replicate, and the seed of its validation split."""


@dataclass(frozen=True)
class FixedData(DataSet):
    """The same images for all replicates."""

    loaded: Images
    seed: int
    validation: float = 0.0

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the images."""
        return self.loaded.fingerprint

    @property
    def nbytes(self) -> int:
        """Bytes of the images."""
        return self.loaded.nbytes

    def _drawn(self, seed: int) -> tuple[Images, int]:
        del seed
        return self.loaded, self.seed


class DrawnData(DataSet):
    """Different images for each replicate."""

    def view(self, seed: int, split: Split) -> View:
        """Returns a different value for each replicate."""
        return split, seed


@dataclass(frozen=True)
class DrawnSubsets(DrawnData):
    """Subsets of stored images: each replicate has other rows of the same arrays."""

    pool: Images
    train_per_class: int
    val_per_class: int
    validation: float = 0.0

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all images."""
        return self.pool.fingerprint

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return self.pool.nbytes

    @property
    def note(self) -> str:
        """The clause for the description of a study."""
        return "each replicate draws its own subset"

    def _drawn(self, seed: int) -> tuple[Images, int]:
        data_seed, pool = _seed_of_data(seed), self.pool
        train, test = (
            part.subset(pick_images(part.labels, pool.classes, per_class, option, data_seed))
            for part, per_class, option in (
                (pool.train, self.train_per_class, "data.train_per_class"),
                (pool.test, self.val_per_class, "data.val_per_class"),
            )
        )
        return _subset(pool, train, test), data_seed


@dataclass(frozen=True)
class DrawnScenes(DrawnData):
    """Scenes of digits, generated for each replicate on demand."""

    config: DigitsConfig
    validation: float = 0.0

    @cached_property
    def _first(self) -> Images:
        return draw_digits(self.config, 0)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the scenes of seed 0, as a representative of all seeds."""
        return self._first.fingerprint

    @property
    def nbytes(self) -> int:
        """Bytes of the scenes of one replicate."""
        return self._first.nbytes

    @property
    def note(self) -> str:
        """The clause for the description of a study."""
        return "each replicate draws its own images and split of the source digits"

    def _drawn(self, seed: int) -> tuple[Images, int]:
        data_seed = _seed_of_data(seed)
        return draw_digits(self.config, data_seed), data_seed


def load_data(
    config: DataConfig, validation: float = 0.0, console: Console | None = None, *, fetch: bool = True
) -> DataSet:
    """Loads the data set of a study; `validation` is the share of the training images that is used for selection.

    Other arguments and exceptions are those of `load_images`.
    """
    seed = getattr(config, "seed", 0)
    if seed != REPLICATE:
        return FixedData(load_images(config, console, fetch=fetch), int(seed), validation)
    if isinstance(config, DigitsConfig):
        return DrawnScenes(config, validation)
    assert isinstance(config, StoredConfig)
    pool = load_images(replace(config, train_per_class=0, val_per_class=0, seed=0), console, fetch=fetch)
    return DrawnSubsets(pool, config.train_per_class, config.val_per_class, validation)


def held_out(images: Images, share: float, seed: int) -> Images:
    """Returns the images of a selection: the validation images in place of the test images, and the remaining ones.

    The same share of each class is held out, rounded down.

    Raises:
        DataError: if a class has no validation images or no remaining training images.
    """
    labels = images.train.labels
    number = np.floor(share * np.bincount(labels, minlength=len(images.classes)) + 1e-9).astype(int)
    _check_share(labels, number, share, images.classes)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, size in enumerate(number.tolist()):
        random = np.random.RandomState(stream_seed(seed, "data.validation", label) % 2**32)
        chosen[random.permutation(np.flatnonzero(labels == label))[:size]] = True
    train, validation = (images.train.subset(np.flatnonzero(mask)) for mask in (~chosen, chosen))
    return _subset(images, train, validation)


def _check_share(labels: NDArray[np.int64], number: NDArray[np.int64], share: float, classes: Sequence[str]) -> None:
    """Checks that each class has validation images and remaining training images."""
    counts = np.bincount(labels, minlength=len(classes))
    fewest = int(counts.argmin())
    size = int(counts[fewest])
    if number.min() > 0 and (counts - number).min() > 0:
        return
    start = f"leaves no training or validation images of class {classes[fewest]}, which has {size} training image"
    if size < 2:
        raise DataError("data.validation", share, f"{start}; each class needs at least two")
    least = math.ceil(10_000 / size) / 10_000
    raise DataError("data.validation", share, f"{start}s; use at least {least:g}")


def _subset(images: Images, train: ImageSet, test: ImageSet) -> Images:
    """Returns a data set of subsets; its fingerprint is derived from that of the whole data set and the rows."""
    digest = hashlib.sha256(json.dumps([images.fingerprint, len(train), len(test)]).encode())
    for part in (train, test):
        if part.rows is not None:
            digest.update(np.ascontiguousarray(part.rows).data)
    return Images(train, test, images.classes, digest.hexdigest()[:16])


def _seed_of_data(seed: int) -> int:
    """Returns the seed of a replicate's data, given the seed of its cells."""
    return stream_seed(seed, "data") % 2**32
