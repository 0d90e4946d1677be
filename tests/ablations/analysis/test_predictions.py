from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ablations.analysis.predictions import (
    StudyPredictions,
    calibration_frame,
    churn_frame,
    classes_frame,
    confusion_matrix,
    mcnemar_p,
    predictions_frame,
)
from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import UsageError
from ablations.storage.files import PredictionFiles
from ablations.training.predictions import Predictions
from tests.builders.predicted import predicted_study, some_predictions
from tests.wording import refusal, worded

CLASSES = ("cat", "dog", "emu")


def of(labels: str, predicted: str, confidence: float = 0.9) -> Predictions:
    """Predictions of images by the first letters of their classes."""
    letters = "".join(name[0] for name in CLASSES)
    true, taken = ([letters.index(letter) for letter in text] for text in (labels, predicted))
    ranks = [int(one != other) for one, other in zip(true, taken, strict=True)]
    return Predictions.of(3, true, taken, ranks, [confidence] * len(true))


FOUND = StudyPredictions(
    {
        "plain": {0: of("ccddee", "ccddce"), 1: of("ccddee", "cddded")},
        "better": {0: of("ccddee", "ccddee"), 1: of("ccddee", "ccdded"), 2: of("ccddee", "cccccc")},
    },
    {"plain": "plain", "better": "plain"},
    CLASSES,
)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemars_test_is_the_exact_binomial_test_of_one_half(only_one: int, only_other: int) -> None:
    expected = binomtest(only_one, only_one + only_other).pvalue if only_one + only_other else 1.0
    assert mcnemar_p(only_one, only_other) == pytest.approx(expected, rel=1e-9)


def test_networks_of_a_replicate_are_compared_and_the_baselines_replicates_with_each_other() -> None:
    rows = churn_frame(FOUND).to_dict("records")
    assert [tuple(row.values())[:4] for row in rows] == [
        ("better", 0, "plain", 0), ("better", 1, "plain", 1), ("plain", 0, "plain", 1),
    ]  # fmt: skip
    assert [round(row["churn"], 4) for row in rows] == [
        pytest.approx(100 * share, abs=1e-4) for share in (1 / 6, 1 / 6, 3 / 6)
    ]
    assert [(row["only_variant"], row["only_against"]) for row in rows] == [(1, 0), (1, 0), (2, 1)]
    assert [row["p"] for row in rows] == [1.0, 1.0, 1.0]


def test_a_variants_row_has_its_churn_and_that_of_another_seed_beside_it() -> None:
    plain, better = predictions_frame(FOUND).to_dict("records")
    assert (plain["variant"], better["variant"]) == ("plain", "better")
    assert (plain["n"], better["n"], better["pairs"], better["floor_pairs"]) == (2, 3, 2, 1)
    assert better["churn"] == pytest.approx(100 / 6)
    assert plain["churn"] == plain["churn_floor"] == better["churn_floor"] == pytest.approx(50.0)
    assert better["top1"] == pytest.approx(100 * (6 + 5 + 2) / 18)
    assert np.isnan(better["top5"])  # of three classes
    assert better["ece"] == pytest.approx(100 * (0.1 + (0.9 - 5 / 6) + (0.9 - 2 / 6)) / 3, abs=0.3)


def test_without_a_second_replicate_or_with_images_of_their_own_there_is_no_floor() -> None:
    once = replace(FOUND, by_variant={name: {0: kept[0]} for name, kept in FOUND.by_variant.items()})
    for found in (once, replace(FOUND, same_images=False)):
        frame = predictions_frame(found)
        assert frame["churn_floor"].isna().all()
        assert (frame["floor_pairs"] == 0).all()
        assert frame["churn"].notna().tolist() == [False, True]


def test_networks_that_were_tested_on_other_images_are_not_compared() -> None:
    other = {"plain": FOUND.by_variant["plain"], "better": {0: of("eeddcc", "eeddcc"), 1: of("c", "c")}}
    found = replace(FOUND, by_variant=other)
    assert set(churn_frame(found)["variant"]) == {"plain"}
    assert classes_frame(found)["difference"].isna().all()


def test_classes_have_their_accuracy_and_the_paired_difference_to_the_baseline() -> None:
    frame = classes_frame(FOUND).set_index(["variant", "class"])
    assert frame.loc["plain", "accuracy"].tolist() == pytest.approx([75.0, 100.0, 50.0])
    assert frame.loc["better", "accuracy"].tolist() == pytest.approx([100.0, 200 / 3, 50.0])
    assert frame.loc["plain", "difference"].isna().all()
    cat = frame.loc[("better", "cat")]
    assert (cat["difference"], cat["images"], cat["n"]) == (25.0, 2, 3)
    assert cat["low"] < 0 < cat["high"]
    emu = frame.loc[("better", "emu")]
    assert (emu["difference"], emu["low"], emu["high"]) == pytest.approx(
        (25.0, 25 - 12.7062 * 25, 25 + 12.7062 * 25), rel=1e-4
    )


def test_a_class_without_test_images_has_no_accuracy() -> None:
    found = StudyPredictions({"it": {0: of("ccd", "cdd")}}, {}, CLASSES)
    assert classes_frame(found)["accuracy"].tolist() == pytest.approx([50.0, 100.0, np.nan], nan_ok=True)
    assert np.isnan(confusion_matrix(found, "it")[2]).all()


def test_a_confusion_matrix_has_the_shares_of_each_true_class_over_all_replicates() -> None:
    matrix = confusion_matrix(FOUND, "plain")
    assert matrix.tolist() == [[75.0, 25.0, 0.0], [0.0, 100.0, 0.0], [25.0, 25.0, 50.0]]


@given(st.integers(2, 40), st.integers(1, 120), st.integers(0, 5))
def test_what_is_read_of_predictions_agrees_with_them(classes: int, images: int, seed: int) -> None:
    kept = {number: some_predictions(classes, images, (seed, number)) for number in range(2)}
    found = StudyPredictions({"it": kept}, {"it": "it"}, tuple(map(str, range(classes))))
    frame = calibration_frame(found)
    assert frame["count"].sum() == 2 * images
    assert (frame["low"] < frame["confidence"] + 1e-9).all()
    assert (frame["confidence"] <= frame["high"] + 1e-9).all()
    right = sum(int(one.right.sum()) for one in kept.values())
    assert (frame["accuracy"] * frame["count"]).sum() == pytest.approx(right)
    by_class = classes_frame(found)
    assert np.nansum(by_class["accuracy"] * by_class["images"]) == pytest.approx(100 * right / 2)
    totals = np.nansum(confusion_matrix(found, "it"), axis=1)
    assert all(total == pytest.approx(100) or total == 0 for total in totals)


def test_predictions_are_those_of_the_studys_finished_cells(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    found = analysis.predictions
    assert {name: list(kept) for name, kept in found.by_variant.items()} == {
        "none": [0, 1], "groups=2": [0, 1], "groups=4": [0, 1],
    }  # fmt: skip
    assert (found.images, found.compared, found.note, found.same_images) == (200, ["groups=2", "groups=4"], "", True)
    cells = analysis.results.cells
    for name, kept in found.by_variant.items():
        stored = cells.loc[cells["variant"] == name, "top1"].tolist()
        assert [one.top1 for one in kept.values()] == stored


def file_of(analysis: StudyAnalysis, variant: int, replicate: int) -> Path:
    cell = analysis.design.cell(analysis.design.variants[variant], replicate)
    return PredictionFiles(analysis.folder / "predictions").path(cell)


@pytest.mark.parametrize("damage", ["missing", "cut off", "to another training", "a folder"])
def test_a_file_that_is_no_good_leaves_out_its_replicate_and_it_is_said(tmp_path: Path, damage: str) -> None:
    analysis = predicted_study(tmp_path)
    path, content = file_of(analysis, 1, 1), file_of(analysis, 1, 0).read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(content[:-50] if damage == "cut off" else content)
    found = analysis.predictions
    assert {name: list(kept) for name, kept in found.by_variant.items()} == {
        "none": [0, 1], "groups=2": [0], "groups=4": [0, 1],
    }  # fmt: skip
    expected = worded("predictions.missing", cells="1 finished cell")
    assert found.note.startswith(
        expected if damage == "missing" else worded("predictions.unread", named="groups=2 r1 (")
    )
    assert len(found.note.splitlines()) == 1
    assert churn_frame(found).query("variant == 'groups=2'")["replicate"].tolist() == [0]


def test_a_variant_whose_baseline_has_no_predictions_is_compared_with_nothing(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    for replicate in (0, 1):
        file_of(analysis, 0, replicate).unlink()
    assert analysis.predictions.compared == []
    assert churn_frame(analysis.predictions).empty
    assert predictions_frame(analysis.predictions)["churn"].isna().all()


def test_replicates_with_seeds_of_their_own_for_the_data_were_tested_on_other_images(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    protocol = {**analysis.design.protocol, "data": {**analysis.design.protocol["data"], "seed": "replicate"}}
    files = PredictionFiles(tmp_path / "predictions")
    changed = replace(analysis, design=replace(analysis.design, protocol=protocol))
    for variant in changed.design.variants:
        for replicate in (0, 1):  # whose keys are others
            content = files.path(analysis.design.cell(variant, replicate)).read_bytes()
            files.write(changed.design.cell(variant, replicate), content)
    assert not changed.predictions.same_images


def test_a_study_without_predictions_says_how_to_get_them(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    for path in (tmp_path / "predictions").iterdir():
        path.unlink()
    pattern = refusal(f"study={analysis.design.study}", "predictions.none", folder=tmp_path / "predictions")
    with pytest.raises(UsageError, match=pattern):
        _ = analysis.predictions
