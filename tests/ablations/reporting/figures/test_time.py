from __future__ import annotations

import pytest

from ablations.reporting.figures.time import draw_time, time_frame
from tests.builders.drawings import LONG, SHORT, cells_of, cut, design_of, legend_of, overlapping, points, spans

NAMES = ["none", "sa"]
CELLS = cells_of({"none": [60.0, 62.0], "sa": [63.0, 63.0]}).assign(seconds=[10.0, 12.0, 20.0, 20.0])


def test_a_variant_has_the_means_of_its_seconds_and_its_top1() -> None:
    frame = time_frame(CELLS, design_of(NAMES))
    mean = frame[frame["kind"] == "mean"].set_index("variant")
    assert mean.loc["none", ["n", "seconds", "top1"]].to_list() == [2, 11.0, 61.0]
    assert mean.loc["none", "seconds_low"] < 11 < mean.loc["none", "seconds_high"]
    assert frame[frame["kind"] == "replicate"]["seconds"].to_list() == [10.0, 12.0, 20.0, 20.0]


def test_cells_without_a_time_are_left_out() -> None:
    frame = time_frame(CELLS.assign(seconds=[float("nan")] * 2 + [20.0] * 2), design_of(NAMES))
    assert list(dict.fromkeys(frame["variant"])) == ["sa"]


def test_means_replicates_and_intervals_are_drawn() -> None:
    drawn = draw_time(time_frame(CELLS, design_of(NAMES)), dict.fromkeys(NAMES, "none"), "caption")
    (axes,) = drawn.axes
    assert points(axes).keys() == {(10, 60), (12, 62), (20, 63), (11, 61)}
    across, upright = ([one for one in spans(axes) if one[place] == one[place + 2]] for place in (1, 0))
    assert {one[1] for one in across} == {61, 63}
    assert {one[0] for one in upright} == {11, 20}
    assert legend_of(drawn) == NAMES


@pytest.mark.parametrize(("names", "replicates"), [(SHORT[:1], 1), (SHORT, 3), (LONG, 2)])
def test_nothing_is_cut_off_or_overlaps(names: list[str], replicates: int) -> None:
    cells = cells_of({name: [50.0 + number] * replicates for number, name in enumerate(names)})
    cells = cells.assign(seconds=[1.0 + 7 * number for number in range(len(cells))])
    drawn = draw_time(time_frame(cells, design_of(names)), dict.fromkeys(names, names[0]), "A caption of words. " * 9)
    assert cut(drawn) == overlapping(drawn) == []
