from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from ablations.config.compose import compose_config
from ablations.data.augment import Augmentation, augmentation_of
from ablations.data.device import DeviceImages
from ablations.data.digits import make_digits
from ablations.data.randaugment import NAMES, RandAugment

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator(seed))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), magnitude=st.integers(0, 30), side=st.sampled_from([8, 32, 33]))
def test_operations_equal_those_of_torchvisions_randaugment(seed: int, magnitude: int, side: int) -> None:
    images = pictures(2, side, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind, negative = int(torch.randint(len(NAMES), ())), bool(torch.rand(()) <= 0.5)  # in the order of torchvision
        torch.manual_seed(seed)
        expected = v2.RandAugment(1, magnitude)(images)
    ours = RandAugment(1, magnitude)
    codes = {int(code) for code in ours.draw(1000, generator()).flatten()}
    code = 2 * kind + negative if 2 * kind + negative in codes else 2 * kind  # some operations have no sign
    changed = ours.apply(images, torch.tensor([[code], [code]]))
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, expected), NAMES[kind]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 20), operations=st.integers(1, 3), seed=st.integers(0, 10_000))
def test_operations_on_an_image_do_not_depend_on_the_rest_of_the_batch(count: int, operations: int, seed: int) -> None:
    ours, images = RandAugment(operations, 9), pictures(count, 16, seed)
    drawn = ours.draw(count, generator(seed))
    before = images.clone()
    together = ours.apply(images, drawn)
    alone = [ours.apply(images[index : index + 1], drawn[index : index + 1]) for index in range(count)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(images, before)
    assert together.is_contiguous()


def test_operations_and_signs_are_drawn_with_equal_probability() -> None:
    drawn = RandAugment(2, 9).draw(14_000, generator())
    counts = np.bincount(drawn.flatten().numpy(), minlength=28).reshape(14, 2)
    assert counts.sum(1) == pytest.approx(np.full(14, 2000), rel=0.1)
    assert [name for name, (_, negative) in zip(NAMES, counts, strict=True) if negative] == [
        "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness",
    ]  # fmt: skip
    assert counts[1:10, 1] == pytest.approx(np.full(9, 1000), rel=0.15)


def test_images_do_not_depend_on_the_batch_size_or_change_the_global_generator() -> None:
    images = make_digits(96, 10, 0, 4, 0)
    augmented = DeviceImages(images, CPU, Augmentation(32, 32, crop=1, randaugment=RandAugment(2, 9)))
    before = torch.get_rng_state()
    whole = torch.cat([pixels for pixels, _ in augmented.train_batches(96, 3, 1)])
    for size in (8, 16):
        assert torch.equal(torch.cat([pixels for pixels, _ in augmented.train_batches(size, 3, 1)]), whole)
    assert torch.equal(torch.get_rng_state(), before)
    others = torch.cat([pixels for pixels, _ in augmented.train_batches(96, 3, 2)])
    assert not torch.equal(others, whole)


def test_randaugment_does_not_change_the_other_augmentation() -> None:
    images = make_digits(64, 10, 0, 4, 0)
    plain, augmented = (
        DeviceImages(images, CPU, Augmentation(32, 32, crop=2, flip=True, cutout=8, randaugment=operations))
        for operations in (None, RandAugment(1, 0))  # at magnitude 0 most operations change nothing
    )
    ((expected, labels),) = plain.train_batches(64, 1, 0)
    ((pixels, augmented_labels),) = augmented.train_batches(64, 1, 0)
    same = (pixels == expected).flatten(1).all(1)
    assert torch.equal(labels, augmented_labels)
    assert 0.5 < same.double().mean() < 1


def test_resized_crops_can_be_combined_with_operations() -> None:
    images = make_digits(32, 10, 0, 4, 0)
    augmentation = Augmentation(32, 24, flip=True, min_area=0.3, randaugment=RandAugment(1, 9))
    ((pixels, _),) = DeviceImages(images, CPU, augmentation).train_batches(32, 0, 0)
    assert (pixels.shape, pixels.dtype) == ((32, 3, 24, 24), torch.float32)


@pytest.mark.parametrize("data", ["digits", "cifar10", "imagenette"])
def test_options_are_passed_to_the_operations(data: str) -> None:
    options = [f"data={data}", "data.randaugment=2", "data.randaugment_magnitude=5"]
    assert augmentation_of(compose_config(options).data, 146).randaugment == RandAugment(2, 5)
    assert augmentation_of(compose_config(options[:1]).data, 146).randaugment is None


@pytest.mark.cuda
def test_operations_on_a_gpu_equal_those_on_the_cpu() -> None:
    images, ours = pictures(200, 32), RandAugment(2, 9)
    drawn = ours.draw(200, generator())
    on_cpu, on_gpu = (ours.apply(images.to(device), drawn).cpu().int() for device in ("cpu", "cuda"))
    assert ((on_cpu - on_gpu).abs() <= 1).double().mean() > 0.99  # nearest neighbours of a rotation may differ
