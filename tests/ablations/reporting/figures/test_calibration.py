from __future__ import annotations

from pathlib import Path

import pytest

from ablations.analysis.predictions import predictions_frame
from ablations.reporting.figures.calibration import MOST_CURVES, draw_calibration, shown_curves
from ablations.reporting.figures.registry import draw_figures
from tests.builders.benchmarks import cut_or_overlapping
from tests.builders.drawings import points
from tests.builders.predicted import predicted_study


def test_every_variant_has_its_error_and_a_curve(tmp_path: Path) -> None:
    found = predicted_study(tmp_path).predictions
    errors = predictions_frame(found)
    above, below, rows = draw_calibration(found, "caption").axes
    assert len(above.lines) == 1 + 3  # including the diagonal
    assert len(below.patches) == 3
    assert [x for x, _ in sorted(points(rows), key=lambda point: point[1])] == pytest.approx(errors["ece"].tolist())
    assert [label.get_text() for label in rows.get_yticklabels()] == ["none", "groups=2", "groups=4"]


def test_curves_of_many_variants_are_the_baseline_and_those_that_differ_most(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path, ("sweep=factorial",))
    errors = predictions_frame(analysis.predictions)
    shown = shown_curves(errors)
    assert (shown[0], len(shown)) == ("none", 1 + MOST_CURVES)
    gaps = (errors.set_index("variant")["ece"] - errors["ece"].iloc[0]).abs()
    assert gaps[shown[1:]].min() >= gaps.drop(shown).max()
    (figure,) = draw_figures(analysis, ["calibration"]).drawn
    assert "Left: the variants with the largest difference in error" in figure.caption
    assert "n = 2 replicates per variant, 200 test images each" in figure.caption


@pytest.mark.parametrize("overrides", [
    ("sweep.factors.attention.groups=[4]",), ("sweep=factorial",), ("sweep=backbones",),
])  # fmt: skip
@pytest.mark.parametrize("images", [1, 300])
def test_nothing_is_cut_off_or_overlaps(tmp_path: Path, images: int, overrides: tuple[str, ...]) -> None:
    found = predicted_study(tmp_path, overrides, images=images).predictions
    assert cut_or_overlapping(draw_calibration(found, "A caption of some words.")) == []
