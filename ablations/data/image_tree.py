"""Trees of image files in the layout of torchvision's ImageFolder (one folder per class), or of Tiny ImageNet.

Images are decoded once, to squares a little larger than the network's input: the shorter side is resized and the longer
one is cropped at the centre, as usual for ImageNet's test images (He et al. 2015). Random crops of training images are
therefore taken from the centre of an image, and are resized a second time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablations.common.files import user_path
from ablations.common.names import visible
from ablations.config import ImageTreeConfig
from ablations.data.source import Contents, DataError, Part, Piece, pick_classes, pick_images
from ablations.data.tree_files import fields_of, images_beside, images_in, read_labels, read_lines, subfolders

_TEST_FOLDERS = ("val", "validation", "test")
_ANNOTATIONS = "val_annotations.txt"  # of Tiny ImageNet, whose test images are in one folder
_UNSORTED = "images"  # this folder, which often remains, empty, after images are sorted into class folders
_PIECE = 32  # images that a thread decodes together

_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip")
_UNPACK = "unpack the archives, including nested ones (ILSVRC's train has one per class), and give the folder"

# Download pages of the presets.
_SOURCES = {
    "imagenette": "https://github.com/fastai/imagenette",
    "tiny_imagenet": "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
}


class ImageTreeSource:
    """The images of `root/train/<class>/` and `root/val/<class>/`, or a subset of them.

    Raises:
        DataError: if the tree does not exist, or lacks classes or images that the options require.
    """

    def __init__(self, config: ImageTreeConfig) -> None:
        self.name = config.name
        self._root = user_path("data.root", config.root)
        self._turn = config.exif_orientation
        train, test = self._folders()
        classes = subfolders(train)
        listed = self._listed(test, config.val_labels, classes)
        wanted = self._wanted(config.classes, classes)
        self._classes = pick_classes(classes, wanted, int(config.seed), train)
        if listed is None:
            tested = {name for name in subfolders(test) if name in classes or name != _UNSORTED}
        else:
            tested = {name for _, name in listed}
        self._check_classes(set(classes), tested, isinstance(wanted, list), train, test)
        self._side = stored_side(config.resolution)
        self._train = self._choose(train, None, config.train_per_class, "data.train_per_class", int(config.seed))
        self._test = self._choose(test, listed, config.val_per_class, "data.val_per_class", int(config.seed))
        self._is_listed = listed is not None

    @property
    def identity(self) -> Mapping[str, Any]:
        """The identity of its images: files, classes, side and orientation."""
        files = [
            [path.relative_to(self._root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns]
            for paths, _ in (self._train, self._test)
            for path in paths
        ]
        identity = {"data": "tree", "classes": self._classes, "side": self._side, "files": files, "turned": self._turn}
        if self._is_listed:  # otherwise the paths contain the classes
            identity["labels"] = hashlib.sha256(self._test[1].tobytes()).hexdigest()
        return identity

    def contents(self) -> Contents:
        """Returns the pieces to decode."""
        train, test = (Part(labels, list(self._pieces(paths))) for paths, labels in (self._train, self._test))
        return Contents(self._side, tuple(map(visible, self._classes)), train, test, takes_time=True)

    def _pieces(self, paths: Sequence[Path]) -> Iterator[Piece]:
        from ablations.data.pixels import decode_files  # imports Pillow

        for start in range(0, len(paths), _PIECE):
            piece = paths[start : start + _PIECE]
            yield Piece(start, len(piece), partial(decode_files, piece, self._side, self._root, self._turn))

    def _folders(self) -> tuple[Path, Path]:
        where = f"; download {self.name} from {_SOURCES[self.name]}" if self.name in _SOURCES else ""
        if self._root.is_file():
            raise DataError("data.root", self._root, f"is a file; {_UNPACK}")
        if not self._root.is_dir():
            raise DataError("data.root", self._root, f"no such folder{where}")
        train = self._root / "train"
        test = next((self._root / name for name in _TEST_FOLDERS if (self._root / name).is_dir()), None)
        if not train.is_dir() or test is None or not subfolders(train):
            inside = sorted(path.name for path in self._root.iterdir() if not path.name.startswith("."))
            listed = ", ".join(inside[:6]) + (", ..." if len(inside) > 6 else "")
            reason = (
                "must be an ImageFolder tree with train/<class>/ and val/<class>/ (or validation, test); "
                f"it contains {listed or 'nothing'}"
            )
            if any(name.lower().endswith(_ARCHIVES) for name in inside):
                reason += f"; {_UNPACK}"
            raise DataError("data.root", self._root, reason + where)
        return train, test

    def _listed(self, test: Path, labels: str, known: Sequence[str]) -> list[tuple[Path, str]] | None:
        """Returns the test images with their classes from a list of labels; None if there are class folders."""
        option = "data.val_labels"
        if set(subfolders(test)) & set(known):
            if labels:
                raise DataError(option, labels, f"is not needed, as {test.name} has class folders")
            return None
        path = user_path(option, labels) if labels else test / _ANNOTATIONS
        images = images_beside(test)
        if labels and not images:
            raise DataError(option, labels, f"{test.name} has no images outside class folders")
        if labels or (path.is_file() and images):
            classes = read_labels(path, images, set(known), option)
            return [(images[name], classes[name]) for name in sorted(images)]
        if images:
            reason = (
                f"{test.name} has {len(images):,} images but no class folders, like ILSVRC's val as downloaded; set "
                f"{option}=FILE to a file with an image and its class per line, one class per line in the order of "
                "the image names, or the devkit's ground truth (with meta.mat in the same folder)"
            )
            raise DataError("data.root", self._root, reason)
        return None

    def _wanted(self, classes: Any, known: Sequence[str]) -> Any:
        """Returns `data.classes` as a number or list of names; in a file, text after the name on a line is ignored."""
        option = "data.classes"
        if isinstance(classes, bool) or not isinstance(classes, (int, str, list)):
            raise DataError(option, classes, "must be an integer, a list such as [a,b], or a file")
        if not isinstance(classes, str):
            return classes
        lines = read_lines(user_path(option, classes), option)
        readings = [[line, line.split(" #")[0].strip(), fields_of(line)[0], line.split()[0]] for line in lines]
        return [next((name for name in names if name in known), names[-1]) for names in readings]

    def _check_classes(self, trained: set[str], tested: set[str], named: bool, train: Path, test: Path) -> None:
        untested, untrained = trained - tested, tested - trained
        if named:  # only the selected classes matter
            untested, untrained = untested & set(self._classes), set()
        for folder, lacking in ((test, untested), (train, untrained)):
            if lacking:
                first = ", ".join(sorted(lacking)[:5]) + (", ..." if len(lacking) > 5 else "")
                reason = f"{train.name} and {test.name} have different classes: {folder} lacks {first}"
                reason += "" if named or not trained & tested else "; select common classes with data.classes=[...]"
                raise DataError("data.root", self._root, reason)

    def _choose(
        self, folder: Path, listed: Sequence[tuple[Path, str]] | None, per_class: int, option: str, seed: int
    ) -> tuple[list[Path], NDArray[np.int64]]:
        label_of = {name: label for label, name in enumerate(self._classes)}
        if listed is None:
            images = [(path, label) for name, label in label_of.items() for path in images_in(folder / name)]
        else:
            images = [(path, label_of[name]) for path, name in listed if name in label_of]
        labels = np.array([label for _, label in images], dtype=np.int64)
        counts = np.bincount(labels, minlength=len(self._classes))
        if not counts.all():
            empty = folder / self._classes[int(counts.argmin())]
            raise DataError("data.root", self._root, f"{empty} contains no images")
        chosen = pick_images(labels, self._classes, per_class, option, seed)
        return [images[index][0] for index in chosen], labels[chosen]


def stored_side(resolution: int) -> int:
    """Returns the side of stored images in pixels, 8/7 of the network's input, such as ImageNet's 256 for 224."""
    return round(resolution * 8 / 7)
