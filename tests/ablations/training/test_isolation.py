from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.training import learner
from ablations.training.isolation import isolated
from ablations.training.learner import build_network
from ablations.training.train import DivergedError, Event, Result, train
from tests.builders.training import SA, network, result_of

CPU = torch.device("cpu")
RECIPE = TrainConfig(epochs=2, batch_size=16, precision="fp32", memory_format="contiguous")


@pytest.fixture
def images() -> DeviceImages:
    return DeviceImages(make_digits(64, 40, 0, 4, 0), CPU, Augmentation(32, 32, crop=1))


@pytest.fixture
def _dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds dropout to networks, so that they draw random numbers."""

    def with_dropout(*arguments: Any, **options: Any) -> torch.nn.Module:
        model = build_network(*arguments, **options)
        model.fc = torch.nn.Sequential(torch.nn.Dropout(0.5), model.fc)  # type: ignore[arg-type]
        return model

    monkeypatch.setattr(learner, "build_network", with_dropout)


def drawing(count: int, seed: int) -> Generator[float, None, None]:
    torch.manual_seed(seed)
    for _ in range(count):
        yield torch.rand(()).item()


def test_interleaved_iterators_draw_the_same_numbers_as_separate_ones() -> None:
    alone = [list(drawing(5, seed)) for seed in (1, 2)]
    together = zip(isolated(drawing(5, 1), CPU), isolated(drawing(5, 2), CPU), strict=True)
    assert [list(drawn) for drawn in zip(*together, strict=True)] == alone


def test_the_random_state_of_the_caller_does_not_change() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    events = isolated(drawing(5, 1), CPU)
    drawn = []
    for _ in range(3):
        drawn.append(torch.rand(()))
        next(events)
    assert torch.equal(torch.stack(drawn), expected)


def test_a_closed_iterator_ends_in_its_own_random_state() -> None:
    ended = []

    def ending() -> Generator[float, None, None]:
        try:
            yield from drawing(5, 1)
        finally:
            ended.append(torch.rand(()).item())

    torch.manual_seed(7)
    events = isolated(ending(), CPU)
    first = next(events)
    events.close()  # type: ignore[attr-defined]
    assert [first, *ended] == list(drawing(2, 1))


def in_turns(trainings: list[Iterator[Event]]) -> list[Result | Exception]:
    """Takes one event of each training in rotation; returns the result or the error of each."""
    ends: dict[int, Result | Exception] = {}
    for place in itertools.cycle(range(len(trainings))):
        if place in ends:
            if len(ends) == len(trainings):
                return [ends[number] for number in range(len(trainings))]
            continue
        try:
            event = next(trainings[place])
        except DivergedError as error:
            ends[place] = error
            continue
        if isinstance(event, Result):
            ends[place] = event
    raise AssertionError


def numbers(result: Result | Exception) -> list[tuple[float, ...]]:
    assert isinstance(result, Result), result
    return [(epoch.train_loss, epoch.test_loss, epoch.top1) for epoch in result.epochs]


@pytest.mark.usefixtures("_dropout")
def test_interleaved_cells_have_the_results_of_separate_ones_and_a_failure_affects_one_cell(
    images: DeviceImages,
) -> None:
    mixed = dataclasses.replace(RECIPE, mixup=0.3, ema=0.9, epochs=3)
    diverging = dataclasses.replace(RECIPE, learning_rate=1e12, schedule="cosine")
    cells = [(SA, RECIPE, 5), (SA, diverging, 6), (network(), mixed, 7), (SA, RECIPE, 8)]
    ends = in_turns([train(*cell[:2], images, cell[2]) for cell in cells])
    assert isinstance(ends[1], DivergedError)
    for place in (0, 2, 3):
        wanted, recipe, seed = cells[place]
        assert numbers(ends[place]) == numbers(result_of(wanted, recipe, images, seed))


@pytest.mark.cuda
@pytest.mark.usefixtures("_dropout")
@pytest.mark.parametrize("graphs", ["on", "off"])
def test_on_a_gpu_interleaved_cells_have_the_results_of_separate_ones(graphs: str) -> None:
    images = DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cuda"), Augmentation(32, 32, crop=1))
    recipe = dataclasses.replace(RECIPE, graphs=graphs, epochs=4)
    together = in_turns([train(SA, recipe, images, seed) for seed in range(4)])
    for seed, result in enumerate(together):
        assert numbers(result) == numbers(result_of(SA, recipe, images, seed))
