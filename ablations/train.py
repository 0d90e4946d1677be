"""One cell in, one result out. Knows nothing of Optuna, MLflow or files.

The recipe is that of small-network benchmarks: SGD with Nesterov momentum, a one-cycle or cosine schedule, label
smoothing, and no weight decay on norms, biases and gates. What is reported is the last epoch, never the best: picking
the best by test accuracy would be choosing with the test set.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from ablations.config import TrainConfig
from ablations.data.device import DeviceImages
from ablations.measure import parameter_count, peak_memory
from sa_core import create_model

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
    """What a cell came to: accuracy of its last epoch, and what training it took.

    `top1` is in percent, `train_images_per_second` and `test_images_per_second` are medians over the epochs (the
    first, which warms up, is left out where there are others), `peak_memory_mib` is that of one training step,
    `seconds` is the whole cell.
    """

    top1: float
    test_loss: float
    parameters: int
    train_images_per_second: float
    test_images_per_second: float
    peak_memory_mib: float
    seconds: float
    epochs: tuple[Epoch, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, as JSON keeps them."""
        return asdict(self)


class DivergedError(RuntimeError):
    """The loss is no number any more."""


class Watcher(Protocol):
    """Who is told how a cell gets on; may end it by raising."""

    def on_step(self, done: int, total: int) -> None:
        """Hears of each training step."""

    def on_epoch(self, epoch: Epoch) -> None:
        """Hears of each epoch."""


def train(network: dict[str, Any], recipe: TrainConfig, images: DeviceImages, seed: int, watcher: Watcher) -> Result:
    """Trains a network and returns its result; on the CPU equal arguments give equal accuracies, bit for bit.

    Args:
        network: `{"model": {"name": ..., "stem": ...}, "attention": {"name": ..., **knobs}}`.
        recipe: with precision and memory format resolved.
        images: on the device to train on.
        seed: of initial weights, order and augmentation; the same for all variants of a replicate.
        watcher: is told of steps and epochs.

    Raises:
        DivergedError: when the loss is no finite number at the end of an epoch.
    """
    started = time.perf_counter()
    _be_deterministic()
    device = images.device
    model = build_network(network, len(images.classes), seed).to(device).to(memory_format=_layout(recipe))
    learner = _compiled(model, recipe)
    optimizer = _optimizer(model, recipe)
    count = images.train_images(recipe.batch_size)
    steps = count // recipe.batch_size
    shares = partial(learning_rate_share, recipe.schedule, recipe.warmup, steps=steps * recipe.epochs)
    scheduler = LambdaLR(optimizer, lambda step: shares(step=step))
    epochs: list[Epoch] = []
    test_seconds: list[float] = []
    for number in range(recipe.epochs):
        rate = float(scheduler.get_last_lr()[0])
        begun = time.perf_counter()
        model.train()
        total = torch.zeros((), device=device)
        for step, batch in enumerate(images.train_batches(recipe.batch_size, seed, number)):
            total += _training_step(learner, optimizer, recipe, *batch)
            scheduler.step()
            watcher.on_step(number * steps + step + 1, recipe.epochs * steps)
        train_loss = total.item() / steps  # waits for the device
        trained = time.perf_counter()
        test_loss, top1 = evaluate(model, recipe, images)
        test_seconds.append(time.perf_counter() - trained)
        if not math.isfinite(train_loss) or not math.isfinite(test_loss):
            raise DivergedError(f"the loss is {train_loss} in training and {test_loss} in testing at epoch {number}")
        epochs.append(Epoch(number, train_loss, test_loss, top1, rate, trained - begun, time.time()))
        watcher.on_epoch(epochs[-1])

    model.train()
    sample = next(images.train_batches(recipe.batch_size, seed, 0))

    def one_more_step() -> None:
        _training_step(learner, optimizer, recipe, *sample)

    state = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
    return Result(
        top1=epochs[-1].top1,
        test_loss=epochs[-1].test_loss,
        parameters=parameter_count(model),
        train_images_per_second=count / _typical([epoch.seconds for epoch in epochs]),
        test_images_per_second=images.test_images / _typical(test_seconds),
        peak_memory_mib=peak_memory(one_more_step, [*model.parameters(), *model.buffers(), *state], device),
        seconds=time.perf_counter() - started,
        epochs=tuple(epochs),
    )


def build_network(network: dict[str, Any], num_classes: int, seed: int) -> nn.Module:
    """Builds the network that a variant describes."""
    attention = {("attention" if key == "name" else key): value for key, value in network["attention"].items()}
    return create_model(**network["model"], **attention, num_classes=num_classes, seed=seed)


def _compiled(model: nn.Module, recipe: TrainConfig) -> nn.Module:
    """Returns the network as it is trained; evaluation, whose last batch has a shape of its own, stays eager."""
    if recipe.compile == "none":
        return model
    torch.compiler.reset()  # after a few networks dynamo would give up and silently run what follows eagerly
    return cast(nn.Module, torch.compile(model, mode=recipe.compile, dynamic=False))


def decayed_weights(model: nn.Module) -> list[Tensor]:
    """Returns the parameters that weight decay acts on: weights of convolutions and linear layers."""
    return [module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d))]


def _optimizer(model: nn.Module, recipe: TrainConfig) -> torch.optim.SGD:
    decayed = decayed_weights(model)
    chosen = {id(parameter) for parameter in decayed}
    free = [parameter for parameter in model.parameters() if id(parameter) not in chosen and parameter.requires_grad]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True, fused=True)


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


def _training_step(
    model: nn.Module, optimizer: torch.optim.SGD, recipe: TrainConfig, pixels: Tensor, labels: Tensor
) -> Tensor:
    """Takes one step and returns its loss, still on the device."""
    logits = _forward(model, recipe, pixels)
    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def evaluate(model: nn.Module, recipe: TrainConfig, images: DeviceImages) -> tuple[float, float]:
    """Returns the mean cross-entropy (without label smoothing) and the top-1 accuracy in percent on the test images."""
    model.eval()
    loss, correct = torch.zeros(2, device=images.device, dtype=torch.float64)
    batch_size = max(recipe.batch_size, _EVALUATION_PIXELS // images.augmentation.side**2)
    with torch.inference_mode():
        for pixels, labels in images.test_batches(batch_size):
            logits = _forward(model, recipe, pixels)
            if recipe.test_flip:
                logits = (logits + _forward(model, recipe, pixels.flip(3))) / 2
            loss += F.cross_entropy(logits, labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
    return loss.item() / images.test_images, 100 * correct.item() / images.test_images


def _forward(model: nn.Module, recipe: TrainConfig, pixels: Tensor) -> Tensor:
    pixels = pixels.contiguous(memory_format=_layout(recipe))
    with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bf16"):
        logits: Tensor = model(pixels)
    return logits.float()


def _layout(recipe: TrainConfig) -> torch.memory_format:
    return torch.channels_last if recipe.memory_format == "channels_last" else torch.contiguous_format


def _typical(seconds: list[float]) -> float:
    return statistics.median(seconds[1:] or seconds)


def _be_deterministic() -> None:
    # cuBLAS reads the variable when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Otherwise every new tensor is written once for nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
