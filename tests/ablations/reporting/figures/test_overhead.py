from __future__ import annotations

import pandas as pd
import pytest

from ablations.reporting.figures.overhead import draw_overhead, overhead_frame
from ablations.reporting.figures.rows import labels, one_setting, percent
from tests.builders.benchmarks import (
    NETWORKS,
    PLAIN,
    benchmark_rows,
    cut_or_overlapping,
    network,
)
from tests.builders.drawings import points


def test_the_frame_has_predicted_and_measured_overhead() -> None:
    frame = overhead_frame(benchmark_rows())
    row = frame[(frame["name"] == "sa") & (frame["mode"] == "training step")].iloc[0]
    assert row["predicted"] == pytest.approx(100 * 2_759_680 / PLAIN)
    assert row["measured"] == pytest.approx(21)
    assert (row["low"], row["high"]) == pytest.approx((100 * (1.21 * 0.98 - 1), 100 * (1.21 * 1.03 - 1)))
    assert (row["noise_low"], row["noise_high"]) == pytest.approx((-1.5, 2))


def test_networks_are_ordered_by_time_without_the_plain_one() -> None:
    frame = overhead_frame(benchmark_rows())
    for mode in ("forward", "training step"):
        assert frame.loc[frame["mode"] == mode, "name"].tolist() == [
            "eca", "se", "gc", "sa", "sge", "official", "cbam",
        ]  # fmt: skip


def test_only_the_plainest_setting_is_shown() -> None:
    rows = benchmark_rows()
    columns = ["compile", "precision", "layout"]
    assert set(overhead_frame(rows)[columns].itertuples(index=False, name=None)) == {("eager", "fp32", "contiguous")}
    compiled = overhead_frame(rows[(rows["compile"] == "compiled") | (rows["precision"] == "bf16")])
    assert compiled[["name", *columns]].to_numpy().tolist() == [["sa", "compiled", "fp32", "contiguous"]]


def test_unmeasured_networks_are_left_out() -> None:
    rows = benchmark_rows()
    assert set(one_setting(rows)["status"]) == {"measured"}
    failed = (rows["name"] == "cbam") & (rows["mode"] == "training step")
    frame = overhead_frame(rows.assign(status=rows["status"].mask(failed, "out of memory")))
    assert frame["name"].tolist().count("cbam") == 1
    assert len(draw_overhead(frame, "caption").axes) == 2


@pytest.mark.parametrize("status", ["measured", "out of memory"])
def test_without_measured_networks_the_frame_is_empty(status: str) -> None:
    rows = benchmark_rows()
    rows = rows[rows["kind"] == "module"] if status == "measured" else rows.assign(status=status)
    assert overhead_frame(rows).empty
    assert overhead_frame(rows.iloc[:0]).empty


def test_without_the_plain_network_there_is_no_prediction() -> None:
    rows = benchmark_rows()
    assert overhead_frame(rows[rows["name"] != "none"]).empty


def test_the_figure_shows_each_network_in_each_mode() -> None:
    drawn = draw_overhead(overhead_frame(benchmark_rows()), "caption")
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["Inference", "Training step"]
    for axes, times in zip(drawn.axes, ([9, 11, 13, 24, 31, 51, 58], [7, 9, 12, 21, 35, 62, 71]), strict=True):
        found = points(axes)
        assert [x for x, _ in found if x > 1] == pytest.approx(times)
        assert (0, 4) in found  # predicted
        assert [text.get_text() for text in axes.texts] == [percent(time) for time in times]
    labels = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert labels[0] == "eca\npredicted +0.067 %"
    assert labels[4] == "sge\npredicted 0 %"
    assert cut_or_overlapping(drawn) == []


def test_a_band_shows_the_noise() -> None:
    drawn = draw_overhead(overhead_frame(benchmark_rows()), "caption")
    bands = {(bar.get_x(), bar.get_x() + bar.get_width()) for axes in drawn.axes for bar in axes.patches}  # type: ignore[attr-defined]
    assert all(band == pytest.approx((-1.5, 2)) for band in bands)


def test_one_mode_is_one_panel() -> None:
    frame = overhead_frame(pd.DataFrame([network("none"), network("sa")]))
    drawn = draw_overhead(frame, "caption")
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["Inference"]
    assert cut_or_overlapping(drawn) == []


def test_each_backbone_has_a_separate_row() -> None:
    rows = pd.DataFrame([network(name, place=place) for place in ("resnet18", "resnet50") for name in NETWORKS])
    frame = overhead_frame(rows)
    assert frame["label"].tolist()[:2] == ["resnet18, eca", "resnet18, se"]
    assert len(frame) == 14
    assert cut_or_overlapping(draw_overhead(frame, "caption")) == []


def test_a_label_has_the_attributes_that_differ() -> None:
    rows = pd.DataFrame({"name": ["sa", "sa"], "place": ["resnet50"] * 2, "batch": [1, 32]})
    assert labels(rows).tolist() == ["sa, batch 1", "sa, batch 32"]
    assert labels(rows.iloc[:1]).tolist() == ["sa"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 %"), (0.0674, "+0.067 %"), (0.00012, "+0.00012 %"), (3.21, "+3.2 %"), (-24.4, "-24 %"), (1234, "+1,234 %")],
)
def test_a_percentage_has_two_significant_digits(value: float, text: str) -> None:
    assert percent(value) == text
