from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.training.learner import Learner, build_network
from ablations.training.mixing import Mix, Mixing, draw_mixes, training_batches
from tests.builders.training import SA, network, result_of

CPU = torch.device("cpu")
RECIPE = TrainConfig(epochs=2, batch_size=16, precision="fp32", memory_format="contiguous")
MIXED = dataclasses.replace(RECIPE, mixup=0.4, cutmix=1.0)


@pytest.fixture(scope="module")
def images() -> DeviceImages:
    return DeviceImages(make_digits(64, 40, 0, 4, 0), CPU, Augmentation(32, 32, crop=1))


def batch(count: int = 5, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(count, 3, side, side, dtype=torch.float64), torch.arange(count) % 3


def apply(
    mix: Mix, pixels: torch.Tensor, labels: torch.Tensor, classes: int, *, mixup: float = 0.0, cutmix: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixes a batch, the second of its epoch."""
    mixing = Mixing(mixup, cutmix, count=2, side=pixels.shape[-1], classes=classes, device=CPU)
    mixing.load([Mix(0.123, (0, 1, 0, 1)), mix])
    return mixing.apply(pixels.clone(), labels, torch.tensor(1))


@given(share=st.floats(0, 1), smoothing=st.floats(0, 0.9), count=st.integers(2, 6), cutmix=st.sampled_from([0.0, 1.0]))
def test_mixup_follows_the_formula_of_the_paper(share: float, smoothing: float, count: int, cutmix: float) -> None:
    pixels, labels = batch(count)
    mixed, targets = apply(Mix(share), pixels, labels, 3, mixup=1.0, cutmix=cutmix)
    logits = torch.randn(count, 3, dtype=torch.float64)
    partner = [(place - 1) % count for place in range(count)]
    torch.testing.assert_close(mixed, share * pixels + (1 - share) * pixels[partner])
    torch.testing.assert_close(
        F.cross_entropy(logits, targets, label_smoothing=smoothing),
        share * F.cross_entropy(logits, labels, label_smoothing=smoothing)
        + (1 - share) * F.cross_entropy(logits, labels[partner], label_smoothing=smoothing),
    )


@given(
    alpha=st.floats(0.1, 5),
    side=st.integers(4, 20),
    seed=st.integers(0, 2**63 - 1),
    mixup=st.sampled_from([0.0, 1.0]),
)
def test_cutmix_pastes_a_box_of_the_partner_and_weights_labels_by_its_area(
    alpha: float, side: int, seed: int, mixup: float
) -> None:
    pixels, labels = batch(4, side)
    (mix,) = draw_mixes(0.0, alpha, 1, side, seed)
    mixed, targets = apply(mix, pixels, labels, 3, mixup=mixup, cutmix=alpha)
    is_partners = (mixed != pixels).any(1)
    assert mix.box is not None
    top, bottom, left, right = mix.box
    assert 0 <= top <= bottom <= side
    assert 0 <= left <= right <= side
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    assert torch.equal(is_partners, inside.expand(4, -1, -1))
    expected = torch.where(inside, pixels.roll(1, 0), pixels)
    assert torch.equal(mixed, expected)
    share = 1 - inside.double().mean().item()
    assert mix.share == pytest.approx(share)
    torch.testing.assert_close(
        targets, share * F.one_hot(labels, 3).double() + (1 - share) * F.one_hot(labels.roll(1), 3).double()
    )


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lambda_has_the_beta_distribution_of_alpha(alpha: float) -> None:
    shares = np.array([mix.share for mix in draw_mixes(alpha, 0.0, 20_000, 32, 7)])
    assert shares.mean() == pytest.approx(0.5, abs=0.01)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_with_both_methods_on_each_is_used_for_half_of_the_batches() -> None:
    mixes = draw_mixes(0.2, 1.0, 4000, 32, 3)
    assert sum(mix.box is not None for mix in mixes) / 4000 == pytest.approx(0.5, abs=0.03)
    assert mixes == draw_mixes(0.2, 1.0, 4000, 32, 3)
    assert mixes != draw_mixes(0.2, 1.0, 4000, 32, 4)


def test_without_mixup_and_cutmix_batches_are_unchanged(images: DeviceImages) -> None:
    plain = images.train_batches(16, 5, 1)
    for ours, expected in zip(training_batches(images, RECIPE, 5, 1), plain, strict=True):
        assert all(map(torch.equal, ours, expected))


def test_mixing_uses_the_same_batches_as_training_without_mixing(images: DeviceImages) -> None:
    plain = [*images.train_batches(16, 5, 1)]
    mixed = [*training_batches(images, MIXED, 5, 1)]
    assert len(mixed) == len(plain) == 4
    again = [*training_batches(images, MIXED, 5, 1)]
    for (pixels, targets), (raw, labels), repeated in zip(mixed, plain, again, strict=True):
        assert targets.shape == (16, 10)
        torch.testing.assert_close(targets.sum(1), torch.ones(16))
        assert ((targets > 0) <= (F.one_hot(labels, 10) + F.one_hot(labels.roll(1), 10) > 0)).all()
        assert not torch.equal(pixels, raw)
        assert torch.equal(pixels, repeated[0])
        assert torch.equal(targets, repeated[1])


def test_two_variants_of_a_replicate_train_on_the_same_mixed_batches(
    images: DeviceImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {"none": [], "sa": []}

    class Spy(Learner):
        def step(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            seen[name].append((pixels.clone(), labels.clone()))
            return super().step(pixels, labels)

    monkeypatch.setattr("ablations.training.train.Learner", Spy)
    for name, wanted in {"none": network(), "sa": SA}.items():  # noqa: B007 (the spy reads it)
        result_of(wanted, MIXED, images, 9)
    assert len(seen["none"]) == len(seen["sa"]) == 8
    for one, other in zip(*seen.values(), strict=True):
        assert all(map(torch.equal, one, other))


@settings(max_examples=5, deadline=None)
@given(parts=st.integers(2, 4))
def test_a_mixed_batch_in_micro_batches_has_the_loss_of_the_whole_batch(parts: int) -> None:
    def evaluating(model: torch.nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()

    torch.manual_seed(0)
    pixels, targets = apply(Mix(0.3), torch.randn(7, 3, 32, 32), torch.arange(7), 10, mixup=1.0)
    losses = [
        Learner(SA, MIXED, 10, 0, CPU, evaluating, micro_batches=number).step(pixels, targets).item()
        for number in (1, parts)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_the_training_loss_of_an_epoch_uses_the_mixed_labels(images: DeviceImages) -> None:
    recipe = dataclasses.replace(MIXED, epochs=1, learning_rate=1e-12)  # so that the weights do not change
    model = build_network(SA, 10, 0).train()
    losses = [
        F.cross_entropy(model(pixels), targets, label_smoothing=recipe.label_smoothing).item()
        for pixels, targets in training_batches(images, recipe, 0, 0)
    ]
    trained = result_of(SA, recipe, images, 0).epochs[0]
    assert trained.train_loss == pytest.approx(np.mean(losses), rel=1e-5)
