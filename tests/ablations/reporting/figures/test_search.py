from __future__ import annotations

import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ablations.reporting.figures.search import draw_search

FRAME = pd.DataFrame(
    {
        "variant": ["none", "a", "b", "c"],
        "picked": [False, True, True, True],
        "top1": [50.0, 60.0, 55.0, 70.0],
        "peak_memory_mib": [10.0, 20.0, 30.0, 40.0],
        "train_images_per_second": [4.0, 3.0, 2.0, 1.0],
        "parameters": [1.0, 2.0, 3.0, 4.0],
        "fits": [True, True, True, False],
        "on_front": [True, True, False, False],
        "label": ["B", "A", "", ""],
        "rank": [0, 1, 2, 0],
    }
)
SHARES = pd.DataFrame(
    {
        "factor": ["groups", "gate"],
        "objective": ["top1", "top1"],
        "importance": [0.8, 0.1],
        "null_95": [0.3, 0.2],
        "p_family": [0.05, 0.6],
    }
)


def texts(drawn: Figure) -> list[str]:
    return [text.get_text() for text in drawn.axes[0].texts]


def test_the_front_is_marked_and_lettered() -> None:
    objectives = ["top1", "train_images_per_second", "peak_memory_mib"]
    drawn = draw_search(FRAME, SHARES, objectives, "caption")
    axes, importances, colours = drawn.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Training (images/s)", "Validation top-1 (%)")
    assert sorted(texts(drawn)) == ["1", "2", "A", "B"]
    assert colours.get_ylabel() == "Peak memory (MiB)"
    labels = axes.get_legend_handles_labels()[1]
    assert set(labels) == {"picked", "named variant", "Pareto-optimal", "too many parameters"}
    assert [bar.get_width() for bar in importances.patches] == [0.8, 0.1]
    assert [label.get_text() for label in importances.get_yticklabels()] == ["groups", "gate"]


def test_the_permutation_threshold_is_marked_and_factors_above_it_have_a_star() -> None:
    importances = draw_search(FRAME, SHARES, ["top1"], "caption").axes[1]
    (marks,) = importances.collections
    assert isinstance(marks, LineCollection)
    assert [segment[0][0] for segment in marks.get_segments()] == [0.3, 0.2]
    (star,) = importances.texts
    assert star.get_text() == "*"
    assert star.get_position()[0] > 0.8


def test_two_objectives_need_no_colour_scale() -> None:
    drawn = draw_search(FRAME, SHARES.iloc[:0], ["top1", "peak_memory_mib"], "caption")
    assert len(drawn.axes) == 1


def test_one_objective_is_drawn_as_the_course_of_the_search() -> None:
    drawn = draw_search(FRAME, SHARES, ["top1"], "caption")
    lines = {str(line.get_label()): list(line.get_ydata()) for line in drawn.axes[0].lines}  # type: ignore[arg-type]
    assert lines["picked"] == [60.0, 55.0]  # c has too many parameters
    assert lines["best so far"] == [60.0, 60.0]
    assert lines["none"] == [50.0, 50.0]


def test_the_best_so_far_is_the_lowest_value_if_lower_is_better() -> None:
    drawn = draw_search(FRAME, SHARES.iloc[:0], ["peak_memory_mib"], "caption")
    lines = {str(line.get_label()): list(line.get_ydata()) for line in drawn.axes[0].lines}  # type: ignore[arg-type]
    assert lines["best so far"] == [20.0, 20.0]
