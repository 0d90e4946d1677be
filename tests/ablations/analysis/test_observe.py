from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from ablations.analysis.observe import CHANNEL, SPATIAL, Observation, Sample, batches, images_of_each_class, observe
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.images import Images, ImageSet, in_memory
from ablations.design.variants import Variant
from sa_core import ShuffleAttention
from tests.builders.networks import hooks_of, random_network, variant_of


def sample_of(images: int, side: int = 32) -> Sample:
    pixels = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(images) % 10
    return Sample(pixels, labels, np.zeros((images, side, side, 3), dtype=np.uint8))


def gates_in_float64(layer: ShuffleAttention, x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Equations 1 to 3 of the paper for all groups at once: channel (B, C/2) and spatial gates (B, C/2, H, W)."""
    layer, x = layer.double(), x.double()
    batch, channels, height, width = x.shape
    grouped = x.reshape(batch, layer.groups, 2, channels // layer.groups // 2, height, width)
    by_channel, by_space = grouped[:, :, 0], grouped[:, :, 1]
    mean = by_channel.mean((3, 4))  # (B, G, c)
    opened = 1 / (1 + torch.exp(-(layer.cweight.flatten() * mean + layer.cbias.flatten())))
    centred = by_space - by_space.mean((3, 4), keepdim=True)
    norm = centred / (centred.square().mean((3, 4), keepdim=True) + 1e-5).sqrt()
    parts = [value.flatten()[:, None, None] for value in (layer.gn.weight, layer.gn.bias, layer.sweight, layer.sbias)]
    value = parts[2] * (norm * parts[0] + parts[1]) + parts[3]
    spread = 1 / (1 + torch.exp(-value))
    return (
        opened.reshape(batch, -1).detach().numpy(),
        spread.reshape(batch, -1, height, width).detach().numpy(),
    )


def inputs_of(model: nn.Module, paths: list[str], pixels: Tensor) -> dict[str, Tensor]:
    """Returns the inputs of modules in a float64 copy, recorded by replacing their `forward`."""
    inputs: dict[str, Tensor] = {}
    double = copy.deepcopy(model).double()

    def record(path: str, layer: nn.Module) -> None:
        forward = layer.forward

        def recorded_forward(x: Tensor) -> Any:
            inputs[path] = x
            return forward(x)

        layer.forward = recorded_forward  # type: ignore[method-assign]

    for path in paths:
        record(path, double.get_submodule(path))
    with torch.no_grad():
        double(pixels.double())
    return inputs


def logits_in_float64(observation: Observation, bias: Tensor) -> NDArray[np.float64]:
    features, weight = observation.features.astype(np.float64), observation.weight.astype(np.float64)
    return np.asarray(features @ weight.T + bias.detach().double().numpy())


@pytest.fixture(scope="module")
def observed() -> tuple[nn.Module, Variant, Sample, Observation]:
    """A network with its observation on more images than one batch has."""
    variant, sample = variant_of(groups=4), sample_of(140)
    model = random_network(variant.network)
    return model, variant, sample, observe(model, variant.network, sample)


def test_gates_are_those_of_the_last_module_of_each_stage(
    observed: tuple[nn.Module, Variant, Sample, Observation],
) -> None:
    model, _, sample, observation = observed
    assert [(gates.path, gates.stage, gates.branch) for gates in observation.gates] == [
        (f"layer{stage}.0.sa", stage, branch) for stage in (1, 2, 3) for branch in (CHANNEL, SPATIAL)
    ]
    inputs = inputs_of(model, ["layer1.0.sa", "layer2.0.sa", "layer3.0.sa"], sample.pixels)
    for channel, spatial in zip(observation.gates[::2], observation.gates[1::2], strict=True):
        layer = copy.deepcopy(model.get_submodule(channel.path))
        assert isinstance(layer, ShuffleAttention)
        by_channel, by_space = gates_in_float64(layer, inputs[channel.path])
        assert channel.opened.shape == by_channel.shape
        assert np.abs(channel.opened - by_channel).max() < 1e-5
        assert spatial.opened.shape == (140, 1024)
        # The gates of a large map are a choice without repetition, the same for all images.
        every = by_space.reshape(140, -1)
        near = [int(np.abs(every[:8] - column[:8, None]).max(0).argmin()) for column in spatial.opened.T]
        assert len(set(near)) == 1024
        assert np.abs(every[:, near] - spatial.opened).max() < 1e-4


def test_the_choice_of_gates_is_reproducible(observed: tuple[nn.Module, Variant, Sample, Observation]) -> None:
    model, variant, sample, observation = observed
    for again, gates in zip(observe(model, variant.network, sample).gates, observation.gates, strict=True):
        assert np.array_equal(again.opened, gates.opened)


@pytest.mark.parametrize(("side", "stage"), [(8, 1), (16, 2), (16, 3)])
def test_all_gates_of_a_small_map_are_observed(side: int, stage: int) -> None:
    variant, sample = variant_of(groups=4), sample_of(3, side)
    model = random_network(variant.network)
    path = f"layer{stage}.0.sa"
    (spatial,) = [
        gates
        for gates in observe(model, variant.network, sample).gates
        if (gates.path, gates.branch) == (path, SPATIAL)
    ]
    layer = copy.deepcopy(model.get_submodule(path))
    assert isinstance(layer, ShuffleAttention)
    _, by_space = gates_in_float64(layer, inputs_of(model, [path], sample.pixels)[path])
    assert by_space[0].size <= 1024
    assert np.abs(spatial.opened - by_space.reshape(3, -1)).max() < 1e-4


def test_the_observed_features_give_the_logits(observed: tuple[nn.Module, Variant, Sample, Observation]) -> None:
    model, _, sample, observation = observed
    classifier = model.get_submodule("fc")
    assert isinstance(classifier, nn.Linear)
    assert np.abs(logits_in_float64(observation, classifier.bias) - observation.logits).max() < 1e-4
    with torch.no_grad():
        assert np.abs(copy.deepcopy(model).double()(sample.pixels.double()).numpy() - observation.logits).max() < 1e-3
    assert observation.groups == 4


def test_hooks_are_removed_even_if_the_forward_pass_fails(
    observed: tuple[nn.Module, Variant, Sample, Observation],
) -> None:
    model, variant, _, _ = observed
    assert hooks_of(model) == 0
    pixels = torch.zeros(2, 5, 32, 32)  # too many channels
    with pytest.raises(RuntimeError):
        observe(model, variant.network, Sample(pixels, torch.zeros(2).long(), np.zeros((2, 1, 1, 3), np.uint8)))
    assert hooks_of(model) == 0


@pytest.mark.parametrize("attention", ["none", "se", "sge", "identity", "permute", "constant", "se_matched"])
def test_networks_without_shuffle_attention_have_features_and_no_gates(attention: str) -> None:
    variant = variant_of(attention=attention)
    model, sample = random_network(variant.network), sample_of(4)
    observation = observe(model, variant.network, sample)
    assert observation.gates == []
    assert observation.groups == 0
    bias = model.get_submodule("fc").bias
    assert isinstance(bias, Tensor)
    assert np.abs(logits_in_float64(observation, bias) - observation.logits).max() < 1e-4


@pytest.mark.parametrize(
    ("model", "knobs", "stages", "groups"),
    [
        ("resnet8", {"groups": 2}, [1, 2, 3], 2),
        ("resnet8", {"groups": 2, "position": "pre"}, [1, 2, 3], 0),  # convolutions come after
        ("resnet8", {"groups": 2, "position": "shortcut"}, [1, 2, 3], 0),
        ("resnet8", {"groups": 2, "position": "post"}, [1, 2, 3], 2),
        ("resnet8", {"groups": 2, "stages": "first"}, [1], 0),
        ("resnet8", {"groups": 2, "stages": "last"}, [3], 2),
        ("resnet8", {"groups": 2, "stages": "1+3"}, [1, 3], 2),
        ("resnet20", {"groups": 8}, [1, 2, 3], 8),
        ("resnet20", {"groups": 8, "position": "pre"}, [1, 2, 3], 0),
        ("resnet20", {"groups": 8, "position": "shortcut"}, [1, 2, 3], 0),
        ("resnet18", {"groups": 4}, [1, 2, 3, 4], 4),
        ("shufflenet_v2_x0_5", {"groups": 4}, [1, 2, 3], 0),  # another convolution comes after
        ("shufflenet_v2_x0_5", {"groups": 4, "position": "post"}, [1, 2, 3], 0),
        ("timm/resnet26", {"groups": 4}, [1, 2, 3, 4], 4),
    ],
)
def test_groups_are_set_if_the_classifier_pools_the_output_of_the_last_module(
    model: str, knobs: dict[str, object], stages: list[int], groups: int
) -> None:
    variant = variant_of(model, **knobs)
    built = random_network(variant.network)
    observation = observe(built, variant.network, sample_of(2))
    assert [gates.stage for gates in observation.gates if gates.branch == CHANNEL] == stages
    assert observation.groups == groups
    blocks = {gates.path.rsplit(".", 2)[0]: gates.path for gates in observation.gates}
    for stage, path in blocks.items():  # the last block of the stage
        assert int(path.split(".")[1]) == len(list(built.get_submodule(stage).children())) - 1
    if groups:
        assert observation.features.shape == (2, observation.weight.shape[1])


@pytest.mark.parametrize(
    ("knobs", "branches"),
    [
        ({"branches": "channel"}, [CHANNEL]),
        ({"branches": "spatial"}, [SPATIAL]),
        ({"branches": "none"}, []),
        ({"branches": "channel", "removed": "reassign"}, [CHANNEL]),
        ({"gate": "none"}, []),
        ({"gate": "tanh1"}, [CHANNEL, SPATIAL]),
        ({"norm": "none", "transform": "none"}, [CHANNEL, SPATIAL]),
    ],
)
def test_only_branches_with_gates_are_observed(knobs: dict[str, object], branches: list[str]) -> None:
    variant = variant_of(groups=2, **knobs)
    observation = observe(random_network(variant.network), variant.network, sample_of(3))
    assert [gates.branch for gates in observation.gates] == branches * 3
    assert observation.groups == 2
    for gates in observation.gates:
        half = {1: 8, 2: 16, 3: 32}[gates.stage] * (2 if "removed" in knobs else 1)
        if gates.branch == CHANNEL:
            assert gates.opened.shape == (3, half)


def test_the_gates_of_the_frozen_control_are_observed() -> None:
    variant = variant_of(attention="frozen", groups=2)
    observation = observe(random_network(variant.network), variant.network, sample_of(3))
    assert len(observation.gates) == 6
    assert observation.groups == 2


def test_observing_does_not_change_the_network(observed: tuple[nn.Module, Variant, Sample, Observation]) -> None:
    model, variant, sample, observation = observed
    state = copy.deepcopy(model.state_dict())
    again = observe(model, variant.network, sample)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert (again.logits == observation.logits).all()
    assert all((new.opened == old.opened).all() for new, old in zip(again.gates, observation.gates, strict=True))


def images_with(labels: NDArray[np.int64], classes: int) -> DeviceImages:
    """Returns grey test images whose brightness is their index."""
    pixels = np.empty((len(labels), 3, 4, 4), dtype=np.uint8)
    pixels[:] = (np.arange(len(labels)) % 251)[:, None, None, None]
    part = ImageSet(pixels, labels)
    train = ImageSet(np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4), np.zeros(2, dtype=np.int64))
    images: Images = in_memory(train, part, tuple(f"class {label}" for label in range(classes)))
    return DeviceImages(images, torch.device("cpu"), Augmentation(stored=4, side=4))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 8))
def test_a_sample_has_the_first_images_of_each_class_in_the_order_of_the_test_set(
    labels: list[int], number: int
) -> None:
    expected = [index for index, label in enumerate(labels) if labels[:index].count(label) < number]
    sample = images_of_each_class(images_with(np.array(labels, dtype=np.int64), 4), number)
    assert sample.labels.tolist() == [labels[index] for index in expected]
    assert sample.shown[:, 0, 0, 0].tolist() == expected
    assert sample.shown.shape[1:] == (4, 4, 3)
    assert len(sample) == len(expected)


def test_a_sample_of_several_hundred_classes_has_equal_numbers_of_each() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(400), 3)).astype(np.int64)
    images = images_with(labels, 400)
    for number, each in ((1, 1), (2, 2), (50, 3)):
        assert np.bincount(images_of_each_class(images, number).labels.numpy()).tolist() == [each] * 400


@given(st.integers(1, 300), st.sampled_from([8, 32, 64, 224, 1024]))
def test_batches_contain_all_images_and_are_of_limited_size(number: int, side: int) -> None:
    pixels = torch.empty(1, 1, 1, 1).expand(number, 3, side, side)
    parts = batches(pixels)
    assert sum(map(len, parts)) == number
    assert all(len(part) == 1 or len(part) * side * side <= 128 * 32 * 32 for part in parts)
