"""Loads CIFAR-10 and iterates over an epoch; prints the memory growth and the size of the pixels in bytes.

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
    """Returns the resident memory of this process (VmRSS), or its peak (VmHWM), in bytes, as reported by Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024


def main(root: str, cache: str) -> None:
    config = compose_config(["data=cifar10", f"data.root={root}", f"data.cache={cache}"]).data
    import filelock  # noqa: F401
    import torchvision  # noqa: F401  imports of decoding do not count as memory of the data

    for count in (1, 1000):  # neither does memory that torch allocates at its first computation
        (torch.rand(count, 3, 32, 32) * 2).sum()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident("VmRSS")
    images = load_images(config, Console(quiet=True))
    keep_freed_memory()  # as a run does after loading its images
    batches = DeviceImages(images, torch.device("cpu"), augmentation_of(config, 32))
    seen = sum(len(labels) for _, labels in batches.train_batches(128, 0, 0))
    seen += sum(len(labels) for _, labels in batches.test_batches(512))
    print(json.dumps({"grown": resident("VmHWM") - before, "pixels": images.nbytes, "images": seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
