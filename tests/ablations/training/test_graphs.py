from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.data.feeds import ResidentBatches, StreamedBatches
from ablations.data.randaugment import RandAugment
from ablations.training import graphs, learner
from ablations.training.graphs import CAPTURED, WARM_UP, StepRunner, feed_of, reason_against
from ablations.training.job import pack
from ablations.training.learner import Learner, build_network
from ablations.training.train import Checkpoint, Result, train
from tests.builders.recorded import record
from tests.builders.training import SA, result_of

CPU = torch.device("cpu")
SHIFTED = Augmentation(32, 32, crop=1)
RECIPE = TrainConfig(epochs=3, batch_size=16, precision="fp32", memory_format="contiguous")


@pytest.fixture
def images() -> DeviceImages:
    return DeviceImages(make_digits(64, 40, 0, 4, 0), CPU, SHIFTED)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes steps captured on the CPU, and counts the captures."""
    counted: list[int] = []

    def counting(step: Callable[[], None]) -> Callable[[], None]:
        counted.append(1)
        return record(step)

    monkeypatch.setitem(graphs.CAPTURES, "cpu", counting)
    return counted


def numbers(result: Result) -> list[tuple[float, ...]]:
    return [(epoch.train_loss, epoch.test_loss, epoch.top1, epoch.learning_rate) for epoch in result.epochs]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"precision": "bf16", "memory_format": "channels_last"},
    {"mixup": 0.2, "cutmix": 1.0},
    {"cutmix": 1.0, "ema": 0.9},
    {"optimizer": "adamw", "schedule": "warmup_cosine", "learning_rate": 0.002, "weight_decay": 0.05, "ema": 0.99},
]


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options) or "default")
def test_replayed_and_eager_steps_give_bitwise_equal_results(
    images: DeviceImages, captures: list[int], options: dict[str, Any], micro_batches: int
) -> None:
    recipe = dataclasses.replace(RECIPE, **options)
    eager = result_of(SA, dataclasses.replace(recipe, graphs="off"), images, 5, micro_batches=micro_batches)
    assert (eager.execution, captures) == ("eager: train.graphs=off", [])
    captured = result_of(SA, recipe, images, 5, micro_batches=micro_batches)
    assert (captured.execution, captures) == (CAPTURED, [1])
    assert numbers(captured) == numbers(eager)


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(32, 32),
        Augmentation(32, 28, flip=True, cutout=8, min_area=0.3),
        Augmentation(32, 32, crop=2, flip=True, cutout=8, randaugment=RandAugment(2, 9)),
    ],
    ids=["none", "resized crop", "RandAugment"],
)
@pytest.mark.parametrize("memory", ["device", "mapped"])
def test_with_any_augmentation_replayed_and_eager_steps_use_the_same_batches(
    captures: list[int], augmentation: Augmentation, memory: str
) -> None:
    images = DeviceImages(make_digits(64, 40, 0, 4, 0), CPU, augmentation, memory=memory)
    eager = result_of(SA, dataclasses.replace(RECIPE, graphs="off"), images, 5)
    captured = result_of(SA, RECIPE, images, 5)
    assert captures == [1]
    assert numbers(captured) == numbers(eager)


def test_resumed_training_captures_again_and_has_the_result_of_uninterrupted_training(
    images: DeviceImages, captures: list[int]
) -> None:
    recipe = dataclasses.replace(RECIPE, ema=0.9, mixup=0.3)
    events = list(train(SA, recipe, images, 5, checkpoint_every=0.0))
    whole = events[-1]
    assert isinstance(whole, Result)
    kept = [pack(event.state) for event in train(SA, recipe, images, 5, checkpoint_every=0.0) if is_checkpoint(event)]
    assert len(kept) == 2
    for content in kept:
        state = torch.load(io.BytesIO(content), weights_only=True)
        resumed = result_of(SA, recipe, images, 5, checkpoint=state)
        assert numbers(resumed) == numbers(whole)
        assert resumed.execution == CAPTURED
    assert len(captures) == 4


def is_checkpoint(event: Any) -> bool:
    return isinstance(event, Checkpoint)


def test_a_network_with_dropout_draws_the_same_random_numbers_as_in_eager_steps(
    images: DeviceImages, captures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_dropout(*arguments: Any, **options: Any) -> torch.nn.Module:
        model = build_network(*arguments, **options)
        model.fc = torch.nn.Sequential(torch.nn.Dropout(0.5), model.fc)  # type: ignore[arg-type]
        return model

    monkeypatch.setattr(learner, "build_network", with_dropout)
    eager = result_of(SA, dataclasses.replace(RECIPE, graphs="off"), images, 5)
    assert numbers(result_of(SA, RECIPE, images, 5)) == numbers(eager)
    assert captures == [1]


def test_training_that_ends_before_the_capture_is_eager(captures: list[int]) -> None:
    few = DeviceImages(make_digits(WARM_UP * 16, 40, 0, 4, 0), CPU, SHIFTED)
    result = result_of(SA, dataclasses.replace(RECIPE, epochs=1), few, 0)
    assert (result.execution, captures) == ("eager", [])


class Reading(torch.nn.Module):
    """A layer that copies a value of its input to the CPU, like a layer with data-dependent control flow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum().item() > 1e9 else x


def with_reading(*arguments: Any, **options: Any) -> torch.nn.Module:
    model = build_network(*arguments, **options)
    model.fc = torch.nn.Sequential(Reading(), model.fc)  # type: ignore[arg-type]
    return model


def test_a_network_that_reads_a_value_is_trained_eagerly_and_the_reason_is_in_the_result(
    images: DeviceImages, captures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = result_of(SA, dataclasses.replace(RECIPE, graphs="off"), images, 5)
    monkeypatch.setattr(learner, "build_network", with_reading)
    result = result_of(SA, RECIPE, images, 5)
    assert captures == [1]
    assert result.execution.startswith("eager: ")
    assert "_local_scalar_dense" in result.execution
    assert numbers(result) == numbers(plain)  # the failed capture leaves no trace


def test_a_network_that_cannot_be_captured_fails_with_graphs_on(
    images: DeviceImages, captures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "build_network", with_reading)
    with pytest.raises(RuntimeError, match=r"train\.graphs=on"):
        result_of(SA, dataclasses.replace(RECIPE, graphs="on"), images, 5)
    assert captures == [1]


@pytest.mark.parametrize("graphs_option", ["auto", "on"])
def test_an_out_of_memory_error_in_a_capture_is_raised_unchanged(
    images: DeviceImages, monkeypatch: pytest.MonkeyPatch, graphs_option: str
) -> None:
    def too_large(_: Callable[[], None]) -> Callable[[], None]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(graphs.CAPTURES, "cpu", too_large)
    with pytest.raises(torch.OutOfMemoryError):
        result_of(SA, dataclasses.replace(RECIPE, graphs=graphs_option), images, 5)


def test_the_comparison_detects_a_cpu_value_that_the_graph_repeats(
    images: DeviceImages, captures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(Learner):
        steps = 0

        def step(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            self.steps += 1
            return super().step(pixels * (1 + self.steps / 100), labels)

    monkeypatch.setattr("ablations.training.train.Learner", Counting)
    eager = result_of(SA, dataclasses.replace(RECIPE, graphs="off"), images, 5)
    captured = result_of(SA, RECIPE, images, 5)
    assert captures == [1]
    assert numbers(captured) != numbers(eager)


@pytest.mark.parametrize(
    ("options", "device", "reason"),
    [
        ({}, "cuda", None),
        ({"graphs": "on"}, "cuda", None),
        ({"compile": "default"}, "cuda", None),
        ({"graphs": "off"}, "cuda", "train.graphs=off"),
        ({"compile": "reduce-overhead"}, "cuda", "train.compile=reduce-overhead uses CUDA graphs itself"),
        ({"compile": "max-autotune"}, "cuda", "train.compile=max-autotune uses CUDA graphs itself"),
        ({}, "cpu", "there are no CUDA graphs on cpu"),
    ],
)
def test_steps_are_captured_on_a_gpu_unless_turned_off(
    options: dict[str, Any], device: str, reason: str | None
) -> None:
    assert reason_against(dataclasses.replace(RECIPE, **options), torch.device(device)) == reason


def test_on_the_cpu_cells_are_eager_and_their_batches_streamed(images: DeviceImages) -> None:
    assert isinstance(feed_of(images, RECIPE, 0), StreamedBatches)
    assert result_of(SA, dataclasses.replace(RECIPE, epochs=1), images, 0).execution == "eager"


def test_images_on_the_device_are_selected_within_a_captured_step(images: DeviceImages, captures: list[int]) -> None:
    del captures
    assert isinstance(feed_of(images, RECIPE, 0), ResidentBatches)
    mapped = DeviceImages(make_digits(64, 40, 0, 4, 0), CPU, SHIFTED, memory="mapped")
    assert isinstance(feed_of(mapped, RECIPE, 0), StreamedBatches)


def test_the_first_steps_are_eager(captures: list[int]) -> None:
    value = torch.zeros(())
    calls = []

    def step() -> None:
        calls.append(1)
        value.add_(1)

    run = StepRunner(step, lambda: None, RECIPE, CPU)
    for taken in range(1, 8):
        run()
        assert value == taken
        assert len(calls) == min(taken, WARM_UP + 1)  # once more for the capture
    assert captures == [1]


@pytest.mark.cuda
@pytest.mark.parametrize(
    "options", [*OPTIONS, {"compile": "default"}], ids=lambda options: " ".join(options) or "default"
)
def test_on_a_gpu_replayed_and_eager_steps_give_bitwise_equal_results(options: dict[str, Any]) -> None:
    images = DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cuda"), SHIFTED)
    recipe = dataclasses.replace(RECIPE, **options)
    eager = result_of(SA, dataclasses.replace(recipe, graphs="off"), images, 5)
    captured, again = (result_of(SA, dataclasses.replace(recipe, graphs="on"), images, 5) for _ in range(2))
    assert captured.execution == CAPTURED
    assert numbers(captured) == numbers(again) == numbers(eager)


@pytest.mark.cuda
def test_on_a_gpu_a_network_that_reads_a_value_is_trained_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    images = DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cuda"), SHIFTED)
    plain = result_of(SA, dataclasses.replace(RECIPE, graphs="off"), images, 5)
    monkeypatch.setattr(learner, "build_network", with_reading)
    result = result_of(SA, RECIPE, images, 5)
    assert result.execution.startswith("eager: ")
    assert numbers(result) == numbers(plain)
