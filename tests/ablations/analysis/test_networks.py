from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from ablations.analysis import networks as module
from ablations.analysis.networks import TrainedNetworks, batches, count_multiply_adds, images_of_each_class
from ablations.analysis.results import collect
from ablations.analysis.study import Findings
from ablations.common.errors import UsageError
from ablations.config import DigitsConfig
from ablations.config.compose import compose_config
from ablations.data import load_images
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.images import Images, ImageSet, in_memory
from ablations.design import Design, make_design
from ablations.measure.complexity import count_operations
from ablations.storage.weights import Weights
from ablations.training.learner import build_network
from ablations.training.packing import pack_weights
from tests.ablations.analysis.test_results import stored

IMAGES = ("device=cpu", "data.train_images=20", "data.test_images=160")  # more than a batch of 128
GROUPS = ("sweep=groups", "sweep.factors.attention.groups=[2,4]")


def random_network(network: dict[str, object], classes: int = 10, seed: int = 0) -> nn.Module:
    """Builds a network whose norms and gates are not where they start, so that they differ by image."""
    model = build_network(network, classes, seed=seed, fused="off")
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2 or parameter.shape[0] == 1:
                parameter.add_(0.4 * torch.randn(parameter.shape, generator=random))
        for path, buffer in model.named_buffers():
            if path.endswith("running_mean"):
                buffer.add_(0.2 * torch.randn(buffer.shape, generator=random))
    return model.eval()


def study(folder: Path, *overrides: str, finished: int | None = None) -> Findings:
    """A study as it would be stored, of which the first cells are finished."""
    config = compose_config([*IMAGES, "train.batch_size=8", "replicates=1", *overrides])
    design = make_design(config)
    images = load_images(config.data)
    attributes = {"data_fingerprint": images.fingerprint, "data": {"classes": list(images.classes)}}
    cells = len(list(design.cells())) if finished is None else finished
    return Findings(config, design, collect(design, stored(design, cells)), attributes, folder)


def keep_weights(found: Findings, *without: str) -> None:
    """Keeps weights of all variants but some, as training would."""
    for variant in found.design.variants:
        if variant.name not in without:
            cell = found.design.cell(variant, 0)
            classes = tuple(found.attributes["data"]["classes"])
            content = pack_weights(cell, random_network(variant.network), classes)
            Weights(found.folder / "weights").write(cell, content)


def trained(folder: Path, *overrides: str) -> TrainedNetworks:
    """The networks of a study, with random weights."""
    found = study(folder, *overrides)
    keep_weights(found)
    return TrainedNetworks(found)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetworks:
    return trained(tmp_path_factory.mktemp("groups"), *GROUPS)


def images_with(labels: NDArray[np.int64], classes: int) -> DeviceImages:
    """Grey test images: each as bright as its place in the set."""
    pixels = np.empty((len(labels), 3, 4, 4), dtype=np.uint8)
    pixels[:] = (np.arange(len(labels)) % 251)[:, None, None, None]
    part = ImageSet(pixels, labels)
    train = ImageSet(np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4), np.zeros(2, dtype=np.int64))
    made: Images = in_memory(train, part, tuple(f"class {label}" for label in range(classes)))
    return DeviceImages(made, torch.device("cpu"), Augmentation(stored=4, side=4))


def test_the_sample_has_the_first_images_of_each_class_and_the_same_number_of_each(groups: TrainedNetworks) -> None:
    images = load_images(DigitsConfig(train_images=20, test_images=160))
    sample = groups.sample
    labels = sample.labels.numpy()
    assert np.bincount(labels).tolist() == [16] * 10
    assert sample.pixels.shape == (160, 3, 32, 32)
    assert (sample.shown == images.test.pixels.transpose(0, 2, 3, 1)).all()
    mean = images.train.pixels.astype(np.float64).mean((0, 2, 3))[:, None, None]
    spread = images.train.pixels.astype(np.float64).std((0, 2, 3))[:, None, None]
    assert np.abs(sample.pixels.double().numpy() - (images.test.pixels - mean) / spread).max() < 1e-4


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 8))
def test_images_of_each_class_are_its_first_in_the_order_of_the_test_set(labels: list[int], number: int) -> None:
    expected = [place for place, label in enumerate(labels) if labels[:place].count(label) < number]
    sample = images_of_each_class(images_with(np.array(labels, dtype=np.int64), 4), number)
    assert sample.labels.tolist() == [labels[place] for place in expected]
    assert sample.shown[:, 0, 0, 0].tolist() == expected
    assert sample.shown.shape[1:] == (4, 4, 3)
    assert len(sample) == len(expected)


@pytest.mark.parametrize(
    ("budget", "most", "each"),
    [(0.0, 1000, 1), (1.0, 1000, 1), (1e15, 1000, 16), (1e15, 40, 4), (1e15, 39, 3), (1e15, 5, 1)],
)
def test_a_sample_keeps_within_the_budget_but_for_one_image_of_each_class(
    groups: TrainedNetworks, monkeypatch: pytest.MonkeyPatch, budget: float, most: int, each: int
) -> None:
    monkeypatch.setattr(module, "_BUDGET", budget)
    monkeypatch.setattr(module, "_MOST", most)
    anew = TrainedNetworks(groups._findings)
    assert np.bincount(anew.sample.labels.numpy()).tolist() == [each] * 10


def test_the_budget_is_shared_by_all_variants(groups: TrainedNetworks, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = sum(groups._findings.multiply_adds.values())
    assert len(groups._findings.multiply_adds) == 3
    for images, each in ((70.5, 7), (69.5, 6)):
        monkeypatch.setattr(module, "_BUDGET", images * cost)
        assert np.bincount(TrainedNetworks(groups._findings).sample.labels.numpy()).tolist() == [each] * 10


def test_several_hundred_classes_have_an_image_each_or_as_many_as_there_are() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(400), 3)).astype(np.int64)
    images = images_with(labels, 400)
    for number, each in ((1, 1), (2, 2), (50, 3)):
        assert np.bincount(images_of_each_class(images, number).labels.numpy()).tolist() == [each] * 400


def test_a_network_is_loaded_as_it_was_kept(groups: TrainedNetworks) -> None:
    assert [variant.name for variant in groups.variants] == ["none", "groups=2", "groups=4"]
    assert groups.classes == tuple("0123456789")
    for variant in groups.variants:
        loaded, made = groups.load(variant), random_network(variant.network)
        assert not loaded.training
        assert loaded.state_dict().keys() == made.state_dict().keys()
        assert all(torch.equal(value, made.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_each_network_is_observed_once(groups: TrainedNetworks) -> None:
    assert list(groups.observations) == ["none", "groups=2", "groups=4"]
    assert groups.observations is groups.observations
    assert groups.sample is groups.sample


def test_variants_without_weights_or_without_a_finished_cell_are_left_out(tmp_path: Path) -> None:
    found = study(tmp_path, *GROUPS, finished=2)  # groups=4 is not finished
    keep_weights(found)
    assert [variant.name for variant in TrainedNetworks(found).variants] == ["none", "groups=2"]
    for path in (tmp_path / "weights").iterdir():
        path.unlink()
    keep_weights(found, "none")
    assert [variant.name for variant in TrainedNetworks(found).variants] == ["groups=2"]


def test_without_any_weights_the_user_is_told_how_to_keep_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no weights are kept in .*weights; `run study=<another name> weights=first`"):
        TrainedNetworks(study(tmp_path, *GROUPS))


@pytest.mark.parametrize("content", [b"", b"no weights", "other"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | str) -> None:
    found = study(tmp_path, *GROUPS)
    keep_weights(found)
    networks = TrainedNetworks(found)
    path = Weights(tmp_path / "weights").path(networks.cells["groups=2"])
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"network": networks.variants[0].network, "classes": ["0"], "state": {}}, path)
    with pytest.raises(UsageError, match=rf"weights=.*{path.name}: cannot be read \("):
        networks.load(networks.variants[1])


def test_images_that_the_networks_were_not_trained_on_are_refused(groups: TrainedNetworks) -> None:
    other = replace(groups._findings, attributes=groups._findings.attributes | {"data_fingerprint": "f00d"})
    with pytest.raises(UsageError, match=r"has fingerprint [0-9a-f]{16}; the study's networks were trained on f00d"):
        _ = TrainedNetworks(other).sample


def test_multiply_adds_are_those_of_the_network_that_is_built_for_real(groups: TrainedNetworks) -> None:
    design: Design = groups._findings.design
    for variant in design.variants:
        model = random_network(variant.network)
        expected = count_operations(model, torch.zeros(1, 3, 32, 32)).multiply_adds
        assert count_multiply_adds(variant.network, 10, 32) == groups._findings.multiply_adds[variant.name] == expected
        plain = random_network({"model": variant.model, "attention": {"name": "none"}})
        assert (
            groups._findings.plain_adds[variant.name]
            == count_operations(plain, torch.zeros(1, 3, 32, 32)).multiply_adds
        )


@given(st.integers(1, 300), st.sampled_from([8, 32, 64, 224, 1024]))
def test_batches_are_all_images_in_their_order(number: int, side: int) -> None:
    pixels = torch.empty(1, 1, 1, 1).expand(number, 3, side, side)
    parts = batches(pixels)
    assert sum(map(len, parts)) == number
    assert all(len(part) == 1 or len(part) * side * side <= 128 * 32 * 32 for part in parts)
