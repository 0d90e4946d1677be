from __future__ import annotations

import pytest

from ablations.analysis.results import collect
from ablations.reporting.figures.curves import curves_frame, draw_curves
from tests.builders.cells import design, stored


def test_the_frame_has_the_mean_and_the_range_after_each_epoch() -> None:
    made = design()
    frame = curves_frame(collect(made, stored(made, 6)).curves, made)
    row = frame[(frame["variant"] == "groups=2") & (frame["epoch"] == 2) & (frame["metric"] == "top1")].iloc[0]
    assert (row["n"], row["mean"], row["low"], row["high"]) == (2, 3.5, 2.0, 5.0)
    assert list(dict.fromkeys(frame["variant"])) == ["none", "groups=2", "groups=4"]


@pytest.mark.parametrize(("finished", "bands"), [(3, 0), (6, 3)])
def test_bands_are_drawn_if_there_are_several_replicates(finished: int, bands: int) -> None:
    made = design()
    frame = curves_frame(collect(made, stored(made, finished)).curves, made)
    for axes in draw_curves(frame, made.baseline, "caption").axes:
        assert (len(axes.lines), len(axes.patches)) == (3, bands)
