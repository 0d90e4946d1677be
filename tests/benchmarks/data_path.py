"""Loads CIFAR-10 and walks through an epoch; prints how much memory that took, in bytes, beside the pixels' own.

python -m tests.benchmarks.data_path ROOT CACHE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from rich.console import Console

from ablations.common.process import keep_freed_memory
from ablations.config.compose import compose_config
from ablations.data import load_images
from ablations.data.augment import augmentation_of
from ablations.data.device import DeviceImages


def resident(which: str) -> int:
    """Reads from Linux how much memory this process holds (VmRSS), or held at most (VmHWM), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024


def main(root: str, cache: str) -> None:
    config = compose_config(["data=cifar10", f"data.root={root}", f"data.cache={cache}"]).data
    import filelock  # noqa: F401
    import torchvision  # noqa: F401  what decoding imports is no part of the data

    for count in (1, 1000):  # so is what torch sets up when it first computes
        (torch.rand(count, 3, 32, 32) * 2).sum()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on
    before = resident("VmRSS")
    images = load_images(config, Console(quiet=True))
    keep_freed_memory()  # as a run does, once it has its images
    batches = DeviceImages(images, torch.device("cpu"), augmentation_of(config, 32))
    seen = sum(len(labels) for _, labels in batches.train_batches(128, 0, 0))
    seen += sum(len(labels) for _, labels in batches.test_batches(512))
    print(json.dumps({"grown": resident("VmHWM") - before, "pixels": images.nbytes, "images": seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
