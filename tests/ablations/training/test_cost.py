from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import Batch, DeviceImages
from ablations.data.digits import make_digits
from ablations.training import cost as module
from ablations.training.cost import Cost, measure_cost
from ablations.training.learner import Learner
from ablations.training.train import train

RECIPE = TrainConfig(epochs=2, batch_size=16, precision="fp32", memory_format="contiguous")
CPU = torch.device("cpu")
HOURS = 1e4


@pytest.fixture(scope="module")
def images() -> DeviceImages:
    return DeviceImages(make_digits(64, 40, 0, 4, 0), CPU, Augmentation(32, 32, crop=1))


@pytest.fixture(scope="module")
def sample(images: DeviceImages) -> Batch:
    return next(images.train_batches(16, 0, 0))


def network(**attention: Any) -> dict[str, Any]:
    return {"model": {"name": "resnet8"}, "attention": attention or {"name": "none"}}


SA = network(name="sa", groups=4)


def cost(
    sample: Batch, wanted: dict[str, Any], recipe: TrainConfig = RECIPE, *, step_seconds: float = 1e-9, **options: Any
) -> Cost:
    learner = Learner(wanted, recipe, 10, 0, CPU)
    learner.step(*sample)  # the optimizer has its state from here on
    return measure_cost(learner, wanted, sample, options.pop("seconds", 1.0), step_seconds, needed=False, **options)


@pytest.fixture
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no time is spent that measuring may take."""
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 0.0))


@pytest.mark.usefixtures("standing_clock")
def test_everything_is_measured_where_there_is_time(sample: Batch) -> None:
    made = cost(sample, SA)
    assert made.parameters == 75_374
    assert all(value is not None and value > 0 for value in vars(made).values())
    assert made.train_images_per_second is not None
    assert made.test_images_per_second is not None
    assert made.train_images_per_second < made.test_images_per_second


@pytest.mark.usefixtures("standing_clock")
def test_attention_in_every_block_is_seen_to_take_longer_than_none(sample: Batch) -> None:
    made = cost(sample, network(name="sa", groups=1, transform="conv1x1"), seconds=3.0)
    assert made.train_time_ratio is not None
    assert made.train_time_ratio > 1.05


def test_attention_takes_memory_for_what_backward_needs(sample: Batch) -> None:
    recipe = dataclasses.replace(RECIPE, fused="off")
    plain, attended = (cost(sample, wanted, recipe, seconds=0.0).peak_memory_mib for wanted in (network(), SA))
    assert plain is not None
    assert attended is not None
    assert attended > 1.2 * plain


def test_kernels_take_less_memory_than_torchs_operations(sample: Batch) -> None:
    learners = {fused: Learner(SA, dataclasses.replace(RECIPE, fused=fused), 10, 0, CPU) for fused in ("on", "off")}
    if learners["on"].attention_by != "kernels":
        pytest.skip("the installation has built no kernels")
    assert learners["off"].attention_by == "torch"
    on, off = (
        cost(sample, SA, dataclasses.replace(RECIPE, fused=fused), seconds=0.0).peak_memory_mib for fused in learners
    )
    assert on is not None
    assert off is not None
    assert on < 0.95 * off


@pytest.mark.parametrize(("seconds", "step"), [(0.0, 1e-9), (1.0, HOURS)])
def test_what_would_take_too_long_is_not_measured(sample: Batch, seconds: float, step: float) -> None:
    made = cost(sample, SA, seconds=seconds, step_seconds=step)
    assert made == Cost(75_374, made.peak_memory_mib)


def test_what_is_needed_is_measured_however_long_it_takes(sample: Batch) -> None:
    learner = Learner(SA, RECIPE, 10, 0, CPU)
    made = measure_cost(learner, SA, sample, 0.0, HOURS, needed=True)
    assert None not in vars(made).values()


@pytest.mark.usefixtures("standing_clock")
def test_a_compiled_network_has_speeds_and_nothing_to_compare_them_with(sample: Batch) -> None:
    made = cost(sample, SA, dataclasses.replace(RECIPE, compile="default"))
    assert made.train_images_per_second is not None
    assert made.train_time_ratio is None
    assert made.test_time_ratio is None


@pytest.mark.parametrize("measure", ["quick", "needed"])
def test_measuring_changes_nothing_about_what_was_learned(images: DeviceImages, measure: str) -> None:
    measured, plain = (list(train(SA, RECIPE, images, 5, kind))[-1] for kind in (measure, "off"))
    for one, other in zip(measured.epochs, plain.epochs, strict=True):
        assert (one.train_loss, one.test_loss, one.top1) == (other.train_loss, other.test_loss, other.top1)
    assert plain.cost == Cost(75_374)
    assert plain.to_dict()["train_time_ratio"] is None
