"""The declaration of a study before its first cell, from the first command to reports of later ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from ablations import cli
from ablations.analyze import analyze
from ablations.design.declaration import History
from ablations.run import PURPOSE, run
from ablations.storage.study import open_store
from tests.conftest import TINY
from tests.wording import worded

STUDY = "groups-digits-resnet8"
UNCHANGED = "; unchanged since."


def call(folder: Path, *arguments: str) -> int:
    return cli.main("run", PURPOSE, run, [*TINY, "device=cpu", "measure=off", f"results_dir={folder}", *arguments])


def history(folder: Path) -> History:
    store = open_store(f"sqlite:///{folder / 'optuna.db'}", STUDY, create=False)
    stored_history = History.stored(store.attributes["declared"])
    assert stored_history is not None
    return stored_history


def report(folder: Path) -> str:
    return (folder / STUDY / "report.md").read_text()


def tag(folder: Path) -> str:
    """MLflow's tag for the study's verdicts."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment
    (parent,) = client.search_runs([experiment.experiment_id], "tags.verdicts != ''")
    return str(parent.data.tags["verdicts"])


def test_a_margin_changed_after_the_first_cell_is_accepted_and_marked_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path) == 0
    first = history(tmp_path)
    assert (first.first.margin, first.changes) == (1.0, ())
    assert first.first.command.startswith("python -m ablations.run ")
    assert first.first.commit
    assert UNCHANGED in report(tmp_path)
    assert tag(tmp_path) == "declared"
    capsys.readouterr()

    assert call(tmp_path, "sweep.margin=0.5") == 0
    printed = capsys.readouterr().out
    assert worded("declaration.changed", what="margin from 1 to 0.5 points on ") in printed
    assert worded("run.finished", cells=6) in printed
    (change,) = history(tmp_path).changes
    assert (change.what, history(tmp_path).first) == ("margin", first.first)
    clause = worded("declaration.clause", what="margin")
    text, page = report(tmp_path), (tmp_path / STUDY / "index.html").read_text()
    assert worded("declaration.exploratory") in text
    assert "| verdict (exploratory) |" in text
    assert "<h2>Verdicts (exploratory)</h2>" in page
    assert f"Verdicts are {clause}." in page
    assert page.count(f"Verdicts are {clause}.") >= 2  # in the section and in the caption of the forest plot
    assert tag(tmp_path) == clause

    # With the declared margin, verdicts follow the declaration again.
    assert call(tmp_path) == 0
    assert worded("declaration.kept").strip() in report(tmp_path)
    assert tag(tmp_path) == "declared"


def test_more_replicates_than_declared_are_accepted_and_marked(tmp_path: Path) -> None:
    off = ("tracking.enabled=false", "train.epochs=1")
    assert call(tmp_path, *off) == 0
    assert call(tmp_path, *off, "replicates=3") == 0
    assert worded("declaration.exploratory") in report(tmp_path)
    # They stay trained with any later options.
    assert call(tmp_path, *off) == 0
    assert worded("declaration.exploratory") in report(tmp_path)
    assert [change.what for change in history(tmp_path).changes] == ["replicates"]


def test_a_report_with_other_options_is_marked_and_records_nothing(tmp_path: Path) -> None:
    off = ("tracking.enabled=false", "train.epochs=1")
    assert call(tmp_path, *off) == 0
    words = [*TINY, "device=cpu", "measure=off", *off, f"results_dir={tmp_path}"]
    for margin, marked in ("sweep.margin=0.5", True), ("sweep.margin=1", False):
        assert cli.main("analyze", "", analyze, [*words, margin]) == 0
        assert (worded("declaration.exploratory") in report(tmp_path)) == marked
    assert history(tmp_path).changes == ()
