"""The options of each data set, and the registry of data sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from ablations.config.option import AUTO, option

REPLICATE = "replicate"  # value of data.seed: each replicate draws its own data
SELECTION_SHARE = 0.2  # of the training images: held out for selection if data.validation is auto
_DRAWS = f"With {REPLICATE}, every replicate draws another"


@dataclass
class DataConfig:
    """The options of all data sets.

    Attributes:
        margin: the equivalence margin of accuracies if `sweep.margin` is auto, in percentage points. 0.2 points are 20
            of CIFAR's 10,000 test images, and less than differences discussed in published ablations of attention.
    """

    margin: ClassVar[float] = 0.2
    name: str = MISSING
    validation: float | str = option(
        AUTO,
        "Fraction of the training images that a search or tuning holds out for selection (stratified by class); test "
        f"images are never used for selection. auto is {SELECTION_SHARE:g} for searches and tuning, 0 otherwise.",
        minimum=0.0,
        maximum=0.5,
        words=(AUTO,),
    )
    flip: bool = option(True, "Random horizontal flip of training images (p = 0.5).")
    cutout: int = option(
        0, "Cutout: side of the erased square in each training image, in pixels; 0 disables it.", minimum=0, maximum=224
    )
    randaugment: int = option(
        0,
        "RandAugment (Cubuk et al. 2020): number of operations per training image; 0 disables it.",
        minimum=0,
        maximum=10,
        neutral=True,
    )
    randaugment_magnitude: int = option(
        9, "RandAugment: magnitude of the operations (0 to 30).", minimum=0, maximum=30, neutral=True
    )

    @property
    def side(self) -> int:
        """Height and width of the network's input, in pixels."""
        return 32


def _redeclared(schema: type[DataConfig], name: str, default: Any) -> Any:
    """Declares an option of `schema` again, with another default."""
    return field(default=default, metadata=schema.__dataclass_fields__[name].metadata)


@dataclass
class ShiftedConfig(DataConfig):
    """A data set whose images are augmented by shifts of a few pixels, as usual for CIFAR."""

    crop: int = option(
        4, "Random crop of training images: maximum shift in pixels (reflect padding).", minimum=0, maximum=16
    )


@dataclass
class DigitsConfig(ShiftedConfig):
    """The embedded data set: real digits on small cluttered colour scenes.

    The margin is larger than that of other data sets, so that eight replicates can decide: after the few epochs of the
    default recipe, paired differences have a standard deviation of about 1.5 points.
    """

    margin: ClassVar[float] = 2.0
    name: str = "digits"
    crop: int = _redeclared(ShiftedConfig, "crop", 2)
    flip: bool = _redeclared(ShiftedConfig, "flip", False)
    train_images: int = option(1920, "Number of training images.", minimum=10, maximum=1_000_000)
    test_images: int = option(
        3000,
        "Number of test images, composed of digits that no training image contains.",
        minimum=10,
        maximum=1_000_000,
    )
    resolution: int = option(20, "Height and width of the images, in pixels.", minimum=16, maximum=32)
    clutter: int = option(1, "Number of distractors (fragments of other digits) per image.", minimum=0, maximum=32)
    noise: int = option(12, "Maximum pixel noise, in grey levels (of 255).", minimum=0, maximum=128)
    seed: int | str = option(
        0,
        f"Seed of the generated images and of the split of the source digits. {_DRAWS} data set (the same for all "
        "variants).",
        minimum=0,
        maximum=2**32 - 1,
        words=(REPLICATE,),
    )

    @property
    def side(self) -> int:
        """Height and width of the scenes, in pixels."""
        return self.resolution


@dataclass
class StoredConfig(DataConfig):
    """A data set of real images in files."""

    root: str = option("data", "Folder of the data set; CIFAR is downloaded to it if missing.", local=True)
    cache: str = option(
        "", "Cache folder for decoded images, created if needed; empty means ~/.cache/ablations.", local=True
    )
    memory: str = option(
        "auto",
        "Where decoded images are held: on the training device (device) or memory-mapped from disk; auto is device "
        "if they fit.",
        choices=("auto", "device", "mapped"),
        local=True,
    )
    train_per_class: int = option(0, "Training images per class; 0 means all.", minimum=0, maximum=10_000_000)
    val_per_class: int = option(0, "Test images per class; 0 means all.", minimum=0, maximum=10_000_000)
    seed: int | str = option(
        0,
        f"Seed of the random subset of classes and images. {_DRAWS} subset of the official training and test images "
        "(the same for all variants); the classes are those of seed 0.",
        minimum=0,
        maximum=2**32 - 1,
        words=(REPLICATE,),
    )


@dataclass
class Cifar10Config(StoredConfig, ShiftedConfig):
    """CIFAR-10 (Krizhevsky 2009), downloaded if `data.root` does not contain it."""

    name: str = "cifar10"


@dataclass
class Cifar100Config(StoredConfig, ShiftedConfig):
    """CIFAR-100 (Krizhevsky 2009), downloaded if `data.root` does not contain it."""

    name: str = "cifar100"


@dataclass
class ImageTreeConfig(StoredConfig):
    """Your own image folder, or ImageNet: training images in `train/<class>/`, test images in `val/<class>/`."""

    name: str = "imagenet_subset"
    classes: Any = option(
        0, "Classes: a number (0 means all), a list of class folders, or a file with one class folder per line."
    )
    resolution: int = option(64, "Height and width of the network input, in pixels.", minimum=64, maximum=224)
    min_area: float = option(
        0.35, "Random resized crop: minimum area as a fraction of the image.", minimum=0.01, maximum=1.0
    )
    val_labels: str = option(
        "",
        "Labels of test images that are not in class folders: a file with an image and its class per line, a file with "
        "one class per line in the order of the image names, or the ImageNet devkit's ground truth (with meta.mat in "
        "the same folder).",
        local=True,
    )
    exif_orientation: bool = option(False, "Apply the EXIF orientation of images (torchvision ignores it).")
    skip_corrupt: bool = option(
        False, "Skip images that cannot be decoded instead of stopping with an error.", local=True
    )

    @property
    def side(self) -> int:
        """Height and width of the network's input, in pixels."""
        return self.resolution


@dataclass
class ImagenetteConfig(ImageTreeConfig):
    """Imagenette (fast.ai): ten easily classified classes of ImageNet; not downloaded."""

    name: str = "imagenette"
    root: str = option("data/imagenette2-320", "Folder of the data set.", local=True)
    resolution: int = _redeclared(ImageTreeConfig, "resolution", 128)


@dataclass
class TinyImagenetConfig(ImageTreeConfig):
    """Tiny ImageNet (CS231n): 200 classes at 64x64 pixels; not downloaded."""

    name: str = "tiny_imagenet"
    root: str = option("data/tiny-imagenet-200", "Folder of the data set.", local=True)


DATA: dict[str, type[DataConfig]] = {
    schema.name: schema
    for schema in (DigitsConfig, Cifar10Config, Cifar100Config, ImageTreeConfig, ImagenetteConfig, TinyImagenetConfig)
}
