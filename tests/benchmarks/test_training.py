"""Speed and memory of training relative to simple references: `pytest tests/benchmarks/test_training.py -s`.

Each figure is a median of ratios within one run that alternates between both; times are not asserted. Needs CIFAR-10 in
`data/` or in the folder CIFAR_ROOT. Goals: the input path at 20 times the images per second of a DataLoader, an epoch
at 1.02 times one with a fixed batch (1.05 with an option that is off by default), a cell twice as fast as a plain
script, and the data path at 1.2 times the memory of the pixels.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

from ablations.common.process import keep_freed_memory
from ablations.common.resolve import resolve_precision
from ablations.config import TrainConfig
from ablations.config.compose import compose_config
from ablations.data import load_images
from ablations.data.augment import Augmentation
from ablations.data.device import Batch, DeviceImages
from ablations.data.images import Images
from ablations.data.randaugment import RandAugment
from ablations.training.learner import Learner
from ablations.training.mixing import training_batches

REPOSITORY = Path(__file__).parents[2]
ROOT = Path(os.environ.get("CIFAR_ROOT", REPOSITORY / "data"))
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(
    not (ROOT / "cifar-10-batches-py").is_dir(), reason=f"needs CIFAR-10 in {ROOT}; CIFAR_ROOT names another folder"
)


@pytest.fixture(scope="module")
def images() -> Images:
    keep_freed_memory()  # as a run does
    return load_images(compose_config(["data=cifar10", f"data.root={ROOT}", "data.train_per_class=1000"]).data)


def seconds(act: Callable[[], Any]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def compare(
    benchmark: BenchmarkFixture, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int
) -> tuple[list[float], list[float]]:
    """Times both alternately, after a warm-up round; pytest-benchmark records ours."""
    times: tuple[list[float], list[float]] = ([], [])

    def time_ours() -> None:
        times[0].append(seconds(ours))

    def time_theirs() -> None:
        times[1].append(seconds(theirs))

    benchmark.pedantic(time_ours, setup=time_theirs, rounds=rounds, warmup_rounds=1)
    return times[0][1:], times[1][1:]


def say(benchmark: BenchmarkFixture, name: str, ratios: list[float]) -> None:
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    benchmark.extra_info[name] = median
    print(f"\n{name}: {median:.3g} (median of {len(ratios)}, {low:.3g} to {high:.3g})")


class Pictures(Dataset[Any]):
    """Images in the form of torchvision.datasets.CIFAR10."""

    def __init__(self, images: Images) -> None:
        self.pixels = images.train.pixels.transpose(0, 2, 3, 1).copy()
        self.labels = images.train.labels.tolist()
        to_input = [ToTensor(), Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))]
        self.transform = Compose([RandomCrop(32, padding=4, padding_mode="reflect"), RandomHorizontalFlip(), *to_input])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def test_input_path_against_a_data_loader(benchmark: BenchmarkFixture, images: Images) -> None:
    batches = DeviceImages(images, CPU, Augmentation(32, 32, crop=4, flip=True))
    loader = DataLoader(Pictures(images), 128, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    ours, theirs = compare(
        benchmark, lambda: [None for _ in batches.train_batches(128, 0, 0)], lambda: [None for _ in loader], 7
    )
    say(benchmark, "images/s of the input path over a DataLoader's", [b / a for a, b in zip(ours, theirs, strict=True)])


RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "ema": {"ema": 0.999},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.001},
    "randaugment": {},
}


@pytest.mark.parametrize("batch_size", [32, 128])
@pytest.mark.parametrize("name", RECIPES)
def test_epoch_against_one_with_a_fixed_batch(
    benchmark: BenchmarkFixture, images: Images, batch_size: int, name: str
) -> None:
    """Compares an epoch with an option with one on a fixed batch without options."""
    default = TrainConfig(batch_size=batch_size, precision=resolve_precision("auto", "cpu"), memory_format="contiguous")
    recipe = replace(default, **RECIPES[name])
    operations = RandAugment(2, 9) if name == "randaugment" else None
    batches = DeviceImages(images, CPU, Augmentation(32, 32, crop=4, flip=True, randaugment=operations))
    network = {"model": {"name": "resnet8"}, "attention": {"name": "none"}}
    learner, plain = (Learner(network, chosen, 10, 0, CPU) for chosen in (recipe, default))
    fixed = next(batches.train_batches(batch_size, 0, 0))
    fed = (batch for epoch in count() for batch in training_batches(batches, recipe, 0, epoch))
    steps = 512 // batch_size  # only part of an epoch, so that other processes affect few of the alternating parts

    def part(learner: Learner, source: Iterator[Batch]) -> None:
        for batch in islice(source, steps):
            learner.step(*batch)

    ours, theirs = compare(benchmark, lambda: part(learner, fed), lambda: part(plain, repeat(fixed)), 81)
    say(
        benchmark,
        f"time of an epoch ({name}) over one with a fixed batch of {batch_size}",
        [a / b for a, b in zip(ours, theirs, strict=True)],
    )


def in_a_process(program: str, *arguments: object) -> dict[str, float]:
    command = [sys.executable, "-m", f"tests.benchmarks.{program}", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_cell_against_a_plain_script(benchmark: BenchmarkFixture) -> None:
    results: dict[str, list[dict[str, float]]] = {"our_cell": [], "plain_script": []}

    def run(program: str) -> None:
        results[program].append(in_a_process(program, ROOT, 500, 500, 5, 64, len(results[program])))

    run("plain_script")
    run("our_cell")
    benchmark.pedantic(lambda: run("our_cell"), setup=lambda: run("plain_script"), rounds=4)
    ours, theirs = results["our_cell"][1:], results["plain_script"][1:]
    say(
        benchmark,
        "time of a plain script over a cell's",
        [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)],
    )
    for name, repetitions in (("cell", ours), ("script", theirs)):
        top1 = [result["top1"] for result in repetitions]
        print(f"top-1 of the {name}: mean {statistics.mean(top1):.1f} %, {min(top1):.1f} to {max(top1):.1f} (n = 4)")


@pytest.mark.parametrize("state", ["first", "second"])
def test_memory_of_the_data_path(benchmark: BenchmarkFixture, tmp_path: Path, state: str) -> None:
    """The first run decodes the images, the second uses the cache."""
    measured: list[dict[str, float]] = []
    folders = repeat(tmp_path) if state == "second" else (tmp_path / str(place) for place in count())
    if state == "second":
        in_a_process("data_path", ROOT, tmp_path)
    benchmark.pedantic(lambda: measured.append(in_a_process("data_path", ROOT, next(folders))), rounds=3)
    say(
        benchmark,
        f"peak memory of the {state} run over the pixels'",
        [run["grown"] / run["pixels"] for run in measured],
    )
