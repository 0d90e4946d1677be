"""Searches for what costs little: what they measure, and when."""

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
def test_a_search_for_what_costs_little_measures_each_pick_while_nothing_is_in_training(
    tmp_path: Path, capacity: int
) -> None:
    study = search(tmp_path)
    launcher = Measuring(study.config, capacity=capacity)
    study.drive(launcher)
    assert {in_training for _, in_training in launcher.measured} == {0}
    measured = [name for names in launcher.runs for name in names]
    assert sorted(measured) == sorted(set(measured))  # each once
    assert set(study.picked()) == {name for name in measured if name}
    assert max(map(len, launcher.runs)) == capacity
    trials = optuna.load_study(study_name=study.design.study, storage=study.url).trials
    for trial in trials:
        groups = trial.user_attrs["network"]["attention"].get("groups", 0)
        assert trial.values[1] == pytest.approx(1 + groups / 10)
    assert study.results("train_time_ratio") == pytest.approx([trial.values[1] for trial in trials[1:7]])


@pytest.mark.parametrize("stop_after", [3, 8])
def test_a_search_for_what_costs_little_that_was_cut_off_ends_as_it_would_have(tmp_path: Path, stop_after: int) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, parts = search(tmp_path / "whole"), search(tmp_path / "parts")
    whole.drive(Measuring(whole.config))
    first, second = Measuring(parts.config), Measuring(parts.config)
    parts.drive(first, stop_after=stop_after)
    parts.drive(second)
    assert parts.picked() == whole.picked()
    assert parts.confirmed() == whole.confirmed()
    assert parts.results("train_time_ratio") == whole.results("train_time_ratio")
    measured = [name for names in (*first.runs, *second.runs) for name in names]
    assert sorted(measured) == sorted(set(measured))


def test_a_search_for_accuracy_measures_what_it_confirms(tmp_path: Path) -> None:
    study = Study(tmp_path, SMALL, "sweep.trials=4", "replicates=1", "sweep.confirm=2")
    launcher = Measuring(study.config)
    study.drive(launcher)
    assert [set(names) for names in launcher.runs] == [set(), set(study.confirmed())]


def test_a_pick_whose_objective_cannot_be_measured_fails_before_it_is_trained(tmp_path: Path) -> None:
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


def test_an_objective_is_that_of_the_machine_that_trains(tmp_path: Path) -> None:
    study = search(tmp_path)
    study.drive(Measuring(study.config), stop_after=2)
    there = Measuring(study.config)
    there.machine = {**HERE, "cpu": "another processor"}
    study.drive(there, stop_after=1)
    here = Measuring(study.config)
    study.drive(here)
    validated = [cell for cell in study.store.cells() if cell.split is Split.VALIDATION]
    assert all(cell.outcome and cell.outcome["result"]["train_time_ratio"] for cell in validated)
