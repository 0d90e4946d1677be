from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn import datasets
from torch.nn.functional import avg_pool2d, interpolate

from ablations.config.compose import compose_config
from ablations.data import load_images
from ablations.data.digits import SIZE, make_digits


def test_scenes_are_the_same_bytes_on_every_machine() -> None:
    # A golden value: changing it changes the data set, and all studies on it.
    assert make_digits(64, 32, clutter=3, noise=12, seed=0).fingerprint == "1931114f6961cef5"


def test_images_have_the_declared_shape_and_equal_classes() -> None:
    images = make_digits(100, 50, clutter=1, noise=4, seed=1)
    assert images.train.pixels.shape == (100, 3, SIZE, SIZE)
    assert images.train.pixels.dtype == np.uint8
    assert (len(images.train), len(images.test), len(images.classes)) == (100, 50, 10)
    assert np.bincount(images.train.labels).tolist() == [10] * 10
    assert np.bincount(images.test.labels).tolist() == [5] * 10


def test_source_digits_of_training_and_test_images_are_disjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = datasets.load_digits()
    some = np.concatenate([np.flatnonzero(whole.target == digit)[:6] for digit in range(10)])
    source = SimpleNamespace(images=whole.images[some], target=whole.target[some])
    monkeypatch.setattr(datasets, "load_digits", lambda: source)

    def drawn() -> tuple[bytes, bytes]:
        images = make_digits(40, 20, clutter=2, noise=0, seed=0)  # enough to use every source digit
        return images.train.pixels.tobytes(), images.test.pixels.tobytes()

    before = drawn()
    held_out = 0
    for number in range(60):
        source.images = whole.images[some]
        source.images[number] = 16 - source.images[number]
        changed = [old != new for old, new in zip(before, drawn(), strict=True)]
        assert sorted(changed) == [False, True]
        held_out += changed[1]
    assert held_out == 20


@pytest.mark.parametrize("option", ["clutter", "noise", "seed"])
def test_each_option_changes_the_scenes(option: str) -> None:
    options = {"clutter": 2, "noise": 3, "seed": 0}
    base = make_digits(20, 10, **options)
    changed = make_digits(20, 10, **(options | {option: options[option] + 1}))
    assert base.fingerprint != changed.fingerprint


def test_digits_are_lighter_than_their_background() -> None:
    scenes = make_digits(200, 10, clutter=0, noise=0, seed=0).train.pixels.astype(float)
    centre = scenes[:, :, 8:24, 8:24].max(axis=(2, 3)).mean()
    corner = scenes[:, :, :4, :4].mean()
    assert centre - corner > 60


def test_options_are_passed_to_the_generator() -> None:
    config = compose_config(
        ["data.train_images=30", "data.test_images=20", "data.seed=5", "data.resolution=24", "data.clutter=3"]
    ).data
    assert load_images(config).fingerprint == make_digits(30, 20, 3, 12, seed=5, resolution=24).fingerprint


@pytest.mark.parametrize("side", [16, 20, 24, 31, SIZE])
def test_smaller_scenes_are_area_averages_of_the_full_ones(side: int) -> None:
    whole, reduced = (make_digits(20, 10, 2, 12, 0, resolution) for resolution in (SIZE, side))
    assert reduced.train.pixels.shape == (20, 3, side, side)
    assert reduced.train.labels.tolist() == whole.train.labels.tolist()
    exact = interpolate(torch.tensor(whole.train.pixels).double(), scale_factor=side, mode="nearest")
    exact = avg_pool2d(exact, SIZE)  # each pixel is repeated `side` times, and SIZE of these are averaged
    assert np.abs(reduced.train.pixels - exact.numpy()).max() <= 0.5 + 1e-9
