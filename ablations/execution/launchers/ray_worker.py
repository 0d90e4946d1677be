"""What runs in Ray's worker processes: they are given a job and the images, and yield what the cell says."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ablations.common.process import keep_freed_memory, quiet_profiler
from ablations.config import DataConfig, TrainConfig
from ablations.data.images import Images
from ablations.training.events import Failed, Progress, Step
from ablations.training.job import Job, kind_of, work

if TYPE_CHECKING:
    from ablations.data.device import DeviceImages
    from ablations.training.probe import Probe

_STEPS_APART = 0.5  # seconds between steps that are told

_placed: list[tuple[Where, Images, DeviceImages]] = []  # the one data set that this process has on its device


@dataclass(frozen=True)
class Where:
    """Which images these are, how they are augmented, and where they go."""

    fingerprint: str
    data: DataConfig
    device: str


def train_job(job: Job, images: Sequence[Any], where: Where) -> Iterator[Progress]:
    """Trains a job's cell; `images` is a list of one reference to them."""
    told = 0.0
    try:
        for event in work(job, _on_device(images, where)):
            if isinstance(event, Step):
                if time.monotonic() - told < _STEPS_APART:
                    continue
                told = time.monotonic()
            yield event
        return
    except Exception as error:  # of placing the images, as a cell's own errors are told
        failure = Failed(kind_of(error), traceback.format_exc())
    yield failure


def probe_variant(
    network: dict[str, Any],
    recipe: TrainConfig,
    images: Sequence[Any],
    where: Where,
    seconds: float,
    threads: int,
    measured: bool,
) -> Probe | str:
    """Finds out what a cell of a network costs."""
    placed = _on_device(images, where)
    from ablations.training.probe import probe_or_reason

    return probe_or_reason(network, recipe, placed, seconds, threads, measured=measured)


def shared(images: Images) -> Images:
    """Returns images as plain arrays, whose bytes Ray shares between the processes of a machine."""
    train, test = (
        replace(part, pixels=part.pixels.view(np.ndarray), labels=part.labels.view(np.ndarray))
        for part in (images.train, images.test)
    )
    return replace(images, train=train, test=test)


def _on_device(references: Sequence[Any], where: Where) -> DeviceImages:
    """Returns the images on this process's device: put there for its first cell."""
    if not _placed or _placed[0][0] != where:
        keep_freed_memory()
        quiet_profiler()
        import ray

        from ablations.data.device import on_device

        images: Images = ray.get(references[0])
        _placed.clear()  # before others are put there
        _placed.append((where, images, on_device(images, where.data, where.device)))
    return _placed[0][2]
