from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ablations.analysis.study import StudyAnalysis
from ablations.measure.costs import NetworkCost
from ablations.reporting.tables.costs import costs_frame, costs_sections
from ablations.reporting.tables.export import write_tables
from ablations.reporting.tables.variants import summary_table
from tests.builders.analyses import search_analysis, study_analysis
from tests.builders.costs import HERE, TAKEN, machine_of, ratios, speed, stored_attributes, usual_costs
from tests.wording import worded


def with_costs(analysis: StudyAnalysis, costs: dict[str, NetworkCost]) -> StudyAnalysis:
    attributes = stored_attributes(machine_of(analysis.design, costs))
    return replace(analysis, attributes={**analysis.attributes, **attributes})


def table(analysis: StudyAnalysis) -> dict[str, list[str]]:
    (section,) = costs_sections(analysis)
    return {row[0]: list(row[1:]) for row in section.rows}


def test_each_variant_has_times_verdicts_throughput_and_memory(tmp_path: Path) -> None:
    rows = table(study_analysis(tmp_path))
    assert rows["none"] == ["1.00 [1.00, 1.00]", "", "1.00 [1.00, 1.00]", "", "1,000", "3,000", "11.5"]
    assert rows["groups=4"] == ["1.20 [1.20, 1.20]", "slower", "1.10 [1.10, 1.10]", "slower", "833", "2,727", "13.5"]


def test_captured_times_are_shown_beside_eager_ones_with_an_explanation(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    eager = usual_costs(analysis.design)
    (before,) = costs_sections(analysis)
    assert not any("captured" in header for header in before.headers)
    assert "captured" not in before.note
    captured = eager | {
        "groups=2": replace(eager["groups=2"], captured_train=speed(ratios(1.03)), captured_test=speed(ratios(1.01)))
    }
    (section,) = costs_sections(with_costs(analysis, captured))
    rows = {row[0]: dict(zip(section.headers, row, strict=True)) for row in section.rows}
    assert rows["groups=2"]["step, captured"] == "1.03 [1.03, 1.03]"
    assert rows["groups=2"]["inference, captured"] == "1.01 [1.01, 1.01]"
    assert rows["none"]["step, captured"] == "–"
    assert "captured" in section.note
    frame = costs_frame(with_costs(analysis, captured))
    assert frame is not None
    assert frame.set_index("variant")["captured_train_time_ratio"]["groups=2"] == pytest.approx(1.03)


def test_verdicts_use_the_configured_margin(tmp_path: Path) -> None:
    same = table(study_analysis(tmp_path, ("sweep.factors.attention.groups=[2,4]", "measure.margin=15%")))
    assert [same["groups=2"][1], same["groups=4"][1]] == ["same within 15 %", "slower"]


def test_unmeasured_variants_have_dashes_and_failed_ones_a_reason(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    memory = NetworkCost(10, 9.0)
    analysis = with_costs(analysis, usual_costs(analysis.design) | {"groups=2": memory})
    assert table(analysis)["groups=2"] == ["–", "", "–", "", "–", "–", "9.0"]
    failed = with_costs(analysis, usual_costs(analysis.design) | {"groups=2": NetworkCost(failed="too large")})
    (section,) = costs_sections(failed)
    assert "groups=2 (too large)" in section.note


def test_a_study_without_costs_has_no_table_but_explains_how_to_measure(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    analysis = replace(analysis, attributes={**analysis.attributes, "costs": []})
    assert costs_sections(analysis) == []
    assert costs_frame(analysis) is None
    summary = summary_table(analysis)
    assert worded("figures.no_costs") in summary.note
    assert {row[-3] for row in summary.rows} == {row[-2] for row in summary.rows} == {"–"}


def test_the_csv_has_one_row_per_variant_with_all_measurements(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    write_tables(analysis)
    frame = pd.read_csv(tmp_path / "tables" / "costs.csv", keep_default_na=False).set_index("variant")
    assert list(frame.index) == ["none", "groups=2", "groups=4"]
    row = frame.loc["groups=4"]
    assert (row["baseline"], row["train_copies"], row["test_copies"]) == ("none", 8, 8)
    assert row["train_time_ratio"] == pytest.approx(1.2)
    assert float(row["train_to_baseline"]) == pytest.approx(1.2)
    assert row["train_time_ratio_low"] < row["train_time_ratio"] < row["train_time_ratio_high"]
    assert float(row["train_p"]) < 0.05 < float(row["train_p_equivalence"])
    assert (row["train_verdict"], row["test_verdict"], row["peak_memory_mib"]) == ("slower", "slower", 13.5)
    assert (row["cpu"], row["measured"]) == (HERE["cpu"], TAKEN)
    assert frame["train_verdict"]["none"] == ""


def test_variants_can_be_faster_or_undecided(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    costs = usual_costs(analysis.design) | {
        "groups=2": NetworkCost(10, 9.0, speed(ratios(0.8)), speed(ratios(1.0, spread=0.9))),
    }
    frame = costs_frame(with_costs(analysis, costs))
    assert frame is not None
    row = frame.set_index("variant").loc["groups=2"]
    assert (row["train_verdict"], row["test_verdict"]) == ("faster", "undecided")


def test_a_search_shows_the_costs_of_confirmed_variants(tmp_path: Path) -> None:
    analysis = search_analysis(tmp_path)
    assert set(table(analysis)) == {variant.name for variant in analysis.design.variants}


def test_of_very_many_variants_the_table_has_the_shown_ones_and_the_csv_all(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    shown = replace(analysis)
    shown.__dict__["shown"] = frozenset({"none", "groups=4"})
    assert set(table(shown)) == {"none", "groups=4"}
    frame = costs_frame(shown)
    assert frame is not None
    assert len(frame) == 3
