from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.data.device import DeviceImages
from ablations.data.images import Images, ImageSet

CPU = torch.device("cpu")


def make_images(count: int = 20, size: int = 6, seed: int = 0) -> Images:
    random = np.random.RandomState(seed)

    def part(length: int) -> ImageSet:
        pixels = random.randint(256, size=(length, size, size, 3), dtype=np.uint8)
        return ImageSet(pixels, np.arange(length, dtype=np.int64) % 10)

    return Images(part(count), part(7), tuple("0123456789"))


def test_test_batches_are_all_images_in_order_normalised_by_the_training_set() -> None:
    images = make_images()
    pixels, labels = (
        torch.cat(parts) for parts in zip(*DeviceImages(images, CPU, crop=0, flip=False).test_batches(3), strict=True)
    )
    grey = images.train.pixels.reshape(-1, 3).astype(np.float64)
    expected = (images.test.pixels - grey.mean(0)) / grey.std(0)
    np.testing.assert_allclose(pixels.permute(0, 2, 3, 1).numpy(), expected, rtol=1e-4, atol=1e-4)
    assert labels.tolist() == images.test.labels.tolist()


def test_an_epoch_is_a_permutation_without_its_last_partial_batch() -> None:
    images = make_images(count=20)
    # Every pixel of an image tells which it is.
    images.train.pixels[:] = np.arange(20, dtype=np.uint8)[:, None, None, None]
    device_images = DeviceImages(images, CPU, crop=2, flip=True)
    batches = list(device_images.train_batches(6, seed=1, epoch=0))
    assert [len(labels) for _, labels in batches] == [6, 6, 6]
    assert device_images.train_images(6) == 18
    seen = torch.cat([pixels[:, 0, 0, 0] for pixels, _ in batches])
    assert len(seen.unique()) == 18
    order = [torch.cat([labels for _, labels in device_images.train_batches(6, 1, epoch)]).tolist() for epoch in (0, 1)]
    assert order[0] != order[1]


def test_equal_seeds_give_equal_batches_and_others_do_not() -> None:
    device_images = DeviceImages(make_images(), CPU, crop=2, flip=True)

    def epoch(seed: int, number: int) -> torch.Tensor:
        return torch.cat([pixels for pixels, _ in device_images.train_batches(5, seed, number)])

    assert torch.equal(epoch(3, 0), epoch(3, 0))
    assert not torch.equal(epoch(3, 0), epoch(4, 0))
    assert not torch.equal(epoch(3, 0), epoch(3, 1))


@settings(deadline=None, max_examples=40)
@given(crop=st.integers(0, 4), flip=st.booleans(), seed=st.integers(0, 1000))
def test_every_training_image_is_a_shift_of_its_reflected_source(crop: int, flip: bool, seed: int) -> None:
    images = make_images(count=4, size=6, seed=seed)
    device_images = DeviceImages(images, CPU, crop=crop, flip=flip)
    sources = {}
    for label, pixels in zip(images.train.labels, images.train.pixels, strict=True):
        padded = np.pad(pixels, ((crop, crop), (crop, crop), (0, 0)), mode="reflect")
        windows = [padded[y : y + 6, x : x + 6] for y in range(2 * crop + 1) for x in range(2 * crop + 1)]
        sources[int(label)] = windows + [window[:, ::-1] for window in windows if flip]
    grey = torch.from_numpy(images.train.pixels).double()
    mean, std = grey.mean((0, 1, 2)), grey.std((0, 1, 2), correction=0)
    for pixels, labels in device_images.train_batches(2, seed, 0):
        restored = (pixels.permute(0, 2, 3, 1) * std + mean).round().to(torch.uint8).numpy()
        for image, label in zip(restored, labels.tolist(), strict=True):
            assert any(np.array_equal(image, window) for window in sources[label])


def test_augmentation_differs_from_image_to_image() -> None:
    images = make_images(count=64)
    images.train.pixels[:] = images.train.pixels[0]
    (pixels, _), *_ = DeviceImages(images, CPU, crop=2, flip=True).train_batches(64, 0, 0)
    assert len(pixels.flatten(1).unique(dim=0)) > 20  # of 25 shifts, mirrored or not


def test_batches_are_laid_out_channels_last_without_a_copy() -> None:
    pixels, _ = next(DeviceImages(make_images(), CPU, crop=2, flip=False).train_batches(4, 0, 0))
    assert pixels.shape == (4, 3, 6, 6)
    assert pixels.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.cuda
def test_a_gpu_sees_the_batches_of_the_cpu() -> None:
    images = make_images()
    for cpu, gpu in zip(
        DeviceImages(images, CPU, crop=2, flip=True).train_batches(4, 0, 0),
        DeviceImages(images, torch.device("cuda"), crop=2, flip=True).train_batches(4, 0, 0),
        strict=True,
    ):
        torch.testing.assert_close(gpu[0].cpu(), cpu[0])
        assert torch.equal(gpu[1].cpu(), cpu[1])
