from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest

from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.ledger.evidence import evidence_of
from ablations.ledger.stored import stored_studies
from ablations.storage.errors import StorageError
from ablations.storage.study import FORMAT, open_store
from ablations.training.events import DIVERGED, ERROR
from tests.builders.claims import REAL, by_name, claim, config_of, store_study


def test_studies_are_read_with_the_results_of_their_networks(tmp_path: Path) -> None:
    tiny = ("sweep=shuffle", REAL, "replicates=2", "sweep.variants={none: {attention: none}}")
    top1 = {("shuffle=on", 0): 60.0, ("shuffle=on", 1): 61.0, ("shuffle=off", 1): 59.0}
    url = store_study(tmp_path, lambda *cell: top1.get(cell), *tiny, known={"train": 24, "test": 9, "classes": ["a"]})
    store_study(tmp_path, by_name({}), *tiny, "study=another", "replicates=1")
    before = (tmp_path / "optuna.db").read_bytes()
    studies, skipped = stored_studies([url, url])
    assert skipped == []
    assert {one.name for one in studies} == {"shuffle-cifar10-resnet8", "another"}
    assert len(studies) == 2  # a store given twice is read once
    mine = next(one for one in studies if one.name != "another")
    known = {one.name: dict(one.top1) for one in mine.networks}
    assert known == {"none": {}, "shuffle=on": {0: 60.0, 1: 61.0}, "shuffle=off": {1: 59.0}}
    (found,) = evidence_of(claim("shuffle"), [mine])
    assert found.sentence == (
        "shuffle-cifar10-resnet8 (cifar10 (24 training images, 1 class); resnet8; 4 epochs; train.decay=weights): "
        "shuffle=on against "
        "shuffle=off, n = 1, +2.00: undecided (a single replicate gives no interval)"
    )
    assert (tmp_path / "optuna.db").read_bytes() == before


def test_a_network_stored_under_two_names_is_read_once(tmp_path: Path) -> None:
    store_study(tmp_path, by_name({}), "sweep.factors.attention.groups=[4]", "replicates=1", "study=mine")
    renamed = ("sweep.factors.attention.groups=[4]", "sweep.variants={plain: {attention: none}}",
               "sweep.baseline=plain", "study=mine", "replicates=2")  # fmt: skip
    design = make_design(compose_config(["device=cpu", *renamed]))
    store = open_store(f"sqlite:///{tmp_path / 'optuna.db'}", "mine", create=False)
    further = [cell for cell in design.cells() if cell.replicate == 1]
    for cell in further:
        store.start(cell)
        store.finish(cell, {"result": {"top1": 50.0, "epochs": []}, "environment": {}})
    ((mine,), _) = stored_studies([f"sqlite:///{tmp_path / 'optuna.db'}"])
    assert [sorted(one.top1) for one in mine.networks] == [[0, 1], [0, 1]]
    assert [one.seen.n for one in evidence_of(claim("gain"), [mine])] == [2]


def test_a_cell_that_ended_without_a_result_is_nan_and_a_running_cell_is_missing(tmp_path: Path) -> None:
    options = ("sweep.factors.attention.groups=[1,2,4]", "replicates=1")
    url = store_study(tmp_path, lambda *_: None, *options)
    store = open_store(url, "groups-digits-resnet8", create=False)
    pruned, diverged, failed, claimed = make_design(config_of(*options)).cells()
    store.start(pruned)
    store.finish(pruned, {"result": {"epochs": []}, "pruned": "below the median", "environment": {}})
    for cell, kind in ((diverged, DIVERGED), (failed, ERROR)):
        store.start(cell)
        store.fail(cell, kind, "the loss is nan")
    store.start(claimed)
    ((mine,), _) = stored_studies([url])
    ended = {one.name: list(one.top1.values()) for one in mine.networks}
    assert all(math.isnan(ended[cell.variant.name][0]) for cell in (pruned, diverged, failed))
    assert ended[claimed.variant.name] == []


def test_unreadable_studies_are_reported_with_the_reason_and_the_rest_is_read(tmp_path: Path) -> None:
    few = ("sweep.factors.attention.groups=[4]", "replicates=1")
    url = store_study(tmp_path, by_name({}), *few)
    old = open_store(url, "old", create=True)
    old.remember("identity", {"version": 3, "protocol": {}, "objectives": ["top1"]})
    optuna.load_study(storage=url, study_name="old").add_trial(
        optuna.trial.create_trial(value=1.0, user_attrs={"cell": "x"})  # without the attributes of the current format
    )
    optuna.create_study(storage=url, study_name="foreign").add_trial(optuna.trial.create_trial(value=1.0))
    open_store(url, "not-begun", create=True)
    for name, options in (("searched", ["sweep=search", "sweep.objectives=[top1]"]), ("costs", ["sweep=search"])):
        search = make_design(compose_config(["device=cpu", *options, f"study={name}"]))
        store = open_store(url, name, create=True, directions=search.directions)
        store.initialise(search)
    store.remember("sweep", "mine")  # a user's sweep may also be a search
    studies, skipped = stored_studies([url])
    assert [one.name for one in studies] == ["groups-digits-resnet8"]
    assert {study.store for study in skipped} == {url}
    assert {study.name: study.reason for study in skipped} == {
        "old": f"is stored in format 3, but this version reads format {FORMAT}",
        "foreign": "was created by another program",
        "searched": "is a search, whose variants were selected for their results",
        "costs": "is a search, whose variants were selected for their results",
    }


def test_a_study_to_which_another_program_added_a_trial_is_skipped(tmp_path: Path) -> None:
    url = store_study(tmp_path, by_name({}), "sweep.factors.attention.groups=[4]", "replicates=1")
    optuna.load_study(storage=url, study_name="groups-digits-resnet8").add_trial(optuna.trial.create_trial(value=1.0))
    studies, (skipped,) = stored_studies([url])
    assert (studies, skipped.reason) == ([], "was created by another program")


def test_unknown_attention_modules_are_named(tmp_path: Path) -> None:
    url = store_study(tmp_path, by_name({}), "sweep.factors.attention.groups=[4]", "replicates=1")
    known = open_store(url, "groups-digits-resnet8", create=False).cells()[0]
    cell = {"cell": "new", "variant": "new", "network": {"model": {"name": "resnet8"}, "attention": {"name": "newer"}},
            "levels": {}, "replicate": known.replicate}  # fmt: skip
    optuna.load_study(storage=url, study_name="groups-digits-resnet8").add_trial(
        optuna.trial.create_trial(value=1.0, user_attrs=cell)
    )
    studies, (skipped,) = stored_studies([url])
    assert studies == []
    assert skipped.sentence == (f"groups-digits-resnet8 in {url}: has attention modules unknown to this version: newer")


def test_a_missing_store_has_no_studies_and_is_not_created(tmp_path: Path) -> None:
    assert stored_studies([f"sqlite:///{tmp_path / 'optuna.db'}"]) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_database_raises_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("my notes" * 200)
    with pytest.raises(StorageError, match="is damaged or not a SQLite database"):
        stored_studies([f"sqlite:///{tmp_path / 'notes.db'}"])
