from __future__ import annotations

import pytest
import torch

from ablations.common.device_faults import is_assertion, is_device_fault, lost_device
from ablations.common.wording import first_line
from tests.builders.faults import ASSERTION, HINTS, ILLEGAL_ACCESS


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError(ILLEGAL_ACCESS),
        torch.AcceleratorError(ASSERTION),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: misaligned address"),
        RuntimeError("CUDA error: context is destroyed"),
        RuntimeError("CUDA error: the launch timed out and was terminated"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    ],
    ids=first_line,
)
def test_errors_after_which_the_context_is_lost_are_known(error: Exception) -> None:
    assert is_device_fault(error)
    assert is_assertion(error) == (str(error) == ASSERTION)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.AcceleratorError(f"CUDA error: invalid argument{HINTS}"),
        RuntimeError("CUDA error: no kernel image is available for execution on the device"),
        RuntimeError("misaligned address"),
        ValueError(ILLEGAL_ACCESS),
    ],
    ids=first_line,
)
def test_other_errors_leave_the_context_as_it_was(error: Exception) -> None:
    assert not is_device_fault(error)
    assert not is_assertion(error)


def test_a_device_is_lost_when_waiting_for_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lost_device() is None  # CUDA was not used
    fault = torch.AcceleratorError(ILLEGAL_ACCESS)

    def fail() -> None:
        raise fault

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert lost_device() is None
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    assert lost_device() is fault


@pytest.mark.cuda
def test_a_gpu_that_was_used_is_not_lost() -> None:
    assert torch.ones(3, device="cuda").sum().item() == 3
    assert lost_device() is None
