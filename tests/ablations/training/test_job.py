from __future__ import annotations

import io
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch

from ablations.common.wording import last_line
from ablations.config import TrainConfig
from ablations.config.compose import compose_config
from ablations.data import load_images
from ablations.data.device import DeviceImages, on_device
from ablations.design import make_design
from ablations.training.events import (
    DIVERGED,
    ERROR,
    LOST,
    OUT_OF_MEMORY,
    TIME_LIMIT,
    Epoch,
    Failed,
    Finished,
    Learnt,
    Note,
    Predicted,
    Progress,
    Saved,
    Step,
)
from ablations.training.job import Job, failure_of, kind_of, pack, work
from tests.builders.faults import ASSERTION, ILLEGAL_ACCESS, raise_fault
from tests.conftest import DIVERGING, TINY
from tests.wording import worded

CONFIG = compose_config([*TINY, "device=cpu", "train.epochs=3"])
DESIGN = make_design(CONFIG)
CELL = next(DESIGN.cells())
JOB = Job(CELL, TrainConfig(**DESIGN.protocol["train"]), checkpoint_every=0.0)


@pytest.fixture(scope="module")
def images() -> DeviceImages:
    return on_device(load_images(CONFIG.data), CONFIG.data, "cpu")


def progress_of(job: Job, images: DeviceImages) -> list[Progress]:
    return list(work(job, images))


def digits(event: Progress) -> list[tuple[float, ...]]:
    assert isinstance(event, Finished)
    return [tuple(epoch[key] for key in ("train_loss", "test_loss", "top1")) for epoch in event.result["epochs"]]


def test_a_job_yields_steps_epochs_checkpoints_and_a_result_as_plain_data(images: DeviceImages) -> None:
    events = progress_of(replace(JOB, keeps_weights=True, keeps_predictions=True), images)
    kinds = [type(event) for event in events]
    epoch = [Step, Step, Step, Epoch]
    assert kinds == [*epoch, Saved, *epoch, Saved, *epoch, Learnt, Predicted, Finished]
    assert isinstance(events[-1], Finished)
    assert events[-1].environment["threads"] == "1"
    assert torch.get_num_threads() == 1
    for event in events:
        assert pickle.loads(pickle.dumps(event)) == event  # as it is sent between processes
    assert pickle.loads(pickle.dumps(JOB)) == JOB


def test_a_job_resumes_from_its_checkpoint(images: DeviceImages) -> None:
    whole = progress_of(JOB, images)
    saved = [event.content for event in whole if isinstance(event, Saved)]
    for number, content in enumerate(saved, 1):
        events = progress_of(replace(JOB, checkpoint=content), images)
        assert digits(events[-1]) == digits(whole[-1])
        assert sum(isinstance(event, Step) for event in events) == 3 * (3 - number)
        assert [event.epoch for event in events if isinstance(event, Epoch)] == [0, 1, 2]


@pytest.mark.parametrize("damage", ["empty", "cut off", "text", "other", "other micro-batches"])
def test_a_job_with_an_invalid_checkpoint_restarts_with_a_note(images: DeviceImages, damage: str) -> None:
    whole = progress_of(JOB, images)
    saved = next(event.content for event in whole if isinstance(event, Saved))
    content = {"empty": b"", "cut off": saved[:-50], "text": b"no checkpoint", "other": saved}.get(damage, saved)
    job = replace(JOB, checkpoint=content)
    if damage == "other":
        other = next(cell for cell in DESIGN.cells() if cell.variant.name == "groups=4")
        failed = progress_of(replace(job, cell=other), images)[-1]
        assert isinstance(failed, Failed)  # without any step, so that the driver removes the checkpoint
        assert "Error(s) in loading state_dict" in failed.reason
        return
    if damage == "other micro-batches":
        job, whole = replace(job, micro_batches=2), progress_of(replace(JOB, micro_batches=2), images)
    events = progress_of(job, images)
    assert isinstance(events[0], Note)
    assert events[0].text.startswith(worded("train.anew", cell="none r0"))
    assert digits(events[-1]) == digits(whole[-1])


def test_the_time_limit_includes_the_time_before_the_checkpoint(images: DeviceImages) -> None:
    saved = next(event.content for event in progress_of(JOB, images) if isinstance(event, Saved))
    state = torch.load(io.BytesIO(saved), weights_only=True)
    old = pack(state | {"seconds": 1e6})
    events = progress_of(replace(JOB, checkpoint=old, seconds=1e5), images)
    assert events[-1] == Failed(TIME_LIMIT, worded("train.too_long", seconds=100000))
    assert not any(isinstance(event, Finished) for event in events)
    assert isinstance(progress_of(replace(JOB, checkpoint=old, seconds=1e7), images)[-1], Finished)


def test_divergence_and_errors_are_distinguished(images: DeviceImages) -> None:
    recipe = make_design(compose_config([*TINY, "device=cpu", *DIVERGING])).protocol["train"]
    diverged = progress_of(replace(JOB, recipe=TrainConfig(**recipe)), images)[-1]
    assert isinstance(diverged, Failed)
    assert diverged.kind == DIVERGED
    assert diverged.reason == worded("train.diverged", loss="nan", where="training, in epoch 1")
    broken: Any = "much"
    failed = progress_of(replace(JOB, recipe=replace(JOB.recipe, momentum=broken)), images)[-1]
    assert isinstance(failed, Failed)
    assert failed.kind == ERROR
    assert failed.reason.startswith("Traceback")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), ERROR),
        (RuntimeError("shape mismatch"), ERROR),
        (ValueError("no"), ERROR),
    ],
)  # fmt: skip
def test_out_of_memory_errors_of_torch_and_the_system_are_recognized(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


@pytest.mark.parametrize(("text", "kind"), [(ILLEGAL_ACCESS, LOST), (ASSERTION, ERROR)])
def test_a_device_fault_has_its_own_kind_and_ends_the_process(text: str, kind: str) -> None:
    try:
        raise_fault(text)
    except torch.AcceleratorError as error:
        failed = failure_of(error)
    assert (failed.kind, failed.ends_process) == (kind, True)
    assert failed.reason.startswith("Traceback")
    assert last_line(failed.reason) == worded("train.lost_gpu", error=text.splitlines()[0])


def test_any_error_after_the_loss_of_the_gpu_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", raise_fault)
    try:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
    except RuntimeError as error:
        failed = failure_of(error)
    assert (failed.kind, failed.ends_process) == (LOST, True)
    monkeypatch.undo()
    try:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
    except RuntimeError as error:
        failed = failure_of(error)
    assert (failed.kind, failed.ends_process) == (ERROR, False)
