"""Small data sets on disk: trees of real JPEGs, and CIFAR archives with a few images in the official format."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("n01", "n02", "n03")


def colour(label: int, place: int) -> tuple[int, int, int]:
    return (40 + 70 * label, 10 * place, 200 - 60 * label)


def make_tree(root: Path, *, train: int = 4, val: int = 2, size: tuple[int, int] = (90, 80)) -> Path:
    """Writes an ImageFolder tree of three classes; each image has a colour of its own."""
    for part, count in (("train", train), ("val", val)):
        for label, name in enumerate(NAMES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for place in range(count):
                Image.new("RGB", size, colour(label, place)).save(folder / f"{place}.jpg", quality=95)
    return root


class FakeCifar:
    """An archive in CIFAR's format, of a few random images, with the checksums that go with it."""

    def __init__(self, folder: Path, name: str = "cifar10", count: int = 20) -> None:
        random = np.random.RandomState(0)
        base = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
        files = {"cifar10": [f"data_batch_{i}" for i in range(1, 6)], "cifar100": ["train"]}[name]
        test, meta = {"cifar10": ("test_batch", "batches.meta"), "cifar100": ("test", "meta")}[name]
        self.classes = [f"class{i}" for i in range({"cifar10": 10, "cifar100": 100}[name])]
        self.root, self.folder = folder, folder / base
        self.folder.mkdir(parents=True)
        self.pixels: dict[str, NDArray[np.uint8]] = {}
        self.labels: dict[str, list[int]] = {}
        key, names = ("labels", "label_names") if name == "cifar10" else ("fine_labels", "fine_label_names")
        for file in (*files, test):
            many = count if name == "cifar10" else 10 * count
            self.pixels[file] = random.randint(256, size=(many, 3072), dtype=np.uint8)
            self.labels[file] = [place % len(self.classes) for place in range(many)]
            self._write(file, {b"data": self.pixels[file], key.encode(): self.labels[file]})
        self._write(meta, {names.encode(): [known.encode() for known in self.classes]})
        self.kind = SimpleNamespace(
            base_folder=base,
            filename=f"{name}.tar.gz",
            url="http://127.0.0.1:9/nothing",
            tgz_md5="",
            train_list=[(file, self._md5(file)) for file in files],
            test_list=[(test, self._md5(test))],
            meta={"filename": meta, "md5": self._md5(meta)},
        )

    def archive(self, folder: Path) -> Path:
        """Packs the folder as its archive is, and takes it away."""
        path = folder / self.kind.filename
        with tarfile.open(path, "w:gz") as packed:
            packed.add(self.folder, self.kind.base_folder)
        self.kind.tgz_md5 = hashlib.md5(path.read_bytes()).hexdigest()
        for file in self.folder.iterdir():
            file.unlink()
        self.folder.rmdir()
        return path

    def _write(self, name: str, content: dict[bytes, Any]) -> None:
        (self.folder / name).write_bytes(pickle.dumps(content, protocol=2))

    def _md5(self, name: str) -> str:
        return hashlib.md5((self.folder / name).read_bytes()).hexdigest()
