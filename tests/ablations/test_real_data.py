"""Studies on images in files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ablations import cli
from ablations.run import PURPOSE, run
from tests.builders.trees import make_tree
from tests.conftest import MEASURED, Command
from tests.wording import refusal, worded


@pytest.fixture
def study(tmp_path: Path) -> list[str]:
    """A study of minimal size on a tree of JPEG files."""
    tree = make_tree(tmp_path / "tree", train=4, val=2)
    return [
        "data=imagenet_subset", f"data.root={tree}", f"data.cache={tmp_path / 'cache'}",
        f"results_dir={tmp_path / 'results'}", "sweep.factors.attention.groups=[4]", "replicates=1",
        "train.epochs=1", "train.batch_size=4", "tracking.enabled=false", "device=cpu",
        "measure=off", "launcher=serial",
    ]  # fmt: skip


def test_a_study_on_a_tree_reports_its_data_set(command: Command, study: list[str], tmp_path: Path) -> None:
    done = command("run", *study, *MEASURED, "data.train_per_class=3")
    assert done.returncode == 0, done.stderr
    assert worded("cache.decoding", data="imagenet_subset", images=15) in done.stdout
    assert worded("run.data", train=9, test=6, side=64, classes=3, memory="0.2 MiB on the device") in done.stdout
    folder = tmp_path / "results" / "groups-imagenet_subset-resnet8"
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    of_cells = {"variants", "forest", "learning_curves", "pareto", "complexity", "overhead"}
    of_predictions = {"classes", "confusion", "calibration"}
    assert figures == of_cells | of_predictions | {"time", "gates", "subfeatures", "cams"}
    report = (folder / "report.md").read_text()
    assert worded("scope.data", train=9, test=6, number=3, classes="n01, n02, n03.") in report
    assert "| data.train_per_class | 3 |" in report
    assert "| data.root |" not in report

    predictions = pd.read_csv(folder / "tables" / "predictions.csv")
    assert (predictions["images"].tolist(), predictions["top5"].isna().all()) == ([6, 6], True)

    shutil.rmtree(tmp_path / "tree")  # finished cells do not need the data set
    again = command("run", *study, "data.train_per_class=3")
    assert again.returncode == 0
    assert "nothing to train" in again.stdout
    report = (folder / "report.md").read_text()
    assert "- gates: data.root=" in report  # figures that need images are listed as missing
    assert "](figures/forest.png)" in report


def test_a_search_for_top5_with_few_classes_is_refused_before_a_study_is_created(
    command: Command, study: list[str], tmp_path: Path
) -> None:
    done = command("run", *(word for word in study if "factors" not in word), "sweep=search", "sweep.objectives=[top5]")
    assert done.returncode == 2
    pattern = refusal("sweep.objectives=top5", "predictions.few_classes", classes=3)
    assert re.search(f"error: {pattern}", done.stderr)
    assert not (tmp_path / "results").exists()


def test_an_error_in_the_data_options_does_not_block_a_later_correct_run(
    study: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (["data.classes=[n01,n04]"], "error: " + refusal("data.classes=n04", "options.no_such", what="class")),
        (
            ["data.train_per_class=99"],
            "error: " + refusal("data.train_per_class=99", "images.too_few", name="n01", number=4),
        ),
        (
            [f"data.root={tmp_path / 'tre'}"],
            "error: " + refusal(f"data.root={tmp_path / 'tre'}", "options.no_folder"),
        ),
        (["train.batch_size=13"], "error: " + refusal("train.batch_size=13", "images.batch", images=12)),
        (["data.resolution=400"], "error: " + refusal("data.resolution=400", "options.over", most=224)),
    ):
        assert cli.main("run", PURPOSE, run, [*study, *options]) == 2
        errors = capsys.readouterr().err
        assert re.match(message, errors)
        assert len(errors.splitlines()) == 1
    assert cli.main("run", PURPOSE, run, study) == 0


def test_a_study_can_only_be_resumed_with_the_same_images(command: Command, study: list[str], tmp_path: Path) -> None:
    assert command("run", *study).returncode == 0
    (tmp_path / "tree" / "train" / "n01" / "0.jpg").write_bytes(
        (tmp_path / "tree" / "train" / "n02" / "0.jpg").read_bytes()
    )
    done = command("run", *study, "replicates=2")
    assert done.returncode == 2
    assert worded("study.trained_on") in done.stderr


def test_mapped_images_train_to_the_same_result(command: Command, study: list[str], tmp_path: Path) -> None:
    reports = []
    for memory in ("device", "mapped"):
        done = command("run", *study, f"data.memory={memory}", f"results_dir={tmp_path / memory}")
        assert done.returncode == 0, done.stderr
        assert ("mapped from disk" in done.stdout) == (memory == "mapped")
        curves = tmp_path / memory / "groups-imagenet_subset-resnet8" / "figures" / "learning_curves.csv"
        reports.append(curves.read_text())
    assert reports[0] == reports[1]
