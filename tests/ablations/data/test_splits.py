"""The images of cells, by split and replicate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ablations.config import DigitsConfig
from ablations.config.compose import compose_config
from ablations.data import DataError, load_data
from ablations.data.images import Images, ImageSet, in_memory
from ablations.data.splits import DrawnSubsets, FixedData, held_out
from ablations.design import Split
from tests.builders.trees import make_tree
from tests.wording import refusal

CLASSES = ("ant", "bee", "cat")


def numbered(*labels: int, test: int = 6) -> Images:
    """Returns a data set whose pixels identify the images: training images from 0 on, test images from 200 on."""

    def part(first: int, of_part: list[int]) -> ImageSet:
        values = (np.arange(first, first + len(of_part)) % 256).astype(np.uint8)
        pixels = np.broadcast_to(values[:, None, None, None], (len(of_part), 3, 2, 2)).copy()
        return ImageSet(pixels, np.array(of_part))

    return in_memory(part(0, list(labels)), part(200, [number % 3 for number in range(test)]), CLASSES)


def identities(part: ImageSet) -> list[int]:
    """Returns the numbers of the images of a part."""
    pixels = part.pixels if part.rows is None else part.pixels[part.rows]
    return [int(image[0, 0, 0]) for image in pixels]


@given(st.lists(st.integers(0, 2), min_size=12, max_size=60), st.floats(0.01, 0.5), st.integers(0, 2**32 - 1))
def test_validation_images_are_training_images_stratified_by_class(labels: list[int], share: float, seed: int) -> None:
    images = numbered(*labels)
    counts = np.bincount(labels, minlength=3)
    if min(np.floor(share * counts + 1e-9)) < 1:
        with pytest.raises(DataError, match="leaves no"):
            held_out(images, share, seed)
        return
    selection = held_out(images, share, seed)
    left, held = identities(selection.train), identities(selection.test)
    assert sorted(left + held) == list(range(len(labels)))  # each training image once, and no test image
    assert (
        np.bincount(selection.test.labels, minlength=3).tolist() == np.floor(share * counts + 1e-9).astype(int).tolist()
    )
    assert selection.train.labels.tolist() == [labels[number] for number in left]
    assert selection.test.labels.tolist() == [labels[number] for number in held]
    assert np.bincount(selection.train.labels, minlength=3).min() > 0
    again = held_out(images, share, seed)
    assert (identities(again.test), again.fingerprint) == (held, selection.fingerprint)


@pytest.mark.parametrize(
    ("labels", "share", "named"),
    [
        ([0] * 20 + [1] * 6 + [2] * 20, 0.1, ("bee", "use at least 0.1667")),
        ([0] * 20 + [1] * 20 + [2] * 2, 0.4, ("cat", "use at least 0.5")),
        ([0] * 20 + [1] * 20 + [2], 0.5, ("cat", "each class needs at least two")),
    ],
)
def test_the_error_for_a_share_that_empties_a_class_has_the_smallest_valid_share(
    labels: list[int], share: float, named: tuple[str, str]
) -> None:
    message = refusal(f"data.validation={share}", "data.empty_class", name=named[0], then=named[1])
    with pytest.raises(DataError, match=message):
        held_out(numbered(*labels), share, 0)


@given(st.integers(2, 500))
def test_the_suggested_share_is_valid(size: int) -> None:
    images = numbered(*[0] * 300, *[1] * 300, *[2] * size)
    with pytest.raises(DataError) as refused:
        held_out(images, 1e-6, 0)
    least = float(str(refused.value).split()[-1])
    held_out(images, least, 0)


def test_results_use_all_training_images_and_selections_no_test_images() -> None:
    images = numbered(*[0, 1, 2] * 10)
    data = FixedData(images, seed=3, validation=0.2)
    assert data.images(7, Split.TEST) is images
    selection = data.images(7, Split.VALIDATION)
    assert max(identities(selection.train) + identities(selection.test)) < 200
    assert len(selection.test) == 6
    assert selection.fingerprint != images.fingerprint
    # The split depends on data.seed and not on the replicate.
    assert data.view(7, Split.VALIDATION) == data.view(8, Split.VALIDATION) != data.view(7, Split.TEST)
    assert data.images(8, Split.VALIDATION).fingerprint == selection.fingerprint
    assert replace(data, seed=4).images(7, Split.VALIDATION).fingerprint != selection.fingerprint


def test_each_replicate_draws_a_subset_of_shared_pixels() -> None:
    pool = numbered(*[0, 1, 2] * 10, test=30)
    data = DrawnSubsets(pool, train_per_class=4, val_per_class=2, validation=0.25)
    first, again, second = (data.images(seed, Split.TEST) for seed in (1, 1, 2))
    for images in (first, second):
        assert np.bincount(images.train.labels).tolist() == [4, 4, 4]
        assert np.bincount(images.test.labels).tolist() == [2, 2, 2]
        assert images.train.pixels is pool.train.pixels
        assert images.test.pixels is pool.test.pixels
        assert max(identities(images.train)) < 200 <= min(identities(images.test))  # the official parts are not mixed
        assert images.train.labels.tolist() == [pool.train.labels[number] for number in identities(images.train)]
    assert (identities(again.train), again.fingerprint) == (identities(first.train), first.fingerprint)
    assert identities(second.train) != identities(first.train)
    assert len({first.fingerprint, second.fingerprint, data.fingerprint}) == 3
    assert data.view(1, Split.TEST) != data.view(2, Split.TEST)
    selection = data.images(1, Split.VALIDATION)
    assert sorted(identities(selection.train) + identities(selection.test)) == sorted(identities(first.train))
    assert len(selection.test) == 3


def test_a_part_without_a_subset_is_the_same_in_all_replicates() -> None:
    pool = numbered(*[0, 1, 2] * 10, test=9)
    data = DrawnSubsets(pool, train_per_class=4, val_per_class=0)
    assert {tuple(identities(data.images(seed, Split.TEST).test)) for seed in range(4)} == {tuple(range(200, 209))}


def test_each_replicate_generates_different_scenes() -> None:
    data = load_data(DigitsConfig(train_images=40, test_images=20, seed="replicate"))
    first, again, second = (data.images(seed, Split.TEST) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != second.fingerprint
    assert (len(second.train), len(second.test)) == (40, 20)
    fixed = load_data(DigitsConfig(train_images=40, test_images=20, seed=0))
    assert fixed.images(1, Split.TEST).fingerprint == fixed.images(2, Split.TEST).fingerprint == fixed.fingerprint


def test_stored_images_are_decoded_once_for_all_replicates(tmp_path: Path) -> None:
    options = ["data=imagenet_subset", f"data.root={make_tree(tmp_path / 'data', train=6)}"]
    options += [f"data.cache={tmp_path / 'cache'}", "data.seed=replicate"]
    for per_class in (2, 3):
        data = load_data(compose_config([*options, f"data.train_per_class={per_class}"]).data, 0, Console(quiet=True))
        assert len(data.images(1, Split.TEST).train) == 3 * per_class
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1
