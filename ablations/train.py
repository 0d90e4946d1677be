"""One cell in, one result out. Knows nothing of Optuna, MLflow or files.

The schedule is one-cycle or cosine; what a step is, `ablations.learner` says. What is reported is the last epoch,
never the best: picking the best by test accuracy would be choosing with the test set.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from ablations.config import TrainConfig
from ablations.cost import SHARE, Cost, measure_cost
from ablations.data.device import DeviceImages
from ablations.learner import Learner, forward
from ablations.measure.memory import parameter_count

_EVALUATION_PIXELS = 512 * 32 * 32  # of a batch of test images, unless training has more in one


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch.

    `top1` is in percent, `learning_rate` is that of the epoch's first step, `seconds` are those of training alone, and
    `finished` is Unix time.
    """

    epoch: int
    train_loss: float
    test_loss: float
    top1: float
    learning_rate: float
    seconds: float
    finished: float


@dataclass(frozen=True)
class Result:
    """What a cell came to: accuracy of its last epoch, what its network costs, and how long all of it took.

    `top1` is in percent, `seconds` is the whole cell; `attention_by` says by what shuffle attention was computed, as
    `Learner.attention_by` does.
    """

    top1: float
    test_loss: float
    cost: Cost
    seconds: float
    epochs: tuple[Epoch, ...]
    attention_by: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, as JSON keeps them, with the costs among them."""
        result = asdict(self)
        costs: dict[str, Any] = result.pop("cost")
        return result | costs


class DivergedError(RuntimeError):
    """The loss is no number any more."""


class Watcher(Protocol):
    """Who is told how a cell gets on; may end it by raising."""

    def on_step(self, done: int, total: int) -> None:
        """Hears of each training step."""

    def on_epoch(self, epoch: Epoch) -> None:
        """Hears of each epoch."""

    def on_trained(self, model: nn.Module) -> None:
        """Gets the network once it is trained, before its cost is measured, which trains it further."""


def train(
    network: dict[str, Any],
    recipe: TrainConfig,
    images: DeviceImages,
    seed: int,
    watcher: Watcher,
    measure: str = "quick",
) -> Result:
    """Trains a network and returns its result; on the CPU equal arguments give equal accuracies, bit for bit.

    Args:
        network: `{"model": {"name": ..., "stem": ...}, "attention": {"name": ..., **knobs}}`.
        recipe: with precision and memory format resolved.
        images: on the device to train on.
        seed: of initial weights, order and augmentation; the same for all variants of a replicate.
        watcher: is told of steps and epochs.
        measure: `quick` measures what the network costs, within a tenth of the time that the cell took so far, `needed`
            does so however long it takes, `off` does not.

    Raises:
        DivergedError: when the loss is no finite number at the end of an epoch.
    """
    started = time.perf_counter()
    learner = Learner(network, recipe, len(images.classes), seed, images.device)
    steps = images.train_images(recipe.batch_size) // recipe.batch_size
    shares = partial(learning_rate_share, recipe.schedule, recipe.warmup, steps=steps * recipe.epochs)
    scheduler = LambdaLR(learner.optimizer, lambda step: shares(step=step))
    epochs: list[Epoch] = []
    for number in range(recipe.epochs):
        rate = float(scheduler.get_last_lr()[0])
        begun = time.perf_counter()
        learner.model.train()
        total = torch.zeros((), device=images.device)
        for step, batch in enumerate(images.train_batches(recipe.batch_size, seed, number)):
            total += learner.step(*batch)
            scheduler.step()
            watcher.on_step(number * steps + step + 1, recipe.epochs * steps)
        train_loss = total.item() / steps  # waits for the device
        seconds = time.perf_counter() - begun
        test_loss, top1 = evaluate(learner.model, recipe, images)
        if not math.isfinite(train_loss) or not math.isfinite(test_loss):
            raise DivergedError(f"the loss is {train_loss} in training and {test_loss} in testing at epoch {number}")
        epochs.append(Epoch(number, train_loss, test_loss, top1, rate, seconds, time.time()))
        watcher.on_epoch(epochs[-1])
    watcher.on_trained(learner.model)

    if measure == "off":
        cost = Cost(parameter_count(learner.model))
    else:
        sample = next(images.train_batches(recipe.batch_size, seed, 0))
        allowed = SHARE * (time.perf_counter() - started)
        cost = measure_cost(learner, network, sample, allowed, seconds / steps, needed=measure == "needed")
    return Result(
        epochs[-1].top1,
        epochs[-1].test_loss,
        cost,
        time.perf_counter() - started,
        tuple(epochs),
        learner.attention_by,
    )


def learning_rate_share(schedule: str, warmup: float, step: int, steps: int) -> float:
    """Returns the share of the greatest learning rate that a step is taken with.

    `cosine` falls from 1 to 0 over the steps. `onecycle` first rises from 1/25 to 1 over the `warmup` share of the
    steps, then falls likewise (Smith and Topin 2018, with the cosine arcs of torch's OneCycleLR, which divides by zero
    where the rise is one step long).
    """
    rise = min(round(warmup * steps), steps - 1) if schedule == "onecycle" else 0
    if step < rise:
        return 1 - (1 - 1 / 25) * _cosine_fall(step / rise)
    return _cosine_fall((step - rise) / (steps - rise))


def _cosine_fall(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2


def test_batch_size(recipe: TrainConfig, images: DeviceImages) -> int:
    """Returns how many test images are looked at together."""
    return max(recipe.batch_size, _EVALUATION_PIXELS // images.augmentation.side**2)


def evaluate(model: nn.Module, recipe: TrainConfig, images: DeviceImages) -> tuple[float, float]:
    """Returns the mean cross-entropy (without label smoothing) and the top-1 accuracy in percent on the test images."""
    model.eval()
    loss, correct = torch.zeros(2, device=images.device, dtype=torch.float64)
    with torch.inference_mode():
        for pixels, labels in images.test_batches(test_batch_size(recipe, images)):
            logits = forward(model, recipe, pixels)
            if recipe.test_flip:
                logits = (logits + forward(model, recipe, pixels.flip(3))) / 2
            loss += F.cross_entropy(logits, labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
    return loss.item() / images.test_images, 100 * correct.item() / images.test_images
