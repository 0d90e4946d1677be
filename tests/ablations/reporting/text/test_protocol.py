from __future__ import annotations

import pytest

from ablations.reporting.text.protocol import data_line


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"name": "digits"}, "digits"),
        ({"name": "cifar10", "train_per_class": 0, "val_per_class": 0}, "cifar10"),
        (
            {"name": "cifar10", "train_per_class": 5000, "val_per_class": 50},
            "cifar10 (5,000 training images of each class, 50 test images of each class)",
        ),
        ({"name": "imagenet_subset", "classes": 0, "resolution": 64}, "imagenet_subset (64x64 pixels)"),
        ({"name": "imagenet_subset", "classes": 100, "resolution": 64}, "imagenet_subset (100 classes, 64x64 pixels)"),
        ({"name": "imagenette", "classes": ["a", "b"], "resolution": 128}, "imagenette (2 classes, 128x128 pixels)"),
        ({"name": "x", "classes": "my.txt", "resolution": 64}, "x (the classes of my.txt, 64x64 pixels)"),
    ],
)
def test_a_caption_says_of_a_subset_that_it_is_one(data: dict[str, object], line: str) -> None:
    assert data_line(data) == line
