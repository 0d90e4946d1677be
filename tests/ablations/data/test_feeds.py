from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ablations.data.augment import Augmentation
from ablations.data.device import Batch, DeviceImages
from ablations.data.digits import make_digits
from ablations.data.feeds import Feed, ResidentBatches, StreamedBatches
from ablations.data.images import Images, ImageSet
from ablations.data.randaugment import RandAugment

CPU = torch.device("cpu")
AUGMENTATIONS = {
    "none": Augmentation(32, 32),
    "shift": Augmentation(32, 32, crop=2, flip=True, cutout=8),
    "resized": Augmentation(32, 28, flip=True, cutout=8, min_area=0.3),
}


def batches_of(feed: Feed, epoch: int, count: int) -> list[Batch]:
    """Returns copies of an epoch's batches."""
    feed.begin(epoch)
    copies = []
    for place in range(count):
        feed.advance()
        pixels, labels = feed.batch(torch.tensor(place))
        copies.append((pixels.clone(), labels.clone()))
    return copies


def same(some: list[Batch], others: list[Batch]) -> bool:
    return all(
        torch.equal(a, b) for one, other in zip(some, others, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_every_feed_gives_the_training_batches_of_every_epoch_bit_for_bit(augmentation: str) -> None:
    images = DeviceImages(make_digits(100, 10, 0, 4, 0), CPU, AUGMENTATIONS[augmentation])
    feeds = [
        ResidentBatches(images, 16, 5),
        StreamedBatches(images, 16, 5),
        StreamedBatches(images, 16, 5, is_static=True),
    ]
    for epoch in (0, 1, 4):
        expected = [*images.train_batches(16, 5, epoch)]
        for feed in feeds:
            assert same(batches_of(feed, epoch, 6), expected)


def test_a_subset_of_the_pixels_is_selected_by_its_rows() -> None:
    drawn = make_digits(60, 10, 0, 4, 0)
    part = Images(drawn.train.subset(np.arange(59, 10, -1)), drawn.test, drawn.classes, "part")
    images = DeviceImages(part, CPU, AUGMENTATIONS["shift"])
    assert same(batches_of(ResidentBatches(images, 8, 1), 0, 6), [*images.train_batches(8, 1, 0)])


def test_buffers_keep_their_addresses_from_step_to_step_and_from_epoch_to_epoch() -> None:
    images = DeviceImages(make_digits(64, 10, 0, 4, 0), CPU, AUGMENTATIONS["shift"])
    feed = StreamedBatches(images, 16, 5, is_static=True)
    addresses = set()
    for epoch in range(2):
        feed.begin(epoch)
        for _ in range(4):
            feed.advance()
            addresses.add(tuple(part.data_ptr() for part in feed.batch(torch.tensor(0))))
    assert len(addresses) == 1


def test_images_that_a_step_cannot_select_itself_have_a_reason(tmp_path: Path) -> None:
    drawn = make_digits(64, 10, 0, 4, 0)
    path = tmp_path / "train.u8"
    path.write_bytes(drawn.train.pixels.tobytes())
    on_disk = np.memmap(path, np.uint8, mode="c", shape=drawn.train.pixels.shape)
    stored = Images(ImageSet(on_disk, drawn.train.labels), drawn.test, drawn.classes, drawn.fingerprint)
    augmented = Augmentation(32, 32, randaugment=RandAugment(2, 9))
    assert ResidentBatches.reason_against(DeviceImages(drawn, CPU, AUGMENTATIONS["shift"])) is None
    for images in (
        DeviceImages(stored, CPU, AUGMENTATIONS["shift"], memory="mapped"),
        DeviceImages(drawn, CPU, augmented),
    ):
        assert ResidentBatches.reason_against(images)
