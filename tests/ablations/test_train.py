from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.design import Settings
from ablations.learner import build_network, decayed_weights
from ablations.train import DivergedError, Epoch, evaluate, learning_rate_share, train
from sa_core import create_model

SHIFTED = Augmentation(32, 32, crop=1)
RECIPE = TrainConfig(epochs=2, batch_size=16, precision="fp32", memory_format="contiguous")


class Recorder:
    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.epochs: list[Epoch] = []
        self.trained: list[dict[str, torch.Tensor]] = []

    def on_step(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    def on_epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)

    def on_trained(self, model: torch.nn.Module) -> None:
        self.trained.append(copy.deepcopy(model.state_dict()))


@pytest.fixture(scope="module")
def images() -> DeviceImages:
    return DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cpu"), SHIFTED)


def network(**attention: Any) -> Settings:
    return {"model": {"name": "resnet8"}, "attention": attention or {"name": "none"}}


SA = network(name="sa", groups=4, branches="both", shuffle=True, norm="instance")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_arguments_give_equal_results_bit_for_bit(images: DeviceImages, precision: str) -> None:
    recipe = dataclasses.replace(RECIPE, precision=precision)
    one, other = (train(SA, recipe, images, 5, Recorder()) for _ in range(2))
    assert [(epoch.train_loss, epoch.test_loss, epoch.top1) for epoch in one.epochs] == [
        (epoch.train_loss, epoch.test_loss, epoch.top1) for epoch in other.epochs
    ]
    assert one.cost.peak_memory_mib == other.cost.peak_memory_mib


def test_another_seed_gives_another_result(images: DeviceImages) -> None:
    assert train(SA, RECIPE, images, 5, Recorder()).test_loss != train(SA, RECIPE, images, 6, Recorder()).test_loss


def test_a_replicate_of_two_variants_starts_from_one_backbone_and_sees_the_same_batches(images: DeviceImages) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    weights: dict[str, torch.Tensor] = {}

    class Spy(DeviceImages):
        def train_batches(self, batch_size: int, seed: int, epoch: int) -> Any:
            for pixels, labels in images.train_batches(batch_size, seed, epoch):
                seen[name].append(pixels.clone())
                yield pixels, labels

    for name, wanted in {"none": network(), "sa": SA}.items():
        seen[name] = []
        spied = Spy.__new__(Spy)
        spied.__dict__.update(images.__dict__)
        train(wanted, RECIPE, spied, 9, Recorder())
        weights[name] = torch.cat([
            value.flatten() for key, value in build_network(wanted, 10, 9).state_dict().items() if ".sa." not in key
        ])  # fmt: skip
    assert torch.equal(weights["none"], weights["sa"])
    assert len(seen["none"]) == len(seen["sa"]) == 2 * 4 + 1  # and one step to measure memory
    assert all(torch.equal(*pair) for pair in zip(seen["none"], seen["sa"], strict=True))


def test_a_network_learns_to_tell_plain_digits_apart() -> None:
    images = DeviceImages(make_digits(400, 100, 0, 4, 0), torch.device("cpu"), SHIFTED)
    result = train(SA, dataclasses.replace(RECIPE, epochs=8, learning_rate=0.2), images, 0, Recorder())
    assert result.top1 > 40  # chance is 10


def test_a_result_says_by_what_shuffle_attention_was_computed(images: DeviceImages) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=1)
    for attention, fused, by in (
        ({"name": "none"}, "on", {""}),
        ({"name": "sa", "groups": 4}, "off", {"torch"}),
        ({"name": "sa", "groups": 4, "gate": "tanh1"}, "on", {"torch"}),
        ({"name": "sa", "groups": 4}, "on", {"kernels", "torch"}),  # without a compiler there are no kernels
    ):
        network = {"model": {"name": "resnet8"}, "attention": attention}
        result = train(network, dataclasses.replace(recipe, fused=fused), images, 0, Recorder(), measure="off")
        assert result.attention_by in by, attention
        assert result.to_dict()["attention_by"] == result.attention_by


def test_the_watcher_hears_of_every_step_and_epoch(images: DeviceImages) -> None:
    recorder = Recorder()
    result = train(network(), RECIPE, images, 0, recorder)
    assert recorder.steps == [(step, 8) for step in range(1, 9)]
    assert tuple(recorder.epochs) == result.epochs


@pytest.mark.parametrize("measure", ["needed", "off"])
def test_the_watcher_gets_the_trained_network_once_as_it_was_tested(images: DeviceImages, measure: str) -> None:
    class Order(Recorder):
        def on_epoch(self, epoch: Epoch) -> None:
            assert self.trained == []
            super().on_epoch(epoch)

    recorder = Order()
    # With weights that move in every step: those that measuring takes would show.
    recipe = dataclasses.replace(RECIPE, schedule="cosine", learning_rate=0.3)
    result = train(SA, recipe, images, 4, recorder, measure)
    (state,) = recorder.trained
    model = build_network(SA, 10, 0)
    model.load_state_dict(state)
    assert evaluate(model, recipe, images) == (result.test_loss, result.top1)


def test_a_network_that_diverges_is_nobodys(images: DeviceImages) -> None:
    recorder = Recorder()
    with pytest.raises(DivergedError):
        train(network(), dataclasses.replace(RECIPE, learning_rate=1e3, batch_size=2), images, 0, recorder)
    assert recorder.trained == []


def test_the_result_is_that_of_the_last_epoch_and_survives_json(images: DeviceImages) -> None:
    result = train(network(), RECIPE, images, 0, Recorder())
    assert (result.top1, result.test_loss) == (result.epochs[-1].top1, result.epochs[-1].test_loss)
    assert result.cost.parameters == sum(parameter.numel() for parameter in create_model("resnet8").parameters())
    stored = result.to_dict()
    assert stored | {"epochs": list(stored["epochs"])} == json.loads(json.dumps(stored))


@pytest.mark.parametrize(("schedule", "rates"), [("onecycle", (0.012, 0.3)), ("cosine", (0.3, 0.15))])
def test_the_learning_rate_follows_the_schedule(
    images: DeviceImages, schedule: str, rates: tuple[float, float]
) -> None:
    recipe = dataclasses.replace(RECIPE, schedule=schedule, warmup=0.5)
    epochs = train(network(), recipe, images, 0, Recorder()).epochs
    assert [epoch.learning_rate for epoch in epochs] == pytest.approx(rates, rel=0.2)


@given(st.sampled_from(["onecycle", "cosine"]), st.floats(0, 0.9), st.integers(1, 400))
def test_a_schedule_of_any_length_rises_once_to_its_greatest_rate_and_falls(
    schedule: str, warmup: float, steps: int
) -> None:
    shares = [learning_rate_share(schedule, warmup, step, steps) for step in range(steps + 1)]
    assert all(0 <= share <= 1 for share in shares)
    peak = shares.index(max(shares))
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert peak == (min(round(warmup * steps), steps - 1) if schedule == "onecycle" else 0)
    assert shares[-1] == pytest.approx(0, abs=1e-12)


def test_weight_decay_acts_on_convolutions_and_linear_layers_alone() -> None:
    model = create_model("resnet8", attention="sa", groups=4)
    decayed = {id(weight) for weight in decayed_weights(model)}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in decayed}
    assert names == {name for name, _ in model.named_parameters() if "conv" in name or name == "fc.weight"}


def test_a_loss_that_is_no_number_ends_the_cell(images: DeviceImages) -> None:
    with pytest.raises(DivergedError, match=r"the loss is nan in training .* at epoch"):
        train(network(), dataclasses.replace(RECIPE, learning_rate=1e3, batch_size=2), images, 0, Recorder())


def test_evaluation_changes_nothing_in_the_network(images: DeviceImages) -> None:
    model = build_network(SA, 10, 0)
    before = copy.deepcopy(model.state_dict())
    one, other = (evaluate(model, RECIPE, images) for _ in range(2))
    assert one == other
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_evaluation_is_the_mean_over_all_test_images(images: DeviceImages) -> None:
    model = build_network(SA, 10, 0).eval()
    pixels, labels = (torch.cat(parts) for parts in zip(*images.test_batches(7), strict=True))
    with torch.no_grad():
        logits = model(pixels.contiguous())
    loss, top1 = evaluate(model, RECIPE, images)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert top1 == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())


def test_with_flips_a_test_image_is_judged_by_the_mean_of_it_and_its_mirror_image(images: DeviceImages) -> None:
    model = build_network(SA, 10, 0).eval()
    recipe = dataclasses.replace(RECIPE, test_flip=True)
    pixels, labels = (torch.cat(parts) for parts in zip(*images.test_batches(7), strict=True))
    with torch.no_grad():
        logits = (model(pixels) + model(pixels.flip(3))) / 2
    loss, top1 = evaluate(model, recipe, images)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert top1 == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
    assert (loss, top1) != evaluate(model, RECIPE, images)


def test_a_compiled_network_trains_like_an_eager_one(images: DeviceImages) -> None:
    eager = train(SA, RECIPE, images, 3, Recorder())
    compiled = train(SA, dataclasses.replace(RECIPE, compile="default"), images, 3, Recorder())
    assert compiled.epochs[0].train_loss == pytest.approx(eager.epochs[0].train_loss, rel=1e-3)
    assert compiled.cost.parameters == eager.cost.parameters


@pytest.mark.parametrize(
    ("side", "batch_size", "expected"), [(32, 16, 512), (64, 16, 128), (224, 16, 16), (8, 4, 8192)]
)
def test_large_test_images_come_in_smaller_batches(side: int, batch_size: int, expected: int) -> None:
    seen = []

    class Spy:
        device, augmentation, test_images = torch.device("cpu"), Augmentation(side, side), 60

        def test_batches(self, size: int) -> Any:
            seen.append(size)
            yield torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)

    recipe = dataclasses.replace(RECIPE, batch_size=batch_size)
    evaluate(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)), recipe, Spy())  # type: ignore[arg-type]
    assert seen == [expected]


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_gpu_trains_a_compiled_network_like_an_eager_one(mode: str) -> None:
    images = DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cuda"), SHIFTED)
    eager = train(SA, RECIPE, images, 3, Recorder())
    compiled = train(SA, dataclasses.replace(RECIPE, compile=mode), images, 3, Recorder())
    assert compiled.epochs[0].train_loss == pytest.approx(eager.epochs[0].train_loss, rel=0.01)


@pytest.mark.cuda
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_a_gpu_trains_like_the_cpu(memory_format: str) -> None:
    drawn = make_digits(400, 100, 0, 4, 0)
    recipe = dataclasses.replace(RECIPE, epochs=8, learning_rate=0.2, memory_format=memory_format)
    results = [
        train(SA, recipe, DeviceImages(drawn, torch.device(device), SHIFTED), 0, Recorder())
        for device in ("cpu", "cuda", "cuda")
    ]
    assert results[1].epochs[0].train_loss == pytest.approx(results[0].epochs[0].train_loss, rel=0.02)
    assert [epoch.top1 for epoch in results[1].epochs] == [epoch.top1 for epoch in results[2].epochs]
