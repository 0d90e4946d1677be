"""Images on the device: batches are cut, augmented and normalised there, all images of a batch at once.

What is random is drawn on the CPU from named streams, an epoch at a time, so that a replicate sees the same images in
the same order with the same augmentation whatever the variant and the device. The idea of a loader that lives on the
device is that of airbench (github.com/KellerJordan/cifar10-airbench).
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
from ablations.data.augment import Augmentation, augmentation_of
from ablations.data.images import Images, ImageSet, evenly_spaced
from ablations.data.source import ahead
from sa_core.seeds import stream_seed

Batch = tuple[Tensor, Tensor]

_SHARE = 0.5  # of the free memory of a device that images may take
_PIXELS_AT_ONCE = 256 * 32 * 32  # that are augmented together, where a batch has fewer
_PIXELS_OPERATED = 4 * _PIXELS_AT_ONCE  # likewise with RandAugment, whose time is that of starting each operation
_AHEAD = 4  # batches that are read from disk before they are needed
_MOST_FOR_MOMENTS = 50_000  # images that mean and spread of the colours are taken from


@dataclass(frozen=True)
class ImageFormat:
    """The images that a network takes: float32 of shape (B, 3, side, side), a channel (grey level - mean) / std.

    `mean` and `std` are those of the training images by channel, in grey levels from 0 to 255.
    """

    side: int
    mean: Sequence[float]
    std: Sequence[float]


def on_device(images: Images, config: DataConfig, device: str, beside: DeviceImages | None = None) -> DeviceImages:
    """Puts a data set on a device, with the augmentation that its configuration asks for; `beside` as there."""
    augmentation = augmentation_of(config, images.train.pixels.shape[-1])
    memory = getattr(config, "memory", "auto")
    return DeviceImages(images, torch.device(device), augmentation, memory=memory, beside=beside)


class DeviceImages:
    """A data set for a device, as uint8; batches come out as float32 of shape (B, 3, H, W), normalised, with labels.

    `memory=device` keeps all pixels there (on the CPU mapped files count as there: the system keeps what is read in
    memory, once for all processes); `mapped` reads them from disk ahead of need; `auto` is `device` where they take at
    most half of what is free. Pixels that are there already, as those of others `beside`, are not put there again: the
    subsets that cells see of one data set take the room of one.

    Attributes:
        placed: arrays of pixels, and the tensors that they are on the device.
        format: what batches are like.
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
        there = beside.placed if beside is not None and beside.device == device else []
        known = [(pixels, tensor) for pixels, tensor in there if any(pixels is array for array in images.arrays)]
        if known and beside is not None:
            self.resident = beside.resident
        else:
            self.resident = memory == "device" or (memory == "auto" and images.nbytes <= _SHARE * _free_bytes(device))
        self.placed = known
        self._train, self._train_rows, self._train_labels = self._place(images.train)
        self._test, self._test_rows, self.test_labels = self._place(images.test)  # in order, as `test_batches`
        self.test_images = len(self.test_labels)
        moments = _moments(images.train)
        self.format = ImageFormat(augmentation.side, *(moment.tolist() for moment in moments))
        mean, std = (moment.to(device).view(3, 1, 1) for moment in moments)
        self._mean, self._scale = mean, 1 / std

    def train_images(self, batch_size: int) -> int:
        """Returns how many images an epoch trains on: the last batch is left out where it would be smaller."""
        return len(self._train_labels) // batch_size * batch_size

    def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """Yields an epoch's training batches; equal arguments yield equal batches, on any device."""
        count = self.train_images(batch_size)
        order = torch.randperm(len(self._train_labels), generator=_generator(seed, "order", epoch))[:count]
        drawn = self.augmentation.draw(count, _generator(seed, "augmentation", epoch))
        drawn = {name: values.to(self.device) for name, values in drawn.items()}
        operations = None
        if self.augmentation.randaugment is not None:
            operations = self.augmentation.randaugment.draw(count, _generator(seed, "randaugment", epoch))
        labels = self._train_labels[order.to(self.device)]
        # Several small batches at once: what is done to an image is little beside the start of doing it.
        pixels = _PIXELS_AT_ONCE if operations is None else _PIXELS_OPERATED
        at_once = batch_size * max(1, pixels // (batch_size * self.augmentation.side**2))
        raws = self._read(self._train, self._train_rows[order], at_once)
        for start, raw in zip(range(0, count, at_once), raws, strict=True):
            part = slice(start, start + at_once)
            own = {name: values[part] for name, values in drawn.items()}
            seen = self.augmentation.train(raw, own)
            made = self._normalise(self.augmentation.operate(seen, None if operations is None else operations[part]))
            self.augmentation.cut_out(made, own)
            batches = zip(made.split(batch_size), labels[part].split(batch_size), strict=True)
            del raw, own, seen, made  # not held while the next ones are made
            yield from batches

    def test_batches(self, batch_size: int, most: int | None = None) -> Iterator[Batch]:
        """Yields test images in order, as they are: all, or so many where there are more, always the same ones."""
        rows, labels = self._test_rows, self.test_labels
        if most is not None and most < self.test_images:
            places = torch.from_numpy(evenly_spaced(labels.cpu().numpy(), most))
            rows, labels = rows[places], labels[places.to(self.device)]
        raws = self._read(self._test, rows, batch_size)
        for raw, part in zip(raws, labels.split(batch_size), strict=True):
            yield self._normalise(self.augmentation.test(raw)), part

    def some_tests(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Returns test images by their places: as networks get them, and as people do, uint8 of shape (B, 3, H, W)."""
        raw = torch.cat(list(self._read(self._test, self._test_rows[places], max(1, len(places)))))
        seen = self.augmentation.test(raw)
        return self._normalise(seen), seen

    def _place(self, part: ImageSet) -> tuple[Tensor, Tensor, Tensor]:
        """Returns all pixels that the part has images of, which rows of them these are (on the CPU), and the labels."""
        placed = next((tensor for pixels, tensor in self.placed if pixels is part.pixels), None)
        with warnings.catch_warnings():
            # Images that processes share are read-only. Nothing here writes to them.
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
        """Yields raw images on the device in the given order, a batch at a time; from disk, some batches ahead."""
        if self.resident:
            # All places at once: a transfer a batch would have the device wait.
            yield from (pixels.index_select(0, places) for places in order.to(self.device).split(batch_size))
            return
        pinned = self.device.type == "cuda"

        def read(places: Tensor) -> Tensor:
            raw = torch.empty((len(places), *pixels.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
            # Not torch.index_select: its threads would contend with those of the training step.
            np.take(pixels.numpy(), places.numpy(), axis=0, out=raw.numpy(), mode="clip")
            return raw

        for raw in ahead(read, order.split(batch_size), 1, _AHEAD):
            yield raw.to(self.device, non_blocking=True)

    def _normalise(self, pixels: Tensor) -> Tensor:
        return pixels.float().sub_(self._mean).mul_(self._scale)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _read_ahead(pixels: np.memmap) -> None:
    """Has the system read a mapped file in one go: images are asked for in a random order, which disks dislike."""
    mapping = getattr(pixels, "_mmap", None)
    if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED"):
        mapping.madvise(mmap.MADV_WILLNEED)


def _moments(images: ImageSet) -> Batch:
    """Returns mean and standard deviation of each colour in grey levels, (3,), of up to 50,000 images far apart."""
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
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def _generator(seed: int, stream: str, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, stream, epoch))
