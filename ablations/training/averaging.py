"""An exponential moving average (EMA) of a network's weights; with `train.ema`, the averaged network is evaluated.

torch's `AveragedModel` copies its counter to the CPU in every step, which synchronizes with the GPU, and its averaging
functions take the decay as a Python number, which a CUDA graph treats as a constant. This class keeps both on the
device.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class AveragedNetwork:
    """A copy of a network whose weights are an exponential moving average of the network's.

    Running statistics of batch norms are averaged like weights, as in timm's ModelEmaV3; values of integer types are
    copied. After t steps the decay is min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage and
    timm's warm-up: with a constant decay of 0.999, the random initial weights would still be two thirds of the average
    after 400 steps.

    Args:
        model: the network, on its device; the average is initialized with its weights.
        decay: upper bound of the decay, between 0 and 1.

    Attributes:
        model: the averaged network; its parameters require no gradient.
        steps: number of updates, int64 of shape (), on the device.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.steps = torch.zeros((), dtype=torch.int64, device=next(model.parameters()).device)
        averaged, current = _values(self.model), _values(model)
        pairs = [*zip(averaged, current, strict=True)]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._averaged = [(average, value.detach()) for average, value in pairs if average.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average with the network's weights; call it after each training step."""
        self.steps += 1
        steps = self.steps.double()
        weight = 1 - ((1 + steps) / (10 + steps)).clamp(max=self.decay)
        by_type = {dtype: weight.to(dtype) for dtype in {average.dtype for average, _ in self._averaged}}
        for average, value in self._averaged:
            average.lerp_(value, by_type[average.dtype])
        for average, value in self._copied:
            average.copy_(value)


def _values(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
