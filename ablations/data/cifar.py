"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the official Python archives, with torchvision's names and checksums."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablations.common.files import user_path
from ablations.common.wording import first_line
from ablations.config import StoredConfig
from ablations.data.source import Contents, DataError, Decoded, Part, Piece, pick_images

SIDE = 32
SILENCE = 30  # seconds without data until a download fails

# Folder, training batches, test batch, file with the names of the classes, and the key of these names.
_LAYOUT: dict[str, tuple[str, tuple[str, ...], str, str, str]] = {
    "cifar10": (
        "cifar-10-batches-py", tuple(f"data_batch_{number}" for number in range(1, 6)), "test_batch",
        "batches.meta", "label_names",
    ),
    "cifar100": ("cifar-100-python", ("train",), "test", "meta", "fine_label_names"),
}  # fmt: skip

# Functions that unpickle arrays, in the official files and in those of current NumPy versions.
_ARRAYS = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class CifarSource:
    """CIFAR in the layout of its Python archive; downloaded if `root` has neither the folder nor the archive.

    Raises:
        DataError: if a file is missing, or the download fails; without `fetch`, if the folder is missing.
    """

    def __init__(self, config: StoredConfig, *, fetch: bool = True) -> None:
        self.name, self._config = config.name, config
        self._root = user_path("data.root", config.root)
        folder, self._train, self._test, self._meta, self._names_key = _LAYOUT[config.name]
        # `root` may also be the unpacked folder itself.
        self._folder = self._root if self._root.name == folder and self._root.is_dir() else self._root / folder
        if not self._folder.is_dir():
            if not fetch:
                raise DataError("data.root", self._root, f"does not contain {folder}; `run` downloads it")
            _fetch(config.name, self._root)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The identity of its images: sizes and times of the files, and the subset."""
        stats = {}
        for name in (*self._train, self._test, self._meta):
            path = self._folder / name
            if not path.is_file():
                raise DataError("data.root", self._root, f"{path} is missing; {_mend(self._folder)}")
            stats[name] = [path.stat().st_size, path.stat().st_mtime_ns]
        options = {key: getattr(self._config, key) for key in ("train_per_class", "val_per_class", "seed")}
        return {"data": self.name, "files": stats, **options}

    def contents(self) -> Contents:
        """Checks every file against its checksum, and returns the pieces to decode."""
        self._check()
        classes = tuple(name.decode() for name in self._read(self._meta)[self._names_key])
        config = self._config
        train = self._part(self._train, classes, config.train_per_class, "data.train_per_class")
        test = self._part((self._test,), classes, config.val_per_class, "data.val_per_class")
        return Contents(SIDE, classes, train, test, takes_time=False)

    def _part(self, files: Sequence[str], classes: Sequence[str], per_class: int, option: str) -> Part:
        contents = map(self._read, files)
        labels = [np.asarray(each.get("labels", each.get("fine_labels")), dtype=np.int64) for each in contents]
        first = np.cumsum([0, *map(len, labels)])
        joined = np.concatenate(labels)
        chosen = pick_images(joined, classes, per_class, option, int(self._config.seed))
        pieces, start = [], 0
        for number, name in enumerate(files):
            rows = chosen[(chosen >= first[number]) & (chosen < first[number + 1])] - first[number]
            if len(rows):
                pieces.append(Piece(start, len(rows), partial(self._decode, name, rows)))
                start += len(rows)
        return Part(joined[chosen], pieces)

    def _decode(self, name: str, rows: NDArray[np.int64]) -> Decoded:
        pixels: NDArray[np.uint8] = self._read(name)["data"].reshape(-1, 3, SIDE, SIDE)
        return pixels if len(rows) == len(pixels) else pixels[rows], {}

    def _read(self, name: str) -> dict[str, Any]:
        # Unpickled only after `_check`. Strings are read as bytes, so that pixels are not decoded as text.
        with (self._folder / name).open("rb") as file:
            content = _PlainUnpickler(file, encoding="bytes").load()
        return {key.decode(): value for key, value in content.items()}

    def _check(self) -> None:
        from torchvision.datasets.utils import calculate_md5

        kind = _torchvision_class(self.name)
        expected = dict([*kind.train_list, *kind.test_list]) | {kind.meta["filename"]: kind.meta["md5"]}
        for name, md5 in expected.items():
            path = self._folder / name
            if calculate_md5(path) != md5:
                reason = f"{path} is truncated or damaged: its md5 ({path.stat().st_size:,} bytes) differs from"
                raise DataError("data.root", self._root, f"{reason} {md5}; {_mend(self._folder)}")


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles arrays, lists and text only: an MD5 checksum does not protect against malicious files."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the functions that rebuild arrays; refuses all others."""
        if (module, name) in _ARRAYS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data set file")


def _torchvision_class(name: str) -> Any:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]


def _mend(folder: Path) -> str:
    return f"copy it from a complete data set, or delete {folder} to download it again"


def _fetch(name: str, root: Path) -> None:
    """Downloads and unpacks an archive; if it exists with the right checksum, only unpacks it."""
    from filelock import FileLock
    from torchvision.datasets.utils import check_integrity, download_url, extract_archive

    kind = _torchvision_class(name)
    archive, lock = root / kind.filename, root / f".{name}.lock"
    missing = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if (root / kind.base_folder).is_dir():
                return  # downloaded by another run in the meantime
            if not check_integrity(str(archive), kind.tgz_md5):
                print(f"Downloading {name} to {root.resolve()}", flush=True)
                with _socket_timeout(SILENCE):
                    download_url(kind.url, str(root), kind.filename, kind.tgz_md5)
            unpacked = root / f".{name}.partial"
            extract_archive(str(archive), str(unpacked))
            (unpacked / kind.base_folder).rename(root / kind.base_folder)
            unpacked.rmdir()
    except (OSError, RuntimeError) as error:
        ways = (
            f"to use a copy, set data.root to the folder that contains {kind.base_folder} or {kind.filename}; to "
            f"download it manually, put {kind.url} into {root}; or try again (an interrupted download restarts)"
        )
        if missing:  # the folder may have been misspelled
            for leftover in (archive, lock):
                leftover.unlink(missing_ok=True)
            with suppress(OSError):
                root.rmdir()
        reason = f"{name} was not found and cannot be downloaded ({first_line(error).strip('<>.')}); {ways}"
        raise DataError("data.root", root, reason) from None


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Sets the default timeout of sockets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
