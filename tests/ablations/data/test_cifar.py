from __future__ import annotations

import hashlib
import http.server
import os
import pickle
import re
import socket
import socketserver
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from torchvision import datasets

from ablations.config.compose import compose_config
from ablations.data import cifar as module
from ablations.data import load_images
from ablations.data.images import Images
from ablations.data.source import DataError
from tests.wording import refusal


class FakeCifar:
    """An archive in CIFAR's format with a few random images, and its checksums."""

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
            self.labels[file] = [index % len(self.classes) for index in range(many)]
            self._write(file, {b"data": self.pixels[file], key.encode(): self.labels[file]})
        self._write(meta, {names.encode(): [label.encode() for label in self.classes]})
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
        """Packs the folder as the official archive, and removes the folder."""
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


Make = Callable[..., FakeCifar]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(name: str = "cifar10", count: int = 20) -> FakeCifar:
        fake = FakeCifar(tmp_path / "data", name, count)
        monkeypatch.setattr(datasets, name.upper(), fake.kind)
        return fake

    return make


def load(fake: FakeCifar, *options: str, name: str = "cifar10", fetch: bool = True) -> Images:
    overrides = [f"data={name}", f"data.root={fake.root}", f"data.cache={fake.root.parent / 'cache'}", *options]
    return load_images(compose_config(overrides).data, Console(quiet=True), fetch=fetch)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_images_labels_and_classes_are_read_from_the_archive(make: Make, name: str) -> None:
    fake = make(name)
    images = load(fake, name=name)
    files = list(fake.pixels)
    expected = np.concatenate([fake.pixels[file] for file in files[:-1]]).reshape(-1, 3, 32, 32)
    assert np.array_equal(images.train.pixels, expected)
    assert np.array_equal(images.test.pixels.reshape(-1, 3072), fake.pixels[files[-1]])
    assert images.train.labels.tolist() == [label for file in files[:-1] for label in fake.labels[file]]
    assert images.classes == tuple(fake.classes)


def test_a_subset_has_equal_classes_and_is_contained_in_larger_ones(make: Make) -> None:
    fake = make()
    small, large = (load(fake, f"data.train_per_class={count}", "data.val_per_class=1") for count in (3, 6))
    assert np.bincount(small.train.labels).tolist() == [3] * 10
    assert np.bincount(small.test.labels).tolist() == [1] * 10
    everything = {pixels.tobytes(): label for pixels, label in zip(large.train.pixels, large.train.labels, strict=True)}
    for pixels, label in zip(small.train.pixels, small.train.labels, strict=True):
        assert everything[pixels.tobytes()] == label


def test_a_subset_depends_only_on_its_seed(make: Make) -> None:
    fake = make()
    first, same, other = (load(fake, "data.train_per_class=3", f"data.seed={seed}") for seed in (1, 1, 2))
    assert first.fingerprint == same.fingerprint != other.fingerprint


def test_the_root_may_be_the_unpacked_folder_itself(make: Make) -> None:
    fake = make()
    fingerprint = load(fake).fingerprint
    assert load(fake, f"data.root={fake.folder}").fingerprint == fingerprint


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_the_error_for_a_damaged_file_names_it_even_after_decoding(make: Make, damage: str) -> None:
    fake = make()
    load(fake)
    path = fake.folder / "data_batch_3"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"data.root=.*data_batch_3 is {damage}.*copy it from a complete data set"):
        load(fake)


def test_the_error_for_a_class_with_too_few_images_has_the_available_number(make: Make) -> None:
    with pytest.raises(DataError, match=refusal("data.train_per_class=11", "images.too_few", name="class0", number=10)):
        load(make(), "data.train_per_class=11")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, Callable[[int], None], str]]:
    """A real file server; `cut` makes it stop after that many bytes."""
    folder = tmp_path / "host"
    folder.mkdir()
    most = {"bytes": -1}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, directory=str(folder), **options)  # type: ignore[arg-type]

        def copyfile(self, source: object, outputfile: object) -> None:
            content = source.read()  # type: ignore[attr-defined]
            outputfile.write(content if most["bytes"] < 0 else content[: most["bytes"]])  # type: ignore[attr-defined]

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    def cut(count: int) -> None:
        most["bytes"] = count

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield folder, cut, f"http://127.0.0.1:{host.server_address[1]}"
        host.shutdown()


def test_a_missing_data_set_is_downloaded_once_and_a_truncated_download_restarts(
    make: Make, server: tuple[Path, Callable[[int], None], str], capsys: pytest.CaptureFixture[str]
) -> None:
    fake = make()
    expected = load(fake).fingerprint
    folder, cut, address = server
    archive = fake.archive(folder)
    fake.kind.url = f"{address}/{archive.name}"
    cut(1000)
    with pytest.raises(DataError, match=refusal(f"data.root={fake.root}", "images.unfetched", then="restarts")):
        load(fake)
    assert not fake.folder.exists()
    cut(-1)
    assert load(fake).fingerprint == expected
    archive.unlink()
    assert load(fake).fingerprint == expected
    assert f"Downloading cifar10 to {fake.root}" in capsys.readouterr().out


def test_without_fetch_nothing_is_downloaded(
    make: Make, server: tuple[Path, Callable[[int], None], str], capsys: pytest.CaptureFixture[str]
) -> None:
    fake = make()
    expected = load(fake).fingerprint
    assert load(fake, fetch=False).fingerprint == expected
    folder, _, address = server
    archive = fake.archive(folder)
    fake.kind.url = f"{address}/{archive.name}"
    with pytest.raises(
        DataError, match="^" + refusal(f"data.root={fake.root}", "images.not_fetched", folder="cifar-10-batches-py")
    ):
        load(fake, fetch=False)
    assert list(fake.root.iterdir()) == []
    assert "Downloading" not in capsys.readouterr().out
    assert load(fake).fingerprint == load(fake, fetch=False).fingerprint == expected


def test_a_manually_downloaded_archive_is_unpacked(make: Make) -> None:
    fake = make()
    expected = load(fake).fingerprint
    fake.archive(fake.root)
    assert load(fake).fingerprint == expected
    assert sorted(path.name for path in fake.root.iterdir() if not path.name.startswith(".")) == [
        "cifar-10-batches-py", "cifar10.tar.gz",
    ]  # fmt: skip


@pytest.mark.parametrize("host", ["refuses", "is silent"])
def test_a_failed_download_is_one_message_with_alternatives(
    make: Make, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    fake = make()
    fake.archive(fake.root).unlink()
    monkeypatch.setattr(module, "SILENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if host == "is silent":
            fake.kind.url = f"http://127.0.0.1:{silent.getsockname()[1]}/nothing"
        with pytest.raises(DataError) as caught:
            load(fake)
    message = str(caught.value)
    assert re.match(refusal(f"data.root={fake.root}", "images.unfetched"), message)
    assert "the folder that contains cifar-10-batches-py or cifar10.tar.gz" in message
    assert f"put {fake.kind.url} into {fake.root}" in message


def test_a_malicious_pickle_is_refused_even_with_a_valid_checksum(make: Make, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    fake = make()
    meta = fake.kind.meta["filename"]
    (fake.folder / meta).write_bytes(pickle.dumps({b"label_names": Trap()}))
    fake.kind.meta["md5"] = hashlib.md5((fake.folder / meta).read_bytes()).hexdigest()
    with pytest.raises(pickle.UnpicklingError, match="system is not allowed in a data set"):
        load(fake)
    assert not (tmp_path / "sprung").exists()
