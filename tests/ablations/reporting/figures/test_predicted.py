"""Two named variants, compared by their predictions: `against`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablations.analysis.predictions import classes_frame, confusion_matrix
from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import UsageError
from ablations.config import PREDICTED
from ablations.reporting.figures import chosen_figures
from ablations.reporting.figures.classes import draw_classes
from ablations.reporting.figures.confusion import draw_confusion
from ablations.reporting.figures.registry import draw_figures
from tests.builders.benchmarks import cut_or_overlapping
from tests.builders.drawings import points, spans
from tests.builders.predicted import predicted_study

PAIR = ["groups=4", "groups=2"]


def against(folder: Path, asked: object, classes: int = 10) -> StudyAnalysis:
    """Returns a study of three variants and three replicates with the option `against`."""
    analysis = predicted_study(folder, replicates=3, classes=classes, images=20 * classes)
    return replace(analysis, config=replace(analysis.config, against=asked))


def test_all_variants_are_compared_with_the_named_one(tmp_path: Path) -> None:
    found = against(tmp_path, "groups=2").predictions
    assert found.compared == ["none", "groups=4"]
    frame = classes_frame(found)
    assert frame.loc[frame["variant"] == "groups=2", "difference"].isna().all()
    gallery = draw_figures(against(tmp_path, "groups=2"), PREDICTED)
    assert [figure.png.stem for figure in gallery.drawn] == [f"{name}-against-groups=2" for name in PREDICTED]
    classes, confusion, _ = (figure.caption for figure in gallery.drawn)
    assert "Differences to groups=2" in classes
    assert "of groups=2" in confusion


def test_a_pair_has_both_matrices_and_their_difference(tmp_path: Path) -> None:
    found = against(tmp_path, PAIR).predictions
    drawn = draw_confusion(found, "caption")
    assert [axes.get_title() for axes in drawn.axes] == ["groups=2", "groups=4", "groups=4 less groups=2"]
    gap = confusion_matrix(found, "groups=4") - confusion_matrix(found, "groups=2")
    goodness = np.where(np.eye(10) > 0, gap, -gap).ravel()
    assert np.asarray(drawn.axes[2].collections[0].get_array()).ravel() == pytest.approx(goodness)


def test_a_pair_has_the_difference_of_each_class_with_its_interval(tmp_path: Path) -> None:
    found = against(tmp_path, PAIR).predictions
    (axes,) = draw_classes(found, "caption").axes
    frame = classes_frame(found)
    own = frame[frame["variant"] == "groups=4"]
    assert sorted(x for x, _ in points(axes)) == pytest.approx(sorted(own["difference"]))
    assert len(spans(axes)) == own["low"].notna().sum()


def test_captions_name_both_variants_and_the_difference_in_calibration(tmp_path: Path) -> None:
    drawn = {figure.name: figure for figure in draw_figures(against(tmp_path, PAIR), PREDICTED).drawn}
    assert set(drawn) == set(PREDICTED)
    assert all("groups=4" in figure.caption and "groups=2" in figure.caption for figure in drawn.values())
    assert "paired by replicate (n = 3)" in drawn["calibration"].caption
    assert drawn["classes"].png.name == "classes-groups=4-against-groups=2.png"
    assert set(pd.read_csv(drawn["confusion"].png.with_suffix(".csv"))["variant"]) == set(PAIR)


@pytest.mark.parametrize("classes", [2, 25, 40])
def test_nothing_of_a_pair_is_cut_off_or_overlaps(tmp_path: Path, classes: int) -> None:
    found = against(tmp_path, PAIR, classes).predictions
    for draw in (draw_classes, draw_confusion):
        assert cut_or_overlapping(draw(found, "A caption of some words.")) == []


@pytest.mark.parametrize("asked", ["groups=3", ["groups=2", "sa"], ["none", "none"], ["none", *PAIR], []])
def test_variants_without_predictions_and_other_numbers_of_variants_are_refused(tmp_path: Path, asked: object) -> None:
    with pytest.raises(UsageError, match=r"^against"):
        against(tmp_path, "none").predictions.against(asked)


def test_against_draws_only_figures_of_predictions_and_refuses_others() -> None:
    assert chosen_figures("all", "none") == (list(PREDICTED), False)
    assert chosen_figures(["confusion"], PAIR) == (["confusion"], False)
    with pytest.raises(UsageError, match=r"against=none.*forest"):
        chosen_figures(["forest"], "none")
