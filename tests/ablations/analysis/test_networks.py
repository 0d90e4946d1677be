from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ablations.analysis import networks as module
from ablations.analysis import study as study_module
from ablations.analysis.networks import TrainedNetworks, count_multiply_adds
from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import UsageError
from ablations.config import DigitsConfig
from ablations.data import load_images
from ablations.design.variants import plain_network
from ablations.measure.complexity import count_operations
from ablations.storage.files import Weights
from tests.builders.kept import GROUPS, keep_weights, stored_study
from tests.builders.networks import random_network


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> StudyAnalysis:
    made = stored_study(tmp_path_factory.mktemp("groups"), *GROUPS)
    keep_weights(made)
    return made


@pytest.fixture(scope="module")
def groups(found: StudyAnalysis) -> TrainedNetworks:
    return found.networks


def test_the_sample_has_the_first_images_of_each_class_and_the_same_number_of_each(groups: TrainedNetworks) -> None:
    images = load_images(DigitsConfig(train_images=20, test_images=160))
    sample = groups.sample
    labels = sample.labels.numpy()
    assert np.bincount(labels).tolist() == [16] * 10
    assert sample.pixels.shape == (160, 3, 20, 20)
    assert (sample.shown == images.test.pixels.transpose(0, 2, 3, 1)).all()
    mean = images.train.pixels.astype(np.float64).mean((0, 2, 3))[:, None, None]
    spread = images.train.pixels.astype(np.float64).std((0, 2, 3))[:, None, None]
    assert np.abs(sample.pixels.double().numpy() - (images.test.pixels - mean) / spread).max() < 1e-4


@pytest.mark.parametrize(
    ("budget", "most", "each"),
    [(0.0, 1000, 1), (1.0, 1000, 1), (1e15, 1000, 16), (1e15, 40, 4), (1e15, 39, 3), (1e15, 5, 1)],
)
def test_a_sample_keeps_within_the_budget_but_for_one_image_of_each_class(
    found: StudyAnalysis, monkeypatch: pytest.MonkeyPatch, budget: float, most: int, each: int
) -> None:
    monkeypatch.setattr(module, "BUDGET", budget)
    monkeypatch.setattr(module, "MOST", most)
    anew = replace(found).networks
    assert np.bincount(anew.sample.labels.numpy()).tolist() == [each] * 10


def test_the_budget_is_shared_by_all_variants(found: StudyAnalysis, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = sum(found.multiply_adds.values())
    assert len(found.multiply_adds) == 3
    for images, each in ((70.5, 7), (69.5, 6)):
        monkeypatch.setattr(module, "BUDGET", images * cost)
        assert np.bincount(replace(found).networks.sample.labels.numpy()).tolist() == [each] * 10


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
    found = stored_study(tmp_path, *GROUPS, finished=2)  # groups=4 is not finished
    keep_weights(found)
    assert [variant.name for variant in found.networks.variants] == ["none", "groups=2"]
    for path in (tmp_path / "weights").iterdir():
        path.unlink()
    keep_weights(found, "none")
    assert [variant.name for variant in replace(found).networks.variants] == ["groups=2"]


def test_of_very_many_variants_the_networks_of_those_that_are_shown_are_looked_at(
    found: StudyAnalysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "MOST_SHOWN", 2)
    monkeypatch.setattr(study_module, "ENDS", 1)
    fewer = replace(found, design=replace(found.design, baseline="groups=4"))
    assert len(fewer.shown) == 2
    assert {variant.name for variant in fewer.networks.variants} == fewer.shown
    assert list(fewer.networks.observations) == [variant.name for variant in fewer.networks.variants]


def test_without_any_weights_the_user_is_told_how_to_keep_them(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no weights are saved in .*weights; `run study=<another name> weights=first`"
    ):
        _ = stored_study(tmp_path, *GROUPS).networks


@pytest.mark.parametrize("content", [b"", b"no weights", "other"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | str) -> None:
    found = stored_study(tmp_path, *GROUPS)
    keep_weights(found)
    networks = found.networks
    path = Weights(tmp_path / "weights").path(networks.cells["groups=2"])
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"network": networks.variants[0].network, "classes": ["0"], "state": {}}, path)
    with pytest.raises(UsageError, match=rf"weights=.*{path.name}: cannot be read \("):
        networks.load(networks.variants[1])


def test_images_that_the_networks_were_not_trained_on_are_refused(found: StudyAnalysis) -> None:
    other = replace(found, attributes=found.attributes | {"data_fingerprint": "f00d"})
    with pytest.raises(UsageError, match=r"has fingerprint [0-9a-f]{16}; the study's networks were trained on f00d"):
        _ = other.networks.sample


def test_multiply_adds_are_those_of_the_network_that_is_built_for_real(tmp_path: Path) -> None:
    found, image = stored_study(tmp_path, *GROUPS), torch.zeros(1, 3, 20, 20)
    for variant in found.design.variants:
        expected = count_operations(random_network(variant.network), image).multiply_adds
        assert count_multiply_adds(variant.network, 10, 20) == found.multiply_adds[variant.name] == expected
        plain = random_network(plain_network(variant.model))
        assert found.plain_adds[variant.name] == count_operations(plain, image).multiply_adds
