"""Searches with costs as objectives: measured variants and times of measuring."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from ablations.design import Split
from ablations.storage.cell_states import CellState
from tests.builders.costs import HERE
from tests.builders.measuring import Measuring
from tests.builders.searches import Study
from tests.wording import worded

SMALL = "sweep.factors={attention: {groups: [1, 2, 4, 8], gate: [sigmoid, tanh1]}}"


def search(folder: Path, *overrides: str) -> Study:
    objectives = "sweep.objectives=[top1,train_time_ratio]"
    return Study(folder, SMALL, objectives, "sweep.trials=6", "replicates=1", "sweep.confirm=2", *overrides)


@pytest.mark.parametrize("capacity", [1, 3])
def test_a_search_for_low_costs_measures_each_pick_while_no_cell_is_in_training(tmp_path: Path, capacity: int) -> None:
    study = search(tmp_path)
    launcher = Measuring(study.config, capacity=capacity)
    study.drive(launcher)
    assert {in_training for _, in_training in launcher.measured} == {0}
    measured = [name for names in launcher.runs for name in names]
    assert sorted(measured) == sorted(set(measured))  # once each
    assert set(study.picked()) == {name for name in measured if name}
    assert max(map(len, launcher.runs)) == capacity
    trials = optuna.load_study(study_name=study.design.study, storage=study.url).trials
    for trial in trials:
        groups = trial.user_attrs["network"]["attention"].get("groups", 0)
        assert trial.values[1] == pytest.approx(1 + groups / 10)
    assert study.results("train_time_ratio") == pytest.approx([trial.values[1] for trial in trials[1:7]])


@pytest.mark.parametrize("stop_after", [3, 8])
def test_a_resumed_search_for_low_costs_ends_like_an_uninterrupted_one(tmp_path: Path, stop_after: int) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    uninterrupted, resumed = search(tmp_path / "whole"), search(tmp_path / "parts")
    uninterrupted.drive(Measuring(uninterrupted.config))
    first, second = Measuring(resumed.config), Measuring(resumed.config)
    resumed.drive(first, stop_after=stop_after)
    resumed.drive(second)
    assert resumed.picked() == uninterrupted.picked()
    assert resumed.confirmed() == uninterrupted.confirmed()
    assert resumed.results("train_time_ratio") == uninterrupted.results("train_time_ratio")
    measured = [name for names in (*first.runs, *second.runs) for name in names]
    assert sorted(measured) == sorted(set(measured))


def test_a_search_for_accuracy_measures_confirmed_variants(tmp_path: Path) -> None:
    study = Study(tmp_path, SMALL, "sweep.trials=4", "replicates=1", "sweep.confirm=2")
    launcher = Measuring(study.config)
    study.drive(launcher)
    assert [set(names) for names in launcher.runs] == [set(), set(study.confirmed())]


def test_a_pick_whose_objective_cannot_be_measured_fails_before_training(tmp_path: Path) -> None:
    study = search(tmp_path)
    launcher = Measuring(study.config)
    launcher.failing = frozenset({"groups=8, gate=sigmoid", "groups=8, gate=tanh1"})
    driver = study.drive(launcher)
    failed = [cell for cell in study.store.cells() if cell.state is CellState.FAILED]
    assert driver.failed == len(failed) > 0
    for cell in failed:
        assert cell.variant in launcher.failing
        assert cell.failure == worded("costs.no_objective", reason="too large")
        assert f"{cell.variant} selection" not in launcher.trained
    assert not launcher.failing & set(study.confirmed())


def test_a_cost_objective_is_measured_on_the_training_machine(tmp_path: Path) -> None:
    study = search(tmp_path)
    study.drive(Measuring(study.config), stop_after=2)
    there = Measuring(study.config)
    there.machine = {**HERE, "cpu": "another processor"}
    study.drive(there, stop_after=1)
    here = Measuring(study.config)
    study.drive(here)
    validated = [cell for cell in study.store.cells() if cell.split is Split.VALIDATION]
    assert all(cell.outcome and cell.outcome["result"]["train_time_ratio"] for cell in validated)
