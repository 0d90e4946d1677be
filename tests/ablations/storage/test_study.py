from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.design import Cell, Design, make_design
from ablations.storage.study import StudyStore, open_store

OUTCOME: dict[str, Any] = {"result": {"top1": 61.5, "epochs": []}, "environment": {"cpu": "one"}}


def design(*overrides: str) -> Design:
    return make_design(compose_config(["device=cpu", "replicates=1", *overrides]))


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'optuna.db'}"


def opened(folder: Path, made: Design | None = None) -> StudyStore:
    made = made or design()
    store = open_store(url(folder), made.study, create=True)
    store.begin(made)
    return store


@pytest.fixture
def cells() -> list[Cell]:
    return list(design().cells())


def states(store: StudyStore) -> list[TrialState]:
    return [cell.state for cell in store.cells()]


def test_a_cell_is_queued_claimed_and_finished(tmp_path: Path, cells: list[Cell]) -> None:
    store = opened(tmp_path)
    store.enqueue(cells[:2])
    assert states(store) == [TrialState.WAITING, TrialState.WAITING]
    store.claim(cells[1])
    assert states(store) == [TrialState.WAITING, TrialState.RUNNING]
    store.finish(cells[1], OUTCOME)
    assert states(store) == [TrialState.WAITING, TrialState.COMPLETE]

    again = opened(tmp_path).cells()[1]
    assert (again.key, again.variant, again.replicate) == (cells[1].key, "groups=1", 0)
    assert again.network == json.loads(json.dumps(cells[1].variant.network))
    assert again.outcome == OUTCOME


def test_a_released_cell_is_in_the_queue_again(tmp_path: Path, cells: list[Cell]) -> None:
    store = opened(tmp_path)
    store.enqueue(cells[:1])
    store.claim(cells[0])
    store.release(cells[0])
    assert states(store) == [TrialState.WAITING]


def test_a_failed_cell_keeps_its_reason_and_its_next_attempt_is_what_counts(tmp_path: Path, cells: list[Cell]) -> None:
    store = opened(tmp_path)
    store.enqueue(cells[:1])
    store.claim(cells[0])
    store.fail(cells[0], "error", "ValueError: no")
    assert [(cell.state, cell.failure) for cell in store.cells()] == [(TrialState.FAIL, "ValueError: no")]
    store.enqueue(cells[:1])
    store.cells()
    store.claim(cells[0])
    store.finish(cells[0], OUTCOME)
    assert [cell.state for cell in store.cells()] == [TrialState.COMPLETE]


def test_taking_over_releases_what_a_killed_driver_was_training(tmp_path: Path, cells: list[Cell]) -> None:
    store = opened(tmp_path)
    store.enqueue(cells[:1])
    store.claim(cells[0])
    again = opened(tmp_path)
    again.take_over()
    assert states(again) == [TrialState.WAITING]


def test_taking_over_finishes_what_a_killed_driver_had_stored(tmp_path: Path, cells: list[Cell]) -> None:
    store = opened(tmp_path)
    store.enqueue(cells[:1])
    store.claim(cells[0])
    store._storage.set_trial_user_attr(store._trial_id(0), "outcome", OUTCOME)  # killed before the trial was told
    again = opened(tmp_path)
    again.take_over()
    assert [(cell.state, cell.outcome) for cell in again.cells()] == [(TrialState.COMPLETE, OUTCOME)]


def test_more_replicates_and_levels_are_the_same_study(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path, design("replicates=9"))
    opened(tmp_path, design("sweep.factors.attention.groups=[2,4]"))


def test_another_protocol_is_refused_with_what_differs(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(UsageError) as caught:
        opened(tmp_path, design("train.epochs=3", "data.clutter=1"))
    text = str(caught.value)
    assert "study=groups-digits-resnet8: is stored with another protocol" in text
    assert "add study=groups-digits-resnet8-2" in text
    assert text.endswith("\n  data.clutter: 3 is stored, 1 is asked for\n  train.epochs: 6 is stored, 3 is asked for")


def test_another_network_under_a_stored_name_is_refused(tmp_path: Path) -> None:
    one = design("sweep.variants.mine={attention:{groups:8,norm:layer}}")
    store = opened(tmp_path, one)
    store.enqueue(one.cells())
    with pytest.raises(UsageError, match="holds another network under the name mine"):
        opened(tmp_path, design("sweep.variants.mine={attention:{groups:8,norm:batch}}"))


def test_a_study_in_another_format_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.remember("identity", store.attributes["identity"] | {"version": 99})
    with pytest.raises(UsageError, match="is stored in format 99; this version of the suite reads format 4"):
        opened(tmp_path)


def test_reading_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing is stored under this name"):
        open_store(url(tmp_path), "groups", create=False)
    assert not list(tmp_path.iterdir())


def test_a_study_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(UsageError, match="did you mean groups-digits-resnet8"):
        open_store(url(tmp_path), "groups-digits-resnet20", create=False)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("results/optuna.db", r"storage=results/optuna.db: is no database URL; one looks like sqlite:///"),
        ("sqlite:////nowhere/at/all.db", r"the database does not answer: unable to open database file"),
        ("sqlite://", r"storage=sqlite://: is in memory, where nothing outlives the run"),
        ("nosuch://host/db", r"storage=nosuch://host/db: is no database URL"),
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
def test_a_database_that_does_not_answer_is_refused(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_store(address, "study", create=True)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    path.write_text("my notes, not a database" * 100)
    with pytest.raises(UsageError, match="file is not a database"):
        open_store(url(tmp_path), "study", create=True)
    assert path.read_text() == "my notes, not a database" * 100


def test_a_study_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = optuna.create_study(storage=url(tmp_path), study_name=design().study)
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(UsageError, match="is a study of another program"):
        opened(tmp_path)
    assert not foreign.user_attrs


def test_a_cell_that_another_process_claimed_cannot_be_claimed(tmp_path: Path, cells: list[Cell]) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    one.enqueue(cells[:1])
    one.claim(cells[0])
    with pytest.raises(UsageError, match="is being run by another process"):
        other.claim(cells[0])
