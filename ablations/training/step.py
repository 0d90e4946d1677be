"""A whole training step on tensors with fixed addresses: batch, mixing, forward, loss, backward, optimizer, schedule.

The same function serves for eager execution and for the capture as a CUDA graph (`ablations.training.graphs`).
Therefore it does not depend on CPU values that change between steps: counters, learning rate and loss are tensors on
the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ablations.data.feeds import Feed
from ablations.training.learner import Learner
from ablations.training.mixing import Mixing


class TrainingStep:
    """The training step of a cell; call it once per step.

    Args:
        learner: the network and its optimizer.
        feed: the batches, on the learner's device.
        mixing: mixes the batches.
        rates: the learning rate of each step of the training.
        seed: the seed of the mixing parameters.

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
        """Prepares an epoch; `steps` is the number of steps before it."""
        self._feed.begin(epoch)
        self._mixing.begin(self._seed, epoch)
        self._position.zero_()
        self._done.fill_(steps)
        self.loss.zero_()
        self._learner.model.train()

    def advance(self) -> None:
        """Fetches the data of the next step that are not on the device yet; call it before each step."""
        self._feed.advance()

    def __call__(self) -> None:
        """Runs the next step."""
        pixels, labels = self._mixing.apply(*self._feed.batch(self._position), self._position)
        self._learner.rate.copy_(self._rates.index_select(0, self._done)[0])
        self.loss += self._learner.step(pixels, labels)
        self._position += 1
        self._done += 1
