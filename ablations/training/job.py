"""Jobs: cells as plain data that can be sent to a worker, and the function that trains them.

A job is independent of Optuna, MLflow and files: a worker on another machine needs only the job and the images.
Networks are sent back as the bytes of a file, which is read without executing code from it.
"""

from __future__ import annotations

import io
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ablations.common import machine
from ablations.common.device_faults import is_assertion, is_device_fault, lost_device
from ablations.common.wording import first_line
from ablations.config import TrainConfig
from ablations.design import Cell
from ablations.training import events

if TYPE_CHECKING:
    from torch import nn

    from ablations.data.device import DeviceImages, ImageFormat

# Phrases in the messages of torch, the operating system, cuDNN and cuBLAS (CUDNN_STATUS_ALLOC_FAILED).
_TOO_LITTLE = ("out of memory", "not enough memory", "can't allocate memory", "_status_alloc_failed")


@dataclass(frozen=True)
class Job:
    """A cell to be trained, and its training settings.

    Args:
        cell: the cell.
        recipe: the cell's recipe, with precision and memory format resolved.
        threads: number of CPU threads; the last digits of a result on the CPU depend on it.
        keeps_weights, keeps_predictions: whether trained weights, and predictions on the test images, are sent back.
        seconds: time limit of the cell; 0 is no limit.
        checkpoint_every, micro_batches: as for `train`.
        checkpoint: the content of a checkpoint to resume from.
        lost: number of earlier attempts that ended because a worker was lost.
    """

    cell: Cell
    recipe: TrainConfig
    threads: int = 1
    keeps_weights: bool = False
    keeps_predictions: bool = False
    seconds: float = 0.0
    checkpoint_every: float = float("inf")
    checkpoint: bytes | None = None
    micro_batches: int = 1
    lost: int = 0


def work(job: Job, images: DeviceImages) -> Iterator[events.Progress]:
    """Trains a job's cell and yields its events; an error is yielded as a `Failed` event.

    If the checkpoint cannot be used, training restarts from the beginning.
    """
    import torch

    from ablations.training.train import DivergedError

    torch.set_num_threads(job.threads)
    state = None
    if job.checkpoint is not None:
        try:
            state = unpack(job.checkpoint, job.micro_batches)
        except ValueError as error:
            yield events.Note(
                f"{job.cell.name} restarts from the beginning, as its checkpoint cannot be used: {error}."
            )
    try:
        yield from _train(job, images, state)
        return
    except DivergedError as error:
        failure = events.Failed(events.DIVERGED, f"DivergedError: {error}")
    except Exception as error:
        failure = failure_of(error)
    yield failure  # after the except block, so that the error and its traceback no longer hold tensors


def _train(job: Job, images: DeviceImages, state: Mapping[str, Any] | None) -> Iterator[events.Progress]:
    from ablations.training.train import Checkpoint, Result, Trained, train

    started = time.perf_counter() - (state["seconds"] if state else 0.0)
    training = train(
        job.cell.variant.network,
        job.recipe,
        images,
        job.cell.seed,
        micro_batches=job.micro_batches,
        checkpoint=state,
        checkpoint_every=job.checkpoint_every,
        is_tested_once=job.cell.is_tested_once,
    )
    for event in training:
        if isinstance(event, Checkpoint):
            yield events.Saved(pack(event.state))
        elif isinstance(event, Trained):
            if job.keeps_weights:
                yield events.Learnt(pack_weights(job.cell, event.model, images.classes, images.format))
            if job.keeps_predictions:
                yield events.Predicted(event.predictions.to_bytes())
        elif isinstance(event, Result):
            yield events.Finished(event.to_dict(), environment(job.threads), images.fingerprint)
            return
        else:
            yield event
        if job.seconds and time.perf_counter() - started > job.seconds:
            yield events.Failed(events.TIME_LIMIT, f"It exceeded limits.seconds={job.seconds:g}.")
            return


def failure_of(error: Exception) -> events.Failed:
    """Returns the event for an error that ended a cell; call it while the error is handled.

    After a device fault the kind is `LOST`, and the cell may be retried in another process. A failed assertion is an
    `ERROR`, as it would fail there too.
    """
    reason = traceback.format_exc()
    fault = error if is_device_fault(error) else lost_device()
    if fault is None:
        return events.Failed(kind_of(error), reason)
    reason = f"{reason}The process lost its GPU: {first_line(fault)}."
    return events.Failed(events.ERROR if is_assertion(fault) else events.LOST, reason, ends_process=True)


def kind_of(error: BaseException) -> str:
    """Returns `OUT_OF_MEMORY` or `ERROR`."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return events.OUT_OF_MEMORY
    text = str(error).lower()  # on the CPU torch's allocator raises a RuntimeError
    return events.OUT_OF_MEMORY if any(phrase in text for phrase in _TOO_LITTLE) else events.ERROR


@cache
def environment(threads: int) -> dict[str, str]:
    """Describes the machine that this process trains on."""
    return machine.environment() | {"threads": str(threads)}


def pack(content: Mapping[str, Any]) -> bytes:
    """Returns a dictionary of tensors and plain values as `torch.save` writes it."""
    import torch

    written = io.BytesIO()  # not a file: torch.save reports a full disk as a RuntimeError, not an OSError
    torch.save(dict(content), written)
    return written.getvalue()


def unpack(content: bytes, micro_batches: int) -> dict[str, Any]:
    """Reads a checkpoint.

    Raises:
        ValueError: if the content is invalid, or the number of micro-batches differs.
    """
    import torch

    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        made_with = state["micro_batches"]
    except Exception as error:  # torch and pickle raise many types of errors for damaged files
        raise ValueError(first_line(error)) from error
    if made_with != micro_batches:
        raise ValueError(f"it was written with {made_with} micro-batches")
    return state


def pack_weights(cell: Cell, model: nn.Module, classes: Sequence[str], inputs: ImageFormat) -> bytes:
    """Returns a trained network's weights and metadata as the content of the cell's file."""
    from ablations.training.weights import KeptNetwork

    variant = cell.variant
    kept = KeptNetwork(variant.network, variant.name, cell.replicate, tuple(classes), inputs, model.state_dict())
    return kept.to_bytes()
