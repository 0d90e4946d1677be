"""An exponential moving average of a network's weights, which is what is evaluated where `train.ema` is on.

torch's `AveragedModel` reads its counter from the device in every step, which makes a GPU wait, and its averaging
functions take the decay as a number, which a CUDA graph would repeat. Here counter and decay stay on the device.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class AveragedNetwork:
    """A copy of a network whose weights are an exponential moving average of the network's.

    Running statistics of batch norms are averaged like weights, as in timm's ModelEmaV3; what is not a floating-point
    number is copied. After t steps the decay is min(decay, (1 + t) / (10 + t)), as in TensorFlow's
    ExponentialMovingAverage and timm's warm-up: at 0.999 alone, two thirds of the average after 400 steps would be the
    random initial weights.

    Args:
        model: on its device; the copy starts with its weights.
        decay: share of the average that a step leaves, above 0 and below 1.

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
        self._averaged = [(mine, theirs.detach()) for mine, theirs in pairs if mine.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's weights into the average; to be called after each training step."""
        self.steps += 1
        steps = self.steps.double()
        weight = 1 - ((1 + steps) / (10 + steps)).clamp(max=self.decay)
        by_type = {dtype: weight.to(dtype) for dtype in {mine.dtype for mine, _ in self._averaged}}
        for mine, theirs in self._averaged:
            mine.lerp_(theirs, by_type[mine.dtype])
        for mine, theirs in self._copied:
            mine.copy_(theirs)


def _values(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
