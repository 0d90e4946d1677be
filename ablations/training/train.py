"""Trains a single cell and yields its events; independent of Optuna, MLflow and files.

`training.step` defines the training step, and `training.graphs` executes it. The result is that of the last epoch,
never of the best one: choosing an epoch by test accuracy would be model selection on the test set.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from ablations.config import TrainConfig
from ablations.data.device import DeviceImages
from ablations.measure.memory import parameter_count
from ablations.training.compiled_code import discard_code
from ablations.training.evaluation import Evaluation, evaluate, sample_size
from ablations.training.events import Epoch, Step
from ablations.training.graphs import training_steps
from ablations.training.isolation import isolated
from ablations.training.learner import Learner
from ablations.training.predictions import Predictions
from ablations.training.schedule import learning_rates
from sa_core.seeds import stream_seed

_CHECKED_EVERY = 50  # steps between checks for a NaN or infinite loss


@dataclass(frozen=True)
class Result:
    """The result of a cell: accuracy after its last epoch, and its duration.

    `top1`, `top5` (None for at most five classes) and `ece` are in percent, on all test images; `seconds` is the
    duration of the whole cell; `attention_by` and `execution` are those of `Learner` and `StepRunner`.
    """

    top1: float
    test_loss: float
    parameters: int
    seconds: float
    epochs: tuple[Epoch, ...]
    attention_by: str = ""
    top5: float | None = None
    ece: float | None = None
    execution: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values that JSON can store."""
        return asdict(self)


@dataclass(frozen=True)
class Checkpoint:
    """The state from which training can resume after an epoch; its tensors change as training continues."""

    state: dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """The network is trained and tested on all test images."""

    model: nn.Module
    predictions: Predictions


Event = Step | Epoch | Checkpoint | Trained | Result


class DivergedError(RuntimeError):
    """The loss is NaN or infinite."""


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
    """Trains a network and yields events, the last of which is its result.

    On the CPU, equal arguments and an equal number of threads give bitwise equal accuracies, whether or not training
    was resumed from a checkpoint, and whatever else this process trains between two events. Closing the iterator stops
    the training.

    Args:
        network, recipe, micro_batches: as for `Learner`.
        images: the data set, on the device of the training.
        seed: the seed of initial weights, data order and augmentation; the same for all variants of a replicate.
        checkpoint: state of a `Checkpoint` of a training with the same arguments, to resume from.
        checkpoint_every: minimum number of seconds between checkpoints, which are made at the end of an epoch.
        is_tested_once: whether the network is tested only after the last epoch.

    Raises:
        DivergedError: if the loss becomes NaN or infinite.
        RuntimeError: if `checkpoint` is of another network, or steps cannot be captured and `recipe.graphs` is `on`.
    """
    events = _train(network, recipe, images, seed, micro_batches, checkpoint, checkpoint_every, is_tested_once)
    return isolated(events, images.device)


def _train(
    network: dict[str, Any],
    recipe: TrainConfig,
    images: DeviceImages,
    seed: int,
    micro_batches: int,
    checkpoint: Mapping[str, Any] | None,
    checkpoint_every: float,
    is_tested_once: bool,
) -> Generator[Event, None, None]:
    started = time.perf_counter()
    if recipe.compile != "none":
        discard_code(network, recipe)
    learner = Learner(network, recipe, len(images.classes), seed, images.device, micro_batches=micro_batches)
    torch.manual_seed(stream_seed(seed, "network"))  # for random layers such as dropout
    steps = images.train_images(recipe.batch_size) // recipe.batch_size
    rates = learning_rates(recipe, steps * recipe.epochs)
    epochs: list[Epoch] = []
    if checkpoint is not None:
        epochs, spent = _restore(learner, checkpoint)
        started -= spent
        yield from epochs
    step, take_step = training_steps(learner, recipe, images, rates, seed)
    kept = time.perf_counter()
    for number in range(len(epochs), recipe.epochs):
        before = number * steps
        begun = time.perf_counter()
        step.begin(number, before)
        for done in range(1, steps + 1):
            step.advance()
            take_step()
            if done % _CHECKED_EVERY == 0:  # not in every step, as it synchronizes with the device
                _check_finite(step.loss.item(), f"training, by step {done} of epoch {number + 1}")
            yield Step(before + done, recipe.epochs * steps)
        train_loss = step.loss.item() / steps  # synchronizes with the device
        seconds = time.perf_counter() - begun
        _check_finite(train_loss, f"training, in epoch {number + 1}")
        epoch = Epoch(number, train_loss, None, None, rates[before], seconds, time.time())
        if number + 1 == recipe.epochs or not is_tested_once:
            tested = _test(learner, images, number)
            found = tested.predictions
            epoch = replace(epoch, test_loss=tested.loss, top1=found.top1, test_images=len(found), finished=time.time())
        epochs.append(epoch)
        yield epoch
        if len(epochs) < recipe.epochs and time.perf_counter() - kept >= checkpoint_every:
            yield Checkpoint(_state(learner, epochs, time.perf_counter() - started))
            kept = time.perf_counter()
    yield Trained(learner.evaluated, found)
    spent, parameters, by = time.perf_counter() - started, parameter_count(learner.model), learner.attention_by
    result = Result(found.top1, tested.loss, parameters, spent, tuple(epochs), by, found.top5, found.ece)
    yield replace(result, execution=take_step.execution)


def _test(learner: Learner, images: DeviceImages, epoch: int) -> Evaluation:
    """Tests a network after an epoch: on all test images after the last epoch, on a sample after earlier ones."""
    recipe = learner.recipe
    is_last = epoch + 1 == recipe.epochs
    tested = evaluate(learner.evaluated, recipe, images, None if is_last else sample_size(images.test_images))
    _check_finite(tested.loss, f"testing, after epoch {epoch + 1}")
    return tested


def _check_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss} in {where}")


def _state(learner: Learner, epochs: Sequence[Epoch], seconds: float) -> dict[str, Any]:
    on_device = [torch.cuda.get_rng_state(learner.device)] if learner.device.type == "cuda" else []
    average = learner.average
    return {
        "model": learner.model.state_dict(),
        "average": None if average is None else {"model": average.model.state_dict(), "steps": int(average.steps)},
        "optimizer": learner.optimizer.state_dict(),
        "random": [torch.get_rng_state(), *on_device],
        "epochs": [asdict(epoch) for epoch in epochs],
        "seconds": seconds,
        "micro_batches": learner.micro_batches,
    }


def _restore(learner: Learner, state: Mapping[str, Any]) -> tuple[list[Epoch], float]:
    """Restores a learner from a checkpoint; returns the completed epochs and the elapsed seconds."""
    learner.model.load_state_dict(state["model"])
    learner.load_optimizer(state["optimizer"])
    if learner.average is not None:
        learner.average.model.load_state_dict(state["average"]["model"])
        learner.average.steps.fill_(state["average"]["steps"])
    torch.set_rng_state(state["random"][0])
    if learner.device.type == "cuda" and len(state["random"]) > 1:
        torch.cuda.set_rng_state(state["random"][1], learner.device)
    return [Epoch(**epoch) for epoch in state["epochs"]], float(state["seconds"])
