"""Shares one copy of the pixels between the processes of a machine by memory-mapped files.

Images that are already mapped from a file stay in it. Others are written once to a temporary file without a name, so
that nothing is left of it however the processes end. The system caches the pages of a file once for all processes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import reduction
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from ablations.data.images import Images
from ablations.data.splits import DataSet, DrawnScenes, DrawnSubsets, FixedData

Pixels = NDArray[np.uint8]


def mapped(data: DataSet) -> DataSet:
    """Returns a copy of a data set that can only be pickled while other processes are started.

    In the other process, unpickling memory-maps the pixels, copy-on-write.

    Raises:
        OSError: if a temporary file cannot be written.
    """
    files: dict[int, _FilePixels] = {}

    def convert(pixels: Pixels) -> Pixels:
        if not pixels.size:
            return pixels  # an empty file cannot be mapped
        if id(pixels) not in files:  # training and test images may share an array
            files[id(pixels)] = _FilePixels(pixels)
        return cast(Pixels, files[id(pixels)])

    return with_pixels(data, convert)


def with_pixels(data: DataSet, convert: Callable[[Pixels], Pixels]) -> DataSet:
    """Returns a data set with converted arrays of pixels; scenes that are generated on demand have none."""
    if isinstance(data, FixedData):
        return replace(data, loaded=_converted(data.loaded, convert))
    if isinstance(data, DrawnSubsets):
        return replace(data, pool=_converted(data.pool, convert))
    return replace(data) if isinstance(data, DrawnScenes) else data  # the copy has no generated scenes


def _converted(images: Images, convert: Callable[[Pixels], Pixels]) -> Images:
    train, test = (replace(part, pixels=convert(part.pixels)) for part in (images.train, images.test))
    return replace(images, train=train, test=test)


class _FilePixels:
    """Pixels in an open file."""

    def __init__(self, pixels: Pixels) -> None:
        self._shape = pixels.shape
        path = _file_of(pixels)
        # Stays open as long as processes may be started.
        self._file: IO[bytes] = path.open("rb") if path else tempfile.TemporaryFile()  # noqa: SIM115
        if path is None:
            self._file.write(np.ascontiguousarray(pixels).data.cast("B"))
            self._file.flush()

    def __reduce__(self) -> tuple[Any, ...]:
        return _map, (reduction.DupFd(self._file.fileno()), self._shape)


def _file_of(pixels: Pixels) -> Path | None:
    """Returns the file that contains exactly these pixels; None if there is none."""
    if not isinstance(pixels, np.memmap) or not pixels.filename or not pixels.flags.c_contiguous:
        return None
    path = Path(pixels.filename)
    return path if path.exists() and path.stat().st_size == pixels.nbytes else None


def _map(descriptor: Any, shape: tuple[int, ...]) -> Pixels:
    with os.fdopen(descriptor.detach(), "rb") as file:
        return np.memmap(file, np.uint8, "c", shape=shape)
