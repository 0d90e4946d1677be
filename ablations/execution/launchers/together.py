"""How many cells a process trains in parallel on a GPU: the number is measured with steps of untrained networks.

A small network leaves most of a GPU idle, so that several take more steps a second than one. At some number the GPU, or
the CPU that launches their steps, is busy all the time, or memory is full.
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
_LEAST_GAIN = 1.1  # in steps a second, from twice as many cells, below which more are not tried
_CLOSE = 0.95  # share of the most steps a second that a smaller number of cells suffices with
_SHARE = 0.9  # of the free memory that cells may take


@dataclass(frozen=True)
class Rate:
    """Steps a second of so many cells together."""

    cells: int
    steps_per_second: float


def best_number(rates: Sequence[Rate]) -> int:
    """Returns the smallest number of cells whose steps a second are close to the most; 1 where there are no rates."""
    most = max((rate.steps_per_second for rate in rates), default=0.0)
    return min((rate.cells for rate in rates if rate.steps_per_second >= _CLOSE * most), default=1)


def measure_rates(task: ProbeTask, load: Callable[[], DataSet], place: Place) -> list[Rate]:
    """Measures the steps a second of 1, 2, 4, ... cells of a network, `task.seconds` each.

    It ends where twice as many cells would not fit into memory, or gain little.
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
        if free - left > _SHARE * left:  # as many again would take as much as these
            break
        if len(rates) > 1 and rates[-1].steps_per_second < _LEAST_GAIN * rates[-2].steps_per_second:
            break
    return rates


def rate_of(cells: Sequence[Iterator[None]], images: DeviceImages, seconds: float) -> float:
    """Returns the steps a second of cells that take turns for so many seconds."""
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
    """Takes training steps as a cell does, without end."""
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

    return WARM_UP + 2  # the capture and a step from it
