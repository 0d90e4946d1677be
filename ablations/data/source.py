"""Sources of images: the interface of data sets before decoding, and the choice of subsets.

The `identity` of a source is known without decoding. Images are decoded in pieces, in any order and thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ablations.common.errors import SuiteError
from sa_core.seeds import stream_seed

# Decoded images, uint8 of shape (n, 3, side, side), and the reasons of failures by index.
Decoded = tuple[NDArray[np.uint8], Mapping[int, str]]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class DataError(SuiteError):
    """Images are missing, are damaged, cannot be stored, or are too few for a subset."""


@dataclass(frozen=True)
class Piece:
    """Images `start` to `start + count` of a part, decoded together."""

    start: int
    count: int
    decode: Callable[[], Decoded]


@dataclass(frozen=True)
class Part:
    """The training or the test images of a source."""

    labels: NDArray[np.int64]
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Contents:
    """The content of a source: squares of `side` pixels in two parts, and the names of the classes.

    `takes_time` is whether decoding is worth several threads. Reading arrays is not, and glibc would keep as much
    memory again for each thread.
    """

    side: int
    classes: tuple[str, ...]
    train: Part
    test: Part
    takes_time: bool


class Source(Protocol):
    """A data set in files, or a subset of one; both methods raise DataError if a file is missing or damaged."""

    name: str

    @property
    def identity(self) -> Mapping[str, Any]:
        """Serializable identity of its images, computed without decoding them."""

    def contents(self) -> Contents:
        """Returns the pieces to decode."""


@contextmanager
def reading() -> Iterator[None]:
    """Turns an OSError while reading files of a data set into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError("data.root", error.filename, f"cannot be read: {error.strerror or error}") from None


def ahead(work: Callable[[_Item], _Result], items: Iterable[_Item], threads: int, most: int) -> Iterator[_Result]:
    """Maps `work` over the items in order, with threads that start up to `most` items in advance.

    The limit lets an interrupted run end soon.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        started = deque(pool.submit(work, item) for item in islice(remaining, most))
        while started:
            result = started.popleft().result()
            started.extend(pool.submit(work, item) for item in islice(remaining, 1))
            yield result


def pick_images(
    labels: NDArray[np.int64], classes: Sequence[str], per_class: int, option: str, seed: int
) -> NDArray[np.int64]:
    """Returns the sorted indices of a random subset of images; smaller subsets are contained in larger ones.

    Args:
        labels, classes: labels of all images, (N,), and their names.
        per_class: images of each class; 0 means all.
        option: its name, for the DataError if a class has too few.
        seed: of the choice.
    """
    if not per_class:
        return np.arange(len(labels))
    counts = np.bincount(labels, minlength=len(classes))
    fewest = int(counts.argmin())
    if counts[fewest] < per_class:
        reason = f"class {classes[fewest]} has only {counts[fewest]}; use at most {counts[fewest]}, or 0 for all"
        raise DataError(option, per_class, reason)
    chosen = [
        np.random.RandomState(stream_seed(seed, option, label) % 2**32).permutation(np.flatnonzero(labels == label))
        for label in range(len(classes))
    ]
    return np.sort(np.concatenate([members[:per_class] for members in chosen]))


def pick_classes(known: Sequence[str], wanted: Any, seed: int, root: object) -> list[str]:
    """Returns the classes of a subset, sorted by name.

    Args:
        known: all classes.
        wanted: the number of classes (0 means all), or their names.
        seed: of the random choice if `wanted` is a number.
        root: their folder, for messages.

    Raises:
        DataError: if there are fewer classes, or a name is unknown.
    """
    option = "data.classes"
    if isinstance(wanted, int):
        if wanted < 0 or wanted == 1 or wanted > len(known):
            raise DataError(option, wanted, f"must be 0 (all) or 2 to {len(known)}: {root} has {len(known)} classes")
        order = np.random.RandomState(stream_seed(seed, option) % 2**32).permutation(len(known))
        return sorted(known[index] for index in order[: wanted or len(known)])
    names = [str(name) for name in wanted]
    for index, name in enumerate(names):
        if name not in known:
            raise DataError(option, name, f"unknown class in {root}", known)
        if name in names[:index]:
            raise DataError(option, name, "is listed twice")
    if len(names) < 2:
        raise DataError(option, ", ".join(names) or "[]", "must name at least two classes")
    return sorted(names)
