from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from ablations.config import TrainConfig
from ablations.measure.costs import PLAIN, NetworkCost
from ablations.measure.speed import LEAST_COPIES, TWIN, Act, Make, Samples
from ablations.training import cost as module
from ablations.training.cost import CostSetting, measure_costs
from ablations.training.learner import Learner
from tests.builders.training import SA, network

RECIPE = TrainConfig(epochs=2, batch_size=8, precision="fp32", memory_format="contiguous")
SLOW = network(name="sa", groups=1, transform="conv1x1")
MODEL = SA["model"]


def setting(recipe: TrainConfig = RECIPE, **changes: Any) -> CostSetting:
    known = {"classes": 10, "side": 32, "device": "cpu", "precision": 1.0, "seconds": 0.0}
    return CostSetting(recipe, **(known | changes))


class Instant:
    """A fake of `compare` that builds and calls each subject once; the i-th subject takes i seconds."""

    def __init__(self, fails: Callable[[Mapping[str, Make]], bool] = lambda _: False) -> None:
        self.compared: list[list[str]] = []
        self.options: list[dict[str, Any]] = []
        self._fails = fails

    def __call__(self, subjects: Mapping[str, Make], baseline: str, clock: object, **options: Any) -> Samples:
        del clock
        assert baseline == PLAIN
        self.compared.append(list(subjects))
        self.options.append(options)
        for make in subjects.values():
            make()()
        if self._fails(subjects):
            raise RuntimeError("out of memory\nwith details")
        names = (*subjects, TWIN)
        times = np.tile(np.arange(1.0, len(names) + 1), (2, 4, 1))
        return Samples(names, baseline, times, np.zeros(times.shape, dtype=np.int64), 1)


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> Instant:
    found = Instant()
    monkeypatch.setattr(module, "compare", found)
    return found


def test_every_network_has_several_copies_and_the_plain_one_is_compared_with_a_second_copy() -> None:
    costs = measure_costs({"sa": SA}, MODEL, setting())
    assert set(costs) == {PLAIN, "sa"}
    for cost in costs.values():
        assert cost.failed == ""
        assert cost.peak_memory_mib is not None
        assert cost.peak_memory_mib > 0
        for speed in (cost.train, cost.test):
            assert speed is not None
            assert speed.ms > 0
            assert len(speed.log_ratios) == LEAST_COPIES
    assert (costs[PLAIN].parameters, costs["sa"].parameters) == (75_290, 75_374)
    plain = costs[PLAIN]
    assert plain.train is not None
    assert plain.test is not None
    assert plain.test.ms < plain.train.ms
    assert any(plain.train.log_ratios)


def test_on_a_gpu_replays_are_timed_too_and_a_failed_capture_affects_no_other_time(
    instant: Instant, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed: list[Act] = []

    def capture(act: Act) -> Act:
        replayed.append(act)
        if isinstance(act, functools.partial):  # a training step
            raise RuntimeError("operation not permitted when stream is capturing")
        return act

    monkeypatch.setattr(module, "captured", capture)
    monkeypatch.setattr(module, "are_captured", lambda _: True)
    cost = measure_costs({"sa": SA}, MODEL, setting())["sa"]
    assert cost.failed == ""
    assert None not in (cost.train, cost.test, cost.captured_test)
    assert cost.captured_train is None
    assert len(instant.compared) == 4
    assert replayed


@pytest.mark.parametrize(
    ("device", "compile_mode", "expected"),
    [("cpu", "none", False), ("cuda", "none", True), ("cuda", "default", True), ("cuda", "reduce-overhead", False)],
)
def test_calls_are_captured_on_a_gpu_unless_compiled_code_has_graphs(
    device: str, compile_mode: str, expected: bool
) -> None:
    recipe = dataclasses.replace(RECIPE, compile=compile_mode)
    assert module.are_captured(setting(recipe, device=device)) is expected


def test_attention_in_every_block_takes_longer_than_none() -> None:
    train = measure_costs({"slow": SLOW}, MODEL, setting(seconds=1.0))["slow"].train
    assert train is not None
    assert np.median(train.log_ratios) > 0.02


@pytest.mark.usefixtures("instant")
def test_ratios_are_relative_to_the_plain_network_in_the_same_turn() -> None:
    costs = measure_costs({"a": SA, "b": SLOW}, MODEL, setting())
    assert costs["a"].train == costs["a"].test
    for name, ratio in (("a", 2.0), ("b", 3.0), (PLAIN, 4.0)):
        speed = costs[name].train
        assert speed is not None
        assert np.exp(speed.log_ratios) == pytest.approx([ratio] * 2, rel=1e-5)
    plain, slow = costs[PLAIN].train, costs["b"].train
    assert plain is not None
    assert slow is not None
    assert (plain.ms, slow.ms) == (1000.0, 3000.0)


@pytest.mark.usefixtures("instant")
def test_attention_takes_memory_for_saved_activations() -> None:
    costs = measure_costs({"sa": SA}, MODEL, setting(dataclasses.replace(RECIPE, batch_size=16, fused="off")))
    attended, plain = costs["sa"].peak_memory_mib, costs[PLAIN].peak_memory_mib
    assert attended is not None
    assert plain is not None
    assert attended > 1.2 * plain


@pytest.mark.usefixtures("instant")
def test_kernels_take_less_memory_than_torchs_operations() -> None:
    recipes = {fused: dataclasses.replace(RECIPE, batch_size=16, fused=fused) for fused in ("on", "off")}
    if Learner(SA, recipes["on"], 10, 0, torch.device("cpu")).attention_by != "kernels":
        pytest.skip("the installation has built no kernels")
    peaks = [measure_costs({"sa": SA}, MODEL, setting(recipe))["sa"].peak_memory_mib for recipe in recipes.values()]
    on, off = peaks
    assert on is not None
    assert off is not None
    assert on < 0.95 * off


def test_a_network_that_cannot_be_built_does_not_affect_others(instant: Instant) -> None:
    costs = measure_costs({"sa": SA, "misfit": network(name="sa", groups=3)}, MODEL, setting())
    assert "groups=3" in costs["misfit"].failed
    assert costs["misfit"] == NetworkCost(failed=costs["misfit"].failed)
    assert costs["sa"].train is not None
    assert instant.compared == [[PLAIN, "sa"]] * 2


def test_after_a_failure_each_network_is_timed_separately_with_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instant = Instant(lambda subjects: "large" in subjects)
    monkeypatch.setattr(module, "compare", instant)
    costs = measure_costs({"sa": SA, "large": SLOW, "other": SA}, MODEL, setting())
    assert costs["large"].failed == "out of memory"
    assert (costs["large"].train, costs["large"].test) == (None, None)
    for name in (PLAIN, "sa", "other"):
        assert costs[name].failed == ""
        assert costs[name].train is not None
        assert costs[name].test is not None
    assert instant.compared == [
        [PLAIN, "sa", "large", "other"], [PLAIN, "sa"], [PLAIN, "large"], [PLAIN, "other"], [PLAIN, "sa", "other"],
    ]  # fmt: skip


def test_if_the_plain_network_fails_all_networks_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "plain_network", lambda _: {"model": {"name": "nope"}, "attention": {"name": "none"}})
    costs = measure_costs({"sa": SA}, MODEL, setting())
    assert costs[PLAIN].failed
    assert costs["sa"].failed == f"the network without attention could not be measured: {costs[PLAIN].failed}"
    assert costs["sa"].train is None


def test_training_of_compiled_networks_is_timed_with_one_copy_and_inference_stays_eager(instant: Instant) -> None:
    class Eager(Learner):
        """A learner without compilation, which takes a minute."""

        def __init__(self, network: Any, recipe: TrainConfig, *arguments: Any, **options: Any) -> None:
            super().__init__(network, dataclasses.replace(recipe, compile="none"), *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Learner", Eager)
        measure_costs({"sa": SA}, MODEL, setting(dataclasses.replace(RECIPE, compile="default"), precision=0.5))
    train, test = instant.options
    assert (train["least_copies"], train["most_copies"]) == (1, 1)
    assert test["least_copies"] == LEAST_COPIES < test["most_copies"]
    assert train["precision"] == test["precision"] == 0.5


@pytest.mark.parametrize("changes", [{"mixup": 0.2}, {"ema": 0.9}, {"optimizer": "adamw"}, {"precision": "bf16"}])
@pytest.mark.usefixtures("instant")
def test_steps_follow_the_recipe(changes: dict[str, Any]) -> None:
    costs = measure_costs({"sa": SA}, MODEL, setting(dataclasses.replace(RECIPE, **changes)))
    assert not any(cost.failed for cost in costs.values())


@pytest.mark.usefixtures("instant")
def test_measuring_does_not_change_the_random_state() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    measure_costs({"sa": SA}, MODEL, setting())
    assert torch.equal(torch.random.get_rng_state(), state)
