"""The files of an image tree: class folders and images, without leftovers of other tools, and lists of labels."""

from __future__ import annotations

import codecs
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from ablations.data.source import DataError

# Equal to torchvision.datasets.folder.IMG_EXTENSIONS, whose import takes seconds.
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# Folders of file managers, archives and file systems; names that begin with a dot are ignored, too.
_LEFT_BEHIND = frozenset(
    ("__MACOSX", "__pycache__", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is a prefix of it
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NUMBERED = "meta.mat"  # of ILSVRC's devkit: the numbers of synsets


def subfolders(folder: Path) -> list[str]:
    """Returns the names of a folder's subfolders, including links to folders."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not _is_left_behind(path.name))


def images_in(folder: Path) -> list[Path]:
    """Returns all images below a folder, sorted by path; links are followed, as in torchvision."""
    return sorted(_walk(folder, set()))


def images_beside(folder: Path) -> dict[str, Path]:
    """Returns the images in a folder's subfolder `images`, or else in the folder itself, by name."""
    for parent in (folder / "images", folder):
        if parent.is_dir() and (images := {path.name: path for path in sorted(parent.iterdir()) if _is_image(path)}):
            return images
    return {}


def read_lines(path: Path, option: str) -> list[str]:
    """Returns the lines of a text file without blank lines and comments.

    The encoding is UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Raises:
        DataError: if the file cannot be read or decoded.
    """
    try:
        content = path.read_bytes()
        encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
        lines = content.decode(encoding).splitlines()
    except OSError as error:
        raise DataError(option, path, f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(option, path, f"is not valid UTF-8 (byte {error.start})") from None
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def fields_of(line: str) -> list[str]:
    """Returns the fields of a line, separated by the first of tab, comma, semicolon that occurs, or else by spaces."""
    separator = next((mark for mark in "\t,;" if mark in line), None)
    return [field.strip().strip("\"'") for field in line.split(separator)]


def read_labels(path: Path, images: Mapping[str, Path], known: Collection[str], option: str) -> dict[str, str]:
    """Reads the class of each image from a list of labels.

    Each line has the name of an image, with or without its suffix, and its class (Tiny ImageNet, Kaggle); or only the
    class, in the order of the image names; or the number of the class, as in ILSVRC's devkit, which requires its
    `meta.mat` in the same folder.

    Args:
        path: of the list.
        images: by name.
        known: all classes, whose names may contain spaces.
        option: name of the option with the list, for messages.

    Raises:
        DataError: if the list cannot be read, or does not fit the images.
    """
    rows = [fields_of(line) for line in read_lines(path, option)]
    if rows and all(len(row) == 1 for row in rows):
        return _in_order([row[0] for row in rows], path, images, option)
    by_stem = {name.rsplit(".", 1)[0]: name for name in images}
    classes: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if len(row) < 2 or not row[1]:
            raise DataError(option, path, f"entry {number} must be an image name and its class, but is {' '.join(row)}")
        if name := row[0] if row[0] in images else by_stem.get(row[0].rsplit(".", 1)[0]):
            classes[name] = row[1] if row[1] in known else row[1].split()[0]  # bounding boxes may follow
    if lacking := [name for name in images if name not in classes]:
        reason = f"lacks the class of {len(lacking):,} of {len(images):,} images, such as {lacking[0]}"
        raise DataError(option, path, reason)
    return classes


def _in_order(classes: Sequence[str], path: Path, images: Mapping[str, Path], option: str) -> dict[str, str]:
    if len(classes) != len(images):
        reason = f"has {len(classes):,} lines (one class per line) for {len(images):,} images"
        raise DataError(option, path, reason)
    if all(name.isdecimal() for name in classes):
        synsets = _numbered(path.with_name(_NUMBERED), path, option)
        if unknown := [name for name in classes if int(name) not in synsets]:
            raise DataError(option, path, f"{_NUMBERED} has no class {unknown[0]}")
        classes = [synsets[int(name)] for name in classes]
    return dict(zip(sorted(images), classes, strict=True))


def _numbered(meta: Path, path: Path, option: str) -> dict[int, str]:
    """Reads the synset of each class number from the devkit, as torchvision does."""
    from scipy.io import loadmat

    if not meta.is_file():
        raise DataError(
            option, path, f"contains class numbers, but {_NUMBERED}, which maps them to names, is not in its folder"
        )
    try:
        synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
        return {int(entry[0]): str(entry[1]) for entry in synsets}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(option, path, f"{_NUMBERED} in its folder cannot be read ({error})") from None


def _walk(folder: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    identity = status.st_dev, status.st_ino
    if identity in above:  # a link to a parent folder
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir():
                if not _is_left_behind(entry.name):
                    yield from _walk(path, above | {identity})
            elif _is_image(path):
                yield path


def _is_image(path: Path) -> bool:
    # macOS creates files that begin with ._ and have the suffix of an image.
    return path.suffix.lower() in _EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _is_left_behind(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_BEHIND
