from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.data.augment import Augmentation
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.data.images import Images, ImageSet, evenly_spaced, in_memory

CPU = torch.device("cpu")


def make_images(count: int = 20, size: int = 6, seed: int = 0) -> Images:
    random = np.random.RandomState(seed)

    def part(length: int) -> ImageSet:
        pixels = random.randint(256, size=(length, 3, size, size), dtype=np.uint8)
        return ImageSet(pixels, np.arange(length, dtype=np.int64) % 10)

    return in_memory(part(count), part(7), tuple("0123456789"))


def on(
    images: Images, device: torch.device = CPU, *, crop: int = 0, flip: bool = False, memory: str = "auto"
) -> DeviceImages:
    side = images.train.pixels.shape[-1]
    return DeviceImages(images, device, Augmentation(side, side, crop=crop, flip=flip), memory=memory)


def test_test_batches_have_all_images_in_order_normalized_by_the_training_set() -> None:
    images = make_images()
    pixels, labels = (torch.cat(parts) for parts in zip(*on(images, crop=0, flip=False).test_batches(3), strict=True))
    grey = images.train.pixels.astype(np.float64)
    mean, std = (moment(grey, axis=(0, 2, 3), keepdims=True) for moment in (np.mean, np.std))
    np.testing.assert_allclose(pixels.numpy(), (images.test.pixels - mean) / std, rtol=1e-4, atol=1e-4)
    assert labels.tolist() == images.test.labels.tolist()


def test_an_epoch_is_a_permutation_without_its_last_partial_batch() -> None:
    images = make_images(count=20)
    # The pixels of an image are its index.
    images.train.pixels[:] = np.arange(20, dtype=np.uint8)[:, None, None, None]
    device_images = on(images, crop=2, flip=True)
    batches = list(device_images.train_batches(6, seed=1, epoch=0))
    assert [len(labels) for _, labels in batches] == [6, 6, 6]
    assert device_images.train_images(6) == 18
    identities = torch.cat([pixels[:, 0, 0, 0] for pixels, _ in batches])
    assert len(identities.unique()) == 18
    order = [torch.cat([labels for _, labels in device_images.train_batches(6, 1, epoch)]).tolist() for epoch in (0, 1)]
    assert order[0] != order[1]


def test_batches_are_determined_by_seed_and_epoch() -> None:
    device_images = on(make_images(), crop=2, flip=True)

    def epoch(seed: int, number: int) -> torch.Tensor:
        return torch.cat([pixels for pixels, _ in device_images.train_batches(5, seed, number)])

    assert torch.equal(epoch(3, 0), epoch(3, 0))
    assert not torch.equal(epoch(3, 0), epoch(4, 0))
    assert not torch.equal(epoch(3, 0), epoch(3, 1))


@settings(max_examples=40)
@given(crop=st.integers(0, 4), flip=st.booleans(), seed=st.integers(0, 1000))
def test_every_training_image_is_a_shift_of_its_source_with_reflect_padding(crop: int, flip: bool, seed: int) -> None:
    images = make_images(count=4, size=6, seed=seed)
    device_images = on(images, crop=crop, flip=flip)
    sources = {}
    for label, pixels in zip(images.train.labels, images.train.pixels, strict=True):
        padded = np.pad(pixels, ((0, 0), (crop, crop), (crop, crop)), mode="reflect")
        windows = [padded[:, y : y + 6, x : x + 6] for y in range(2 * crop + 1) for x in range(2 * crop + 1)]
        sources[int(label)] = windows + [window[:, :, ::-1] for window in windows if flip]
    grey = torch.from_numpy(images.train.pixels).double()
    mean, std = grey.mean((0, 2, 3), keepdim=True), grey.std((0, 2, 3), correction=0, keepdim=True)
    for pixels, labels in device_images.train_batches(2, seed, 0):
        restored = (pixels * std + mean).round().to(torch.uint8).numpy()
        for image, label in zip(restored, labels.tolist(), strict=True):
            assert any(np.array_equal(image, window) for window in sources[label])


def test_augmentation_differs_between_images() -> None:
    images = make_images(count=64)
    images.train.pixels[:] = images.train.pixels[0]
    (pixels, _), *_ = on(images, crop=2, flip=True).train_batches(64, 0, 0)
    assert len(pixels.flatten(1).unique(dim=0)) > 20  # of 25 shifts, flipped or not


def test_mapped_images_have_the_same_batches(tmp_path: Path) -> None:
    images = make_images(count=40)
    path = tmp_path / "train.u8"
    path.write_bytes(images.train.pixels.tobytes())
    mapped = np.memmap(path, np.uint8, mode="c", shape=images.train.pixels.shape)
    stored = Images(ImageSet(mapped, images.train.labels), images.test, images.classes, images.fingerprint)
    resident, on_disk = on(images, crop=2, flip=True, memory="device"), on(stored, crop=2, flip=True, memory="mapped")
    assert resident.resident
    assert not on_disk.resident
    for in_memory_batches, mapped_batches in (
        (resident.train_batches(3, 5, 1), on_disk.train_batches(3, 5, 1)),
        (resident.test_batches(3), on_disk.test_batches(3)),
    ):
        for expected, batch in zip(in_memory_batches, mapped_batches, strict=True):
            assert torch.equal(batch[0], expected[0])
            assert torch.equal(batch[1], expected[1])


def test_augmentation_does_not_depend_on_the_number_of_images_processed_together() -> None:
    # With images of this size, batches of 12 and of 4 are processed separately, and four batches of 1 together.
    images = make_images(count=12, size=260)
    augmented = DeviceImages(images, CPU, Augmentation(260, 256, flip=True, cutout=40, min_area=0.3))
    (whole, labels), *more = augmented.train_batches(12, 1, 2)
    assert more == []
    for size in (1, 2, 4, 6):
        parts = list(augmented.train_batches(size, 1, 2))
        assert [len(part) for part, _ in parts] == [size] * (12 // size)
        assert torch.equal(torch.cat([part for part, _ in parts]), whole)
        assert torch.equal(torch.cat([part for _, part in parts]), labels)


def test_an_unfinished_epoch_leaves_no_threads() -> None:
    before = threading.active_count()
    for _ in range(3):
        next(on(make_images(count=200), memory="mapped").train_batches(4, 0, 0))
    assert threading.active_count() == before


def test_images_stay_on_disk_if_they_exceed_half_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = make_images()
    memory = SimpleNamespace(available=2 * images.nbytes)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert on(images).resident
    memory.available -= 1
    assert not on(images).resident
    assert on(images, memory="device").resident


def test_mean_and_std_of_many_images_are_computed_from_evenly_spaced_ones() -> None:
    images = make_images(count=100_001, size=2)  # more than twice the limit, so that every third is used
    for other in (1, 2):
        images.train.pixels[other::3] = 255
    some = images.train.pixels[::3].astype(np.float64)
    mean, std = (moment(some, axis=(0, 2, 3), keepdims=True) for moment in (np.mean, np.std))
    ((pixels, _),) = on(images).test_batches(7)
    np.testing.assert_allclose(pixels.numpy(), (images.test.pixels - mean) / std, rtol=1e-4, atol=1e-4)


def test_resized_crops_are_reproducible_and_have_the_size_of_the_input() -> None:
    images = make_images(count=8, size=16)
    augmented = DeviceImages(images, CPU, Augmentation(16, 14, flip=True, cutout=4, min_area=0.3))
    (pixels, _), *_ = augmented.train_batches(8, 0, 0)
    (again, _), *_ = augmented.train_batches(8, 0, 0)
    assert pixels.shape == (8, 3, 14, 14)
    assert torch.equal(pixels, again)
    (tested, _), *_ = augmented.test_batches(7)
    assert tested.shape == (7, 3, 14, 14)
    assert ((pixels == 0).all(1).flatten(1).sum(1) >= 4).all()  # the border may cut off three quarters of the square


@pytest.mark.parametrize("memory", ["device", "mapped"])
@pytest.mark.parametrize("places", [[0], [4, 1, 1], [6, 5, 4, 3, 2, 1, 0]])
def test_test_images_by_index_equal_those_of_test_batches(memory: str, places: list[int]) -> None:
    device_images = on(make_images(), crop=2, flip=True, memory=memory)
    pixels, labels = (torch.cat(parts) for parts in zip(*device_images.test_batches(3), strict=True))
    pixels_of_some, displayed = device_images.some_tests(torch.tensor(places))
    assert torch.equal(pixels_of_some, pixels[places])
    assert displayed.dtype == torch.uint8
    assert np.array_equal(displayed.numpy(), make_images().test.pixels[places])
    assert torch.equal(device_images.test_labels, labels)


def test_test_images_by_index_are_cropped_for_display() -> None:
    images = make_images(size=16)
    device_images = DeviceImages(images, CPU, Augmentation(16, 14, flip=True, cutout=4, min_area=0.3))
    pixels_of_some, displayed = device_images.some_tests(torch.tensor([5, 0]))
    assert pixels_of_some.shape == displayed.shape == (2, 3, 14, 14)
    assert np.array_equal(displayed.numpy(), images.test.pixels[[5, 0], :, 1:15, 1:15])
    grey = images.train.pixels.astype(np.float64)
    mean, std = (moment(grey, axis=(0, 2, 3), keepdims=True) for moment in (np.mean, np.std))
    np.testing.assert_allclose(pixels_of_some.numpy(), (displayed.numpy() - mean) / std, rtol=1e-4, atol=1e-4)
    before = images.test.pixels.copy()
    pixels_of_some.zero_()
    displayed.zero_()
    assert np.array_equal(images.test.pixels, before)


@pytest.mark.cuda
@pytest.mark.parametrize("memory", ["device", "mapped"])
@pytest.mark.parametrize("augmentation", [Augmentation(6, 6, 2, flip=True), Augmentation(6, 5, 0, True, 2, 0.3)])
def test_batches_on_a_gpu_equal_those_on_the_cpu(memory: str, augmentation: Augmentation) -> None:
    images = make_images()
    for cpu, gpu in zip(
        DeviceImages(images, CPU, augmentation).train_batches(4, 0, 0),
        DeviceImages(images, torch.device("cuda"), augmentation, memory=memory).train_batches(4, 0, 0),
        strict=True,
    ):
        torch.testing.assert_close(gpu[0].cpu(), cpu[0])
        assert torch.equal(gpu[1].cpu(), cpu[1])


@pytest.mark.parametrize("memory", ["device", "mapped"])
def test_a_choice_of_test_images_has_equal_shares_of_each_class(memory: str) -> None:
    drawn = make_digits(20, 60, 0, 4, 0)
    images = DeviceImages(drawn, torch.device("cpu"), Augmentation(32, 32, crop=1), memory=memory)
    pixels, labels = (torch.cat(parts) for parts in zip(*images.test_batches(7), strict=True))
    few, few_labels = (torch.cat(parts) for parts in zip(*images.test_batches(7, 30), strict=True))
    indices = torch.from_numpy(evenly_spaced(drawn.test.labels, 30))
    assert torch.equal(few, pixels[indices])
    assert torch.equal(few_labels, labels[indices])
    assert torch.bincount(few_labels).tolist() == [3] * 10
    for most in (60, 61, None):
        assert torch.equal(torch.cat([part for part, _ in images.test_batches(7, most)]), pixels)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_evenly_spaced_images_are_distinct_and_proportional_to_classes(labels: list[int], data: st.DataObject) -> None:
    number = data.draw(st.integers(1, len(labels)))
    of_all = np.array(labels)
    indices = evenly_spaced(of_all, number)
    assert len(set(indices.tolist())) == number
    assert indices.tolist() == sorted(indices)
    for label in set(labels):
        share = number * labels.count(label) / len(labels)
        assert abs((of_all[indices] == label).sum() - share) < 1 + 1e-9


@pytest.mark.parametrize("memory", ["device", "mapped"])
def test_a_subset_has_the_batches_of_a_copy_of_its_images(memory: str) -> None:
    images = make_images(count=30)
    indices = np.random.RandomState(0).permutation(30)[:21]
    parts = images.train.subset(indices[:14]), images.train.subset(indices[14:])
    copies = [ImageSet(images.train.pixels[part.rows], part.labels) for part in parts]
    subset = on(Images(*parts, images.classes, "subset"), crop=1, flip=True, memory=memory)
    copied = on(in_memory(copies[0], copies[1], images.classes), crop=1, flip=True, memory=memory)
    for batches, expected_batches in (
        (subset.train_batches(4, 1, 0), copied.train_batches(4, 1, 0)),
        (subset.test_batches(3), copied.test_batches(3)),
        ([subset.some_tests(torch.tensor([2, 0]))], [copied.some_tests(torch.tensor([2, 0]))]),
    ):
        for batch, expected in zip(batches, expected_batches, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, expected, strict=True))


def test_subsets_of_one_data_set_share_its_pixels_on_the_device() -> None:
    images = make_images(count=30)
    whole = on(images)
    part = Images(images.train.subset(np.arange(5)), images.train.subset(np.arange(5, 9)), images.classes, "part")
    beside = DeviceImages(part, CPU, whole.augmentation, beside=whole)
    assert [tensor.data_ptr() for _, tensor in beside.placed] == [whole.placed[0][1].data_ptr()]
    others = DeviceImages(make_images(seed=1), CPU, whole.augmentation, beside=whole)
    assert not {id(pixels) for pixels, _ in others.placed} & {id(pixels) for pixels, _ in whole.placed}
