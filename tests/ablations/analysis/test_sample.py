from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ablations.analysis.sample import batches, images_of_each_class
from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.images import Images, ImageSet, in_memory


def images_with(labels: NDArray[np.int64], classes: int) -> DeviceImages:
    """Grey test images: each as bright as its place in the set."""
    pixels = np.empty((len(labels), 3, 4, 4), dtype=np.uint8)
    pixels[:] = (np.arange(len(labels)) % 251)[:, None, None, None]
    part = ImageSet(pixels, labels)
    train = ImageSet(np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4), np.zeros(2, dtype=np.int64))
    made: Images = in_memory(train, part, tuple(f"class {label}" for label in range(classes)))
    return DeviceImages(made, torch.device("cpu"), Augmentation(stored=4, side=4))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 8))
def test_images_of_each_class_are_its_first_in_the_order_of_the_test_set(labels: list[int], number: int) -> None:
    expected = [place for place, label in enumerate(labels) if labels[:place].count(label) < number]
    sample = images_of_each_class(images_with(np.array(labels, dtype=np.int64), 4), number)
    assert sample.labels.tolist() == [labels[place] for place in expected]
    assert sample.shown[:, 0, 0, 0].tolist() == expected
    assert sample.shown.shape[1:] == (4, 4, 3)
    assert len(sample) == len(expected)


def test_several_hundred_classes_have_an_image_each_or_as_many_as_there_are() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(400), 3)).astype(np.int64)
    images = images_with(labels, 400)
    for number, each in ((1, 1), (2, 2), (50, 3)):
        assert np.bincount(images_of_each_class(images, number).labels.numpy()).tolist() == [each] * 400


@given(st.integers(1, 300), st.sampled_from([8, 32, 64, 224, 1024]))
def test_batches_are_all_images_in_their_order(number: int, side: int) -> None:
    pixels = torch.empty(1, 1, 1, 1).expand(number, 3, side, side)
    parts = batches(pixels)
    assert sum(map(len, parts)) == number
    assert all(len(part) == 1 or len(part) * side * side <= 128 * 32 * 32 for part in parts)
