from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.data import load_images
from ablations.data.image_tree import stored_side
from ablations.data.images import Images
from ablations.data.source import DataError
from tests.builders.trees import NAMES, colour, make_tree
from tests.wording import refusal, worded


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def load(tree: Path, *options: str) -> Images:
    overrides = ["data=imagenet_subset", f"data.root={tree}", f"data.cache={tree.parent / 'cache'}", *options]
    return load_images(compose_config(overrides).data, Console(quiet=True))


def test_images_are_squares_of_the_stored_side_sorted_by_class(tree: Path) -> None:
    images = load(tree)
    assert images.train.pixels.shape == (12, 3, 73, 73)
    assert images.classes == NAMES
    assert images.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for number, pixels in enumerate(images.train.pixels):
        middle = pixels[:, 36, 36].astype(int)
        assert np.abs(middle - colour(number // 4, number % 4)).max() <= 6  # JPEG is lossy


@pytest.mark.parametrize(("resolution", "side"), [(64, 73), (128, 146), (224, 256)])
def test_the_stored_side_is_8_sevenths_of_the_resolution(resolution: int, side: int) -> None:
    assert stored_side(resolution) == side


@pytest.mark.parametrize("size", [(400, 100), (100, 400), (30, 20)])
def test_the_shorter_side_is_resized_and_the_longer_one_centre_cropped(tmp_path: Path, size: tuple[int, int]) -> None:
    tree = make_tree(tmp_path / "tree")
    # A diagonal gradient from red at the top left to blue at the bottom right.
    width, height = size
    slope = np.add.outer(np.linspace(0, 1, height), np.linspace(0, 1, width)) / 2
    picture = np.stack([255 * (1 - slope), 0 * slope, 255 * slope], axis=2).astype(np.uint8)
    Image.fromarray(picture).save(tree / "train" / "n01" / "0.png")
    (tree / "train" / "n01" / "0.jpg").unlink()
    pixels = load(tree).train.pixels[0].astype(int)
    long, short = max(size), min(size)
    edge = (long - short) / 2 / long  # share of the longer side that is cropped at each end
    expected = 255 * (edge / 2)  # blue at the first corner
    assert abs(pixels[2, 0, 0] - expected) < 6
    assert abs(pixels[2, -1, -1] - (255 - expected)) < 6


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_all_modes_are_converted_to_rgb(tree: Path, mode: str) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new("RGB", (80, 80), (255, 255, 255)).convert(mode).save(tree / "train" / "n02" / f"0.{suffix}")
    (tree / "train" / "n02" / "0.jpg").unlink()
    assert load(tree).train.pixels[4].min() > 240


def test_a_number_of_classes_is_a_seeded_choice(tree: Path) -> None:
    chosen = {load(tree, "data.classes=2", f"data.seed={seed}").classes for seed in range(8)}
    assert len(chosen) > 1
    assert all(len(classes) == 2 and list(classes) == sorted(classes) for classes in chosen)
    assert load(tree, "data.classes=2", "data.seed=3").classes == load(tree, "data.classes=2", "data.seed=3").classes


def test_classes_are_selected_by_a_list_or_a_file(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("# mine\nn03\ttench\n\nn01 English springer\n")
    listed, filed = load(tree, "data.classes=[n03,n01]"), load(tree, f"data.classes={path}")
    assert listed.classes == filed.classes == ("n01", "n03")
    assert listed.fingerprint == filed.fingerprint
    assert listed.train.labels.tolist() == [0] * 4 + [1] * 4


def test_a_subset_has_the_requested_number_of_images_per_class(tree: Path) -> None:
    images = load(tree, "data.train_per_class=3", "data.val_per_class=1")
    assert np.bincount(images.train.labels).tolist() == [3, 3, 3]
    assert np.bincount(images.test.labels).tolist() == [1, 1, 1]


def test_the_layout_of_tiny_imagenet_is_read(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tiny")
    lines = []
    (tree / "val" / "images").mkdir()
    for label, name in enumerate(NAMES):
        (tree / "train" / name / "images").mkdir()
        for path in sorted((tree / "train" / name).glob("*.jpg")):
            path.rename(tree / "train" / name / "images" / path.name)
        for path in sorted((tree / "val" / name).glob("*.jpg")):
            path.rename(tree / "val" / "images" / f"val_{label}_{path.name}")
            lines.append(f"val_{label}_{path.name}\t{name}\t0\t0\t63\t63\n")
        (tree / "val" / name).rmdir()
    (tree / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    images = load(tree)
    assert images.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert abs(int(images.test.pixels[2, 0, 36, 36]) - colour(1, 0)[0]) <= 6


def flatten(tree: Path) -> list[str]:
    """Moves all test images into one folder, as in ILSVRC's archive; returns their classes sorted by image name."""
    classes = []
    for number, path in enumerate(sorted((tree / "val").glob("*/*.jpg"))):
        classes.append(path.parent.name)
        path.rename(tree / "val" / f"ILSVRC2012_val_{number:08}.jpg")
    for folder in [path for path in (tree / "val").iterdir() if path.is_dir()]:
        folder.rmdir()
    return classes


def test_test_images_in_one_folder_are_classified_by_a_list_without_being_moved(tree: Path) -> None:
    in_class_folders = load(tree)
    classes, files = flatten(tree), set(tree.rglob("*"))
    with pytest.raises(DataError, match=refusal(f"data.root={tree}", "images.flat", number=6, then="data.val_labels=")):
        load(tree)
    path = tree.parent / "synsets.txt"
    path.write_text("".join(f"{name}\n" for name in classes))
    images = load(tree, f"data.val_labels={path}")
    assert images.test.labels.tolist() == in_class_folders.test.labels.tolist()
    assert images.fingerprint == in_class_folders.fingerprint
    assert set(tree.rglob("*")) == files
    path.write_text("".join(f"{name}\n" for name in reversed(classes)))
    assert load(tree, f"data.val_labels={path}").test.labels.tolist() == in_class_folders.test.labels.tolist()[::-1]


def test_a_list_is_ignored_if_there_are_class_folders(tree: Path) -> None:
    expected = load(tree).test.labels.tolist()
    for content in (b"0.jpg n03 0 0 63 63\n", b"v\351.JPEG\tn01\t0\t0\n", b""):
        (tree / "val" / "val_annotations.txt").write_bytes(content)
        (tree / "val" / "images").mkdir(exist_ok=True)
        assert load(tree).test.labels.tolist() == expected
    with pytest.raises(DataError, match=refusal("data.val_labels=some", "images.needless")):
        load(tree, "data.val_labels=some")


def test_class_files_in_other_encodings_are_read(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    for content in (
        b"\xef\xbb\xbfn01\r\nn03\r\n",
        "n01\nn03\n".encode("utf-16"),
        b"  # all\nn01  # tench\nn03,cassette player\n",
    ):
        path.write_bytes(content)
        assert load(tree, f"data.classes={path}").classes == ("n01", "n03")


def test_corrupt_images_are_an_error_unless_skipped(tree: Path) -> None:
    whole = load(tree)
    truncated, empty, text = (tree / "train" / "n02" / f"{number}.jpg" for number in (0, 1, 3))
    truncated.write_bytes(truncated.read_bytes()[:400])
    empty.write_bytes(b"")
    text.write_text("no picture")
    pattern = refusal(
        "data=imagenet_subset", "images.corrupt", bad=3, number=18, first="train/n02/0.jpg", then="runcated"
    )
    for _ in range(2):  # also after the intact images have been decoded
        with pytest.raises(DataError, match=pattern + ".*data.skip_corrupt=t") as caught:
            load(tree)
        assert str(tree) not in re.sub(r"data.root=\S+", "", str(caught.value))
    images = load(tree, "data.skip_corrupt=true")
    assert images.train.labels.tolist() == [0] * 4 + [1] + [2] * 4
    kept = [0, 1, 2, 3, 6, 8, 9, 10, 11]
    assert np.array_equal(images.train.pixels, whole.train.pixels[kept])
    assert np.array_equal(images.test.pixels, whole.test.pixels)
    assert images.fingerprint != whole.fingerprint


def test_the_error_for_a_class_without_decodable_images_names_it(tree: Path) -> None:
    for path in (tree / "val" / "n03").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=worded("images.undecoded", part="test", name="n03")):
        load(tree, "data.skip_corrupt=true")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["data.classes=[n01,n0]"],
            refusal("data.classes=n0", "options.no_such", what="class", then=("in", "did you mean n0")),
        ),
        (["data.classes=[n01,n01]"], refusal("data.classes=n01", "images.listed_twice")),
        (["data.classes=[n01]"], refusal("data.classes=n01", "images.two_at_least")),
        (["data.classes=4"], refusal("data.classes=4", "images.classes", least=2, most=3)),
        (["data.classes=1"], refusal("data.classes=1", "images.classes", least=2, most=3)),
        (["data.classes=true"], refusal("data.classes=true", "images.kinds")),
        (["data.classes=mine.txt"], refusal("data.classes=mine.txt", "images.unread", then="No such file")),
        (["data.train_per_class=5"], refusal("data.train_per_class=5", "images.too_few", name="n01", number=4)),
        (["data.val_per_class=3"], refusal("data.val_per_class=3", "images.too_few", name="n01", number=2)),
    ],
)
def test_an_invalid_subset_is_refused(tree: Path, options: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        load(tree, *options)


@pytest.mark.parametrize(
    ("resolution", "reason", "limit"), [(63, "options.below", {"least": 64}), (225, "options.over", {"most": 224})]
)
def test_a_resolution_out_of_range_is_refused(tree: Path, resolution: int, reason: str, limit: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=refusal(f"data.resolution={resolution}", reason, **limit)):
        load(tree, f"data.resolution={resolution}")


def test_the_error_for_an_invalid_tree_lists_its_content(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(DataError, match=refusal("", "options.no_folder", then="download imagenette from http")):
        load(tmp_path / "nowhere", "data=imagenette", f"data.root={tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match=refusal(f"data.root={tree / 'train'}", "images.no_tree", has="n01, ")):
        load(tree / "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=refusal(f"data.root={tmp_path / 'empty'}", "images.no_tree", has="nothing")):
        load(tmp_path / "empty")


def test_packed_archives_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "ILSVRC2012_img_val.tar"
    archive.touch()
    with pytest.raises(DataError, match=refusal(f"data.root={archive}", "images.archive")):
        load(archive)
    with pytest.raises(DataError, match=refusal(f"data.root={tmp_path}", "images.no_tree", has=archive.name)) as caught:
        load(tmp_path)
    assert worded("images.unpack") in str(caught.value)


@pytest.mark.parametrize(("part", "message"), [("train", "val lacks n09"), ("val", "val lacks n03")])
def test_different_classes_in_training_and_test_folders_are_refused(tree: Path, part: str, message: str) -> None:
    (tree / part / "n03").rename(tree / part / "n09")
    with pytest.raises(DataError, match=f"{worded('images.other_classes')}.*{message}"):
        load(tree)


def test_a_class_without_training_images_is_refused(tree: Path) -> None:
    make_tree(tree / "more")
    (tree / "more" / "val" / "n01").rename(tree / "val" / "n09")
    with pytest.raises(DataError, match=f"{worded('images.other_classes')}.*train lacks n09"):
        load(tree)


def test_unselected_classes_may_be_missing_in_one_part(tree: Path) -> None:
    (tree / "val" / "n02").rename(tree / "val" / "n09")
    assert load(tree, "data.classes=[n01,n03]").classes == ("n01", "n03")
    with pytest.raises(DataError, match=f"{worded('images.other_classes')}.*val lacks n02"):
        load(tree, "data.classes=[n01,n02]")
    with pytest.raises(DataError, match=r"val lacks n02; select common classes with data.classes="):
        load(tree, "data.classes=2")


def test_names_of_classes_in_a_file_may_contain_spaces(tree: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tree / part / "n02").rename(tree / part / "English springer")
    path = tmp_path / "classes.txt"
    path.write_text("English springer\nn03 tench\n")
    assert load(tree, f"data.classes={path}").classes == ("English springer", "n03")


def test_the_error_for_a_class_without_images_names_it(tree: Path) -> None:
    for path in (tree / "train" / "n02").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"train/n02 contains no images"):
        load(tree)
