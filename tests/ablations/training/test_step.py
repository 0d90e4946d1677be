from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.data.feeds import ResidentBatches
from ablations.training.learner import Learner
from ablations.training.mixing import mixing_of
from ablations.training.schedule import learning_rates
from ablations.training.step import TrainingStep
from tests.builders.meta import META, NotOnDeviceError, Watch, allow_meta
from tests.builders.training import SA

SHIFTED = Augmentation(32, 32, crop=1, flip=True, cutout=8)
RECIPE = TrainConfig(epochs=2, batch_size=16, precision="fp32", memory_format="channels_last")
DIGITS = make_digits(64, 40, 0, 4, 0)


@pytest.fixture(autouse=True)
def _on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_meta(monkeypatch)


def steps_of(recipe: TrainConfig = RECIPE, augmentation: Augmentation = SHIFTED, **options: Any) -> TrainingStep:
    """Returns the training step, prepared for the first epoch."""
    images = DeviceImages(DIGITS, META, augmentation, memory="device")
    learner = Learner(SA, recipe, 10, 0, META, **options)
    feed = ResidentBatches(images, recipe.batch_size, 0)
    step = TrainingStep(learner, feed, mixing_of(images, recipe), learning_rates(recipe, 8), 0)
    step.begin(0, 0)
    step.advance()
    step()
    return step


def watch(step: TrainingStep) -> Watch:
    step.advance()
    with Watch() as seen:
        step()
    return seen


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"memory_format": "contiguous"}, {"mixup": 0.2, "cutmix": 1.0}, {"ema": 0.9, "decay": "all"}],
    ids=lambda options: " ".join(options) or "default",
)
def test_a_step_neither_uses_the_cpu_nor_reads_a_value(options: dict[str, Any], micro_batches: int) -> None:
    seen = watch(steps_of(dataclasses.replace(RECIPE, **options), micro_batches=micro_batches))
    assert seen.operations > 300


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(32, 32), Augmentation(32, 28, flip=True, cutout=8, min_area=0.3)],
    ids=["none", "resized crop"],
)
def test_augmentation_within_a_step_neither_uses_the_cpu_nor_reads_a_value(augmentation: Augmentation) -> None:
    assert watch(steps_of(augmentation=augmentation)).operations > 300


def drawn_on_the_cpu(x: torch.Tensor) -> torch.Tensor:
    return x + torch.empty_like(x).normal_(generator=torch.Generator())


class FaultyBackward(torch.autograd.Function):
    """The identity; its backward pass uses a tensor on the CPU."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return grad * torch.tensor(2.0)


Fault = Callable[[torch.Tensor], torch.Tensor]

FAULTS: dict[str, tuple[Fault, str]] = {
    "a tensor on another device": (lambda x: x + torch.ones(x.shape[1]), "cpu"),
    "a number in a tensor of the CPU": (lambda x: x * torch.tensor(2.0), "cpu"),
    "a generator of the CPU": (drawn_on_the_cpu, "Generator on cpu"),
    "item": (lambda x: x * x.mean().item(), "item"),
    "a decision by a value": (lambda x: x if x.mean() > 0 else -x, "bool|item"),
    "as many values as are positive": (lambda x: x + x[x > 0].sum(), "nonzero|meta"),
    "a copy from the CPU": (lambda x: x * torch.ones(x.shape[1]).to(x.device), "cpu"),
    "a copy to the CPU": (lambda x: x + x.to("cpu").to(x.device), "cpu|meta"),
    "a tensor of the CPU in the backward pass": (FaultyBackward.apply, "cpu"),
}


class Faulty(torch.nn.Module):
    """The identity until its fault is activated."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault, self.is_on = fault, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fault(x) if self.is_on else x


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_step_is_detected(fault: str) -> None:
    change, message = FAULTS[fault]
    layer = Faulty(change)

    def plant(model: torch.nn.Module) -> None:
        model.fc = torch.nn.Sequential(layer, model.fc)  # type: ignore[arg-type]

    step = steps_of(prepare=plant)
    assert watch(step).operations > 300
    layer.is_on = True
    with pytest.raises((NotOnDeviceError, RuntimeError, NotImplementedError), match=message):
        watch(step)


@pytest.mark.parametrize("buffer", ["_rates", "_position", "loss"])
def test_a_buffer_of_the_step_on_the_cpu_is_detected(buffer: str) -> None:
    step = steps_of()
    setattr(step, buffer, torch.zeros(getattr(step, buffer).shape, dtype=getattr(step, buffer).dtype))
    with pytest.raises(NotOnDeviceError, match="cpu"):
        watch(step)
