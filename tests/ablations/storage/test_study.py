from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from ablations.common.errors import SuiteError
from ablations.config.compose import compose_config
from ablations.design import Cell, Design, make_design
from ablations.storage.access import study_names
from ablations.storage.cell_states import CellState
from ablations.storage.errors import StudyInUseError
from ablations.storage.study import StudyStore, find_study, open_store
from ablations.training.events import Epoch
from tests.wording import worded

OUTCOME: dict[str, Any] = {"result": {"top1": 61.5, "epochs": []}, "environment": {"cpu": "one"}}


def design(*overrides: str) -> Design:
    return make_design(compose_config(["device=cpu", "replicates=1", *overrides]))


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'optuna.db'}"


def opened(folder: Path, study_design: Design | None = None) -> StudyStore:
    study_design = study_design or design()
    store = open_store(url(folder), study_design.study, create=True)
    store.initialise(study_design)
    return store


@pytest.fixture
def cells() -> list[Cell]:
    return list(design().cells())


def states(store: StudyStore) -> list[CellState]:
    return [cell.state for cell in store.cells()]


def optuna_study(folder: Path) -> optuna.Study:
    return optuna.load_study(storage=url(folder), study_name=design().study)


def epoch(number: int, top1: float) -> Epoch:
    return Epoch(number, 1.0, 1.0, top1, 0.1, 1.0, 1e9)


def test_a_cell_is_a_trial_from_start_to_end(tmp_path: Path, cells: list[Cell]) -> None:
    store = opened(tmp_path)
    assert states(store) == []
    store.start(cells[0])
    assert states(store) == [CellState.RUNNING]
    store.start(cells[1])
    store.finish(cells[1], OUTCOME)
    assert states(store) == [CellState.RUNNING, CellState.FINISHED]

    again = opened(tmp_path).cells()[1]
    assert (again.key, again.variant, again.replicate) == (cells[1].key, "groups=1", 0)
    assert again.network == json.loads(json.dumps(cells[1].variant.network))
    assert again.outcome == OUTCOME


def test_a_trial_has_parameters_epochs_and_a_named_objective(tmp_path: Path, cells: list[Cell]) -> None:
    store = opened(tmp_path)
    for cell in cells[:2]:
        store.start(cell)
        store.report(cell, epoch(0, 40.0))
        store.report(cell, epoch(0, 41.0))  # a resumed cell: reported epochs stay
        store.report(cell, epoch(1, 50.0))
        store.finish(cell, OUTCOME)
    study = optuna_study(tmp_path)
    assert study.metric_names == ["top1"]
    assert [trial.params for trial in study.trials] == [
        {"attention": "none", "attention.groups": 0}, {"attention": "sa", "attention.groups": 1},
    ]  # fmt: skip
    assert [trial.intermediate_values for trial in study.trials] == [{1: 40.0, 2: 50.0}] * 2
    assert [trial.value for trial in study.trials] == [61.5] * 2


def test_an_interrupted_cell_is_started_again(tmp_path: Path, cells: list[Cell]) -> None:
    store = opened(tmp_path)
    store.start(cells[0])
    store.interrupt(cells[0])
    assert states(store) == [CellState.INTERRUPTED]
    store.start(cells[0])
    assert states(store) == [CellState.RUNNING]
    assert [trial.state for trial in optuna_study(tmp_path).trials] == [TrialState.FAIL, TrialState.RUNNING]


def test_a_failed_cell_keeps_its_reason_and_the_next_attempt_counts(tmp_path: Path, cells: list[Cell]) -> None:
    store = opened(tmp_path)
    store.start(cells[0])
    store.fail(cells[0], "error", "ValueError: no")
    (failed,) = store.cells()
    assert (failed.state, failed.failed_as, failed.failure) == (CellState.FAILED, "error", "ValueError: no")
    store.start(cells[0])
    store.finish(cells[0], OUTCOME)
    assert states(store) == [CellState.FINISHED]


def test_a_diverged_cell_needs_no_further_attempt(tmp_path: Path, cells: list[Cell]) -> None:
    store = opened(tmp_path)
    store.start(cells[0])
    store.fail(cells[0], "diverged", "the loss is nan")
    (diverged,) = store.cells()
    assert diverged.state is CellState.DIVERGED
    assert diverged.state.is_done


def test_taking_over_ends_the_trials_of_a_killed_driver(tmp_path: Path, cells: list[Cell]) -> None:
    opened(tmp_path).start(cells[0])
    again = opened(tmp_path)
    again.take_over()
    assert states(again) == [CellState.INTERRUPTED]


def test_taking_over_ends_the_waiting_trials_of_a_killed_driver(tmp_path: Path, cells: list[Cell]) -> None:
    opened(tmp_path)
    variant = cells[1].variant
    described = {"cell": cells[1].key, "variant": variant.name, "network": variant.network, "levels": variant.levels}
    optuna_study(tmp_path).enqueue_trial({"attention": "sa"}, user_attrs=described | {"replicate": 0})  # and is killed
    again = opened(tmp_path)
    assert again.cells() == []
    again.take_over()
    again.start(cells[0])
    again.finish(cells[0], OUTCOME)
    assert states(opened(tmp_path)) == [CellState.INTERRUPTED, CellState.FINISHED]


def test_taking_over_finishes_trials_with_a_stored_outcome(
    tmp_path: Path, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    store = opened(tmp_path)
    store.start(cells[0])
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", killed)
        with pytest.raises(Killed):
            store.finish(cells[0], OUTCOME)
    again = opened(tmp_path)
    again.take_over()
    assert [(cell.state, cell.outcome) for cell in again.cells()] == [(CellState.FINISHED, OUTCOME)]


def test_finding_a_study_creates_nothing(tmp_path: Path) -> None:
    assert study_names(url(tmp_path)) == []
    assert find_study(url(tmp_path), "any") is None
    assert not list(tmp_path.iterdir())
    store = open_store(url(tmp_path), "made and no more", create=True)
    assert store.is_empty
    assert find_study(url(tmp_path), "made and no more") is None
    opened(tmp_path)
    assert sorted(study_names(url(tmp_path))) == ["groups-digits-resnet8", "made and no more"]
    existing = find_study(url(tmp_path), "groups-digits-resnet8")
    assert existing is not None
    assert existing.protocol == json.loads(json.dumps(design().protocol))


def test_more_replicates_and_levels_belong_to_the_same_study(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path, design("replicates=9"))
    opened(tmp_path, design("sweep.factors.attention.groups=[2,4]"))


def test_another_protocol_is_refused_with_the_differences(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(SuiteError) as caught:
        opened(tmp_path, design("train.epochs=3", "data.clutter=2"))
    text = str(caught.value)
    assert "study=groups-digits-resnet8: is stored with a different protocol" in text
    assert "add study=groups-digits-resnet8-2" in text
    assert text.endswith("\n  data.clutter: stored 1, requested 2\n  train.epochs: stored 4, requested 3")


def test_another_network_under_a_stored_name_is_refused(tmp_path: Path) -> None:
    declared = design("sweep.variants.mine={attention:{groups:8,norm:layer}}")
    store = opened(tmp_path, declared)
    store.start(next(cell for cell in declared.cells() if cell.variant.name == "mine"))
    with pytest.raises(SuiteError, match="is stored with a different network named mine"):
        opened(tmp_path, design("sweep.variants.mine={attention:{groups:8,norm:batch}}"))


def test_a_study_in_another_format_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.remember("identity", store.attributes["identity"] | {"version": 99})
    with pytest.raises(SuiteError, match="is stored in format 99, but this version reads format 5"):
        opened(tmp_path)


def test_reading_does_not_create_a_database(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no such study"):
        open_store(url(tmp_path), "groups", create=False)
    assert not list(tmp_path.iterdir())


def test_a_missing_study_is_refused_with_the_existing_names(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(SuiteError, match="did you mean groups-digits-resnet8"):
        open_store(url(tmp_path), "groups-digits-resnet20", create=False)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("results/optuna.db", r"storage=results/optuna.db: is not a valid database URL; use for example sqlite:///"),
        ("sqlite:////nowhere/at/all.db", worded("database.no_folder", folder="/nowhere/at")),
        ("sqlite://", r"storage=sqlite://: an in-memory database is not persistent"),
        ("nosuch://host/db", r"storage=nosuch://host/db: is not a valid database URL"),
        (
            "oracle://me:secret@127.0.0.1:9/db",
            r"storage=oracle://me:\*\*\*@127.0.0.1:9/db: needs the Python package \w+, which is not installed",
        ),
        (
            "postgresql+pg8000://me:secret@127.0.0.1:9/db",
            r"storage=postgresql\+pg8000://me:\*\*\*@127.0.0.1:9/db: needs the Python package pg8000",
        ),
    ],
)
def test_an_unreachable_database_is_refused(address: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message) as caught:
        open_store(address, "study", create=True)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_a_database_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    path.write_text("my notes, not a database" * 100)
    with pytest.raises(SuiteError, match="file is not a database"):
        open_store(url(tmp_path), "study", create=True)
    assert path.read_text() == "my notes, not a database" * 100


def test_a_study_of_another_program_is_refused_and_unchanged(tmp_path: Path) -> None:
    foreign = optuna.create_study(storage=url(tmp_path), study_name=design().study)
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(SuiteError, match="was created by another program"):
        opened(tmp_path)
    assert not foreign.user_attrs


def test_a_cell_in_training_by_another_process_cannot_be_started(tmp_path: Path, cells: list[Cell]) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    first.start(cells[0])
    with pytest.raises(StudyInUseError, match="is locked by another process"):
        second.start(cells[0])


def test_an_outcome_stored_by_another_process_is_kept(tmp_path: Path, cells: list[Cell]) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    first.start(cells[0])
    second.take_over()  # a lock would prevent this
    second.start(cells[0])
    second.finish(cells[0], OUTCOME)
    with pytest.raises(StudyInUseError, match="has a cell finished by another process meanwhile"):
        first.finish(cells[0], OUTCOME | {"lost": 1})
    assert [cell.outcome for cell in opened(tmp_path).cells()] == [OUTCOME]
