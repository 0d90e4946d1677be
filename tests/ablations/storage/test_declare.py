from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.design.declaration import Declaration, History
from ablations.storage.study import StudyStore, open_store

DESIGN = make_design(compose_config(["device=cpu", "sweep.factors.attention.groups=[4]", "replicates=2"]))
ASKED = Declaration.of(DESIGN, time="2026-11-29T14:02:11+00:00")
OTHER = replace(ASKED, margin=0.5, time="2026-11-30T14:02:11+00:00")
OUTCOME: dict[str, Any] = {"result": {"top1": 61.5, "epochs": []}, "environment": {"cpu": "one"}}


@pytest.fixture
def store(tmp_path: Path) -> StudyStore:
    study_store = open_store(f"sqlite:///{tmp_path / 'optuna.db'}", DESIGN.study, create=True)
    study_store.initialise(DESIGN)
    return study_store


def history(store: StudyStore) -> History | None:
    return History.stored(store.attributes.get("declared"))


def finish(store: StudyStore, number: int) -> None:
    for cell in list(DESIGN.cells())[:number]:
        store.start(cell)
        store.finish(cell, OUTCOME)


def test_a_declaration_is_replaced_until_the_first_cell_starts(store: StudyStore) -> None:
    assert store.declare(ASKED, trains=True) == []
    assert store.declare(OTHER, trains=True) == []
    assert history(store) == History.begun(OTHER)


def test_a_change_after_the_first_cell_is_accepted_and_recorded(store: StudyStore) -> None:
    store.declare(ASKED, trains=True)
    store.start(next(DESIGN.cells()))
    (change,) = store.declare(OTHER, trains=True)
    assert (change.what, change.time) == ("margin", OTHER.time)
    assert history(store) == History(ASKED, OTHER, (change,))
    assert store.declare(OTHER, trains=True) == []
    assert history(store) == History(ASKED, OTHER, (change,))


def test_a_study_with_cells_but_no_declaration_stays_without_one(store: StudyStore) -> None:
    store.start(next(DESIGN.cells()))
    assert store.declare(ASKED, trains=True) == []
    assert history(store) is None


@pytest.mark.parametrize(("finished", "trains", "recorded"), [(4, False, 0), (3, False, 1), (3, True, 1)])
def test_fewer_replicates_are_recorded_unless_all_are_trained(
    finished: int, trains: bool, recorded: int, store: StudyStore
) -> None:
    store.declare(ASKED, trains=True)
    finish(store, finished)
    assert len(store.declare(replace(ASKED, replicates=1), trains=trains)) == recorded


def test_more_replicates_are_recorded(store: StudyStore) -> None:
    store.declare(ASKED, trains=True)
    finish(store, 4)
    (change,) = store.declare(replace(ASKED, replicates=3), trains=True)
    assert (change.what, change.before, change.after) == ("replicates", "2", "3")
