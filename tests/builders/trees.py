"""Small image folders of real JPEG files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

NAMES = ("n01", "n02", "n03")


def colour(label: int, place: int) -> tuple[int, int, int]:
    return (40 + 70 * label, 10 * place, 200 - 60 * label)


def make_tree(root: Path, *, train: int = 4, val: int = 2, size: tuple[int, int] = (90, 80)) -> Path:
    """Writes an ImageFolder tree of three classes; all images have different colours."""
    for part, count in (("train", train), ("val", val)):
        for label, name in enumerate(NAMES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for place in range(count):
                Image.new("RGB", size, colour(label, place)).save(folder / f"{place}.jpg", quality=95)
    return root
