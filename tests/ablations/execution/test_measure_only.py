from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from ablations import cli
from ablations.execution.launchers.serial import SerialLauncher
from ablations.run import PURPOSE, run
from tests.builders.driven import DrivenStudy
from tests.builders.launchers import Launcher
from tests.conftest import MEASURED, TINY
from tests.wording import refusal, worded

STUDY = "groups-digits-resnet8"
VARIANTS = ["none", "groups=1", "groups=4"]
ONLY = (*MEASURED, "measure=only")


def call(folder: Path, *arguments: str) -> int:
    typed = [*TINY, "train.epochs=1", "device=cpu", f"results_dir={folder}", *arguments]
    return cli.main("run", PURPOSE, run, typed)


def costs(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / STUDY / "tables" / "costs.csv", keep_default_na=False).set_index("variant")


def children(folder: Path) -> dict[str, dict[str, float]]:
    """The metrics of the runs of cells in MLflow, by name."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(STUDY)
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert {run.info.status for run in runs} == {"FINISHED"}
    return {run.info.run_name: run.data.metrics for run in runs if "cell" in run.data.tags}


def test_costs_of_a_finished_study_are_measured_twice_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path, "replicates=1") == 0
    report = (tmp_path / STUDY / "report.md").read_text()
    assert worded("figures.no_costs") in report
    assert not (tmp_path / STUDY / "tables" / "costs.csv").exists()
    assert "train_time_ratio" not in children(tmp_path)["none r0"]

    def work(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(SerialLauncher, "work", work)
    capsys.readouterr()
    assert call(tmp_path, "replicates=1", *ONLY) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "Measuring the costs of none, groups=1, groups=4" in printed.out
    report = (tmp_path / STUDY / "report.md").read_text()
    assert "## Costs" in report
    assert worded("figures.no_costs") not in report
    first = costs(tmp_path)
    assert list(first.index) == VARIANTS
    assert set(first["train_verdict"]) <= {"", "slower", "faster", "same", "undecided"}
    assert (first["train_copies"] >= 6).all()
    assert first["train_verdict"]["none"] == ""
    seen = children(tmp_path)
    for variant in VARIANTS:
        assert seen[f"{variant} r0"]["train_time_ratio"] == pytest.approx(first["train_time_ratio"][variant])

    assert call(tmp_path, "replicates=1", *ONLY) == 0
    second = costs(tmp_path)
    assert (second["train_time_ratio"] != first["train_time_ratio"]).all()
    seen = children(tmp_path)
    for variant in VARIANTS:
        assert seen[f"{variant} r0"]["train_time_ratio"] == pytest.approx(second["train_time_ratio"][variant])


def test_a_study_that_was_not_run_has_nothing_to_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path / "results", *ONLY) == 2
    printed = capsys.readouterr()
    assert re.fullmatch("error: " + refusal("measure=only", "costs.nothing_finished", study=STUDY) + "\n", printed.err)
    assert not (tmp_path / "results").exists()


def test_a_study_without_a_finished_cell_has_nothing_to_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = DrivenStudy(tmp_path, *TINY, "train.epochs=1", f"results_dir={tmp_path}")
    assert study.store.cells() == []
    before = sorted(tmp_path.rglob("*"))
    assert call(tmp_path, *ONLY) == 2
    assert re.fullmatch(
        "error: " + refusal("measure=only", "costs.nothing_finished", study=STUDY) + "\n", capsys.readouterr().err
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_variants_without_a_finished_cell_are_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = DrivenStudy(tmp_path, *TINY, "train.epochs=1", f"results_dir={tmp_path}")
    study.drive(Launcher(study.config), stop_after=2)
    assert call(tmp_path, *ONLY, "tracking.enabled=false") == 0
    assert "Measuring the costs of none, groups=1\n" in capsys.readouterr().out
