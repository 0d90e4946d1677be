from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError

from ablations.config.compose import compose_config
from ablations.design import Cell, make_design
from ablations.storage import access
from ablations.storage.access import Persistence
from ablations.storage.cell_states import CellState
from ablations.storage.errors import StorageError, StudyInUseError
from ablations.storage.study import StudyStore, open_store
from tests.servers import Cluster

OUTCOME: dict[str, Any] = {"result": {"top1": 61.5, "epochs": []}, "environment": {"cpu": "one"}}
DESIGN = make_design(compose_config(["device=cpu", "replicates=1"]))
CELLS = list(DESIGN.cells())


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(cluster: Cluster, said: list[str]) -> StudyStore:
    store = open_store(cluster.new_database(), DESIGN.study, create=True, notify=said.append)
    store.initialise(DESIGN)
    return store


# Writes of a driver, each with the resulting state of the cell.
WRITES: dict[str, tuple[Callable[[StudyStore, Cell], None], CellState]] = {
    "start": (StudyStore.start, CellState.RUNNING),
    "finish": (lambda store, cell: store.finish(cell, OUTCOME), CellState.FINISHED),
    "fail": (lambda store, cell: store.fail(cell, "error", "ValueError: no"), CellState.FAILED),
    "interrupt": (StudyStore.interrupt, CellState.INTERRUPTED),
}


def state(store: StudyStore, cell: Cell) -> CellState:
    (states,) = [stored.state for stored in store.cells() if stored.key == cell.key]
    return states


def test_writes_during_a_restart_of_postgresql_are_stored(cluster: Cluster, store: StudyStore, said: list[str]) -> None:
    for cell, (name, (write, expected)) in zip(CELLS, WRITES.items(), strict=False):
        if name != "start":
            store.start(cell)
        cluster.stop()
        back = threading.Timer(0.3, cluster.start)
        back.start()
        write(store, cell)
        back.join()
        assert state(store, cell) == expected, name
    assert len(store.cells()) == len(WRITES)
    # One message per outage and one per recovery.
    assert [text.startswith("The study's database does not respond (") for text in said] == [True, False] * len(WRITES)
    assert said[1] == "The study's database responds again."


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize(
    "method", ["create_new_trial", "set_trial_state_values", "set_trial_param", "set_trial_user_attr"]
)
def test_a_write_without_a_response_is_not_repeated(
    store: StudyStore, name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, expected = WRITES[name]
    if name != "start":
        store.start(CELLS[0])
    original, lost = getattr(RDBStorage, method), [True]

    def unanswered(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if lost:
            lost.clear()
            raise OperationalError("UPDATE", {}, _OperationalError("server closed the connection"))
        return result

    monkeypatch.setattr(RDBStorage, method, unanswered)
    write(store, CELLS[0])
    assert state(store, CELLS[0]) == expected
    assert [stored.key for stored in store.cells()] == [CELLS[0].key]
    store.start(CELLS[1])  # gets its own trial, not one left over
    assert [stored.key for stored in store.cells()] == [CELLS[0].key, CELLS[1].key]


class _OperationalError(Exception):
    """An error with the name of a database driver's."""


_OperationalError.__name__ = "OperationalError"


def test_retrying_ends_with_a_single_message(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PATIENCE", 0.0)
    store = open_store(cluster.new_database(), DESIGN.study, create=True, notify=lambda _: None)
    store.initialise(DESIGN)
    cluster.stop()
    try:
        with pytest.raises(StorageError) as caught:
            store.start(CELLS[0])
    finally:
        cluster.start()
    assert re.fullmatch(
        r"storage=postgresql://me:\*\*\*@127.0.0.1:\d+/suite\d+: the database does not respond: connection to server .*"
        r"; stored results are kept, and the same command resumes once the database responds",
        str(caught.value),
    )
    store.start(CELLS[0])


def test_nothing_is_written_if_another_driver_has_the_study(cluster: Cluster) -> None:
    def guard() -> None:
        if lost:
            raise StudyInUseError("study", DESIGN.study, "is locked by another process")

    lost: list[bool] = []
    store = open_store(cluster.new_database(), DESIGN.study, create=True, guard=guard)
    store.initialise(DESIGN)
    lost.append(True)
    for write in (lambda: store.start(CELLS[0]), lambda: store.remember("x", 1)):
        with pytest.raises(StorageError, match="is locked by another process"):
            write()
    assert store.cells() == []
    assert "x" not in store.attributes


def test_permanent_errors_are_not_retried(tmp_path: Path) -> None:
    def full() -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    with pytest.raises(StorageError, match="the disk is full"):
        Persistence(f"sqlite:///{tmp_path / 'x.db'}", notify=pytest.fail).read(full)
