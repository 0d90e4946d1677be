"""An exponential moving average of a network's weights, which is what is evaluated where `train.ema` is on.

torch's `AveragedModel` reads its counter from the device in every step, which makes a GPU wait; its averaging function
is what is used here.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


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
        steps: how often it was updated.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        averaged, current = _values(self.model), _values(model)
        pairs = [*zip(averaged, current, strict=True)]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._averaged = [mine for mine, _ in pairs if mine.is_floating_point()]
        self._current = [theirs.detach() for _, theirs in pairs if theirs.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's weights into the average; to be called after each training step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(self._averaged, self._current, self.steps)
        for mine, theirs in self._copied:
            mine.copy_(theirs)


def _values(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
