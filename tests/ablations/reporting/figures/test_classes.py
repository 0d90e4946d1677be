from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablations.analysis.predictions import classes_frame
from ablations.reporting.figures.classes import MOST_CLASSES, draw_classes, shown_classes
from ablations.reporting.figures.registry import draw_figures
from tests.builders.benchmarks import cut_or_overlapping
from tests.builders.predicted import predicted_study
from tests.wording import worded


def test_a_cell_has_the_difference_and_is_bold_if_its_interval_excludes_0(tmp_path: Path) -> None:
    found = predicted_study(tmp_path, replicates=3).predictions
    drawn = draw_classes(found, "caption")
    frame = shown_classes(classes_frame(found))
    texts = drawn.axes[0].texts
    assert [text.get_text() for text in texts] == [f"{value:+.1f}" for value in frame["difference"]]
    is_clear = (frame["low"] > 0) | (frame["high"] < 0)
    assert [text.get_fontweight() == "bold" for text in texts] == is_clear.tolist()
    assert 0 < is_clear.sum() < len(frame)
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["groups=2", "groups=4"]


def test_classes_without_test_images_have_no_difference(tmp_path: Path) -> None:
    found = predicted_study(tmp_path, replicates=2, classes=10, images=7).predictions
    drawn = draw_classes(found, "caption")
    assert len(drawn.axes[0].texts) == 2 * 7


@pytest.mark.parametrize("overrides", [("sweep.factors.attention.groups=[2,4]",), ("sweep=factorial",)])
@pytest.mark.parametrize("classes", [2, 10, 30])
def test_nothing_is_cut_off_or_overlaps(tmp_path: Path, classes: int, overrides: tuple[str, ...]) -> None:
    found = predicted_study(tmp_path, overrides, classes=classes, images=20 * classes).predictions
    assert cut_or_overlapping(draw_classes(found, "A caption of some words.")) == []


def test_of_many_classes_those_that_differ_most_are_shown_with_a_note(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path, classes=100, images=1000)
    frame = classes_frame(analysis.predictions)
    shown = shown_classes(frame)
    assert shown["label"].nunique() == MOST_CLASSES
    left_out = frame[~frame["label"].isin(shown["label"])]
    assert (
        left_out["difference"].abs().max()
        <= shown.groupby("label")["difference"].agg(lambda own: np.abs(own).max()).min()
    )
    (figure,) = draw_figures(analysis, ["classes"]).drawn
    assert worded("predictions.differ", classes=100) in figure.caption
    assert worded("predictions.seeds") in figure.caption
    assert len(pd.read_csv(tmp_path / "figures" / "classes.csv")) == 3 * 100  # has all


def test_one_replicate_has_no_bold_cells_and_the_caption_mentions_none(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path, replicates=1)
    assert all(text.get_fontweight() != "bold" for text in draw_classes(analysis.predictions, "caption").axes[0].texts)
    (figure,) = draw_figures(analysis, ["classes"]).drawn
    assert worded("predictions.seeds") not in figure.caption
    assert "means over replicates" not in figure.caption


def test_without_the_baselines_predictions_nothing_is_compared(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path, replicates=1)
    baseline = analysis.design.cell(analysis.design.variants[0], 0)
    (tmp_path / "predictions" / f"{baseline.key}.npz").unlink()
    gallery = draw_figures(analysis, ["classes", "confusion", "calibration"])
    assert gallery.left_out == {"classes": worded("predictions.no_pair")}
    for figure in gallery.drawn:
        assert worded("predictions.missing", cells="1 finished cell") in figure.caption
