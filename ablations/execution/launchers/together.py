"""Determines how many cells a process trains concurrently on a GPU, by timing steps of untrained networks.

A small network leaves most of a GPU idle, so several networks take more steps per second in total than one. The gain
ends when the GPU, or the CPU that launches the steps, is fully used, or when memory is full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from ablations.data import DataSet
from ablations.design import Split
from ablations.execution.launchers.worker import Place, ProbeTask, on_device_of

if TYPE_CHECKING:
    from ablations.data.device import DeviceImages

_NUMBERS = (1, 2, 4, 8, 16, 32)
_LEAST_GAIN = 1.1  # in steps per second from doubling the cells; a smaller gain ends the measurement
_CLOSE = 0.95  # fraction of the highest steps per second that suffices for a smaller number of cells
_SHARE = 0.9  # fraction of the free memory that cells may use


@dataclass(frozen=True)
class Rate:
    """Total steps per second of a number of concurrent cells."""

    cells: int
    steps_per_second: float


def best_number(rates: Sequence[Rate]) -> int:
    """Returns the smallest number of cells close to the highest steps per second; 1 if `rates` is empty."""
    most = max((rate.steps_per_second for rate in rates), default=0.0)
    return min((rate.cells for rate in rates if rate.steps_per_second >= _CLOSE * most), default=1)


def measure_rates(task: ProbeTask, load: Callable[[], DataSet], place: Place) -> list[Rate]:
    """Measures the steps per second of 1, 2, 4, ... cells of a network, for `task.seconds` each.

    The measurement ends when twice as many cells would not fit into memory, or the last doubling gained little.
    """
    import torch

    from ablations.data.device import free_bytes

    torch.set_num_threads(task.threads)
    images = on_device_of(load, place, task.seed, Split.TEST)
    cells: list[Iterator[None]] = []
    rates: list[Rate] = []
    free = free_bytes(images.device)
    for number in _NUMBERS:
        try:
            cells += [_steps(task, images) for _ in range(number - len(cells))]
            for _ in range(_warm_up()):
                _take_turn(cells)
            rates.append(Rate(number, rate_of(cells, images, task.seconds)))
        except (MemoryError, torch.OutOfMemoryError):
            break
        left = free_bytes(images.device)
        if free - left > _SHARE * left:  # twice as many cells would need this much again
            break
        if len(rates) > 1 and rates[-1].steps_per_second < _LEAST_GAIN * rates[-2].steps_per_second:
            break
    return rates


def rate_of(cells: Sequence[Iterator[None]], images: DeviceImages, seconds: float) -> float:
    """Returns the steps per second of interleaved cells, measured for `seconds`."""
    from ablations.data.device import wait_for

    wait_for(images.device)
    started, turns = time.perf_counter(), 0
    while not turns or time.perf_counter() - started < seconds:
        _take_turn(cells)
        turns += 1
    wait_for(images.device)
    return turns * len(cells) / (time.perf_counter() - started)


def _take_turn(cells: Sequence[Iterator[None]]) -> None:
    for cell in cells:
        next(cell)


def _steps(task: ProbeTask, images: DeviceImages) -> Iterator[None]:
    """Runs the training steps of a cell, without end."""
    from ablations.training.graphs import training_steps
    from ablations.training.isolation import isolated
    from ablations.training.learner import Learner
    from ablations.training.schedule import learning_rates

    recipe = task.recipe

    def steps() -> Generator[None, None, None]:
        learner = Learner(task.network, recipe, len(images.classes), task.seed, images.device)
        number = images.train_images(recipe.batch_size) // recipe.batch_size
        rates = learning_rates(recipe, number)
        step, take_step = training_steps(learner, recipe, images, rates, task.seed)
        for epoch in count():
            step.begin(epoch, 0)
            for _ in range(number):
                step.advance()
                take_step()
                yield

    return isolated(steps(), images.device)


def _warm_up() -> int:
    from ablations.training.graphs import WARM_UP

    return WARM_UP + 2  # in addition, the graph capture and one replay
