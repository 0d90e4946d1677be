from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.training.evaluation import evaluate
from ablations.training.evaluation import test_batch_size as batch_size_of_tests  # renamed, as pytest would collect it
from ablations.training.learner import build_network
from tests.builders.training import SA

RECIPE = TrainConfig(epochs=2, batch_size=16, precision="fp32", memory_format="contiguous")


@pytest.fixture(scope="module")
def images() -> DeviceImages:
    return DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cpu"), Augmentation(32, 32, crop=1))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return build_network(SA, 10, 0).eval()


def logits_and_labels(model: torch.nn.Module, images: DeviceImages, flip: bool) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = (torch.cat(parts) for parts in zip(*images.test_batches(7), strict=True))
    with torch.no_grad():
        logits = model(pixels.contiguous())
        return (logits + model(pixels.flip(3))) / 2 if flip else logits, labels


@pytest.mark.parametrize("flip", [False, True])
def test_evaluation_uses_all_test_images_in_order_with_and_without_test_flip(
    images: DeviceImages, model: torch.nn.Module, flip: bool
) -> None:
    tested = evaluate(model, dataclasses.replace(RECIPE, test_flip=flip), images)
    logits, labels = logits_and_labels(model, images, flip)
    found = tested.predictions
    assert tested.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert (found.classes, found.labels.tolist()) == (10, images.test_labels.tolist())
    assert found.predicted.tolist() == logits.argmax(1).tolist()
    assert found.confidences == pytest.approx(logits.softmax(1).amax(1).numpy(), abs=0.5 / 255 + 1e-6)
    places = logits.argsort(1, descending=True)
    assert found.ranks.tolist() == (places == labels[:, None]).int().argmax(1).tolist()
    assert found.top1 == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())


def test_a_sample_has_the_same_images_each_time(images: DeviceImages, model: torch.nn.Module) -> None:
    some, all_of_them = evaluate(model, RECIPE, images, 20), evaluate(model, RECIPE, images)
    assert len(some.predictions) == 20
    assert np.bincount(some.predictions.labels).tolist() == [2] * 10
    assert some.predictions.to_bytes() == evaluate(model, RECIPE, images, 20).predictions.to_bytes()
    assert evaluate(model, RECIPE, images, 41).loss == evaluate(model, RECIPE, images, 40).loss == all_of_them.loss


def test_for_equal_logits_only_one_class_is_predicted() -> None:
    class Flat(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(pixels), 10)

    images = DeviceImages(make_digits(20, 40, 0, 4, 0), torch.device("cpu"), Augmentation(32, 32, crop=1))
    found = evaluate(Flat(), RECIPE, images).predictions
    assert ((found.ranks == 0) == found.right).all()
    assert found.top1 == 10.0


def test_evaluation_does_not_change_the_network(images: DeviceImages) -> None:
    model = build_network(SA, 10, 0)
    before = copy.deepcopy(model.state_dict())
    one, other = (evaluate(model, RECIPE, images) for _ in range(2))
    assert (one.loss, one.predictions.to_bytes()) == (other.loss, other.predictions.to_bytes())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("device", "side", "expected"), [
    ("cpu", 32, 64), ("cpu", 64, 16), ("cpu", 224, 8), ("cpu", 8, 1024), ("cuda", 32, 512), ("cuda", 64, 128),
    ("cuda", 224, 16), ("cuda", 8, 8192),
])  # fmt: skip
def test_batches_are_smaller_for_large_test_images_and_on_a_cpu(device: str, side: int, expected: int) -> None:
    images: Any = SimpleNamespace(device=torch.device(device), augmentation=Augmentation(side, side))
    assert batch_size_of_tests(RECIPE, images) == expected
