"""One cell in, one result out. Knows nothing of Optuna, MLflow or files.

What a step is, `training.learner` says, and how batches are mixed, `training.mixing`. What is reported is the last
epoch, never the best: picking the best by test accuracy would be choosing with the test set.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ablations.config import TrainConfig
from ablations.data.device import DeviceImages
from ablations.measure.memory import parameter_count
from ablations.training.evaluation import evaluate, sample_size
from ablations.training.events import Epoch, Step
from ablations.training.learner import Learner
from ablations.training.mixing import training_batches
from ablations.training.predictions import Predictions
from sa_core.seeds import stream_seed

_LOOKED_AT = 50  # steps after which it is seen whether the loss is still a number


@dataclass(frozen=True)
class Result:
    """What a cell came to: accuracy of its last epoch, and how long all of it took.

    `top1`, `top5` (None of up to five classes) and `ece` are in percent and of all test images, `seconds` is the whole
    cell, `attention_by` is the learner's.
    """

    top1: float
    test_loss: float
    parameters: int
    seconds: float
    epochs: tuple[Epoch, ...]
    attention_by: str = ""
    top5: float | None = None
    ece: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, as JSON keeps them."""
        return asdict(self)


@dataclass(frozen=True)
class Checkpoint:
    """All that training goes on from after an epoch; its tensors are the network's, and change with it."""

    state: dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """The network is trained and tested on all test images."""

    model: nn.Module
    predictions: Predictions


Event = Step | Epoch | Checkpoint | Trained | Result


class DivergedError(RuntimeError):
    """The loss is no number any more."""


def train(
    network: dict[str, Any],
    recipe: TrainConfig,
    images: DeviceImages,
    seed: int,
    *,
    micro_batches: int = 1,
    checkpoint: Mapping[str, Any] | None = None,
    checkpoint_every: float = math.inf,
    is_tested_once: bool = False,
) -> Iterator[Event]:
    """Trains a network and yields what happens, at last its result.

    On the CPU equal arguments, and as many threads, give equal accuracies, bit for bit, whether training was gone on
    with from a checkpoint or not. Whoever stops asking for events stops the training.

    Args:
        network, recipe, micro_batches: as for `Learner`.
        seed: of initial weights, order and augmentation; the same for all variants of a replicate.
        checkpoint: the state of one that the same arguments made, to go on from.
        checkpoint_every: seconds after which an epoch ends with a checkpoint.
        is_tested_once: whether no test image is looked at before the last epoch has ended.

    Raises:
        DivergedError: when the loss is no finite number.
        RuntimeError: if `checkpoint` is of another network.
    """
    started = time.perf_counter()
    if recipe.compile != "none":
        torch.compiler.reset()  # the code of earlier cells is not needed, and would be searched at every call
    learner = Learner(network, recipe, len(images.classes), seed, images.device, micro_batches=micro_batches)
    torch.manual_seed(stream_seed(seed, "network"))  # for what networks draw themselves, as dropout does
    steps = images.train_images(recipe.batch_size) // recipe.batch_size
    shares = partial(learning_rate_share, recipe.schedule, recipe.warmup, steps=steps * recipe.epochs)
    epochs: list[Epoch] = []
    if checkpoint is not None:
        epochs, spent = _restore(learner, checkpoint)
        started -= spent
        yield from epochs
    first = len(epochs)
    scheduler = LambdaLR(learner.optimizer, lambda step: shares(step=first * steps + step))
    kept = time.perf_counter()
    for number in range(first, recipe.epochs):
        rate = float(scheduler.get_last_lr()[0])
        begun = time.perf_counter()
        learner.model.train()
        total = torch.zeros((), device=images.device)
        for step, batch in enumerate(training_batches(images, recipe, seed, number)):
            total += learner.step(*batch)
            scheduler.step()
            if (step + 1) % _LOOKED_AT == 0:  # seldom, as it waits for the device
                _check_finite(total.item(), f"training, by step {step + 1} of epoch {number + 1}")
            yield Step(number * steps + step + 1, recipe.epochs * steps)
        train_loss = total.item() / steps  # waits for the device
        seconds = time.perf_counter() - begun
        _check_finite(train_loss, f"training, in epoch {number + 1}")
        epoch = Epoch(number, train_loss, None, None, rate, seconds, time.time())
        is_last = number + 1 == recipe.epochs
        if is_last or not is_tested_once:
            tested = evaluate(learner.evaluated, recipe, images, None if is_last else sample_size(images.test_images))
            _check_finite(tested.loss, f"testing, after epoch {number + 1}")
            found = tested.predictions
            epoch = replace(epoch, test_loss=tested.loss, top1=found.top1, test_images=len(found), finished=time.time())
        epochs.append(epoch)
        yield epoch
        if len(epochs) < recipe.epochs and time.perf_counter() - kept >= checkpoint_every:
            yield Checkpoint(_state(learner, epochs, time.perf_counter() - started))
            kept = time.perf_counter()
    yield Trained(learner.evaluated, found)

    spent, by = time.perf_counter() - started, learner.attention_by
    parameters = parameter_count(learner.model)
    yield Result(found.top1, tested.loss, parameters, spent, tuple(epochs), by, found.top5, found.ece)


def _check_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss} in {where}")


def _state(learner: Learner, epochs: Sequence[Epoch], seconds: float) -> dict[str, Any]:
    on_device = [torch.cuda.get_rng_state(learner.device)] if learner.device.type == "cuda" else []
    average = learner.average
    return {
        "model": learner.model.state_dict(),
        "average": None if average is None else {"model": average.model.state_dict(), "steps": average.steps},
        "optimizer": learner.optimizer.state_dict(),
        "random": [torch.get_rng_state(), *on_device],
        "epochs": [asdict(epoch) for epoch in epochs],
        "seconds": seconds,
        "micro_batches": learner.micro_batches,
    }


def _restore(learner: Learner, state: Mapping[str, Any]) -> tuple[list[Epoch], float]:
    """Puts a learner where a checkpoint was made; returns its epochs and the seconds that it took up to there."""
    learner.model.load_state_dict(state["model"])
    learner.optimizer.load_state_dict(state["optimizer"])
    if learner.average is not None:
        learner.average.model.load_state_dict(state["average"]["model"])
        learner.average.steps = int(state["average"]["steps"])
    torch.set_rng_state(state["random"][0])
    if learner.device.type == "cuda" and len(state["random"]) > 1:
        torch.cuda.set_rng_state(state["random"][1], learner.device)
    return [Epoch(**epoch) for epoch in state["epochs"]], float(state["seconds"])


def learning_rate_share(schedule: str, warmup: float, step: int, steps: int) -> float:
    """Returns the share of the greatest learning rate that a step is taken with.

    `cosine` falls from 1 to 0 over the steps (Loshchilov and Hutter 2017). The other schedules first rise to 1 over
    the `warmup` share of the steps, and then fall likewise. `warmup_cosine` rises linearly (Goyal et al. 2017), from
    1/(n + 1) where it does so for n steps; `onecycle` rises from 1/25 (Smith and Topin 2018, with the cosine arcs of
    torch's OneCycleLR, which divides by zero where the rise is one step long).
    """
    rise = 0 if schedule == "cosine" else min(round(warmup * steps), steps - 1)
    if step < rise:
        return (step + 1) / (rise + 1) if schedule == "warmup_cosine" else 1 - (1 - 1 / 25) * _cosine_fall(step / rise)
    return _cosine_fall((step - rise) / (steps - rise))


def _cosine_fall(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2
