from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from ablations.reporting.report import make_report
from ablations.reporting.tables.export import write_tables
from ablations.reporting.tables.predictions import prediction_sections, prediction_tables
from tests.builders.analyses import study_analysis
from tests.builders.predicted import predicted_study
from tests.wording import worded


def test_a_variants_churn_is_shown_with_the_floor_between_seeds(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    (section,) = prediction_sections(analysis)
    none, two, _ = (dict(zip(section.headers, row, strict=True)) for row in section.rows)
    frame = pd.DataFrame(prediction_tables(analysis)["predictions"]).set_index("variant")
    assert none["churn %"] == "baseline"
    assert none["floor %"] == two["floor %"] == f"{frame['churn_floor']['none']:.1f}"  # one pair has no range
    assert two["churn %"].startswith(f"{frame['churn']['groups=2']:.1f} (")
    assert two["McNemar p < 0.05"].endswith(" of 2")
    assert none["gained"] == "–"
    assert worded("predictions.no_floor") not in section.note
    assert worded("predictions.mcnemar") in section.note


def test_one_replicate_has_no_floor_and_no_ranges(tmp_path: Path) -> None:
    (section,) = prediction_sections(predicted_study(tmp_path, replicates=1))
    assert worded("predictions.no_floor") in section.note
    assert [row[section.headers.index("floor %")] for row in section.rows] == ["–"] * 3
    assert not any(" to " in cell for row in section.rows for cell in row)


def test_up_to_five_classes_have_no_top5(tmp_path: Path) -> None:
    (section,) = prediction_sections(predicted_study(tmp_path, classes=5))
    assert [row[section.headers.index("top-5 %")] for row in section.rows] == ["–"] * 3


def test_the_report_and_the_files_have_the_tables(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    assert "\n## Predictions on test images\n" in make_report(analysis, ["forest"]).text
    assert {"predictions.csv", "churn.csv", "classes.csv"} < {path.name for path in write_tables(analysis)}
    assert len(pd.read_csv(tmp_path / "tables" / "classes.csv")) == 3 * 10
    assert len(pd.read_csv(tmp_path / "tables" / "churn.csv")) == 2 * 2 + 1
    assert pd.read_csv(tmp_path / "tables" / "predictions.csv")["variant"].tolist() == ["none", "groups=2", "groups=4"]


def test_a_study_without_predictions_has_no_such_tables_and_figures_state_the_reason(tmp_path: Path) -> None:
    report = make_report(study_analysis(tmp_path), ["classes"])
    reason = worded("predictions.none", folder=tmp_path / "predictions")
    assert reason in report.gallery.left_out["classes"]
    assert "Predictions on test images" not in report.text
    assert "classes.csv" not in {path.name for path in write_tables(report.analysis)}


def test_omissions_are_noted_below_the_table(tmp_path: Path) -> None:
    analysis = predicted_study(tmp_path)
    cell = analysis.design.cell(analysis.design.variants[2], 1)
    (tmp_path / "predictions" / f"{cell.key}.npz").write_bytes(b"")
    (section,) = prediction_sections(replace(analysis))
    assert worded("predictions.unread", named="groups=4 r1 (") in section.note
    assert section.rows[2][1] == "1"
