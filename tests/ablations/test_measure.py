from __future__ import annotations

import pytest
import torch

from ablations.measure import MIB, parameter_count, peak_memory
from sa_core import create_model

CPU = torch.device("cpu")


def test_the_peak_is_the_most_that_is_held_at_one_time() -> None:
    def step() -> None:
        first = torch.ones(MIB)  # 4 MiB
        second = first + 1  # 8 MiB
        del first
        third = second * 2  # 8 MiB again
        del second, third

    assert peak_memory(step, [], CPU) == pytest.approx(8, abs=0.001)


def test_what_persists_is_added() -> None:
    assert peak_memory(lambda: None, [torch.zeros(MIB), torch.zeros(MIB, dtype=torch.bool)], CPU) == 5


def test_what_autograd_saves_counts() -> None:
    x = torch.zeros(MIB, requires_grad=True)

    def step(operations: int) -> None:
        y = x
        for _ in range(operations):
            y = torch.sigmoid(y)  # saves its output, 4 MiB
        y.sum().backward()
        x.grad = None

    assert peak_memory(lambda: step(5), [x], CPU) - peak_memory(lambda: step(3), [x], CPU) == pytest.approx(
        8, abs=0.001
    )


def test_parameters_are_counted_one_by_one() -> None:
    plain, attended = create_model("resnet8"), create_model("resnet8", attention="sa", groups=8)
    assert parameter_count(attended) - parameter_count(plain) == sum(6 * channels // 16 for channels in (16, 32, 64))
