from __future__ import annotations

import pandas as pd
import pytest

from ablations.reporting.figures.memory import draw_memory, memory_frame
from tests.builders.benchmarks import FORWARD, STEP, benchmark_rows, cut_or_overlapping, network

ORDER = ["none", "eca", "se", "gc", "sa", "sge", "official", "cbam"]


def test_the_frame_has_the_memory_relative_to_the_plain_network() -> None:
    frame = memory_frame(benchmark_rows()).set_index(["quantity", "name"])
    assert frame.loc[("saved_mib", "sa"), "mib"] == 962.5
    assert frame.loc[("saved_mib", "sa"), "plain_mib"] == 712
    assert frame.loc[("saved_mib", "sa"), "over"] == pytest.approx(100 * (962.5 / 712 - 1))
    assert frame.loc[("peak_mib", "sa"), "over"] == pytest.approx(100 * (1291 / 1024 - 1))
    assert frame.loc[("peak_mib", "none"), "over"] == 0
    assert list(frame.loc["saved_mib"].index) == list(frame.loc["peak_mib"].index) == ORDER


def test_the_peak_is_that_of_a_training_step() -> None:
    rows = pd.DataFrame([network(name, mode) for mode in (FORWARD, STEP) for name in ("none", "sa")])
    frame = memory_frame(rows.assign(peak_mib=rows["peak_mib"].fillna(1)))
    assert frame.loc[frame["quantity"] == "peak_mib", "mib"].tolist() == [1024, 1291]


def test_only_the_plainest_setting_with_memory_is_shown() -> None:
    assert set(memory_frame(benchmark_rows())["compile"]) == {"eager"}
    rows = pd.DataFrame([network(name, STEP) for name in ("none", "sa")])
    frame = memory_frame(rows.assign(precision="bf16"))
    assert set(frame["precision"]) == {"bf16"}
    assert len(frame) == 4


def test_without_attention_or_without_the_plain_network_the_frame_is_empty() -> None:
    rows = benchmark_rows()
    assert memory_frame(rows[rows["name"] == "none"]).empty
    assert memory_frame(rows[rows["name"] != "none"]).empty
    assert memory_frame(rows[rows["kind"] == "module"]).empty
    assert memory_frame(rows.assign(status="out of memory")).empty
    assert memory_frame(rows.iloc[:0]).empty


def test_the_figure_shows_bars_and_numbers_of_memory() -> None:
    drawn = draw_memory(memory_frame(benchmark_rows()), "caption")
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["Saved activations", "Peak of a training step"]
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ORDER
    saved = [text.get_text() for text in drawn.axes[0].texts]
    assert saved[:2] == ["712", "873 (+23 %)"]
    plain, added = drawn.axes[0].containers
    assert [bar.get_width() for bar in plain] == [712] * 8
    assert [bar.get_width() for bar in added][:2] == [0, 161]
    assert cut_or_overlapping(drawn) == []


def test_an_unmeasured_quantity_has_no_panel() -> None:
    frame = memory_frame(benchmark_rows().assign(saved_mib=float("nan")))
    drawn = draw_memory(frame, "caption")
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["Peak of a training step"]
    assert cut_or_overlapping(drawn) == []


def test_each_backbone_is_compared_with_its_plain_network() -> None:
    rows = pd.DataFrame([network(name, STEP, place) for place in ("resnet18", "resnet50") for name in ("none", "sa")])
    rows.loc[rows["place"] == "resnet18", "peak_mib"] /= 4
    frame = memory_frame(rows)
    peaks = frame[frame["quantity"] == "peak_mib"]
    assert peaks["label"].tolist() == ["resnet18, none", "resnet18, sa", "resnet50, none", "resnet50, sa"]
    assert peaks["plain_mib"].tolist() == [256, 256, 1024, 1024]
    assert cut_or_overlapping(draw_memory(frame, "caption")) == []
