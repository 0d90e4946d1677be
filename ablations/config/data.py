"""The options of each data set, and the data sets by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from ablations.config.option import AUTO, option

REPLICATE = "replicate"  # as data.seed: each replicate draws data of its own
SELECTION_SHARE = 0.2  # of the training images, held out to select on where data.validation is auto
_DRAWS = f"; '{REPLICATE}' gives each replicate its own, the same for all variants"


@dataclass
class DataConfig:
    """What every data set has.

    Attributes:
        margin: the equivalence margin where `sweep.margin` is auto, in percentage points of an accuracy. 0.2 points are
            20 of CIFAR's 10,000 test images and less than the published ablations of attention modules discuss.
    """

    margin: ClassVar[float] = 0.2
    name: str = MISSING
    validation: float | str = option(
        AUTO,
        "Share of the training images that a search or tuning holds out, stratified by class, to select on; the test "
        f"images are for results. auto is {SELECTION_SHARE:g} there; other studies select nothing.",
        minimum=0.0,
        maximum=0.5,
        words=(AUTO,),
    )
    flip: bool = option(True, "Whether training images are mirrored, one in two.")
    cutout: int = option(
        0, "Side of the square that is blanked in each training image, in pixels.", minimum=0, maximum=224
    )
    randaugment: int = option(
        0,
        "Operations of RandAugment (Cubuk et al. 2020) on each training image, drawn for each image; 0 is off.",
        minimum=0,
        maximum=10,
        neutral=True,
    )
    randaugment_magnitude: int = option(
        9, "Magnitude of RandAugment's operations, one of 31 bins.", minimum=0, maximum=30, neutral=True
    )

    @property
    def side(self) -> int:
        """Height and width of the images that networks see, in pixels."""
        return 32


def _redeclared(schema: type[DataConfig], name: str, default: Any) -> Any:
    """Declares an option of `schema` again, with another default."""
    return field(default=default, metadata=schema.__dataclass_fields__[name].metadata)


@dataclass
class ShiftedConfig(DataConfig):
    """Images that are augmented as CIFAR's are: by shifts of a few pixels."""

    crop: int = option(
        4, "Greatest shift of a training image in pixels; the border is reflected.", minimum=0, maximum=16
    )


@dataclass
class DigitsConfig(ShiftedConfig):
    """The embedded data set: real digits on small cluttered colour scenes.

    Its margin is larger than that of other data sets, so that a first run of eight replicates can decide: after its few
    epochs paired differences have a standard deviation of about 1.5 points.
    """

    margin: ClassVar[float] = 2.0
    name: str = "digits"
    crop: int = _redeclared(ShiftedConfig, "crop", 2)
    flip: bool = _redeclared(ShiftedConfig, "flip", False)
    train_images: int = option(1920, "Scenes to train on.", minimum=10, maximum=1_000_000)
    test_images: int = option(
        3000, "Scenes to test on, made from digits that no training scene uses.", minimum=10, maximum=1_000_000
    )
    resolution: int = option(20, "Side of the scenes in pixels.", minimum=16, maximum=32)
    clutter: int = option(1, "Fragments of other digits in a scene.", minimum=0, maximum=32)
    noise: int = option(12, "Greatest change of a pixel by noise, in grey levels.", minimum=0, maximum=128)
    seed: int | str = option(
        0,
        f"Seed of the scenes and of the split of source digits{_DRAWS}.",
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
    """Real images, which lie in files."""

    root: str = option("data", "Folder that has the data set, or gets it.", local=True)
    cache: str = option(
        "", "Folder of decoded images, made when needed; ~/.cache/ablations where it is empty.", local=True
    )
    memory: str = option(
        "auto",
        "Where images are kept: on the device they train on, or mapped from disk; auto is device where they fit.",
        choices=("auto", "device", "mapped"),
        local=True,
    )
    train_per_class: int = option(0, "Training images of each class; 0 is all.", minimum=0, maximum=10_000_000)
    val_per_class: int = option(0, "Test images of each class; 0 is all.", minimum=0, maximum=10_000_000)
    seed: int | str = option(
        0,
        f"Seed of which images, and which classes, a subset has{_DRAWS}: train_per_class of the official training "
        "images and val_per_class of the official test images. Classes are then those of seed 0.",
        minimum=0,
        maximum=2**32 - 1,
        words=(REPLICATE,),
    )


@dataclass
class Cifar10Config(StoredConfig, ShiftedConfig):
    """CIFAR-10 (Krizhevsky 2009), downloaded where `data.root` has none."""

    name: str = "cifar10"


@dataclass
class Cifar100Config(StoredConfig, ShiftedConfig):
    """CIFAR-100 (Krizhevsky 2009), downloaded where `data.root` has none."""

    name: str = "cifar100"


@dataclass
class ImageTreeConfig(StoredConfig):
    """Any ImageFolder tree: `train/<class>/` and `val/<class>/` with images in them."""

    name: str = "imagenet_subset"
    classes: Any = option(
        0, "Classes: how many (0 is all), a list of their folders, or a file that lists them, one a line."
    )
    resolution: int = option(64, "Side of the images that networks see, in pixels.", minimum=64, maximum=224)
    min_area: float = option(
        0.35, "Smallest share of an image that a random resized crop shows.", minimum=0.01, maximum=1.0
    )
    val_labels: str = option(
        "",
        "File with the classes of test images that are not in class folders: lines of an image and its class, classes "
        "in the order of the images' names, or the devkit's ground truth with meta.mat in the same folder.",
        local=True,
    )
    exif_orientation: bool = option(
        False, "Whether to rotate images by their EXIF orientation, which torchvision ignores."
    )
    skip_corrupt: bool = option(False, "Whether images that cannot be decoded are left out.", local=True)

    @property
    def side(self) -> int:
        """Height and width of the images that networks see, in pixels."""
        return self.resolution


@dataclass
class ImagenetteConfig(ImageTreeConfig):
    """Imagenette (fast.ai): ten classes of ImageNet that are easily told apart."""

    name: str = "imagenette"
    root: str = option("data/imagenette2-320", "Folder that has the data set.", local=True)
    resolution: int = _redeclared(ImageTreeConfig, "resolution", 128)


@dataclass
class TinyImagenetConfig(ImageTreeConfig):
    """Tiny ImageNet (CS231n): 200 classes at 64x64 pixels."""

    name: str = "tiny_imagenet"
    root: str = option("data/tiny-imagenet-200", "Folder that has the data set.", local=True)


DATA: dict[str, type[DataConfig]] = {
    schema.name: schema
    for schema in (DigitsConfig, Cifar10Config, Cifar100Config, ImageTreeConfig, ImagenetteConfig, TinyImagenetConfig)
}
