from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.measure.costs import PLAIN
from ablations.training import probe as probing
from ablations.training.cost import CostSetting, measure_costs
from ablations.training.evaluation import sample_size
from ablations.training.evaluation import test_batch_size as batch_size_of_tests  # renamed, as pytest would collect it
from ablations.training.events import Probe
from ablations.training.learner import Learner
from ablations.training.probe import probe
from tests.builders.training import SA, network, result_of

RECIPE = TrainConfig(epochs=2, batch_size=16, precision="fp32", memory_format="contiguous")
STEPS = 4  # of an epoch


@pytest.fixture(scope="module")
def images() -> DeviceImages:
    return DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cpu"), Augmentation(32, 32, crop=1))


class Clock:
    """A simulated clock, advanced explicitly."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Timed:
    """Patches the probe with a simulated clock, on which steps, batches and inference take the given times.

    Args:
        step: seconds of a step, by its index; the step that measures memory is the last one.
        fetch: seconds to fetch a batch.
        inference: seconds of inference on a batch; every first pass, the warm-up, takes ten times as long.
    """

    def __init__(
        self, patch: pytest.MonkeyPatch, step: Callable[[int], float], fetch: float = 0.0, inference: float = 0.0
    ) -> None:
        clock = Clock()
        self.taken = 0  # steps
        self.flips: list[int] = []
        outer = self

        class TimedLearner(Learner):
            def step(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                clock.now += step(outer.taken)
                outer.taken += 1
                return super().step(pixels, labels)

        passes = 0

        def forward(model: Any, recipe: TrainConfig, pixels: torch.Tensor) -> None:
            nonlocal passes
            del model, recipe
            assert not torch.is_grad_enabled()
            clock.now += inference * (10 if passes % 2 == 0 else 1)
            passes += 1
            outer.flips.append(len(pixels))

        batches = DeviceImages.train_batches

        def train_batches(self: DeviceImages, *arguments: Any) -> Iterator[Any]:
            for batch in batches(self, *arguments):
                clock.now += fetch
                yield batch

        patch.setattr(probing, "time", clock)
        patch.setattr(probing, "Learner", TimedLearner)
        patch.setattr(probing, "forward", forward)
        patch.setattr(DeviceImages, "train_batches", train_batches)


def found(images: DeviceImages, *, seconds: float = 60.0, **recipe: Any) -> Probe:
    return probe(SA, dataclasses.replace(RECIPE, **recipe), images, seconds)


def times(estimate: Probe) -> tuple[float, float, float]:
    return estimate.seconds, estimate.low, estimate.high


def test_the_estimate_includes_steps_batches_and_testing(images: DeviceImages, monkeypatch: pytest.MonkeyPatch) -> None:
    Timed(monkeypatch, lambda _: 2.0, fetch=0.5, inference=3.0)
    assert times(found(images)) == pytest.approx((2 * (STEPS * 2.5 + 3.0),) * 3)


@pytest.mark.parametrize("epochs", [4, 20])
def test_the_estimate_grows_with_the_number_of_epochs(
    images: DeviceImages, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    Timed(monkeypatch, lambda _: 2.0, fetch=0.25, inference=3.0)
    two, more = found(images), found(images, epochs=epochs)
    assert times(more) == pytest.approx([epochs / 2 * each for each in times(two)])
    assert (more.peak_memory_mib, more.parameters) == (two.peak_memory_mib, two.parameters)


def test_test_flip_doubles_the_time_of_testing(images: DeviceImages, monkeypatch: pytest.MonkeyPatch) -> None:
    Timed(monkeypatch, lambda _: 0.0001, inference=3.0)
    once, twice = found(images), found(images, test_flip=True)
    assert twice.seconds - once.seconds == pytest.approx(2 * 3.0)  # once per epoch


def test_testing_takes_a_sample_before_the_last_epoch_and_all_images_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = DeviceImages(make_digits(64, 1100, 0, 4, 0), torch.device("cpu"), Augmentation(32, 32, crop=1))
    timed = Timed(monkeypatch, lambda _: 0.0001, inference=3.0)
    seconds = probe(SA, RECIPE, many, 60.0).seconds
    size = batch_size_of_tests(RECIPE, many)
    assert timed.flips == [size, size]  # one batch for warm-up, one that is timed
    assert size < 1100
    assert seconds == pytest.approx(3.0 * (sample_size(1100) + 1100) / size, rel=1e-3)


def test_the_first_third_of_the_steps_warms_up(images: DeviceImages, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, lambda number: 50.0 if number == 0 else 2.0)
    assert times(found(images)) == pytest.approx((2 * STEPS * 2.0,) * 3)
    assert timed.taken == 3 + 1  # and one for memory


def test_the_range_follows_the_step_times(images: DeviceImages, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tenth of 30 epochs would be 12 steps, but an epoch has only 4; those after the first take 1, 2 and 6 seconds.
    seconds = (9.0, 1.0, 2.0, 6.0)
    Timed(monkeypatch, lambda number: seconds[min(number, 3)], inference=3.0)
    estimate = found(images, epochs=30)
    low, high = 1.0 + 0.2 * 1.0, 2.0 + 0.8 * 4.0  # quantiles 0.1 and 0.9
    # The time of testing scales with that of the steps, as the same load slows both.
    assert times(estimate) == pytest.approx([30 * (STEPS * each + 3.0 * each / 2.0) for each in (2.0, low, high)])


@pytest.mark.parametrize(
    ("epochs", "seconds", "taken"),
    [
        (2, 60.0, 3),  # the minimum; a tenth of the cell's steps would be 1
        (40, 60.0, 4),  # an epoch; a tenth would be 16
        (40, 5.0, 3),  # the time limit
        (40, 0.0, 3),  # the minimum
        (40, 6.5, 4),
    ],
)
def test_the_number_of_steps_is_limited_by_time_and_by_an_epoch(
    images: DeviceImages, monkeypatch: pytest.MonkeyPatch, epochs: int, seconds: float, taken: int
) -> None:
    timed = Timed(monkeypatch, lambda _: 2.0)
    found(images, epochs=epochs, seconds=seconds)
    assert timed.taken == taken + 1


def test_at_most_a_tenth_of_a_cells_steps_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    many = DeviceImages(make_digits(160, 10, 0, 4, 0), torch.device("cpu"), Augmentation(32, 32, crop=1))
    timed = Timed(monkeypatch, lambda _: 0.001)
    probe(SA, dataclasses.replace(RECIPE, epochs=5), many, 60.0)
    assert timed.taken == 5 + 1  # of 50


@pytest.mark.parametrize("recipe", [RECIPE, dataclasses.replace(RECIPE, precision="bf16", compile="default")])
def test_memory_and_parameters_equal_separate_measurements(images: DeviceImages, recipe: TrainConfig) -> None:
    plain = dataclasses.replace(recipe, compile="none")  # compiling takes longer than the test
    setting = CostSetting(plain, 10, 32, "cpu", precision=1.0, seconds=0.0)
    costs = measure_costs({"sa": SA}, SA["model"], setting)
    for wanted, cost in ((SA, costs["sa"]), (network(), costs[PLAIN])):
        estimate = probe(wanted, recipe, images, 0.0)
        assert (estimate.peak_memory_mib, estimate.parameters) == (cost.peak_memory_mib, cost.parameters)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_probe_does_not_change_later_training(images: DeviceImages, precision: str) -> None:
    recipe = dataclasses.replace(RECIPE, precision=precision)

    def curve() -> list[tuple[float, float, float]]:
        result = result_of(SA, recipe, images, 5)
        return [(epoch.train_loss, epoch.test_loss, epoch.top1) for epoch in result.epochs]

    before = curve()
    state = torch.random.get_rng_state()
    probe(SA, recipe, images, 0.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert curve() == before


def test_a_probe_with_the_real_clock_gives_a_plausible_estimate(images: DeviceImages) -> None:
    estimate = probe(SA, RECIPE, images, 0.1)
    assert 0 < estimate.low <= estimate.seconds <= estimate.high
