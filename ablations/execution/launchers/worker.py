"""The tasks of worker processes, of Ray or of this machine: training cells, probing variants, calling functions.

A worker uses neither Optuna nor MLflow nor the study's folder. It copies images to its device once, and again only for
cells with other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ablations.common.process import keep_freed_memory, quiet_profiler
from ablations.config import DataConfig, TrainConfig
from ablations.data import DataSet
from ablations.data.splits import View
from ablations.design import Split
from ablations.execution.launchers.turns import SeldomSteps
from ablations.training.events import Probe, Progress
from ablations.training.job import Job, failure_of, work

if TYPE_CHECKING:
    from ablations.data.device import DeviceImages

Returned = TypeVar("Returned")

OVERTIME = 60.0  # seconds that a long step may exceed the time limit of a cell before its worker is killed

# The images of this worker's last cell, on its device, and their data set; empty before the first cell.
_placed: list[tuple[Place, View, DataSet, DeviceImages]] = []


@dataclass(frozen=True)
class Place:
    """The data set (by fingerprint), its configuration including augmentation, and the device of the images."""

    fingerprint: str
    data: DataConfig
    device: str


@dataclass(frozen=True)
class ProbeTask:
    """A network to probe, its training recipe, and the duration and threads of the probe."""

    network: dict[str, Any]
    recipe: TrainConfig
    seed: int
    seconds: float
    threads: int


def train_job(job: Job, load: Callable[[], DataSet], place: Place) -> Iterator[Progress]:
    """Trains a job's cell as `train_steps` does, and yields its events, with few of its steps."""
    reported = SeldomSteps()
    for event in train_steps(job, load, place):
        if reported.reports(event):
            yield event


def train_steps(job: Job, load: Callable[[], DataSet], place: Place) -> Iterator[Progress]:
    """Trains a job's cell and yields its events; `load` returns the data set if this process lacks it."""
    try:
        yield from work(job, on_device_of(load, place, job.cell.seed, job.cell.split))
        return
    except Exception as error:  # raised while copying the images; `work` yields the errors of training
        failure = failure_of(error)
    yield failure


def probe_variant(task: ProbeTask, load: Callable[[], DataSet], place: Place) -> Probe | str:
    """Estimates the cost of a cell of a network."""
    from ablations.training.probe import probe_or_reason

    images = on_device_of(load, place, task.seed, Split.TEST)
    return probe_or_reason(task.network, task.recipe, images, task.seconds, task.threads)


def run_alone(threads: int, function: Callable[..., Returned], *arguments: object) -> Returned:
    """Runs a function with the process settings of a cell."""
    _set_up()
    import torch

    torch.set_num_threads(threads)
    return function(*arguments)


def on_device_of(load: Callable[[], DataSet], place: Place, seed: int, split: Split) -> DeviceImages:
    """Returns the images of a cell on the device; copies the pixels of a data set for its first cell only."""
    _set_up()
    from ablations.data.device import on_device

    if not _placed or _placed[0][0] != place:
        _placed.clear()  # frees the device memory before the next copy
        data, before = load(), None
    else:
        _, view, data, before = _placed[0]
        if view == data.view(seed, split):
            return before
    images = on_device(data.images(seed, split), place.data, place.device, before)
    _placed[:] = [(place, data.view(seed, split), data, images)]
    return images


def _set_up() -> None:
    keep_freed_memory()
    quiet_profiler()
