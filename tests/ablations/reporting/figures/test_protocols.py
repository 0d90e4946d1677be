from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ablations.common.metrics import METRICS
from ablations.reporting.figures.protocols import draw_protocols
from tests.builders.drawings import cut, overlapping
from tests.builders.multiverses import protocol_frame

TOP1 = METRICS["top1"]
FRAME = protocol_frame(
    {"quick": {"sa": "undecided", "gc": "hurts"}, "short": {"sa": "helps", "gc": "equivalent"}}
)  # fmt: skip
SAME = {"quick": 1.0, "short": 1.0}
LONG = "position=residual, norm=instance, gate=hard_sigmoid, shuffle=off, transform=conv1x1"


def markers(drawn: Figure) -> list[tuple[float, float, bool]]:
    """The mean, height and fill of each marker."""
    (axes,) = drawn.axes
    return [
        (x, y, to_hex(face) != "#ffffff")
        for group in axes.collections
        if isinstance(group, PathCollection)
        for (x, y), face in zip(
            np.asarray(group.get_offsets()).tolist(), np.asarray(group.get_facecolor()).tolist(), strict=True
        )
    ]


def test_a_contrast_is_a_row_with_a_marker_per_protocol_filled_if_decided() -> None:
    found = markers(draw_protocols(FRAME, SAME, TOP1, "caption"))
    assert {(round(y), x, filled) for x, y, filled in found} == {
        (0, 0.4, False), (0, 1.0, True), (1, -1.0, True), (1, 0.0, True),
    }  # fmt: skip
    heights = [y for _, y, _ in found]
    assert len(set(heights)) == len(heights)
    assert min(abs(one - other) for one, other in itertools.combinations(heights, 2)) > 0.2


def test_verdicts_are_beside_their_markers_and_protocols_in_the_legend() -> None:
    drawn = draw_protocols(FRAME.assign(assumes_normal=True), SAME, TOP1, "caption")
    (axes,) = drawn.axes
    assert [text.get_text() for text in axes.texts] == [
        "undecided † (n = 8)", "hurts † (n = 8)", "helps † (n = 8)", "equivalent † (n = 8)",
    ]  # fmt: skip
    beside = sorted(float(text.xy[1]) for text in axes.texts)  # type: ignore[attr-defined]
    assert beside == sorted(y for _, y, _ in markers(drawn))
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["quick", "short", "within 1 point"]
    assert axes.get_xlabel() == "Difference in top-1 to none (percentage points)"


def test_the_margin_is_one_band_or_one_behind_each_marker() -> None:
    (axes,) = draw_protocols(FRAME, SAME, TOP1, "caption").axes
    assert len(axes.patches) == 1
    (axes,) = draw_protocols(FRAME, {"quick": 1.0, "short": 0.2}, TOP1, "caption").axes
    bands = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [patch.get_width() for patch in bands] == [2.0, 2.0, 0.4, 0.4]
    centres = [patch.get_y() + patch.get_height() / 2 for patch in bands]
    assert centres == pytest.approx([float(text.xy[1]) for text in axes.texts])  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocols", [1, 2, 4, 7])
@pytest.mark.parametrize("name", ["sa", LONG])
def test_no_text_overlaps_or_is_cut_off(protocols: int, name: str) -> None:
    names = [f"protocol+number+{number}" for number in range(protocols)]
    variants = {f"{name} {number}": "undecided" for number in range(7)}
    frame = protocol_frame(dict.fromkeys(names, variants), n=1000)
    drawn = draw_protocols(frame, dict.fromkeys(names, 1.0), TOP1, "caption " * 40)
    assert overlapping(drawn) == []
    assert cut(drawn) == []


def test_without_an_interval_there_is_only_a_marker() -> None:
    frame = FRAME.assign(low=np.nan, high=np.nan, n=1, verdict="no verdict")
    drawn = draw_protocols(pd.DataFrame(frame), SAME, TOP1, "caption")
    assert [filled for *_, filled in markers(drawn)] == [False] * 4
