"""Any tree of image files in the layout of torchvision's ImageFolder, and Tiny ImageNet's: one folder a class.

Images are decoded once, to squares a little larger than what networks see: the shorter side is scaled, the longer one
is cut, as ImageNet's usual test images are (He et al. 2015). So the parts that random crops are made of are the middle
of an image, and are scaled once more.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablations.common.names import visible
from ablations.common.wording import first_line
from ablations.config import ImageTreeConfig
from ablations.data.source import DataError, Decoded, Part, Piece, Plan, pick_classes, pick_images

# Those of torchvision.datasets.folder.IMG_EXTENSIONS, without the seconds that importing it takes.
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_TEST_FOLDERS = ("val", "validation", "test")
_ANNOTATIONS = "val_annotations.txt"  # of Tiny ImageNet, whose test images are in one folder
_PIECE = 32  # images that a thread decodes before it says so

# Where to get what is a preset.
_SOURCES = {
    "imagenette": "https://github.com/fastai/imagenette",
    "tiny_imagenet": "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
}


class ImageTreeSource:
    """The images of `root/train/<class>/` and `root/val/<class>/`, or a subset of them.

    Raises:
        DataError: if there is no such tree, or it has not what the options ask for.
    """

    def __init__(self, config: ImageTreeConfig) -> None:
        self.name = config.name
        self._root = Path(config.root).expanduser()
        train, test = self._folders()
        known = _subfolders(train)
        wanted = self._wanted(config.classes, known)
        self._classes = pick_classes(known, wanted, int(config.seed), train)
        self._check_classes(set(known), isinstance(wanted, list), train, test)
        self._side = stored_side(config.resolution)
        self._train = self._choose(train, config.train_per_class, "data.train_per_class", int(config.seed))
        self._test = self._choose(test, config.val_per_class, "data.val_per_class", int(config.seed))

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells its images from any others: their files, and what becomes of them."""
        files = [
            [path.relative_to(self._root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns]
            for paths, _ in (self._train, self._test)
            for path in paths
        ]
        return {"data": "tree", "classes": self._classes, "side": self._side, "files": files}

    def plan(self) -> Plan:
        """Says what there is to decode."""
        train, test = (Part(labels, list(self._pieces(paths))) for paths, labels in (self._train, self._test))
        return Plan(self._side, tuple(map(visible, self._classes)), train, test, takes_time=True)

    def _pieces(self, paths: Sequence[Path]) -> Iterator[Piece]:
        for start in range(0, len(paths), _PIECE):
            some = paths[start : start + _PIECE]
            yield Piece(start, len(some), partial(_decode, some, self._side, self._root))

    def _folders(self) -> tuple[Path, Path]:
        where = f"; {self.name} is to be had from {_SOURCES[self.name]}" if self.name in _SOURCES else ""
        if not self._root.is_dir():
            raise DataError("data.root", self._root, f"there is no such folder{where}")
        train = self._root / "train"
        test = next((self._root / name for name in _TEST_FOLDERS if (self._root / name).is_dir()), None)
        if not train.is_dir() or test is None or not _subfolders(train):
            inside = sorted(path.name for path in self._root.iterdir() if not path.name.startswith("."))
            found = ", ".join(inside[:6]) + (", ..." if len(inside) > 6 else "")
            reason = f"is no ImageFolder tree with train/<class>/ and val/<class>/ in it; it has {found or 'nothing'}"
            raise DataError("data.root", self._root, reason + where)
        return train, test

    def _wanted(self, classes: Any, known: Sequence[str]) -> Any:
        """Returns the option as a number or a list of names; a file is read, what follows a name on its line is not."""
        if isinstance(classes, bool) or not isinstance(classes, (int, str, list)):
            raise DataError("data.classes", classes, "is given as a number, as a list [this,that], or as a file")
        if not isinstance(classes, str):
            return classes
        path = Path(classes).expanduser()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text"
            raise DataError("data.classes", classes, f"cannot be read as a file of classes: {reason}") from None
        names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        return [name if name in known else name.split()[0] for name in names]

    def _check_classes(self, trained: set[str], named: bool, train: Path, test: Path) -> None:
        tested = set(_annotated(test).values()) if (test / _ANNOTATIONS).is_file() else set(_subfolders(test))
        untested, untrained = trained - tested, tested - trained
        if named:  # then it does not matter what becomes of the others
            untested, untrained = untested & set(self._classes), set()
        for folder, lacking in ((test, untested), (train, untrained)):
            if lacking:
                some = ", ".join(sorted(lacking)[:5]) + (", ..." if len(lacking) > 5 else "")
                reason = f"{train.name} and {test.name} have other classes: {folder} has no {some}"
                reason += "" if named else "; data.classes=[...] would take those that both have"
                raise DataError("data.root", self._root, reason)

    def _choose(self, folder: Path, per_class: int, option: str, seed: int) -> tuple[list[Path], NDArray[np.int64]]:
        if (folder / _ANNOTATIONS).is_file():
            label_of = {name: label for label, name in enumerate(self._classes)}
            named = sorted((name, label_of[known]) for name, known in _annotated(folder).items() if known in label_of)
            found = [(folder / "images" / name, label) for name, label in named]
        else:
            found = [(path, label) for label, name in enumerate(self._classes) for path in _images(folder / name)]
        labels = np.array([label for _, label in found], dtype=np.int64)
        counts = np.bincount(labels, minlength=len(self._classes))
        if not counts.all():
            empty = folder / self._classes[int(counts.argmin())]
            raise DataError("data.root", self._root, f"{empty} has no images in it")
        chosen = pick_images(labels, self._classes, per_class, option, seed)
        return [found[place][0] for place in chosen], labels[chosen]


def stored_side(resolution: int) -> int:
    """Returns the side of stored images, an eighth of which is cut away: ImageNet's usual 256 pixels for 224."""
    return round(resolution * 8 / 7)


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _EXTENSIONS and path.is_file())


def _annotated(folder: Path) -> dict[str, str]:
    """Reads which class each of Tiny ImageNet's test images has."""
    lines = (folder / _ANNOTATIONS).read_text(encoding="utf-8").splitlines()
    return {name: known for name, known, *_ in (line.split("\t") for line in lines if line.strip())}


def _decode(paths: Sequence[Path], side: int, root: Path) -> Decoded:
    pixels = np.zeros((len(paths), 3, side, side), dtype=np.uint8)
    failures = {}
    for place, path in enumerate(paths):
        try:
            pixels[place] = _square(path, side).transpose(2, 0, 1)
        # Pillow's decoders raise whatever they like on bytes that make no sense.
        except Exception as error:
            reason = first_line(error).replace(str(path), path.name)
            failures[place] = f"{path.relative_to(root)} ({reason})"
    return pixels, failures


def _square(path: Path, side: int) -> NDArray[np.uint8]:
    """Decodes an image to its middle square of (side, side, 3)."""
    from PIL import Image

    with warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("ignore")  # of odd metadata, which nobody needs
        image.draft("RGB", (2 * side, 2 * side))  # a large JPEG is decoded at a fraction of its size, at least this
        scale = side / min(image.size)
        width, height = (max(side, round(length * scale)) for length in image.size)
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR, reducing_gap=None)
        left, top = (width - side) // 2, (height - side) // 2
        return np.asarray(resized.crop((left, top, left + side, top + side)))
