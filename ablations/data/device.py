"""Images on the device: whole batches are selected, augmented and normalized there.

Random numbers are drawn on the CPU from named streams, one epoch at a time, so that a replicate sees the same images in
the same order with the same augmentation for every variant and device. The data loader on the device follows airbench
(github.com/KellerJordan/cifar10-airbench).
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablations.config import DataConfig
from ablations.data.augment import Augmentation, Draws, augmentation_of
from ablations.data.images import Images, ImageSet, evenly_spaced
from ablations.data.source import ahead
from sa_core.seeds import stream_seed

Batch = tuple[Tensor, Tensor]

_SHARE = 0.5  # of a device's free memory that images may take
_PIXELS_AT_ONCE = 256 * 32 * 32  # smaller batches are augmented together up to this number of pixels
_PIXELS_OPERATED = 4 * _PIXELS_AT_ONCE  # the same with RandAugment, which is dominated by the overhead of operations
_AHEAD = 4  # batches that are read from disk in advance
_MOST_FOR_MOMENTS = 50_000  # images from which mean and standard deviation are computed


@dataclass(frozen=True)
class ImageFormat:
    """The input of networks: float32 of shape (B, 3, side, side), each channel (grey level - mean) / std.

    `mean` and `std` are those of the training images by channel, in grey levels from 0 to 255.
    """

    side: int
    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True)
class EpochDraws:
    """What is random about an epoch's training batches of N images together.

    Attributes:
        rows: int64 of shape (N,), on the CPU: where in the pixels the images are, in the order of the epoch.
        labels: int64 of shape (N,), on the device.
        augmentation: of each image, on the device.
        operations: of RandAugment, on the CPU, of shape (N, operations); None without RandAugment.
    """

    rows: Tensor
    labels: Tensor
    augmentation: Draws
    operations: Tensor | None


def on_device(images: Images, config: DataConfig, device: str, beside: DeviceImages | None = None) -> DeviceImages:
    """Puts a data set on a device with the augmentation of its configuration; `beside` as in `DeviceImages`."""
    augmentation = augmentation_of(config, images.train.pixels.shape[-1])
    memory = getattr(config, "memory", "auto")
    return DeviceImages(images, torch.device(device), augmentation, memory=memory, beside=beside)


class DeviceImages:
    """A uint8 data set on a device; batches are normalized float32 of shape (B, 3, H, W), with labels.

    Args:
        memory: `device` keeps all pixels on the device (on the CPU including memory-mapped files, which the system
            caches once for all processes); `mapped` reads them from disk in advance; `auto` is `device` if they take
            at most half of the free memory.
        beside: a data set on the same device whose pixels are reused, so that subsets of a data set share its memory.

    Attributes:
        placed: arrays of pixels with their tensors on the device.
        format: the format of batches.
    """

    resident: bool
    placed: list[tuple[NDArray[np.uint8], Tensor]]

    def __init__(
        self,
        images: Images,
        device: torch.device,
        augmentation: Augmentation,
        *,
        memory: str = "auto",
        beside: DeviceImages | None = None,
    ) -> None:
        self.classes, self.fingerprint = images.classes, images.fingerprint
        self.device, self.augmentation = device, augmentation
        placed = beside.placed if beside is not None and beside.device == device else []
        shared = [(pixels, tensor) for pixels, tensor in placed if any(pixels is array for array in images.arrays)]
        if shared and beside is not None:
            self.resident = beside.resident
        else:
            self.resident = memory == "device" or (memory == "auto" and images.nbytes <= _SHARE * free_bytes(device))
        self.placed = shared
        self._train, self._train_rows, self._train_labels = self._place(images.train)
        self._test, self._test_rows, self.test_labels = self._place(images.test)  # in order, as `test_batches`
        self.test_images = len(self.test_labels)
        moments = _moments(images.train)
        self.format = ImageFormat(augmentation.side, *(moment.tolist() for moment in moments))
        mean, std = (torch.from_numpy(moment).to(device).view(3, 1, 1) for moment in moments)
        self._mean, self._scale = mean, 1 / std

    def train_images(self, batch_size: int) -> int:
        """Returns the number of images of an epoch: an incomplete last batch is dropped."""
        return len(self._train_labels) // batch_size * batch_size

    def draw(self, batch_size: int, seed: int, epoch: int) -> EpochDraws:
        """Draws the order of an epoch's training images and their augmentation; equal arguments, equal draws."""
        count = self.train_images(batch_size)
        order = torch.randperm(len(self._train_labels), generator=_generator(seed, "order", epoch))[:count]
        drawn = self.augmentation.draw(count, _generator(seed, "augmentation", epoch))
        operations = None
        if self.augmentation.randaugment is not None:
            operations = self.augmentation.randaugment.draw(count, _generator(seed, "randaugment", epoch))
        return EpochDraws(
            self._train_rows[order],
            self._train_labels[order.to(self.device)],
            {name: values.to(self.device) for name, values in drawn.items()},
            operations,
        )

    def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """Yields an epoch's training batches; equal arguments yield equal batches, on any device."""
        draws = self.draw(batch_size, seed, epoch)
        count = len(draws.rows)
        # Several small batches at once: the overhead of each operation exceeds its work on an image.
        pixels = _PIXELS_AT_ONCE if draws.operations is None else _PIXELS_OPERATED
        at_once = batch_size * max(1, pixels // (batch_size * self.augmentation.side**2))
        raws = self._read(self._train, draws.rows, at_once)
        for start, raw in zip(range(0, count, at_once), raws, strict=True):
            part = slice(start, start + at_once)
            drawn = {name: values[part] for name, values in draws.augmentation.items()}
            images = self._augmented(raw, drawn, None if draws.operations is None else draws.operations[part])
            batches = zip(images.split(batch_size), draws.labels[part].split(batch_size), strict=True)
            del raw, drawn, images  # freed before the next ones are computed
            yield from batches

    def gather(self, rows: Tensor, drawn: Draws) -> Tensor:
        """Returns training images as `train_batches` makes them, without RandAugment, by the device alone.

        Args:
            rows: int64 of shape (B,), on the device, where in the resident pixels the images are.
            drawn: the augmentation of each, on the device.
        """
        return self._augmented(self._train.index_select(0, rows), drawn, None)

    def _augmented(self, raw: Tensor, drawn: Draws, operations: Tensor | None) -> Tensor:
        """Augments and normalizes raw training images (B, 3, stored, stored); operations are RandAugment's."""
        cropped = self.augmentation.train(raw, drawn)
        images = self._normalize(self.augmentation.operate(cropped, operations))
        self.augmentation.cut_out(images, drawn)
        return images

    def test_batches(self, batch_size: int, most: int | None = None) -> Iterator[Batch]:
        """Yields test images in order without augmentation: all, or a fixed choice of `most` of them."""
        rows, labels = self._test_rows, self.test_labels
        if most is not None and most < self.test_images:
            indices = torch.from_numpy(evenly_spaced(labels.cpu().numpy(), most))
            rows, labels = rows[indices], labels[indices.to(self.device)]
        raws = self._read(self._test, rows, batch_size)
        for raw, part in zip(raws, labels.split(batch_size), strict=True):
            yield self._normalize(self.augmentation.test(raw)), part

    def some_tests(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Returns test images by index, normalized for networks and as uint8 for display, (B, 3, H, W) each."""
        raw = torch.cat(list(self._read(self._test, self._test_rows[places], max(1, len(places)))))
        cropped = self.augmentation.test(raw)
        return self._normalize(cropped), cropped

    def _place(self, part: ImageSet) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the pixels that the part shares, its rows of them (on the CPU), and its labels."""
        placed = next((tensor for pixels, tensor in self.placed if pixels is part.pixels), None)
        with warnings.catch_warnings():
            # Images shared between processes are read-only, and never written to here.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
            labels = torch.from_numpy(part.labels)
            rows = torch.arange(len(labels)) if part.rows is None else torch.from_numpy(part.rows)
            if placed is None:
                if self.resident and isinstance(part.pixels, np.memmap):
                    _read_ahead(part.pixels)
                pixels = torch.from_numpy(part.pixels)
                placed = pixels.to(self.device) if self.resident else pixels
                self.placed = [*self.placed, (part.pixels, placed)]
        return placed, rows, labels.to(self.device)

    def _read(self, pixels: Tensor, order: Tensor, batch_size: int) -> Iterator[Tensor]:
        """Yields batches of raw images on the device in the given order, reading from disk in advance."""
        if self.resident:
            # One transfer of all indices: a transfer per batch would stall the device.
            yield from (pixels.index_select(0, rows) for rows in order.to(self.device).split(batch_size))
            return
        pinned = self.device.type == "cuda"

        def read(rows: Tensor) -> Tensor:
            raw = torch.empty((len(rows), *pixels.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
            # Not torch.index_select: its threads would contend with those of the training step.
            np.take(pixels.numpy(), rows.numpy(), axis=0, out=raw.numpy(), mode="clip")
            return raw

        for raw in ahead(read, order.split(batch_size), 1, _AHEAD):
            yield raw.to(self.device, non_blocking=True)

    def _normalize(self, pixels: Tensor) -> Tensor:
        return pixels.float().sub_(self._mean).mul_(self._scale)


def free_bytes(device: torch.device) -> int:
    """Returns the free memory of a device in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def wait_for(device: torch.device) -> None:
    """Waits until a device has computed all that was queued on it; a CPU has no queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _read_ahead(pixels: np.memmap) -> None:
    """Asks the system to read a mapped file sequentially, because the random access of batches is slow on disks."""
    mapping = getattr(pixels, "_mmap", None)
    if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED"):
        mapping.madvise(mmap.MADV_WILLNEED)


def _moments(images: ImageSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns mean and standard deviation of each channel in grey levels, (3,), over up to 50,000 spaced images."""
    every = -(-len(images) // _MOST_FOR_MOMENTS)
    pixels = images.pixels[::every] if images.rows is None else images.pixels
    rows = np.arange(len(pixels)) if images.rows is None else images.rows[::every]
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(rows), 512):
        some = pixels[start : start + 512] if images.rows is None else pixels[rows[start : start + 512]]
        for channel, grey in enumerate(some.transpose(1, 0, 2, 3)):
            counts[channel] += np.bincount(grey.ravel(), minlength=256)
    level = np.arange(256)
    mean = (counts @ level) / counts.sum(1)
    std = np.sqrt(np.maximum((counts @ level**2) / counts.sum(1) - mean**2, 1e-12))
    return mean.astype(np.float32), std.astype(np.float32)


def _generator(seed: int, stream: str, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, stream, epoch))
