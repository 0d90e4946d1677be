from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.training.averaging import AveragedNetwork
from ablations.training.evaluation import evaluate
from ablations.training.learner import Learner
from ablations.training.train import Result, Trained, train
from tests.builders.training import SA

CPU = torch.device("cpu")
RECIPE = TrainConfig(epochs=2, batch_size=16, precision="fp32", memory_format="contiguous", ema=0.9)


@settings(max_examples=20, deadline=None)
@given(decay=st.floats(0.01, 0.9999), steps=st.integers(1, 30))
def test_weights_and_running_statistics_follow_the_formula(decay: float, steps: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    average = AveragedNetwork(model, decay)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(1, steps + 1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
            model(torch.randn(5, 3, dtype=torch.float64))
        average.update()
        own = min(decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            is_number = value.is_floating_point()
            expected[name] = own * expected[name] + (1 - own) * value if is_number else value.clone()
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_the_averaged_network_is_tested_and_stored() -> None:
    images = DeviceImages(make_digits(64, 40, 0, 4, 0), CPU, Augmentation(32, 32, crop=1))
    *_, trained, result = train(SA, RECIPE, images, 3)
    assert isinstance(trained, Trained)
    assert isinstance(result, Result)
    tested = evaluate(copy.deepcopy(trained.model), RECIPE, images)
    assert (tested.loss, tested.predictions.top1) == (result.test_loss, result.top1)
    assert tested.predictions.to_bytes() == trained.predictions.to_bytes()
    *_, plain_trained, plain = train(SA, dataclasses.replace(RECIPE, ema=0.0), images, 3)
    assert isinstance(plain, Result)
    assert isinstance(plain_trained, Trained)
    assert [epoch.train_loss for epoch in plain.epochs] == [epoch.train_loss for epoch in result.epochs]
    assert plain.test_loss != result.test_loss
    assert plain_trained.model.state_dict().keys() == trained.model.state_dict().keys()


def test_persistent_memory_includes_the_average() -> None:
    plain, averaged = (
        sum(value.nbytes for value in Learner(SA, dataclasses.replace(RECIPE, ema=ema), 10, 0, CPU).persistent)
        for ema in (0.0, 0.9)
    )
    assert averaged == 2 * plain  # no momentum before the first step


@pytest.mark.parametrize("compiled", ["none", "default"])
def test_a_step_updates_the_average_once(compiled: str) -> None:
    taught = Learner(SA, dataclasses.replace(RECIPE, compile=compiled), 10, 0, CPU, micro_batches=2)
    before = copy.deepcopy(taught.model.state_dict()["fc.weight"])
    taught.step(torch.randn(4, 3, 32, 32), torch.arange(4))
    assert taught.average is not None
    assert taught.average.steps == 1
    decay = 2 / 11
    expected = decay * before + (1 - decay) * taught.model.state_dict()["fc.weight"]
    torch.testing.assert_close(taught.evaluated.state_dict()["fc.weight"], expected)
