from __future__ import annotations

import copy
import dataclasses
import io
import itertools
import json
from typing import Any

import pytest
import torch

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.data.randaugment import RandAugment
from ablations.training import learner
from ablations.training.evaluation import evaluate, sample_size
from ablations.training.events import Epoch, Step
from ablations.training.job import pack
from ablations.training.learner import Learner, build_network, decayed_parameters
from ablations.training.train import (
    Checkpoint,
    DivergedError,
    Event,
    Result,
    Trained,
    train,
)
from sa_core import create_model
from tests.builders.training import SA, network, result_of

SHIFTED = Augmentation(32, 32, crop=1)
RECIPE = TrainConfig(epochs=2, batch_size=16, precision="fp32", memory_format="contiguous")


@pytest.fixture(scope="module")
def images() -> DeviceImages:
    return DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cpu"), SHIFTED)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_arguments_give_bitwise_equal_results(images: DeviceImages, precision: str) -> None:
    recipe = dataclasses.replace(RECIPE, precision=precision)
    one, other = (result_of(SA, recipe, images, 5) for _ in range(2))
    assert [(epoch.train_loss, epoch.test_loss, epoch.top1) for epoch in one.epochs] == [
        (epoch.train_loss, epoch.test_loss, epoch.top1) for epoch in other.epochs
    ]


def checkpoints_of(*arguments: Any, **options: Any) -> tuple[list[bytes], Result]:
    """Returns the content of every checkpoint of a training, and the result."""
    kept, last = [], None
    for event in train(*arguments, checkpoint_every=0.0, **options):
        if isinstance(event, Checkpoint):
            kept.append(pack(event.state))
        last = event
    assert isinstance(last, Result)
    return kept, last


def digits_of(result: Result) -> list[tuple[float, ...]]:
    """Returns the values that do not depend on the clock."""
    return [(epoch.train_loss, epoch.test_loss, epoch.top1, epoch.learning_rate) for epoch in result.epochs]


@pytest.mark.parametrize(
    ("precision", "schedule", "micro_batches"),
    [
        *itertools.product(["fp32"], ["onecycle", "cosine"], [1, 2]),
        ("bf16", "onecycle", 2),  # once: a minute on a processor without bf16 instructions
    ],
)
def test_resumed_training_ends_bitwise_like_uninterrupted_training(
    images: DeviceImages, precision: str, schedule: str, micro_batches: int
) -> None:
    goes_on_bit_for_bit(
        images, dataclasses.replace(RECIPE, epochs=3, precision=precision, schedule=schedule), micro_batches
    )


@pytest.mark.parametrize(
    "options",
    [
        {"mixup": 0.2, "cutmix": 1.0},
        {"ema": 0.99},
        {"optimizer": "adamw", "schedule": "warmup_cosine", "learning_rate": 0.002, "weight_decay": 0.05},
        {"decay": "all", "ema": 0.9, "mixup": 0.2},
    ],
    ids=lambda options: " ".join(options),
)
def test_with_every_option_resumed_training_ends_like_uninterrupted_training(
    images: DeviceImages, options: dict[str, Any]
) -> None:
    goes_on_bit_for_bit(images, dataclasses.replace(RECIPE, epochs=3, **options), micro_batches=2)


def test_with_randaugment_resumed_training_ends_like_uninterrupted_training() -> None:
    augmentation = dataclasses.replace(SHIFTED, randaugment=RandAugment(2, 9))
    augmented = DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cpu"), augmentation)
    goes_on_bit_for_bit(augmented, dataclasses.replace(RECIPE, epochs=3), micro_batches=1)


def goes_on_bit_for_bit(images: DeviceImages, recipe: TrainConfig, micro_batches: int) -> None:
    """Checks that training resumed from each checkpoint ends like uninterrupted training, and is repeatable."""
    kept, whole = checkpoints_of(SA, recipe, images, 5, micro_batches=micro_batches)
    assert len(kept) == 2  # none after the last epoch
    for number, content in enumerate(kept):
        torch.manual_seed(number)  # as in another process, with another random state
        state = torch.load(io.BytesIO(content), weights_only=True)
        assert len(state["epochs"]) == number + 1
        events = list(train(SA, recipe, images, 5, micro_batches=micro_batches, checkpoint=state))
        assert isinstance(events[-1], Result)
        assert digits_of(events[-1]) == digits_of(whole)
        assert [event for event in events if isinstance(event, Epoch)] == list(events[-1].epochs)
        assert events[-1].epochs[: number + 1] == whole.epochs[: number + 1]
        assert sum(isinstance(event, Step) for event in events) == (2 - number) * 4
        assert events[-1].seconds > state["seconds"]
    assert digits_of(result_of(SA, recipe, images, 5, micro_batches=micro_batches)) == digits_of(whole)


def test_a_network_with_dropout_is_repeatable_and_resumes_with_the_same_random_numbers(
    images: DeviceImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_dropout(*arguments: Any, **options: Any) -> torch.nn.Module:
        model = build_network(*arguments, **options)
        model.fc = torch.nn.Sequential(torch.nn.Dropout(0.5), model.fc)  # type: ignore[arg-type]
        return model

    monkeypatch.setattr(learner, "build_network", with_dropout)
    kept, whole = checkpoints_of(SA, RECIPE, images, 5)
    state = torch.load(io.BytesIO(kept[0]), weights_only=True)
    for checkpoint in (None, state):
        torch.manual_seed(99)
        assert digits_of(result_of(SA, RECIPE, images, 5, checkpoint=checkpoint)) == digits_of(whole)


def test_checkpoints_have_the_configured_interval(images: DeviceImages) -> None:
    events = train(SA, dataclasses.replace(RECIPE, epochs=4), images, 5, checkpoint_every=1e6)
    assert not any(isinstance(event, Checkpoint) for event in events)


def test_micro_batches_give_the_step_of_the_whole_batch_without_batch_statistics() -> None:
    torch.manual_seed(0)
    pixels, labels = torch.randn(7, 3, 32, 32), torch.arange(7)
    states = []
    for parts in (1, 2, 3):
        taught = Learner(SA, RECIPE, 10, 0, torch.device("cpu"), frozen_norms, micro_batches=parts)
        loss = taught.step(pixels, labels)
        states.append((loss.item(), taught.model.state_dict()))
    for loss, state in states[1:]:
        assert loss == pytest.approx(states[0][0], rel=1e-5)
        for name, value in state.items():
            torch.testing.assert_close(value, states[0][1][name], rtol=1e-4, atol=1e-6)


def frozen_norms(model: torch.nn.Module) -> None:
    """Makes batch norms use their running statistics, as in evaluation."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def test_another_seed_gives_another_result(images: DeviceImages) -> None:
    assert result_of(SA, RECIPE, images, 5).test_loss != result_of(SA, RECIPE, images, 6).test_loss


def test_two_variants_of_a_replicate_share_the_initial_backbone_and_the_batches(images: DeviceImages) -> None:
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
        result_of(wanted, RECIPE, spied, 9)
        weights[name] = torch.cat([
            value.flatten() for key, value in build_network(wanted, 10, 9).state_dict().items() if ".sa." not in key
        ])  # fmt: skip
    assert torch.equal(weights["none"], weights["sa"])
    assert len(seen["none"]) == len(seen["sa"]) == 2 * 4
    assert all(torch.equal(*pair) for pair in zip(seen["none"], seen["sa"], strict=True))


def test_a_network_learns_to_classify_plain_digits() -> None:
    images = DeviceImages(make_digits(400, 100, 0, 4, 0), torch.device("cpu"), SHIFTED)
    result = result_of(SA, dataclasses.replace(RECIPE, epochs=8, learning_rate=0.2), images, 0)
    assert result.top1 > 40  # chance is 10


def test_a_result_has_the_implementation_of_shuffle_attention(images: DeviceImages) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=1)
    for attention, fused, by in (
        ({"name": "none"}, "on", {""}),
        ({"name": "sa", "groups": 4}, "off", {"torch"}),
        ({"name": "sa", "groups": 4, "gate": "tanh1"}, "on", {"torch"}),
        ({"name": "sa", "groups": 4}, "on", {"kernels", "torch"}),  # without a compiler there are no kernels
    ):
        network = {"model": {"name": "resnet8"}, "attention": attention}
        result = result_of(network, dataclasses.replace(recipe, fused=fused), images, 0)
        assert result.attention_by in by, attention
        assert result.to_dict()["attention_by"] == result.attention_by


def test_every_step_and_epoch_is_an_event(images: DeviceImages) -> None:
    *events, result = train(network(), RECIPE, images, 0)
    steps = [(event.done, event.total) for event in events if isinstance(event, Step)]
    assert steps == [(step, 8) for step in range(1, 9)]
    assert isinstance(result, Result)
    assert tuple(event for event in events if isinstance(event, Epoch)) == result.epochs


def test_the_trained_network_is_an_event_and_is_the_tested_one(images: DeviceImages) -> None:
    recipe = dataclasses.replace(RECIPE, schedule="cosine", learning_rate=0.3)
    kinds, states, kept, last = [], [], [], None
    for event in train(SA, recipe, images, 4):
        kinds.append(type(event))
        if isinstance(event, Trained):
            states.append(copy.deepcopy(event.model.state_dict()))
            kept.append(event.predictions)
        last = event
    assert isinstance(last, Result)
    assert kinds[-3:] == [Epoch, Trained, Result]
    (state,) = states
    model = build_network(SA, 10, 0)
    model.load_state_dict(state)
    tested = evaluate(model, recipe, images)
    assert (tested.loss, tested.predictions.top1) == (last.test_loss, last.top1)
    assert [predictions.to_bytes() for predictions in kept] == [tested.predictions.to_bytes()]
    assert (last.top5, last.ece) == (tested.predictions.top5, tested.predictions.ece)


def test_the_last_epoch_is_tested_on_all_test_images_and_others_on_a_sample() -> None:
    many = DeviceImages(make_digits(32, 1030, 0, 4, 0), torch.device("cpu"), SHIFTED)
    result = result_of(network(), dataclasses.replace(RECIPE, epochs=3), many, 0)
    assert [epoch.test_images for epoch in result.epochs] == [sample_size(1030), sample_size(1030), 1030]
    assert result.top1 == result.epochs[-1].top1


def test_few_test_images_are_all_tested_after_every_epoch(images: DeviceImages) -> None:
    assert [epoch.test_images for epoch in result_of(network(), RECIPE, images, 0).epochs] == [40, 40]


def spoil(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Sets all weights to NaN after `steps` training steps, on any device."""

    class Spoiled(Learner):
        steps = 0

        def step(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            loss = super().step(pixels, labels)
            self.steps += 1
            if self.steps == steps:
                with torch.no_grad():
                    for parameter in self.model.parameters():
                        parameter.fill_(float("nan"))
            return loss

    monkeypatch.setattr("ablations.training.train.Learner", Spoiled)


@pytest.mark.parametrize(
    ("steps", "where", "heard"),
    [
        (7, "training, by step 50 of epoch 1", 49),
        (60, "training, in epoch 1", 64),
        (64, "testing, after epoch 1", 64),
        (65, "training, by step 50 of epoch 2", 64 + 1 + 49),
    ],
)
def test_a_nan_loss_ends_training_within_50_steps_or_at_the_end_of_its_epoch(
    monkeypatch: pytest.MonkeyPatch, steps: int, where: str, heard: int
) -> None:
    spoil(monkeypatch, steps)
    many = DeviceImages(make_digits(128, 10, 0, 4, 0), torch.device("cpu"), SHIFTED)
    recipe = dataclasses.replace(RECIPE, batch_size=2, epochs=100)
    events: list[Event] = []
    with pytest.raises(DivergedError, match=f"^the loss is nan in {where}$"):
        events.extend(train(network(), recipe, many, 0))
    assert len(events) == heard
    assert {type(event) for event in events} <= {Step, Epoch}


def test_the_result_is_that_of_the_last_epoch_and_is_preserved_by_json(images: DeviceImages) -> None:
    result = result_of(network(), RECIPE, images, 0)
    assert (result.top1, result.test_loss) == (result.epochs[-1].top1, result.epochs[-1].test_loss)
    assert result.parameters == sum(parameter.numel() for parameter in create_model("resnet8").parameters())
    stored = result.to_dict()
    assert stored | {"epochs": list(stored["epochs"])} == json.loads(json.dumps(stored))


@pytest.mark.parametrize(
    ("schedule", "rates"), [("onecycle", (0.012, 0.3)), ("cosine", (0.3, 0.15)), ("warmup_cosine", (0.06, 0.3))]
)
def test_the_learning_rate_follows_the_schedule(
    images: DeviceImages, schedule: str, rates: tuple[float, float]
) -> None:
    recipe = dataclasses.replace(RECIPE, schedule=schedule, warmup=0.5)
    epochs = result_of(network(), recipe, images, 0).epochs
    assert [epoch.learning_rate for epoch in epochs] == pytest.approx(rates, rel=0.2)


def test_adamw_takes_the_steps_of_torchs_and_decays_only_weights() -> None:
    torch.manual_seed(0)
    pixels, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    recipe = dataclasses.replace(RECIPE, optimizer="adamw", learning_rate=0.01, weight_decay=0.1)
    ours = Learner(SA, recipe, 10, 0, torch.device("cpu"))
    theirs = build_network(SA, 10, 0).train()
    decayed = decayed_parameters(theirs, "weights")
    free = [parameter for parameter in theirs.parameters() if not any(parameter is one for one in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": free, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    loss = torch.nn.functional.cross_entropy(theirs(pixels), labels, label_smoothing=recipe.label_smoothing)
    loss.backward()
    optimizer.step()
    assert ours.step(pixels, labels).item() == pytest.approx(loss.item(), rel=1e-5)
    # Adam's first step is the sign of the gradient; for gradients near 0 it depends on rounding.
    differing = [(ours.model.state_dict()[name] - value).abs() > 1e-4 for name, value in theirs.named_parameters()]
    assert torch.cat([far.flatten() for far in differing]).double().mean() < 0.01
    kept = sum(value.nbytes for value in ours.persistent)
    weights = sum(value.nbytes for value in theirs.parameters())
    assert kept > 3 * weights  # the weights and two moments


def test_weight_decay_applies_only_to_convolutions_and_linear_layers() -> None:
    model = create_model("resnet8", attention="sa", groups=4)
    decayed = {id(weight) for weight in decayed_parameters(model, "weights")}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in decayed}
    assert names == {name for name, _ in model.named_parameters() if "conv" in name or name == "fc.weight"}


def test_weight_decay_of_all_parameters_equals_that_of_the_official_code() -> None:
    torch.manual_seed(0)
    pixels, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    recipe = dataclasses.replace(RECIPE, decay="all", weight_decay=0.1, label_smoothing=0.0)
    ours = Learner(SA, recipe, 10, 0, torch.device("cpu"))
    theirs = build_network(SA, 10, 0).train()
    optimizer = torch.optim.SGD(theirs.parameters(), recipe.learning_rate, 0.9, weight_decay=0.1, nesterov=True)
    for _ in range(2):
        ours.step(pixels, labels)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(pixels), labels).backward()
        optimizer.step()
    weights, gates = ours.model.state_dict(), [name for name, _ in theirs.named_parameters() if ".sa." in name]
    assert gates
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6)


def test_gates_decay_only_if_all_parameters_do() -> None:
    pixels, labels = torch.zeros(4, 3, 32, 32), torch.arange(4)

    def gate_bias(decay: str) -> float:
        recipe = dataclasses.replace(RECIPE, decay=decay, weight_decay=1.0, momentum=1e-6)
        taught = Learner(SA, recipe, 10, 0, torch.device("cpu"))
        taught.step(pixels, labels)
        return float(taught.model.state_dict()["layer1.0.sa.sbias"].abs().mean())

    assert gate_bias("all") == pytest.approx(gate_bias("weights") * (1 - RECIPE.learning_rate), rel=0.05)


def test_a_compiled_network_trains_like_an_eager_one(images: DeviceImages) -> None:
    eager = result_of(SA, RECIPE, images, 3)
    compiled = result_of(SA, dataclasses.replace(RECIPE, compile="default"), images, 3)
    assert compiled.epochs[0].train_loss == pytest.approx(eager.epochs[0].train_loss, rel=1e-3)
    assert compiled.parameters == eager.parameters


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_gpu_trains_a_compiled_network_like_an_eager_one(mode: str) -> None:
    images = DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cuda"), SHIFTED)
    eager = result_of(SA, RECIPE, images, 3)
    compiled = result_of(SA, dataclasses.replace(RECIPE, compile=mode), images, 3)
    assert compiled.epochs[0].train_loss == pytest.approx(eager.epochs[0].train_loss, rel=0.01)


@pytest.mark.cuda
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_a_gpu_trains_like_the_cpu(memory_format: str) -> None:
    drawn = make_digits(400, 100, 0, 4, 0)
    recipe = dataclasses.replace(RECIPE, epochs=8, learning_rate=0.2, memory_format=memory_format)
    results = [
        result_of(SA, recipe, DeviceImages(drawn, torch.device(device), SHIFTED), 0)
        for device in ("cpu", "cuda", "cuda")
    ]
    assert results[1].epochs[0].train_loss == pytest.approx(results[0].epochs[0].train_loss, rel=0.02)
    assert [epoch.top1 for epoch in results[1].epochs] == [epoch.top1 for epoch in results[2].epochs]


class Watched(DeviceImages):
    """Images that record when test images are read."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.epochs_begun = 0
        self.tested_in: list[int] = []

    def train_batches(self, *arguments: Any) -> Any:
        self.epochs_begun += 1
        return super().train_batches(*arguments)

    def test_batches(self, *arguments: Any) -> Any:
        self.tested_in.append(self.epochs_begun)
        return super().test_batches(*arguments)


def test_a_cell_that_is_tested_once_reads_no_test_image_before_and_has_the_same_result() -> None:
    watched = Watched(make_digits(64, 40, 0, 4, 0), torch.device("cpu"), SHIFTED)
    recipe = dataclasses.replace(RECIPE, epochs=3)
    once = result_of(SA, recipe, watched, 5, is_tested_once=True)
    assert watched.tested_in == [3]
    assert [(epoch.top1, epoch.test_loss, epoch.test_images) for epoch in once.epochs[:2]] == [(None, None, 0)] * 2
    often = result_of(SA, recipe, watched, 5)
    assert (once.top1, once.test_loss, once.ece) == (often.top1, often.test_loss, often.ece)
    assert [epoch.train_loss for epoch in once.epochs] == [epoch.train_loss for epoch in often.epochs]
