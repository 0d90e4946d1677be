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
def analysis(tmp_path_factory: pytest.TempPathFactory) -> StudyAnalysis:
    """A study with saved weights."""
    stored = stored_study(tmp_path_factory.mktemp("groups"), *GROUPS)
    keep_weights(stored)
    return stored


@pytest.fixture(scope="module")
def groups(analysis: StudyAnalysis) -> TrainedNetworks:
    return analysis.networks


def test_the_sample_has_the_first_images_of_each_class_in_equal_numbers(groups: TrainedNetworks) -> None:
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
def test_a_sample_is_within_the_budget_with_at_least_one_image_per_class(
    analysis: StudyAnalysis, monkeypatch: pytest.MonkeyPatch, budget: float, most: int, each: int
) -> None:
    monkeypatch.setattr(module, "BUDGET", budget)
    monkeypatch.setattr(module, "MOST", most)
    assert np.bincount(replace(analysis).networks.sample.labels.numpy()).tolist() == [each] * 10


def test_the_budget_is_shared_by_all_variants(analysis: StudyAnalysis, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = sum(analysis.multiply_adds.values())
    assert len(analysis.multiply_adds) == 3
    for images, each in ((70.5, 7), (69.5, 6)):
        monkeypatch.setattr(module, "BUDGET", images * cost)
        assert np.bincount(replace(analysis).networks.sample.labels.numpy()).tolist() == [each] * 10


def test_a_network_is_loaded_with_its_saved_weights(groups: TrainedNetworks) -> None:
    assert [variant.name for variant in groups.variants] == ["none", "groups=2", "groups=4"]
    assert groups.classes == tuple("0123456789")
    for variant in groups.variants:
        loaded, saved = groups.load(variant), random_network(variant.network).state_dict()
        assert not loaded.training
        assert loaded.state_dict().keys() == saved.keys()
        assert all(torch.equal(value, saved[name]) for name, value in loaded.state_dict().items())


def test_each_network_is_observed_once(groups: TrainedNetworks) -> None:
    assert list(groups.observations) == ["none", "groups=2", "groups=4"]
    assert groups.observations is groups.observations
    assert groups.sample is groups.sample


def test_variants_without_weights_or_without_a_finished_cell_are_left_out(tmp_path: Path) -> None:
    analysis = stored_study(tmp_path, *GROUPS, finished=2)  # groups=4 is not finished
    keep_weights(analysis)
    assert [variant.name for variant in analysis.networks.variants] == ["none", "groups=2"]
    for path in (tmp_path / "weights").iterdir():
        path.unlink()
    keep_weights(analysis, "none")
    assert [variant.name for variant in replace(analysis).networks.variants] == ["groups=2"]


def test_only_networks_of_displayed_variants_are_observed(
    analysis: StudyAnalysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "MOST_SHOWN", 2)
    monkeypatch.setattr(study_module, "ENDS", 1)
    fewer = replace(analysis, design=replace(analysis.design, baseline="groups=4"))
    assert len(fewer.shown) == 2
    assert {variant.name for variant in fewer.networks.variants} == fewer.shown
    assert list(fewer.networks.observations) == [variant.name for variant in fewer.networks.variants]


def test_the_error_without_weights_has_the_option_that_saves_them(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no weights are saved in .*weights; `run study=<another name> weights=first`"
    ):
        _ = stored_study(tmp_path, *GROUPS).networks


@pytest.mark.parametrize("content", [b"", b"no weights", "other"])
def test_the_error_for_an_unreadable_file_names_it(tmp_path: Path, content: bytes | str) -> None:
    analysis = stored_study(tmp_path, *GROUPS)
    keep_weights(analysis)
    networks = analysis.networks
    path = Weights(tmp_path / "weights").path(networks.cells["groups=2"])
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"network": networks.variants[0].network, "classes": ["0"], "state": {}}, path)
    with pytest.raises(UsageError, match=rf"weights=.*{path.name}: cannot be read \("):
        networks.load(networks.variants[1])


def test_images_that_the_networks_were_not_trained_on_are_refused(analysis: StudyAnalysis) -> None:
    other = replace(analysis, attributes=analysis.attributes | {"data_fingerprint": "f00d"})
    with pytest.raises(UsageError, match=r"has fingerprint [0-9a-f]{16}; the study's networks were trained on f00d"):
        _ = other.networks.sample


def test_multiply_adds_equal_those_counted_on_the_real_network(tmp_path: Path) -> None:
    analysis, image = stored_study(tmp_path, *GROUPS), torch.zeros(1, 3, 20, 20)
    for variant in analysis.design.variants:
        expected = count_operations(random_network(variant.network), image).multiply_adds
        assert count_multiply_adds(variant.network, 10, 20) == analysis.multiply_adds[variant.name] == expected
        plain = random_network(plain_network(variant.model))
        assert analysis.plain_adds[variant.name] == count_operations(plain, image).multiply_adds
