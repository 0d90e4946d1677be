"""A cell as whoever trains it gets it: plain data that can be sent anywhere, and how it is trained.

A job knows nothing of Optuna, MLflow or files: a worker on another machine needs nothing else but the images.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ablations.common import machine
from ablations.config import TrainConfig
from ablations.design import Cell
from ablations.training.events import (
    DIVERGED,
    ERROR,
    OUT_OF_MEMORY,
    TIME_LIMIT,
    Failed,
    Finished,
    Learnt,
    Note,
    Progress,
    Saved,
)
from ablations.training.packing import pack, pack_weights, unpack

if TYPE_CHECKING:
    from ablations.data.device import DeviceImages

_TOO_LITTLE = ("out of memory", "not enough memory", "can't allocate memory")  # as torch and the system have it


@dataclass(frozen=True)
class Job:
    """A cell to be trained, and how.

    Args:
        cell: the cell.
        recipe: with precision and memory format resolved.
        measure: as for `train`.
        threads: that the CPU computes with; the last digits of a result on the CPU depend on it.
        keeps_weights: whether the trained weights are sent back.
        seconds: that the cell may take; 0 is no limit.
        checkpoint_every: seconds after which an epoch ends with a checkpoint.
        checkpoint: one to go on from.
        micro_batches: parts that a batch is taken in.
        lost: how often it was begun by a worker that went away.
    """

    cell: Cell
    recipe: TrainConfig
    measure: str = "quick"
    threads: int = 1
    keeps_weights: bool = False
    seconds: float = 0.0
    checkpoint_every: float = float("inf")
    checkpoint: bytes | None = None
    micro_batches: int = 1
    lost: int = 0


def work(job: Job, images: DeviceImages) -> Iterator[Progress]:
    """Trains a job's cell and yields its progress; whatever goes wrong is progress, too.

    A checkpoint that cannot be read, or gone on from, is done without.
    """
    import torch

    from ablations.training.train import DivergedError

    torch.set_num_threads(job.threads)
    state = None
    if job.checkpoint is not None:
        try:
            state = unpack(job.checkpoint, job.micro_batches)
        except ValueError as error:
            yield Note(f"{job.cell.name} begins anew, as its checkpoint is of no use: {error}.")
    try:
        yield from _train(job, images, state)
        return
    except DivergedError as error:
        failure = Failed(DIVERGED, f"DivergedError: {error}")
    except Exception as error:
        failure = Failed(kind_of(error), traceback.format_exc())
    yield failure  # only here, where the error holds no tensors any more


def _train(job: Job, images: DeviceImages, state: Mapping[str, Any] | None) -> Iterator[Progress]:
    from ablations.training.train import Checkpoint, Result, Trained, train

    started = time.perf_counter() - (state["seconds"] if state else 0.0)
    events = train(
        job.cell.variant.network,
        job.recipe,
        images,
        job.cell.seed,
        job.measure,
        micro_batches=job.micro_batches,
        checkpoint=state,
        checkpoint_every=job.checkpoint_every,
    )
    for event in events:
        if isinstance(event, Checkpoint):
            yield Saved(pack(event.state))
        elif isinstance(event, Trained):
            if job.keeps_weights:
                yield Learnt(pack_weights(job.cell, event.model, images.classes))
        elif isinstance(event, Result):
            yield Finished(event.to_dict(), environment(job.threads))
            return
        else:
            yield event
        if job.seconds and time.perf_counter() - started > job.seconds:
            yield Failed(TIME_LIMIT, f"It took longer than limits.seconds={job.seconds:g}.")
            return


def kind_of(error: BaseException) -> str:
    """Tells an error that less memory would mend from others."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return OUT_OF_MEMORY
    text = str(error).lower()  # on the CPU torch's allocator raises a RuntimeError
    return OUT_OF_MEMORY if any(phrase in text for phrase in _TOO_LITTLE) else ERROR


@cache
def environment(threads: int) -> dict[str, str]:
    """Describes the machine that this process trains on."""
    return machine.environment() | {"threads": str(threads)}
