"""Realistic folders and lists: of editors, archives, file managers, other operating systems and other programs."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from ablations.data.source import DataError
from ablations.data.tree_files import fields_of, images_beside, images_in, read_labels, read_lines, subfolders

OPTION = "data.val_labels"
NAMES = ("a.JPEG", "b.JPEG", "c.JPEG")


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "val"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(b"x")
    return images_beside(folder)


def labels(images: dict[str, Path], content: str | bytes) -> dict[str, str]:
    path = images["a.JPEG"].parents[1] / "labels.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labels(path, images, {"n01", "n02", "English springer"}, OPTION)


@pytest.mark.parametrize(
    "content",
    [
        "a.JPEG\tn01\t0\t0\t63\t63\nb.JPEG\tn02\t0\t0\t63\t63\nc.JPEG\tn01\t0\t0\t63\t63\n",  # Tiny ImageNet
        "c.JPEG n01\nb.JPEG n02\na.JPEG n01",  # Caffe's lists, with classes by name
        "a.JPEG,n01\r\nb.JPEG,n02\r\nc.JPEG,n01\r\n",
        '"a.JPEG";"n01"\n"b.JPEG";"n02"\n"c.JPEG";"n01"\n',
        "ImageId,PredictionString\na,n01 85 1 499 272\nb,n02 1 1 2 2 n02 3 3 4 4\nc,n01 0 0 9 9\n",  # Kaggle
        "# made by hand\n\n  a n01  \nb n02\nc n01\nd n02\n",  # d does not exist
        "n01\nn02\nn01\n",  # in the order of the image names
        codecs.BOM_UTF8 + b"n01\r\nn02\r\nn01\r\n",
        codecs.BOM_UTF16_LE + "a n01\nb n02\nc n01\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "a n01\nb n02\nc n01\n".encode("utf-16-be"),
        "a.JPEG\rn01".replace("\r", "\t") + "\rb.JPEG\tn02\rc.JPEG\tn01",  # line ends of old Macintosh systems
    ],
)
def test_lists_in_all_formats_are_read(images: dict[str, Path], content: str | bytes) -> None:
    assert labels(images, content) == {"a.JPEG": "n01", "b.JPEG": "n02", "c.JPEG": "n01"}


def test_names_of_classes_may_contain_spaces(images: dict[str, Path]) -> None:
    assert labels(images, "a\tEnglish springer\nb\tn02\nc\tn01\n")["a.JPEG"] == "English springer"


def test_class_numbers_of_ilsvrcs_devkit_are_resolved(images: dict[str, Path], tmp_path: Path) -> None:
    entries = np.zeros((2, 1), dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for row, (number, name) in enumerate(((7, "n01"), (490, "n02"))):
        entries[row, 0] = (np.array([[number]]), name, "some words")
    savemat(tmp_path / "meta.mat", {"synsets": entries})
    assert labels(images, "7\n490\n7\n") == {"a.JPEG": "n01", "b.JPEG": "n02", "c.JPEG": "n01"}
    with pytest.raises(DataError, match=r"meta\.mat has no class 8"):
        labels(images, "7\n490\n8\n")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("7\n490\n7\n", r"meta\.mat"),
        ("n01\nn02\n", "2 lines .* for 3 images"),
        ("a n01\nb\nc n01\n", "entry 2 must be .*is b"),
        ("a n01\nc n01\n", r"1 of 3 images, such as b\.JPEG"),
        ("a,\nb,n02\nc,n01\n", "entry 1 must be .*is a"),
        (b"a n01\nv\351 n01\n", "byte 7"),
        ("", "3 of 3 images"),
    ],
)
def test_invalid_lists_are_one_message(images: dict[str, Path], content: str | bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        labels(images, content)
    assert str(caught.value).startswith(f"{OPTION}=")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("list") / "list"
    path.write_bytes(content)
    try:
        for line in read_lines(path, OPTION):
            assert line
            assert fields_of(line)
        read_labels(path, {"a.JPEG": path}, {"n01"}, OPTION)
    except DataError:
        pass


def test_leftovers_of_tools_are_ignored(tmp_path: Path) -> None:
    root = tmp_path / "train"
    for name in (
        "n01/a.jpg", "n01/B.JPG", "n01/deep/er/c.png",
        "n01/._a.jpg", "n01/.a.jpg.swp", "n01/Thumbs.db", "n01/desktop.ini", "n01/a.jpg~", "n01/a.jpg.part",
        "n01/a.xml",
        "n01/.ipynb_checkpoints/a-checkpoint.jpg", "n01/@eaDir/a.jpg", "n01/__MACOSX/a.jpg", "n01/a.jpg.d/notes.txt",
        ".ipynb_checkpoints/x.jpg", "__MACOSX/n01/a.jpg", "@eaDir/x.jpg", "#recycle/x.jpg", "$RECYCLE.BIN/x.jpg",
        "lost+found/x.jpg", "System Volume Information/x.jpg", "__pycache__/x.pyc", "README.txt", ".DS_Store",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (root / "n01" / "folder.jpg").mkdir()
    assert subfolders(root) == ["n01"]
    assert [path.relative_to(root / "n01").as_posix() for path in images_in(root / "n01")] == [
        "B.JPG", "a.jpg", "deep/er/c.png",
    ]  # fmt: skip


def test_links_are_followed_and_circular_ones_ignored(tmp_path: Path) -> None:
    real, tree = tmp_path / "real", tmp_path / "n01"
    real.mkdir()
    tree.mkdir()
    (real / "a.jpg").write_bytes(b"x")
    (tree / "images").symlink_to(real)
    (tree / "b.jpg").symlink_to(real / "a.jpg")
    (tree / "c.jpg").symlink_to(tmp_path / "gone.jpg")
    (real / "back").symlink_to(tree)
    (tree / "self").symlink_to(tree)
    paths = {path.relative_to(tree).as_posix() for path in images_in(tree)}
    assert paths == {"b.jpg", "images/a.jpg"}
    (tmp_path / "link").symlink_to(real)
    assert "link" in subfolders(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_file_names_that_are_not_utf8_are_accepted(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\351t\351.jpg")).write_bytes(b"x")
    assert len(images_in(tmp_path)) == 1
