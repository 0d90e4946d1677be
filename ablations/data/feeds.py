"""The batches of a training step: streamed to the device, or selected from buffers on the device.

Both give bitwise equal batches. A step that is captured in a CUDA graph reads the same addresses each time. Its batch
is either copied there before the step (`StreamedBatches`), or selected within the step by a position that is a tensor
(`ResidentBatches`), without work for the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from ablations.data.augment import Draws
from ablations.data.device import Batch, DeviceImages


class Feed(ABC):
    """The training batches of a cell.

    Args:
        images: the data set, on the device.
        batch_size: batch size of training.
        seed: the seed of data order and augmentation.
    """

    def __init__(self, images: DeviceImages, batch_size: int, seed: int) -> None:
        self._images, self._batch_size, self._seed = images, batch_size, seed

    @abstractmethod
    def begin(self, epoch: int) -> None:
        """Prepares the batches of an epoch."""

    @abstractmethod
    def advance(self) -> None:
        """Fetches the next batch of the epoch; call it before each step and outside of a captured step."""

    @abstractmethod
    def batch(self, position: Tensor) -> Batch:
        """Returns the batch of a step: pixels (B, 3, H, W) and labels (B,).

        Args:
            position: index of the step within its epoch, int64 of shape (), on the device.
        """


class StreamedBatches(Feed):
    """Batches that are prepared outside of the step, such as images from disk or images with RandAugment.

    Args:
        images, batch_size, seed: as for `Feed`.
        is_static: whether every batch is copied to the same addresses, for a captured step.
    """

    def __init__(self, images: DeviceImages, batch_size: int, seed: int, *, is_static: bool = False) -> None:
        super().__init__(images, batch_size, seed)
        self._is_static = is_static
        self._batches: Iterator[Batch] = iter(())
        self._current: Batch | None = None

    def begin(self, epoch: int) -> None:
        """Starts the stream of an epoch."""
        self._batches = self._images.train_batches(self._batch_size, self._seed, epoch)

    def advance(self) -> None:
        """Takes the next batch from the stream."""
        fetched = next(self._batches)
        if not self._is_static:
            self._current = fetched
        elif self._current is None:
            self._current = fetched[0].clone(), fetched[1].clone()
        else:
            for buffer, values in zip(self._current, fetched, strict=True):
                buffer.copy_(values)

    def batch(self, position: Tensor) -> Batch:
        """Returns the batch that was fetched last."""
        del position
        assert self._current is not None
        return self._current


class ResidentBatches(Feed):
    """Batches that the step selects and augments, from pixels and the augmentation draws of an epoch on the device."""

    def __init__(self, images: DeviceImages, batch_size: int, seed: int) -> None:
        super().__init__(images, batch_size, seed)
        self._within = torch.arange(batch_size, device=images.device)
        self._buffers: Draws = {}

    @staticmethod
    def reason_against(images: DeviceImages) -> str | None:
        """Returns the reason why this feed cannot be used for a data set, as a clause; None if it can."""
        if not images.resident:
            return "the images are read from disk"
        if images.augmentation.randaugment is not None:
            return "RandAugment groups images by operation on the CPU"
        return None

    def begin(self, epoch: int) -> None:
        """Copies the draws of an epoch into the buffers."""
        draws = self._images.draw(self._batch_size, self._seed, epoch)
        drawn = draws.augmentation | {_ROWS: draws.rows.to(self._images.device), _LABELS: draws.labels}
        if not self._buffers:
            self._buffers = drawn
        for name, values in drawn.items():
            self._buffers[name].copy_(values)

    def advance(self) -> None:
        """Does nothing, as the position selects the batch."""

    def batch(self, position: Tensor) -> Batch:
        """Selects and augments the batch at a position."""
        places = self._within + position * self._batch_size
        drawn = {name: values.index_select(0, places) for name, values in self._buffers.items()}
        rows, labels = drawn.pop(_ROWS), drawn.pop(_LABELS)
        return self._images.gather(rows, drawn), labels


_ROWS, _LABELS = "rows", "labels"  # buffer names in addition to those of the augmentation draws
