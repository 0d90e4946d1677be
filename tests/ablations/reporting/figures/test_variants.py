from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread

from ablations.analysis.costs import StudyCosts, costs_on
from ablations.analysis.results import collect
from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.reporting.figures import style
from ablations.reporting.figures.variants import draw_levels, draw_pairs, levels_frame, pairs_frame
from tests.builders.cells import design, stored
from tests.builders.costs import COPIES, costs_of, machine_of, usual_costs
from tests.builders.drawings import legend_of, points, spans


def frame(finished: int = 6) -> pd.DataFrame:
    made = design()
    return levels_frame(collect(made, stored(made, finished)).cells, made, usual(made))


def usual(made: Design) -> StudyCosts:
    return costs_on(machine_of(made, usual_costs(made)), made)


def test_the_frame_has_every_replicate_and_the_mean_with_its_interval() -> None:
    rows = frame()
    groups_2 = rows[(rows["variant"] == "groups=2") & (rows["metric"] == "top1")]
    assert groups_2[groups_2["kind"] == "replicate"]["value"].tolist() == [1.0, 4.0]
    (mean,) = groups_2[groups_2["kind"] == "mean"].to_dict("records")
    assert (mean["value"], mean["n"], mean["level"]) == (2.5, 2, 2)
    assert mean["low"] < 1.0 < 4.0 < mean["high"]


def test_a_single_replicate_has_no_interval() -> None:
    rows = frame(finished=3)
    assert rows[(rows["kind"] == "mean") & (rows["metric"] == "top1")]["low"].isna().all()


@pytest.mark.parametrize("finished", [1, 2, 3, 5, 6])
def test_a_partial_study_is_drawn(finished: int) -> None:
    drawn = draw_levels(frame(finished), "Groups", "caption")
    assert [axes.get_ylabel() for axes in drawn.axes] == [
        "Top-1 (%)",
        "Relative step time (× no attention)",
        "Peak memory (MiB)",
    ]


def test_unmeasured_costs_have_no_panel_and_unmeasured_variants_no_row() -> None:
    made = design()
    cells = collect(made, stored(made, 6)).cells
    for costs, panels in ((None, []), (costs_of(made, peak_memory_mib={"none": 9.0}), ["Peak memory (MiB)"])):
        rows = levels_frame(cells, made, costs)
        assert [axes.get_ylabel() for axes in draw_levels(rows, "Groups", "c").axes] == ["Top-1 (%)", *panels]
    assert rows.query("metric == 'peak_memory_mib'")["variant"].tolist() == ["none"]


def test_costs_have_the_interval_over_copies_and_memory_has_none() -> None:
    rows = frame().query("variant == 'groups=4' and metric != 'top1'")
    time, memory = rows.to_dict("records")
    assert (time["metric"], time["kind"], time["n"]) == ("train_time_ratio", "mean", COPIES)
    assert time["value"] == pytest.approx(1.2)
    assert time["low"] < time["value"] < time["high"]
    assert (memory["metric"], memory["value"]) == ("peak_memory_mib", 13.5)
    assert math.isnan(memory["low"])


def test_costs_are_drawn_from_zero() -> None:
    _, *costs = draw_levels(frame(), "Groups", "caption").axes
    assert [axes.get_ylim()[0] for axes in costs] == [0, 0]


def test_the_panel_shows_the_values_of_the_frame() -> None:
    drawn = draw_levels(frame(), "Groups", "caption")
    axes = drawn.axes[0]
    assert sorted(points(axes)) == [(0, 1.0), (0, 2.5), (0, 4.0), (1, 2.0), (1, 3.5), (1, 5.0)]
    (baseline,) = (line for line in axes.lines if line.get_label() == "none (baseline)")
    assert list(baseline.get_ydata()) == [1.5, 1.5]  # type: ignore[arg-type]
    assert legend_of(drawn) == ["none (baseline)", "its 95 % CI", "mean and 95 % CI", "replicates"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4"]


def test_levels_that_are_not_numbers_are_rows_with_their_names() -> None:
    rows = frame()
    rows["level"] = rows["variant"]
    top1, speed, _ = draw_levels(rows, "Variant", "caption").axes
    assert [label.get_text() for label in top1.get_yticklabels()] == ["groups=2", "groups=4"]
    assert {(2.5, 0), (3.5, 1)} <= points(top1).keys()
    assert [(low[1], low[0] < 2.5, low[2] > 3.5) for low in spans(top1)] == [(0, True, True), (1, True, True)]
    assert (top1.get_xlabel(), speed.get_xlabel()) == ("Top-1 (%)", "Relative step time (× no attention)")
    assert top1.get_ylim() == speed.get_ylim() == (1.5, -0.5)


def test_a_figure_is_saved_as_png_and_pdf_beside_its_data(tmp_path: Path) -> None:
    rows = frame()
    caption = "Half a sentence about the protocol. " * 9
    written = style.save(draw_levels(rows, "Groups", caption), rows, tmp_path / "figures" / "groups")
    assert [path.name for path in written] == ["groups.png", "groups.pdf", "groups.csv"]
    assert imread(written[0]).shape[1] == pytest.approx(style.TWO_COLUMNS * 200, abs=2)
    assert written[1].read_bytes().startswith(b"%PDF")
    pd.testing.assert_frame_equal(
        pd.read_csv(written[2], dtype={"level": object}), rows.astype({"level": str}), check_dtype=False
    )


def pairs(finished: int = 8) -> pd.DataFrame:
    made = make_design(
        compose_config(["device=cpu", "sweep=backbones", "replicates=2", "sweep.factors.model=[resnet8,resnet20]"])
    )
    return pairs_frame(collect(made, stored(made, finished)).cells, made, usual(made))


def test_a_variant_shares_its_row_with_its_baseline() -> None:
    rows = pairs().drop_duplicates("variant").set_index("variant")
    assert rows["row"].tolist() == ["resnet8", "resnet8", "resnet20", "resnet20"]
    assert rows["series"].tolist() == ["none", "sa", "none", "sa"]
    assert rows["is_baseline"].tolist() == [True, False, True, False]


def test_the_panels_show_the_means_and_the_replicates_of_each_series() -> None:
    drawn = draw_pairs(pairs(), "caption")
    assert [axes.get_xlabel() for axes in drawn.axes] == [
        "Top-1 (%)",
        "Relative step time (× no attention)",
        "Peak memory (MiB)",
    ]
    found = {(x, round(y)) for x, y in points(drawn.axes[0])}
    assert {(2.0, 0), (4.0, 1), (3.0, 0), (5.0, 1)} <= found  # cells 0, 4 and 2, 6 of none; the rest of sa
    assert legend_of(drawn) == ["none", "sa", "replicates"]
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["resnet8", "resnet20"]


def test_a_partial_study_of_pairs_is_drawn() -> None:
    for finished in (1, 3, 5):
        rows = pairs(finished)
        assert len(draw_pairs(rows.assign(value=rows["value"] + 1), "caption").axes) == 3
