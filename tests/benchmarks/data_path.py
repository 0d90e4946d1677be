"""Loads CIFAR-10 and walks through an epoch; prints how much memory that took, in bytes, beside the pixels' own.

python -m tests.benchmarks.data_path ROOT CACHE
"""

from __future__ import annotations

import json
import resource
import sys

import torch
from rich.console import Console

from ablations import machine
from ablations.compose import compose_config
from ablations.data import load_images
from ablations.data.augment import augmentation_of
from ablations.data.device import DeviceImages


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(root: str, cache: str) -> None:
    config = compose_config(["data=cifar10", f"data.root={root}", f"data.cache={cache}"]).data
    import filelock  # noqa: F401
    import torchvision  # noqa: F401  what decoding imports is no part of the data

    machine.keep_freed_memory()
    for count in (1, 1000):  # so is what torch sets up when it first computes
        (torch.rand(count, 3, 32, 32) * 2).sum()
    before = peak()
    images = load_images(config, Console(quiet=True))
    batches = DeviceImages(images, torch.device("cpu"), augmentation_of(config, 32))
    seen = sum(len(labels) for _, labels in batches.train_batches(128, 0, 0))
    seen += sum(len(labels) for _, labels in batches.test_batches(512))
    print(json.dumps({"grown": peak() - before, "pixels": images.nbytes, "images": seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
