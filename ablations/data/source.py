"""Where images come from: what a data set is made of before it is decoded, and the choice of a subset.

A source knows without decoding anything what it would give (`identity`), and decodes in pieces, any of them at a time
and in any thread.
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

# Images that were decoded, uint8 of shape (n, 3, side, side), and of those that could not be, the reasons by place.
Decoded = tuple[NDArray[np.uint8], Mapping[int, str]]
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


class DataError(SuiteError):
    """Images are not there, are damaged, cannot be stored, or are not those that a subset asks for."""


@dataclass(frozen=True)
class Piece:
    """Images `start` to `start + count` of a part, which are decoded together."""

    start: int
    count: int
    decode: Callable[[], Decoded]


@dataclass(frozen=True)
class Part:
    """The training or the test images of a source."""

    labels: NDArray[np.int64]
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Plan:
    """All that a source gives: squares of `side` pixels, in two parts, and the names of the classes.

    `takes_time` is whether decoding is worth several threads; what is merely read is not, and glibc would keep as much
    memory for each of them.
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
        """What tells its images from any others, as far as that is known without decoding them; for JSON."""

    def plan(self) -> Plan:
        """Says what there is to decode."""


@contextmanager
def reading() -> Iterator[None]:
    """Turns an OSError, from reading a data set's files, into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError("data.root", error.filename, f"cannot be read: {error.strerror or error}") from None


def ahead(work: Callable[[_Item], _Made], items: Iterable[_Item], threads: int, most: int) -> Iterator[_Made]:
    """Yields what `work` makes of the items, in their order; threads begin with up to `most` before they are needed.

    No more than those wait at a time, so that an interrupted run ends soon.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        begun = deque(pool.submit(work, item) for item in islice(waiting, most))
        while begun:
            result = begun.popleft().result()
            begun.extend(pool.submit(work, item) for item in islice(waiting, 1))
            yield result


def pick_images(
    labels: NDArray[np.int64], classes: Sequence[str], per_class: int, option: str, seed: int
) -> NDArray[np.int64]:
    """Returns which images of a part a subset has, in their order; a smaller subset is a part of a larger one.

    Args:
        labels, classes: of all images, and the names of the labels.
        per_class: images of each class; 0 for all.
        option: what asks for them, for the message of the DataError where a class has too few.
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
    """Returns the classes of a subset, in the order of their names.

    Args:
        known: the classes that there are.
        wanted: how many (0 for all), or their names; DataError if there are fewer, or none of such a name.
        seed: of the choice, where it is a number.
        root: where they are, for the message.
    """
    option = "data.classes"
    if isinstance(wanted, int):
        if wanted < 0 or wanted == 1 or wanted > len(known):
            raise DataError(option, wanted, f"must be 0 (all) or 2 to {len(known)}: {root} has {len(known)} classes")
        order = np.random.RandomState(stream_seed(seed, option) % 2**32).permutation(len(known))
        return sorted(known[place] for place in order[: wanted or len(known)])
    names = [str(name) for name in wanted]
    for place, name in enumerate(names):
        if name not in known:
            raise DataError(option, name, f"unknown class in {root}", known)
        if name in names[:place]:
            raise DataError(option, name, "is listed twice")
    if len(names) < 2:
        raise DataError(option, ", ".join(names) or "[]", "must name at least two classes")
    return sorted(names)
