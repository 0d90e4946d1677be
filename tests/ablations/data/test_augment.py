from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.transforms import v2

from ablations.config.compose import compose_config
from ablations.data.augment import Augmentation, augmentation_of

RANDOM = torch.Generator().manual_seed(0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40)
@given(side=st.integers(6, 40), min_area=st.floats(0.02, 1.0), seed=st.integers(0, 10_000))
def test_a_resized_crop_equals_that_of_torch_for_the_same_box(side: int, min_area: float, seed: int) -> None:
    augmentation = Augmentation(stored=24, side=side, flip=True, min_area=min_area)
    raw = torch.randint(256, (3, 3, 24, 24), dtype=torch.uint8, generator=generator(seed))
    drawn = augmentation.draw(3, generator(seed))
    width, height, x, y = drawn["box"].unbind(1)
    turned = torch.where(drawn["mirrored"], -width, width)
    zero = torch.zeros(3)
    theta = torch.stack([turned, zero, 2 * x - 1, zero, height, 2 * y - 1], 1).view(3, 2, 3)
    expected = F.grid_sample(
        raw.float(), F.affine_grid(theta, [3, 3, side, side], align_corners=False), padding_mode="border",
        align_corners=False,
    )  # fmt: skip
    torch.testing.assert_close(augmentation.train(raw, drawn), expected, rtol=1e-3, atol=0.05)


@given(min_area=st.floats(0.01, 1.0), seed=st.integers(0, 10_000))
def test_boxes_are_within_the_image_and_have_valid_areas_and_ratios(min_area: float, seed: int) -> None:
    box = Augmentation(8, 8, min_area=min_area).draw(50, generator(seed))["box"]
    size, centre = box[:, :2], box[:, 2:]
    assert (centre - size / 2 >= -1e-6).all()
    assert (centre + size / 2 <= 1 + 1e-6).all()
    ratio = size[:, 0] / size[:, 1]
    assert ((ratio > 3 / 4 - 1e-4) & (ratio < 4 / 3 + 1e-4)).all()
    assert (size.prod(1) >= min_area - 1e-6).all()


def test_areas_are_distributed_as_in_torchvision() -> None:
    drawn = Augmentation(100, 64, min_area=0.3).draw(4000, generator())["box"]
    torch.manual_seed(0)
    image = torch.zeros(3, 100, 100)
    boxes = [v2.RandomResizedCrop.make_params(v2.RandomResizedCrop(64, scale=(0.3, 1.0)), [image]) for _ in range(4000)]
    areas = torch.tensor([box["height"] * box["width"] / 1e4 for box in boxes])
    ours = drawn[:, :2].prod(1)
    assert ours.mean().item() == pytest.approx(areas.mean().item(), abs=0.03)
    assert ours.std().item() == pytest.approx(areas.std().item(), abs=0.03)


def test_a_box_of_the_whole_image_is_the_identity() -> None:
    raw = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8, generator=RANDOM)
    augmentation = Augmentation(16, 16, min_area=1.0)
    drawn = augmentation.draw(2, generator()) | {"box": torch.tensor([[1.0, 1.0, 0.5, 0.5]] * 2)}
    torch.testing.assert_close(augmentation.train(raw, drawn), raw.float())


def test_cutout_sets_a_square_around_any_pixel_to_the_mean_colour() -> None:
    augmentation = Augmentation(9, 9, cutout=3)
    drawn = augmentation.draw(500, generator())
    images = torch.ones(500, 3, 9, 9)
    augmentation.cut_out(images, drawn)
    holes = images == 0
    assert (holes.all(1) == holes.any(1)).all()  # in all channels
    sizes = holes[:, 0].flatten(1).sum(1)
    assert set(sizes.tolist()) == {4, 6, 9}  # at a corner, at an edge, inside
    assert holes[:, 0].any(0).all()
    for image, (row, column) in zip(holes[:, 0], drawn["hole"].tolist(), strict=True):
        assert image[row, column]


def test_without_options_images_are_not_augmented() -> None:
    raw = torch.randint(256, (5, 3, 7, 7), dtype=torch.uint8, generator=RANDOM)
    augmentation = Augmentation(7, 7)
    drawn = augmentation.draw(5, generator())
    assert torch.equal(augmentation.train(raw, drawn), raw)
    assert torch.equal(augmentation.test(raw), raw)
    images = raw.float()
    augmentation.cut_out(images, drawn)
    assert torch.equal(images, raw.float())


def test_a_test_image_is_the_centre_crop_of_the_stored_one() -> None:
    raw = torch.arange(36, dtype=torch.uint8).view(1, 1, 6, 6).expand(1, 3, 6, 6)
    assert Augmentation(6, 2).test(raw)[0, 0].tolist() == [[14, 15], [20, 21]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["data=digits", "data.resolution=24"], Augmentation(24, 24, crop=2)),
        (["data=cifar10", "data.cutout=8"], Augmentation(32, 32, crop=4, flip=True, cutout=8)),
        (["data=imagenette", "data.min_area=0.2"], Augmentation(146, 128, flip=True, min_area=0.2)),
        (["data=imagenet_subset", "data.resolution=224"], Augmentation(256, 224, flip=True, min_area=0.35)),
    ],
)
def test_options_are_passed_to_the_augmentation(options: list[str], expected: Augmentation) -> None:
    assert augmentation_of(compose_config(options).data, expected.stored) == expected
