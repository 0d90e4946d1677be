from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ablations.analysis.predictions import confusion_matrix
from ablations.reporting.figures.confusion import MOST_VARIANTS, confusion_frame, draw_confusion, shown_variants
from ablations.reporting.figures.registry import draw_figures
from tests.builders.benchmarks import cut_or_overlapping
from tests.builders.predicted import predicted_study


def test_the_baselines_matrix_is_beside_the_differences_of_variants(tmp_path: Path) -> None:
    found = predicted_study(tmp_path).predictions
    drawn = draw_confusion(found, "caption")
    none, two, four = (confusion_matrix(found, name) for name in ("none", "groups=2", "groups=4"))
    assert [axes.get_title() for axes in drawn.axes] == ["none", "groups=2, difference", "groups=4, difference"]
    for axes, matrix, sign in zip(drawn.axes, (none, two - none, four - none), ("", "+", "+"), strict=True):
        expected = [f"{value:{sign}.0f}" if round(value) else "" for value in matrix.ravel()]
        assert [text.get_text() for text in axes.texts] == expected
        # Increases on the diagonal and decreases elsewhere are improvements.
        colours = np.asarray(axes.collections[0].get_array()).ravel()
        signs = np.where(np.eye(10), 1, -1 if sign else 1)
        assert colours == pytest.approx((signs * matrix).ravel())


def test_the_frame_has_every_share(tmp_path: Path) -> None:
    found = predicted_study(tmp_path).predictions
    frame = confusion_frame(found)
    assert len(frame) == 3 * 100
    assert frame.groupby(["variant", "true"])["share"].sum().to_numpy() == pytest.approx(100)


def test_of_many_variants_those_with_the_largest_difference_in_top1_are_shown(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path, ("sweep=factorial",))
    found = analysis.predictions
    shown = shown_variants(found)
    assert len(shown) == 1 + MOST_VARIANTS < len(found.by_variant)
    top1 = analysis.results.cells.groupby("variant")["top1"].mean()
    gaps = (top1 - top1[shown[0]]).abs()
    assert gaps[shown[1:]].min() >= gaps.drop(shown).max()
    (figure,) = draw_figures(analysis, ["confusion"]).drawn
    assert "Variants with the largest difference in top-1" in figure.caption


def test_the_first_of_several_baselines_is_shown_with_its_variants(tmp_path: Path) -> None:
    found = predicted_study(tmp_path, ("sweep=backbones", "sweep.factors.model=[resnet8,resnet20]")).predictions
    assert shown_variants(found) == ["resnet8, none", "resnet8, sa"]


def test_of_many_classes_the_most_confused_pairs_are_drawn(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path, classes=40, images=400)
    frame = confusion_frame(analysis.predictions)
    assert len(frame) == 20 * 3
    assert (frame["true"] != frame["predicted"]).all()
    matrices = np.array([confusion_matrix(analysis.predictions, name) for name in ("none", "groups=2", "groups=4")])
    highest = np.sort((matrices.max(0) * (1 - np.eye(40))).ravel())[::-1][:20]
    assert sorted(frame.groupby(["true", "predicted"])["share"].max(), reverse=True) == pytest.approx(highest)
    (figure,) = draw_figures(analysis, ["confusion"]).drawn
    assert "The most confused pairs of the 40 classes" in figure.caption


@pytest.mark.parametrize("overrides", [("sweep.factors.attention.groups=[4]",), ("sweep=factorial",)])
@pytest.mark.parametrize("classes", [2, 10, 25, 40])
def test_nothing_is_cut_off(tmp_path: Path, classes: int, overrides: tuple[str, ...]) -> None:
    found = predicted_study(tmp_path, overrides, classes=classes, images=20 * classes).predictions
    assert cut_or_overlapping(draw_confusion(found, "A caption of some words.")) == []
