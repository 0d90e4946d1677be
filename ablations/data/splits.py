"""Which images of a data set a cell sees, by its split and its replicate.

A cell of a result is trained on the training images and evaluated on the test images. A cell that a search selects by
is trained on the training images without the validation images, and evaluated on these. With `data.seed=replicate`
each replicate has data of its own, the same for all variants, so that what is found holds for the task and not for one
subset of it (Bouthillier et al. 2021, arXiv 2103.03098): digits are drawn anew, source digits split anew; of stored
images, which are decoded once, each replicate draws its subsets of the official training and of the official test
images. The two are never mixed: a test image of one replicate is a training image of none.

Validation scenes of digits are made of the source digits of the training scenes, of which they are a part; those of
test scenes are others.
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

View = tuple[Split, int | None]  # what tells the images of one cell from those of another


class DataSet(ABC):
    """A data set as a study uses it.

    Attributes:
        validation: the share of the training images that a selection is made on; 0 where none is made.
    """

    validation: float

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """16 hex digits that tell this data set from any other; those of a cell's own images are in `images`."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """How many bytes of pixels there are at a time, for all replicates together."""

    @property
    def note(self) -> str:
        """How replicates differ in their images, as a clause; empty where they do not."""
        return ""

    def view(self, seed: int, split: Split) -> View:
        """Returns the same value for cells that see the same images: `seed` and `split` are a cell's."""
        del seed
        return split, None

    def images(self, seed: int, split: Split) -> Images:
        """Returns what a cell with this seed and split is trained and evaluated on.

        Raises:
            DataError: if there are too few images of a class.
        """
        images, drawn_by = self._drawn(seed)
        return images if split is Split.TEST else held_out(images, self.validation, drawn_by)

    @abstractmethod
    def _drawn(self, seed: int) -> tuple[Images, int]:
        """Returns the images of a replicate's results, and the seed of their validation images."""


@dataclass(frozen=True)
class FixedData(DataSet):
    """The same images for all replicates."""

    loaded: Images
    seed: int
    validation: float = 0.0

    @property
    def fingerprint(self) -> str:
        """That of the images."""
        return self.loaded.fingerprint

    @property
    def nbytes(self) -> int:
        """That of the images."""
        return self.loaded.nbytes

    def _drawn(self, seed: int) -> tuple[Images, int]:
        del seed
        return self.loaded, self.seed


class DrawnData(DataSet):
    """Each replicate has images of its own."""

    def view(self, seed: int, split: Split) -> View:
        """Returns what tells a replicate's images from any others."""
        return split, seed


@dataclass(frozen=True)
class DrawnSubsets(DrawnData):
    """Subsets of stored images, which are decoded and kept once: a replicate's are rows of them."""

    pool: Images
    train_per_class: int
    val_per_class: int
    validation: float = 0.0

    @property
    def fingerprint(self) -> str:
        """That of all images."""
        return self.pool.fingerprint

    @property
    def nbytes(self) -> int:
        """That of all images."""
        return self.pool.nbytes

    @property
    def note(self) -> str:
        """Says so."""
        return "each replicate draws its own subset"

    def _drawn(self, seed: int) -> tuple[Images, int]:
        own, pool = _seed_of_data(seed), self.pool
        train, test = (
            part.subset(pick_images(part.labels, pool.classes, per_class, option, own))
            for part, per_class, option in (
                (pool.train, self.train_per_class, "data.train_per_class"),
                (pool.test, self.val_per_class, "data.val_per_class"),
            )
        )
        return _subset(pool, train, test), own


@dataclass(frozen=True)
class DrawnScenes(DrawnData):
    """Scenes of digits, which are drawn when a replicate needs them."""

    config: DigitsConfig
    validation: float = 0.0

    @cached_property
    def _first(self) -> Images:
        return self._scenes(0)

    @property
    def fingerprint(self) -> str:
        """That of the scenes of seed 0, as there is no end to the others."""
        return self._first.fingerprint

    @property
    def nbytes(self) -> int:
        """That of one replicate's."""
        return self._first.nbytes

    @property
    def note(self) -> str:
        """Says so."""
        return "each replicate draws its own images and split of the source digits"

    def _drawn(self, seed: int) -> tuple[Images, int]:
        own = _seed_of_data(seed)
        return self._scenes(own), own

    def _scenes(self, seed: int) -> Images:
        return draw_digits(self.config, seed)


def load_data(
    config: DataConfig, validation: float = 0.0, console: Console | None = None, *, fetch: bool = True
) -> DataSet:
    """Loads a data set as a study uses it, whose selection, if any, is made on a share of the training images.

    `console` and `fetch` are as for `load_images`, and so is what is raised.
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
    """Returns the images of a selection: training images are those that are left, test images the validation images.

    Of each class the same share is held out, rounded down.

    Raises:
        DataError: if that leaves a class empty.
    """
    labels = images.train.labels
    number = np.floor(share * np.bincount(labels, minlength=len(images.classes)) + 1e-9).astype(int)
    _check_share(labels, number, share, images.classes)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, wanted in enumerate(number.tolist()):
        random = np.random.RandomState(stream_seed(seed, "data.validation", label) % 2**32)
        chosen[random.permutation(np.flatnonzero(labels == label))[:wanted]] = True
    train, validation = (images.train.subset(np.flatnonzero(mask)) for mask in (~chosen, chosen))
    return _subset(images, train, validation)


def _check_share(labels: NDArray[np.int64], number: NDArray[np.int64], share: float, classes: Sequence[str]) -> None:
    """Checks that no class is empty among the validation images, nor among those that are left."""
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
    """Makes a data set of subsets of another one; its fingerprint follows from the other's and from which they are."""
    digest = hashlib.sha256(json.dumps([images.fingerprint, len(train), len(test)]).encode())
    for part in (train, test):
        if part.rows is not None:
            digest.update(np.ascontiguousarray(part.rows).data)
    return Images(train, test, images.classes, digest.hexdigest()[:16])


def _seed_of_data(seed: int) -> int:
    """Returns the seed of the data of a replicate whose cells have this seed."""
    return stream_seed(seed, "data") % 2**32
