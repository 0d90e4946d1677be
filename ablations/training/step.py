"""A whole training step over tensors of fixed address: batch, mixing, forward, loss, backward, optimizer, schedule.

The step is written once. Called, it is computed operation by operation; `ablations.training.graphs` captures the same
function in a CUDA graph. Therefore it uses no value of the CPU that changes from step to step: counters, learning rate
and loss are tensors on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ablations.data.feeds import Feed
from ablations.training.learner import Learner
from ablations.training.mixing import Mixing


class TrainingStep:
    """The steps of a training.

    Args:
        learner: takes the steps.
        feed: its batches, of the learner's device.
        mixing: of the batches.
        rates: the learning rate of each step of the training.
        seed: of how batches are mixed.

    Attributes:
        loss: sum of the losses of this epoch's steps, of shape (), on the device.
    """

    def __init__(self, learner: Learner, feed: Feed, mixing: Mixing, rates: Sequence[float], seed: int) -> None:
        device = learner.device
        self._learner, self._feed, self._mixing, self._seed = learner, feed, mixing, seed
        self._rates = torch.tensor(rates, dtype=learner.rate.dtype, device=device)
        self._position = torch.zeros((), dtype=torch.int64, device=device)  # within the epoch
        self._done = torch.zeros((1,), dtype=torch.int64, device=device)  # steps of the training
        self.loss = torch.zeros((), device=device)

    def begin(self, epoch: int, steps: int) -> None:
        """Prepares an epoch; `steps` were taken before it."""
        self._feed.begin(epoch)
        self._mixing.begin(self._seed, epoch)
        self._position.zero_()
        self._done.fill_(steps)
        self.loss.zero_()
        self._learner.model.train()

    def advance(self) -> None:
        """Fetches what the next step needs from outside of the device; to be called before each step."""
        self._feed.advance()

    def __call__(self) -> None:
        """Takes the next step."""
        pixels, labels = self._mixing.apply(*self._feed.batch(self._position), self._position)
        self._learner.rate.copy_(self._rates.index_select(0, self._done)[0])
        self.loss += self._learner.step(pixels, labels)
        self._position += 1
        self._done += 1
