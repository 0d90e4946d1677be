"""Training steps on torch's meta device, which has shapes, types and devices, but no values and no memory.

What a GPU would do is seen there on a machine without one: operations that mix devices, and such as wait for the device
to read a value, which the meta device does not have. It lacks autocast and fused optimizers, which are replaced.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablations.config import TrainConfig
from ablations.training import learner

META = torch.device("meta")


class NotOnDeviceError(AssertionError):
    """An operation of a step uses something of the CPU."""


class Watch(TorchDispatchMode):
    """Raises for operations that use a tensor or a random number generator of the CPU, and counts the others.

    Attributes:
        operations: how many were seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        before = tree_leaves((args, kwargs))
        _check(func, before)
        result = func(*args, **(kwargs or {}))
        _check(func, tree_leaves(result))
        return result


def _check(func: Any, values: list[Any]) -> None:
    for value in values:
        if isinstance(value, (Tensor, torch.Generator)) and value.device.type != META.type:
            raise NotOnDeviceError(f"{func} uses a {type(value).__name__} on {value.device}")


class GradientDescent(torch.optim.Optimizer):
    """An optimizer whose learning rate is a tensor on the device of the parameters."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(parameter.grad * group["lr"])


def allow_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `Learner` do without what the meta device lacks."""

    def optimizer(model: nn.Module, recipe: TrainConfig) -> torch.optim.Optimizer:
        return GradientDescent(model.parameters(), {"lr": recipe.learning_rate})

    monkeypatch.setattr(learner, "autocast", lambda *_: nullcontext())
    monkeypatch.setattr(learner, "make_optimizer", optimizer)
