from __future__ import annotations

import pandas as pd
import pytest

from ablations.measure.record import Setting
from ablations.reporting.figures.roofline import draw_roofline, roofline_frame
from tests.builders.benchmarks import MODULES, STAGES, benchmark_rows, cut_or_overlapping, module

ORDER = ["sa", "official", "eca", "se", "gc", "sge", "cbam"]
LEAST = 2 * 4 * 8 * 256 * 56**2  # minimum memory traffic of layer1's modules in bytes


def test_the_frame_has_the_share_of_the_copys_bandwidth() -> None:
    frame = roofline_frame(benchmark_rows()).set_index(["place", "name"])
    row = frame.loc[("layer1", "sa")]
    assert row["copy_gb_per_s"] == pytest.approx(LEAST / 0.004 / 1e9)
    assert row["gb_per_s"] == pytest.approx(LEAST / (0.004 * 2.1) / 1e9)
    assert row["share"] == pytest.approx(100 / 2.1)
    assert row["unfused_share"] == 50
    # One multiply-add and five elementwise operations on 4 + 4 bytes.
    assert row["operations_per_byte"] == pytest.approx(6 / 8)


def test_modules_are_ordered_by_share_with_the_official_form_after_sa() -> None:
    frame = roofline_frame(benchmark_rows())
    for stage in STAGES:
        assert frame.loc[frame["place"] == stage, "name"].tolist() == ORDER
    alone = roofline_frame(benchmark_rows().query("name != 'sa'"))
    assert alone.loc[alone["place"] == "layer1", "name"].tolist() == [*ORDER[2:], "official"]


def test_without_a_copy_or_without_a_module_the_frame_is_empty() -> None:
    rows = benchmark_rows()
    assert roofline_frame(rows[rows["name"] != "copy"]).empty
    assert roofline_frame(rows[rows["name"] == "copy"]).empty
    assert roofline_frame(rows[rows["kind"] == "network"]).empty
    assert roofline_frame(rows.assign(status="out of memory")).empty
    assert roofline_frame(rows.iloc[:0]).empty


def test_a_stage_whose_copy_failed_is_left_out() -> None:
    rows = benchmark_rows()
    failed = (rows["name"] == "copy") & (rows["place"] == "layer2")
    frame = roofline_frame(rows.assign(status=rows["status"].mask(failed, "out of memory")))
    assert frame["place"].unique().tolist() == ["layer1", "layer3", "layer4"]


def test_only_the_forward_pass_in_one_setting_is_shown() -> None:
    backward = Setting("forward+backward", "eager", "fp32", "contiguous")
    half = Setting("forward", "eager", "bf16", "channels_last")
    rows = [module(name, "layer1", setting) for setting in (backward, half) for name in MODULES]
    assert roofline_frame(pd.DataFrame(rows[: len(MODULES)])).empty
    assert set(roofline_frame(pd.DataFrame(rows))["layout"]) == {"channels_last"}
    assert len(roofline_frame(pd.concat([pd.DataFrame(rows), benchmark_rows()]))) == 28


def test_a_panel_has_stage_shape_and_bandwidth_of_the_roof() -> None:
    drawn = draw_roofline(roofline_frame(benchmark_rows()), "caption")
    titles = [axes.get_title(loc="left") for axes in drawn.axes]
    assert titles[0] == "layer1\n8 x 256 x 56 x 56\ncopy: 13 GB/s"
    assert [title.split()[0] for title in titles] == list(STAGES)
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ORDER
    assert [bar.get_width() for bar in drawn.axes[0].patches][:2] == pytest.approx([100 / 2.1, 100 / 9.3])  # type: ignore[attr-defined]
    assert [text.get_text() for text in drawn.axes[0].texts][:2] == ["48 %", "11 %"]
    assert cut_or_overlapping(drawn) == []


def test_many_shapes_have_several_lines_of_panels() -> None:
    rows = pd.DataFrame([module(name, place) for place in STAGES for name in MODULES])
    frame = roofline_frame(pd.concat([rows, rows[rows["place"] != "layer4"].assign(batch=64, ms=400.0)]))
    drawn = draw_roofline(frame, "caption")
    assert len(drawn.axes) == 7
    assert drawn.axes[4].get_title(loc="left").splitlines()[1] == "64 x 256 x 56 x 56"
    assert cut_or_overlapping(drawn) == []


def test_shares_above_the_roof_are_drawn() -> None:
    rows = pd.DataFrame([module(name, "layer1") for name in MODULES])
    rows["ms"] = rows["ms"].mask(rows["name"] == "sa", 1.0)
    frame = roofline_frame(rows.assign(moved_mib=float("nan")))
    drawn = draw_roofline(frame, "caption")
    assert drawn.axes[0].texts[0].get_text() == "400 %"
    assert drawn.axes[0].get_xlim()[1] > 400
