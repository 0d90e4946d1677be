"""Tuning in a report: both comparisons, the best recipes, the figure, and optima at an edge."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ablations.analysis.study import StudyAnalysis
from ablations.reporting.report import make_report
from ablations.reporting.tables.tuning import tuning_sections
from ablations.reporting.text.tuning import comparisons_frame, edge_sentences, recipe_text, tuning_sentences
from tests.builders.tuned import OPTIMA, RATE, TunableLauncher, TunedStudy
from tests.wording import worded


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> StudyAnalysis:
    study = TunedStudy(tmp_path_factory.mktemp("tuned"), "tune.trials=8", "replicates=3")
    study.drive(TunableLauncher(study.config))
    study.store.remember("data", {"train": 64, "test": 10, "classes": list("0123456789")})
    return study.analysis()


def test_a_report_has_both_comparisons_the_recipes_and_the_figure(analysis: StudyAnalysis) -> None:
    report = make_report(analysis, ("forest", "tuning"))
    assert [drawn.name for drawn in report.gallery.drawn] == ["forest", "tuning"]
    titles = [section.title for section in report.sections]
    assert titles[:2] == [worded("tuning.comparisons"), worded("tuning.recipes")]
    caption = report.gallery.drawn[1].caption
    assert worded("tuning.n", trials=8) in caption
    assert "tuning.png" in report.text
    frame = pd.read_csv(report.folder / "figures" / "tuning.csv")
    assert len(frame) == 16
    assert frame["best"].sum() == 2


def test_the_table_of_comparisons_has_each_contrast_under_both(analysis: StudyAnalysis) -> None:
    comparisons, recipes = tuning_sections(analysis)
    assert [row[0] for row in comparisons.rows] == ["groups=4"]
    assert len(comparisons.rows[0]) == len(comparisons.headers)
    assert [row[0] for row in recipes.rows] == list(OPTIMA)
    frame = comparisons_frame(analysis)
    assert list(frame["protocol"]) == [worded("tuning.one"), worded("tuning.best")]
    assert frame["mean"].iloc[0] < -5 < abs(frame["mean"].iloc[1])


def test_the_text_describes_the_method_and_the_images_of_tuning(analysis: StudyAnalysis) -> None:
    text = " ".join(tuning_sentences(analysis))
    assert worded("tuning.method", trials=8) in text
    assert worded("tuning.no_test_image") in text
    assert f"{RATE} from 0.0375 to 1.2 (log scale)" in text


def test_an_optimum_at_an_edge_is_named_with_a_wider_range(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path, "tune.trials=16", "tune.space={train.learning_rate: [0.2, 2.4]}")
    study.drive(TunableLauncher(study.config))
    tuned = study.analysis().tuned
    assert tuned is not None
    (sentence,) = [text for text in edge_sentences(tuned) if "groups=4" in text]
    assert worded("tuning.edge", option=RATE, tenth="lowest") in sentence
    assert worded("tuning.wider", option=RATE, range="[0.05,2.4]") in sentence
    assert "none" not in sentence


def test_a_recipe_is_formatted_as_on_the_command_line() -> None:
    assert recipe_text({RATE: 0.12, "train.schedule": "cosine"}) == "learning_rate=0.12, schedule=cosine"


def test_without_tuning_there_is_neither_table_nor_text(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path, "tune.trials=0")
    study.drive(TunableLauncher(study.config))
    analysis = study.analysis()
    assert tuning_sections(analysis) == []
    assert tuning_sentences(analysis) == []
    report = make_report(analysis, ("tuning",))
    assert report.gallery.left_out == {"tuning": worded("tuning.no_figure")}


def test_before_all_trials_have_ended_a_report_lists_missing_trials(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path)
    study.drive(TunableLauncher(study.config), stop_after=3)
    study.store.remember("data", {"train": 64, "test": 10, "classes": list("0123456789")})
    report = make_report(study.analysis(), ("forest", "tuning"))
    assert [section.title for section in report.sections] == [worded("tuning.recipes")]
    assert worded("tuning.no_replicate") in report.sentences
    assert worded("tuning.missing", missing=7, trials=10) in report.sentences
    assert [drawn.name for drawn in report.gallery.drawn] == ["tuning"]
