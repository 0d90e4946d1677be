"""Cells that are copied from other studies instead of being trained again, from the command line to the report."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ablations import cli
from ablations.plan import PURPOSE as PLANS
from ablations.plan import plan
from ablations.run import PURPOSE, run
from ablations.storage.access import study_names
from ablations.storage.cell_states import StoredCell
from ablations.storage.study import StudyStore, open_store
from tests.conftest import TINY
from tests.wording import refusal, worded

FIRST, SECOND = "first", "second"
KEPT = ("weights", "predictions")


def options(folder: Path, study: str, *more: str) -> list[str]:
    return [*TINY, "device=cpu", "launcher=serial", f"results_dir={folder}", f"study={study}", *more]


def train(folder: Path, study: str, *more: str) -> int:
    return cli.main("run", PURPOSE, run, options(folder, study, *more))


def stored(folder: Path, study: str) -> StudyStore:
    return open_store(f"sqlite:///{folder / 'optuna.db'}", study, create=False)


def cells(folder: Path, study: str) -> dict[str, StoredCell]:
    return {f"{cell.variant} r{cell.replicate}": cell for cell in stored(folder, study).cells()}


def origins(folder: Path, study: str) -> dict[str, str | None]:
    return {name: (cell.outcome or {}).get("origin") for name, cell in cells(folder, study).items()}


def edit_outcome(folder: Path, study: str, number: int, **changes: object) -> None:
    """Changes entries of the outcome of one trial, as an SQL console could."""
    with sqlite3.connect(folder / "optuna.db") as database:
        where = (
            "key = 'outcome' AND trial_id = (SELECT trial_id FROM trials WHERE number = ? AND study_id = "
            "(SELECT study_id FROM studies WHERE study_name = ?))"
        )
        query = f"SELECT value_json FROM trial_user_attributes WHERE {where}"
        ((text,),) = database.execute(query, (number, study)).fetchall()
        outcome = json.dumps(json.dumps(json.loads(json.loads(text)) | changes))
        database.execute(f"UPDATE trial_user_attributes SET value_json = ? WHERE {where}", (outcome, number, study))


def test_equal_cells_are_copied_with_their_files_and_only_the_others_are_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, FIRST) == 0
    more = (f"reuse=[{FIRST}]", "sweep.factors.attention.groups=[1,2]")
    assert cli.main("plan", PLANS, plan, options(tmp_path, SECOND, *more)) == 0
    copied = worded("reuse.copied", what=f"4 from {FIRST}")
    assert copied in (planned := capsys.readouterr().out)
    assert worded("reuse.left", left=2, total=6) in planned

    assert train(tmp_path, SECOND, *more) == 0
    said = capsys.readouterr().out
    assert copied in said
    assert re.search(rf"groups=1 r1 .* from {FIRST}", said)
    assert origins(tmp_path, SECOND) == {
        "none r0": FIRST,
        "groups=1 r0": FIRST,
        "groups=2 r0": None,
        "none r1": FIRST,
        "groups=1 r1": FIRST,
        "groups=2 r1": None,
    }
    original, copy = cells(tmp_path, FIRST), cells(tmp_path, SECOND)
    for name in ("none r0", "none r1", "groups=1 r0", "groups=1 r1"):
        assert original[name].outcome is not None
        assert {**original[name].outcome, "origin": FIRST} == copy[name].outcome
        for kind in KEPT:
            here, there = ([*(tmp_path / study / kind).glob(f"{copy[name].key}.*")] for study in (SECOND, FIRST))
            assert [file.read_bytes() for file in here] == [file.read_bytes() for file in there]
            assert len(here) == (kind == "predictions" or name.endswith("r0"))


def test_copied_cells_are_in_mlflow_and_their_verdicts_are_exploratory(tmp_path: Path) -> None:
    assert train(tmp_path, FIRST, "replicates=1") == 0
    assert train(tmp_path, SECOND, f"reuse=[{FIRST}]") == 0
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(SECOND)
    assert experiment
    runs = [run for run in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" in run.data.tags]
    top1 = {str(run.info.run_name): run.data.metrics["top1"] for run in runs if run.info.status == "FINISHED"}
    results = {name: (cell.outcome or {})["result"]["top1"] for name, cell in cells(tmp_path, SECOND).items()}
    assert sorted(top1.values()) == pytest.approx(sorted(results.values()))
    copied = worded("reuse.copied", what=f"3 from {FIRST}")[:-1]
    report = (tmp_path / SECOND / "report.md").read_text()
    assert f"{copied}{worded('reuse.early', early='3 of them were')}" in report
    (parent,) = client.search_runs([experiment.experiment_id], "tags.verdicts != ''")
    assert parent.data.tags["verdicts"] == worded("reuse.clause", early="3 cells were")


def test_a_copied_cell_keeps_the_study_that_trained_it(tmp_path: Path) -> None:
    assert train(tmp_path, FIRST, "replicates=1") == 0
    assert train(tmp_path, SECOND, "replicates=1", f"reuse=[{FIRST}]") == 0
    assert train(tmp_path, "third", "replicates=1", f"reuse=[{SECOND},{FIRST}]") == 0
    assert set(origins(tmp_path, "third").values()) == {FIRST}


def test_an_outcome_that_was_edited_is_not_copied(tmp_path: Path) -> None:
    assert train(tmp_path, FIRST, "replicates=1") == 0
    edit_outcome(tmp_path, FIRST, 1, result={"top1": 99.0})
    assert train(tmp_path, SECOND, "replicates=1", f"reuse=[{FIRST}]") == 0
    assert origins(tmp_path, SECOND) == {"none r0": FIRST, "groups=1 r0": None, "groups=4 r0": FIRST}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["reuse=[frist]"], refusal("reuse=frist", "reuse.no_such", near=FIRST)),
        ([f"reuse=[{SECOND}]"], refusal(f"reuse={SECOND}", "reuse.itself")),
        ([f"reuse=[{FIRST}]", "train.epochs=1"], refusal(f"reuse={FIRST}", "reuse.protocol", then="train.epochs")),
        ([f"reuse=[{FIRST}]", "threads=2"], refusal(f"reuse={FIRST}", "reuse.threads", stored=1, asked=2)),
    ],
    ids=["unknown", "itself", "protocol", "threads"],
)
def test_studies_without_equal_cells_are_refused_before_the_study_is_created(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, FIRST, "replicates=1", "sweep.factors.attention.groups=[1]") == 0
    capsys.readouterr()
    assert train(tmp_path, SECOND, *more) == 2
    said = capsys.readouterr()
    assert re.search(message, re.sub(r"\s+", " ", said.err + said.out))
    assert study_names(f"sqlite:///{tmp_path / 'optuna.db'}") == [FIRST]


def test_a_study_of_other_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, FIRST, "replicates=1", "sweep.factors.attention.groups=[1]") == 0
    own = stored(tmp_path, FIRST).attributes["data_fingerprint"]
    stored(tmp_path, FIRST).remember("data_fingerprint", "0000")
    capsys.readouterr()
    assert train(tmp_path, SECOND, f"reuse=[{FIRST}]") == 2
    said = capsys.readouterr()
    message = refusal(f"reuse={FIRST}", "reuse.images", stored="0000", asked=own)
    assert re.search(message, re.sub(r"\s+", " ", said.err + said.out))
