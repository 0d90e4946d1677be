from __future__ import annotations

import pytest
import torch

from ablations.measure.capture import captured


@pytest.mark.cuda
def test_a_replay_repeats_the_call_on_the_same_tensors() -> None:
    total, step = torch.zeros(8, device="cuda"), torch.ones(8, device="cuda")
    replay = captured(lambda: total.add_(step), warm_ups=2)
    assert total.tolist() == [2.0] * 8  # the captured call is not run
    step.fill_(10)
    replay()
    replay()
    assert total.tolist() == [22.0] * 8


@pytest.mark.cuda
def test_a_call_that_synchronizes_cannot_be_captured() -> None:
    with pytest.raises(RuntimeError):
        captured(lambda: torch.ones(8, device="cuda").sum().item())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_gpu_a_capture_raises() -> None:
    with pytest.raises(RuntimeError, match="CUDA device"):
        captured(lambda: None)
