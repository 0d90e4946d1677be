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
    """Returns predictions given the first letters of true and predicted classes."""
    letters = "".join(name[0] for name in CLASSES)
    true, top = ([letters.index(letter) for letter in text] for text in (labels, predicted))
    ranks = [int(label != guess) for label, guess in zip(true, top, strict=True)]
    return Predictions.of(3, true, top, ranks, [confidence] * len(true))


STORED = StudyPredictions(
    {
        "plain": {0: of("ccddee", "ccddce"), 1: of("ccddee", "cddded")},
        "better": {0: of("ccddee", "ccddee"), 1: of("ccddee", "ccdded"), 2: of("ccddee", "cccccc")},
    },
    {"plain": "plain", "better": "plain"},
    CLASSES,
)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemars_test_is_the_exact_binomial_test_with_p_one_half(only_one: int, only_other: int) -> None:
    expected = binomtest(only_one, only_one + only_other).pvalue if only_one + only_other else 1.0
    assert mcnemar_p(only_one, only_other) == pytest.approx(expected, rel=1e-9)


def test_variants_are_compared_by_replicate_and_replicates_of_the_baseline_with_each_other() -> None:
    rows = churn_frame(STORED).to_dict("records")
    assert [tuple(row.values())[:4] for row in rows] == [
        ("better", 0, "plain", 0), ("better", 1, "plain", 1), ("plain", 0, "plain", 1),
    ]  # fmt: skip
    assert [round(row["churn"], 4) for row in rows] == [
        pytest.approx(100 * share, abs=1e-4) for share in (1 / 6, 1 / 6, 3 / 6)
    ]
    assert [(row["only_variant"], row["only_against"]) for row in rows] == [(1, 0), (1, 0), (2, 1)]
    assert [row["p"] for row in rows] == [1.0, 1.0, 1.0]


def test_a_variants_row_has_its_churn_and_the_churn_of_another_seed() -> None:
    plain, better = predictions_frame(STORED).to_dict("records")
    assert (plain["variant"], better["variant"]) == ("plain", "better")
    assert (plain["n"], better["n"], better["pairs"], better["floor_pairs"]) == (2, 3, 2, 1)
    assert better["churn"] == pytest.approx(100 / 6)
    assert plain["churn"] == plain["churn_floor"] == better["churn_floor"] == pytest.approx(50.0)
    assert better["top1"] == pytest.approx(100 * (6 + 5 + 2) / 18)
    assert np.isnan(better["top5"])  # there are only three classes
    assert better["ece"] == pytest.approx(100 * (0.1 + (0.9 - 5 / 6) + (0.9 - 2 / 6)) / 3, abs=0.3)


def test_a_single_replicate_or_different_images_have_no_churn_floor() -> None:
    once = replace(STORED, by_variant={name: {0: kept[0]} for name, kept in STORED.by_variant.items()})
    for predictions in (once, replace(STORED, same_images=False)):
        frame = predictions_frame(predictions)
        assert frame["churn_floor"].isna().all()
        assert (frame["floor_pairs"] == 0).all()
        assert frame["churn"].notna().tolist() == [False, True]


def test_networks_tested_on_different_images_are_not_compared() -> None:
    other = {"plain": STORED.by_variant["plain"], "better": {0: of("eeddcc", "eeddcc"), 1: of("c", "c")}}
    predictions = replace(STORED, by_variant=other)
    assert set(churn_frame(predictions)["variant"]) == {"plain"}
    assert classes_frame(predictions)["difference"].isna().all()


def test_classes_have_their_accuracy_and_the_paired_difference_to_the_baseline() -> None:
    frame = classes_frame(STORED).set_index(["variant", "class"])
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
    predictions = StudyPredictions({"it": {0: of("ccd", "cdd")}}, {}, CLASSES)
    assert classes_frame(predictions)["accuracy"].tolist() == pytest.approx([50.0, 100.0, np.nan], nan_ok=True)
    assert np.isnan(confusion_matrix(predictions, "it")[2]).all()


def test_a_confusion_matrix_has_the_shares_of_predictions_for_each_true_class() -> None:
    matrix = confusion_matrix(STORED, "plain")
    assert matrix.tolist() == [[75.0, 25.0, 0.0], [0.0, 100.0, 0.0], [25.0, 25.0, 50.0]]


@given(st.integers(2, 40), st.integers(1, 120), st.integers(0, 5))
def test_frames_agree_with_the_predictions(classes: int, images: int, seed: int) -> None:
    kept = {number: some_predictions(classes, images, (seed, number)) for number in range(2)}
    predictions = StudyPredictions({"it": kept}, {"it": "it"}, tuple(map(str, range(classes))))
    frame = calibration_frame(predictions)
    assert frame["count"].sum() == 2 * images
    assert (frame["low"] < frame["confidence"] + 1e-9).all()
    assert (frame["confidence"] <= frame["high"] + 1e-9).all()
    right = sum(int(each.right.sum()) for each in kept.values())
    assert (frame["accuracy"] * frame["count"]).sum() == pytest.approx(right)
    by_class = classes_frame(predictions)
    assert np.nansum(by_class["accuracy"] * by_class["images"]) == pytest.approx(100 * right / 2)
    totals = np.nansum(confusion_matrix(predictions, "it"), axis=1)
    assert all(total == pytest.approx(100) or total == 0 for total in totals)


def test_predictions_are_those_of_the_studys_finished_cells(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    predictions = analysis.predictions
    assert {name: list(kept) for name, kept in predictions.by_variant.items()} == {
        "none": [0, 1], "groups=2": [0, 1], "groups=4": [0, 1],
    }  # fmt: skip
    assert (predictions.images, predictions.compared, predictions.note, predictions.same_images) == (
        200,
        ["groups=2", "groups=4"],
        "",
        True,
    )
    cells = analysis.results.cells
    for name, kept in predictions.by_variant.items():
        stored = cells.loc[cells["variant"] == name, "top1"].tolist()
        assert [each.top1 for each in kept.values()] == stored


def file_of(analysis: StudyAnalysis, variant: int, replicate: int) -> Path:
    cell = analysis.design.cell(analysis.design.variants[variant], replicate)
    return PredictionFiles(analysis.folder / "predictions").path(cell)


@pytest.mark.parametrize("damage", ["missing", "cut off", "to another training", "a folder"])
def test_an_unreadable_file_excludes_its_replicate_with_a_note(tmp_path: Path, damage: str) -> None:
    analysis = predicted_study(tmp_path)
    path, content = file_of(analysis, 1, 1), file_of(analysis, 1, 0).read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(content[:-50] if damage == "cut off" else content)
    predictions = analysis.predictions
    assert {name: list(kept) for name, kept in predictions.by_variant.items()} == {
        "none": [0, 1], "groups=2": [0], "groups=4": [0, 1],
    }  # fmt: skip
    expected = worded("predictions.missing", cells="1 finished cell")
    assert predictions.note.startswith(
        expected if damage == "missing" else worded("predictions.unread", named="groups=2 r1 (")
    )
    assert len(predictions.note.splitlines()) == 1
    assert churn_frame(predictions).query("variant == 'groups=2'")["replicate"].tolist() == [0]


def test_a_variant_whose_baseline_has_no_predictions_is_not_compared(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    for replicate in (0, 1):
        file_of(analysis, 0, replicate).unlink()
    assert analysis.predictions.compared == []
    assert churn_frame(analysis.predictions).empty
    assert predictions_frame(analysis.predictions)["churn"].isna().all()


def test_with_data_seed_replicate_test_images_differ_between_replicates(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    protocol = {**analysis.design.protocol, "data": {**analysis.design.protocol["data"], "seed": "replicate"}}
    files = PredictionFiles(tmp_path / "predictions")
    changed = replace(analysis, design=replace(analysis.design, protocol=protocol))
    for variant in changed.design.variants:
        for replicate in (0, 1):  # with other keys
            content = files.path(analysis.design.cell(variant, replicate)).read_bytes()
            files.write(changed.design.cell(variant, replicate), content)
    assert not changed.predictions.same_images


def test_the_error_without_predictions_has_the_option_that_saves_them(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    for path in (tmp_path / "predictions").iterdir():
        path.unlink()
    pattern = refusal(f"study={analysis.design.study}", "predictions.none", folder=tmp_path / "predictions")
    with pytest.raises(UsageError, match=pattern):
        _ = analysis.predictions
