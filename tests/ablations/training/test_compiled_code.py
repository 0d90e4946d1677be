from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from ablations.config import TrainConfig
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.training import compiled_code
from ablations.training.compiled_code import discard_code
from tests.builders.training import SA, network, result_of

RECIPE = TrainConfig(epochs=1, batch_size=16, precision="fp32", memory_format="contiguous", compile="default")


@pytest.fixture(autouse=True)
def _without_compiled_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compiled_code, "kept", set())
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def resets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: counted.append(1))
    return counted


def test_a_second_replicate_of_a_variant_compiles_nothing() -> None:
    images = DeviceImages(make_digits(64, 40, 0, 4, 0), torch.device("cpu"), Augmentation(32, 32, crop=1))
    first = result_of(SA, RECIPE, images, 3)
    with torch.compiler.set_stance("fail_on_recompile"):
        again, other = (result_of(SA, RECIPE, images, seed) for seed in (3, 4))
        with pytest.raises(RuntimeError):
            result_of(network(), RECIPE, images, 3)
    assert again.epochs[0].train_loss == first.epochs[0].train_loss != other.epochs[0].train_loss


def test_code_of_a_limited_number_of_networks_is_kept(resets: list[int]) -> None:
    for _ in range(2):
        for batch_size in range(2, 2 + compiled_code.MOST_KEPT):
            discard_code(SA, dataclasses.replace(RECIPE, batch_size=batch_size))
    assert resets == []
    discard_code(network(), RECIPE)
    assert resets == [1]


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_code_with_cuda_graphs_is_discarded_before_every_cell(resets: list[int], mode: str) -> None:
    for _ in range(3):
        discard_code(SA, dataclasses.replace(RECIPE, compile=mode))
    assert resets == [1, 1, 1]
