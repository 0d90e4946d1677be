"""What runs in worker processes, be they Ray's or this machine's: cells, probes and single functions.

A worker touches neither Optuna nor MLflow nor the study's folder. It puts the images that its cells see on its device
once, and again only for cells that see others.
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

OVERTIME = 60.0  # seconds that a cell may be over its limit, in a step that takes so long, before its worker is killed

# What this worker's last cell saw, on its device, and the data set that this is of.
_placed: list[tuple[Place, View, DataSet, DeviceImages]] = []


@dataclass(frozen=True)
class Place:
    """Which data set this is, how images are augmented, and where they go."""

    fingerprint: str
    data: DataConfig
    device: str


@dataclass(frozen=True)
class ProbeTask:
    """What is probed of a variant, and how: as for `probe`."""

    network: dict[str, Any]
    recipe: TrainConfig
    seed: int
    seconds: float
    threads: int


def train_job(job: Job, load: Callable[[], DataSet], place: Place) -> Iterator[Progress]:
    """Trains a job's cell, and yields its events without most of its steps; arguments as for `train_steps`."""
    reported = SeldomSteps()
    for event in train_steps(job, load, place):
        if reported.reports(event):
            yield event


def train_steps(job: Job, load: Callable[[], DataSet], place: Place) -> Iterator[Progress]:
    """Trains a job's cell; `load` returns the data set if this process does not have it yet."""
    try:
        yield from work(job, on_device_of(load, place, job.cell.seed, job.cell.split))
        return
    except Exception as error:  # of placing the images, as a cell's own errors are told
        failure = failure_of(error)
    yield failure


def probe_variant(task: ProbeTask, load: Callable[[], DataSet], place: Place) -> Probe | str:
    """Estimates what a cell of a network costs."""
    from ablations.training.probe import probe_or_reason

    images = on_device_of(load, place, task.seed, Split.TEST)
    return probe_or_reason(task.network, task.recipe, images, task.seconds, task.threads)


def run_alone(threads: int, function: Callable[..., Returned], *arguments: object) -> Returned:
    """Runs a function in a worker process that is set up as for a cell."""
    _set_up()
    import torch

    torch.set_num_threads(threads)
    return function(*arguments)


def on_device_of(load: Callable[[], DataSet], place: Place, seed: int, split: Split) -> DeviceImages:
    """Returns on this process's device what a cell sees; the pixels of a data set are put there for its first cell."""
    _set_up()
    from ablations.data.device import on_device

    if not _placed or _placed[0][0] != place:
        _placed.clear()  # before others are put there
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
