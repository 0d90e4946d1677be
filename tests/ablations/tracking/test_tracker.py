from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.design import Cell, Design, make_design
from ablations.tracking import outage
from ablations.tracking import tracker as track
from ablations.tracking.destination import Destination
from ablations.tracking.experiment import FINISHED, KILLED
from ablations.tracking.tracker import Tracker
from ablations.training.train import Epoch, Result
from tests.wording import worded

COMMIT = "abc123"
CPU = "system/cpu_utilization_percentage"
ENVIRONMENT = {"cpu": "one", "commit": COMMIT}
DESIGN = make_design(
    compose_config(["device=cpu", "replicates=1", "train.epochs=6", "sweep.factors.attention.groups=[4]"])
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real store, shared because creating its tables takes seconds; each test uses another study."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def design(request: pytest.FixtureRequest) -> Design:
    return replace(DESIGN, study=request.node.name)


@pytest.fixture
def tracker(uri: str, design: Design, tmp_path: Path) -> Tracker:
    return Tracker(Destination(uri, design.study, tmp_path / "artifacts"), design, "mine")


def result(top1: float = 61.5, epochs: int = 3) -> Result:
    curve = tuple(Epoch(i, 2.0 - i / 4, 2.1, 40.0 + i, 0.1, 1.0, 1_700_000_000.25 + i) for i in range(epochs))
    return Result(top1, 1.5, 75_000, 4.0, curve)


def outcome(**kwargs: Any) -> dict[str, Any]:
    return {"result": result(**kwargs).to_dict(), "environment": ENVIRONMENT}


def runs(tracker: Tracker) -> list[Run]:
    return list(MlflowClient(tracker.destination.uri).search_runs([tracker.experiment.id], max_results=1000))


def child(tracker: Tracker, cell: Cell) -> Run:
    (found,) = [run for run in runs(tracker) if run.data.tags.get("cell") == cell.key]
    return found


def test_a_study_is_a_parent_run_with_a_child_run_for_each_cell(
    tracker: Tracker, design: Design, tmp_path: Path
) -> None:
    tracker.begin("fingerprint0", "abc123")
    for cell in design.cells():
        tracker.start_cell(cell, COMMIT)
        for epoch in result().epochs:
            tracker.epoch(cell, epoch)
        tracker.finish_cell(cell, outcome())
    (tmp_path / "study" / "figures").mkdir(parents=True)
    (tmp_path / "study" / "report.md").write_text("# hello")
    (tmp_path / "study" / "figures" / "groups.png").write_bytes(b"png")
    tracker.end(FINISHED, tmp_path / "study", "# hello")

    found = {run.info.run_name: run for run in runs(tracker)}
    assert set(found) == {design.study, "none r0", "groups=4 r0"}
    parent, cell_run = found[design.study], found["groups=4 r0"]
    assert parent.info.status == cell_run.info.status == "FINISHED"
    assert cell_run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert cell_run.data.tags["mlflow.source.git.commit"] == "abc123"
    assert parent.data.tags["mlflow.note.content"] == "# hello"
    assert cell_run.data.params["variant"] == "groups=4"
    assert cell_run.data.params["attention.groups"] == "4"
    assert cell_run.data.params["train.epochs"] == "6"
    assert cell_run.data.metrics["top1"] == 42.0
    assert cell_run.data.metrics["parameters"] == 75_000
    assert cell_run.inputs.dataset_inputs[0].dataset.digest == "fingerprint0"
    client = MlflowClient(tracker.destination.uri)
    history = client.get_metric_history(cell_run.info.run_id, "train_loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 2.0), (2, 1.75), (3, 1.5)]
    assert {artifact.path for artifact in client.list_artifacts(parent.info.run_id)} == {"report.md", "figures"}
    assert tracker.complete


def test_the_run_of_a_cell_has_its_variants_costs_and_gets_later_ones(
    tracker: Tracker, design: Design, tmp_path: Path
) -> None:
    none, sa = design.cells()
    tracker.begin("fingerprint0", None)
    tracker.costs({"groups=4": {"peak_memory_mib": 12.5, "train_time_ratio": 1.25}})
    for cell in (none, sa):
        tracker.start_cell(cell, COMMIT)
        tracker.finish_cell(cell, outcome())
    assert child(tracker, sa).data.metrics["train_time_ratio"] == 1.25
    assert "train_time_ratio" not in child(tracker, none).data.metrics
    tracker.end(FINISHED)
    again = Tracker(Destination(tracker.destination.uri, design.study, tmp_path / "artifacts"), design, "mine")
    again.sync([(cell, outcome()) for cell in (none, sa)], "fingerprint0")
    again.begin("fingerprint0", None)
    again.costs({"groups=4": {"train_time_ratio": 1.5}, "none": {"train_time_ratio": 1.0}})
    again.update_costs([none, sa])
    again.end(FINISHED)
    assert child(tracker, sa).data.metrics["train_time_ratio"] == 1.5
    assert child(tracker, none).data.metrics["train_time_ratio"] == 1.0
    assert {run.info.status for run in runs(tracker)} == {"FINISHED"}


def test_a_run_has_the_objective_that_the_search_measured(tracker: Tracker, design: Design) -> None:
    cell = next(design.cells())
    tracker.begin("fingerprint0", None)
    tracker.costs({"none": {"train_time_ratio": 1.5}})
    tracker.start_cell(cell, COMMIT)
    done = outcome()
    done["result"]["train_time_ratio"] = 1.25
    tracker.finish_cell(cell, done)
    assert child(tracker, cell).data.metrics["train_time_ratio"] == 1.25


@pytest.mark.parametrize("name", ["study", "weights"])
def test_weights_are_not_logged_for_any_study_name(tracker: Tracker, tmp_path: Path, name: str) -> None:
    tracker.begin("fingerprint0", None)
    (tmp_path / name / "weights").mkdir(parents=True)
    (tmp_path / name / "weights" / "0123456789abcdef.safetensors").write_bytes(b"weights")
    (tmp_path / name / "report.md").write_text("# hello")
    tracker.end(FINISHED, tmp_path / name)
    artifacts = MlflowClient(tracker.destination.uri).list_artifacts(tracker.runs.parent_id)
    assert [info.path for info in artifacts] == ["report.md"]


def test_the_parent_run_has_system_metrics(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    tracker.begin("fingerprint0", None)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        parent = MlflowClient(tracker.destination.uri).get_run(tracker.runs.parent_id)
        if CPU in parent.data.metrics:
            break
        time.sleep(0.1)
    tracker.end(FINISHED)
    assert CPU in parent.data.metrics


def test_system_metrics_continue_after_an_outage(
    tracker: Tracker, design: Design, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 0.01)
    earlier, later = design.cells()
    tracker.begin("fingerprint0", None)
    first, answering = tracker.monitor, tracker.experiment.client
    tracker.experiment.client = MlflowClient("http://127.0.0.1:9")
    tracker.start_cell(earlier, COMMIT)
    assert tracker.lost
    tracker.experiment.client = answering
    deadline = time.monotonic() + 60
    while tracker.lost:
        assert time.monotonic() < deadline
        tracker.start_cell(later, COMMIT)
    assert tracker.monitor not in (None, first)
    written = len(answering.get_metric_history(tracker.runs.parent_id, CPU))
    while len(answering.get_metric_history(tracker.runs.parent_id, CPU)) < written + 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    tracker.end(FINISHED)
    assert tracker.monitor is None
    assert tracker.complete


def test_stored_cells_that_were_not_mirrored_are_mirrored_once(
    tracker: Tracker, design: Design, tmp_path: Path
) -> None:
    cells = list(design.cells())
    tracker.begin("fingerprint0", None)
    tracker.start_cell(cells[0], COMMIT)  # killed before the cell finished in MLflow
    tracker.end(KILLED)
    for _ in range(2):
        again = Tracker(Destination(tracker.destination.uri, design.study, tmp_path), design, "mine")
        again.sync([(cell, outcome()) for cell in cells], "fingerprint0")
    assert sorted(run.info.run_name for run in runs(tracker) if "cell" in run.data.tags) == ["groups=4 r0", "none r0"]
    assert {run.info.status for run in runs(tracker) if "cell" in run.data.tags} == {"FINISHED"}
    assert child(tracker, cells[0]).data.metrics["top1"] == 42.0
    assert {run.inputs.dataset_inputs[0].dataset.digest for run in runs(tracker)} == {"fingerprint0"}


def test_completing_a_run_twice_adds_nothing(tracker: Tracker, design: Design) -> None:
    cell = next(design.cells())
    tracker.start_cell(cell, COMMIT)
    for _ in range(2):
        tracker.finish_cell(cell, outcome())
    history = MlflowClient(tracker.destination.uri).get_metric_history(child(tracker, cell).info.run_id, "top1")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_epochs_of_a_long_cell_are_written_during_training(
    tracker: Tracker, design: Design, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = next(design.cells())
    tracker.start_cell(cell, COMMIT)
    tracker.epoch(cell, result().epochs[0])
    assert "top1" not in child(tracker, cell).data.metrics  # written in batches
    monkeypatch.setattr(track, "LIVE_SECONDS", 0.0)
    tracker.epoch(cell, result().epochs[1])
    assert child(tracker, cell).data.metrics["top1"] == 41.0
    tracker.finish_cell(cell, outcome())
    history = MlflowClient(tracker.destination.uri).get_metric_history(child(tracker, cell).info.run_id, "top1")
    assert [metric.step for metric in history] == [1, 2, 3]


@pytest.mark.parametrize("synced", [False, True])
def test_the_curve_of_an_interrupted_attempt_is_not_mixed_with_the_next(
    tracker: Tracker, design: Design, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: bool
) -> None:
    monkeypatch.setattr(track, "LIVE_SECONDS", -1.0)
    cell = next(design.cells())
    tracker.start_cell(cell, COMMIT)
    tracker.epoch(cell, result().epochs[0])
    again = Tracker(Destination(tracker.destination.uri, design.study, tmp_path), design, "mine")
    late = outcome()
    for epoch in late["result"]["epochs"]:
        epoch["finished"] += 1000
    if synced:
        again.sync([(cell, late)], "fingerprint0")
    else:
        again.start_cell(cell, COMMIT)
        again.finish_cell(cell, late)
    history = MlflowClient(tracker.destination.uri).get_metric_history(child(again, cell).info.run_id, "top1")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_a_study_configured_by_other_options_is_mirrored_to_the_same_runs(
    tracker: Tracker, design: Design, tmp_path: Path
) -> None:
    cell = next(design.cells())
    tracker.begin("fingerprint0", None)
    tracker.start_cell(cell, COMMIT)
    tracker.end(KILLED)
    renamed = replace(cell, variant=replace(cell.variant, name="plain"))
    again = Tracker(
        Destination(tracker.destination.uri, design.study, tmp_path),
        replace(design, sweep="mine", question="Why?"),
        "mine",
    )
    again.sync([(renamed, outcome())], "fingerprint0")
    assert again.lost is None
    assert (child(again, cell).data.params["variant"], child(again, cell).info.status) == ("plain", "FINISHED")


def test_failed_and_interrupted_cells_have_their_status(tracker: Tracker, design: Design) -> None:
    failed, interrupted = design.cells()
    for cell in (failed, interrupted):
        tracker.start_cell(cell, COMMIT)
    tracker.fail_cell(failed, "Traceback: no")
    tracker.release_cell(interrupted)
    assert (child(tracker, failed).info.status, child(tracker, failed).data.tags["failure"]) == (
        "FAILED",
        "Traceback: no",
    )
    tracker.start_cell(failed, COMMIT)
    tracker.finish_cell(failed, outcome())
    assert "failure" not in child(tracker, failed).data.tags
    assert child(tracker, interrupted).info.status == "KILLED"


def test_a_store_that_stops_responding_does_not_stop_the_study(tracker: Tracker, design: Design) -> None:
    cell = next(design.cells())
    tracker.start_cell(cell, COMMIT)
    tracker.experiment.client = MlflowClient("http://127.0.0.1:9")
    tracker.finish_cell(cell, outcome())
    tracker.end(FINISHED)
    assert tracker.lost
    assert child(tracker, cell).info.status == "RUNNING"  # for the next run's sync to complete


@pytest.mark.usefixtures("_created")
def test_a_partly_created_store_of_a_killed_process_is_created_again(design: Design, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db.unfinished").write_bytes(b"half a database")
    tracker = Tracker(
        Destination(f"sqlite:///{tmp_path / 'mlflow.db'}", design.study, tmp_path / "artifacts"), design, "mine"
    )
    assert [run.info.run_name for run in runs(tracker)] == [design.study]
    assert not (tmp_path / "mlflow.db.unfinished").exists()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9", "MLflow does not respond"),
        ("sqlite:////nowhere/mlflow.db", worded("database.no_folder", folder="/nowhere")),
        ("postgresql://me:secret@127.0.0.1:9/db", "MLflow does not respond"),
    ],
)
def test_an_unreachable_store_is_refused_at_the_start(
    design: Design, tmp_path: Path, address: str, reason: str
) -> None:
    with pytest.raises(UsageError) as caught:
        Tracker(Destination(address, design.study, tmp_path), design, "mine")
    assert str(caught.value).startswith(f"tracking.uri={address.replace('secret', '***')}: {reason}")


def test_a_file_that_is_not_a_store_is_refused_and_unchanged(design: Design, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("my notes" * 500)
    with pytest.raises(UsageError, match=worded("tracking.unopened") + ".*not a database"):
        Tracker(Destination(f"sqlite:///{path}", design.study, tmp_path), design, "mine")
    assert path.read_text() == "my notes" * 500


def test_another_persons_study_of_the_same_name_is_unchanged(tracker: Tracker, design: Design, tmp_path: Path) -> None:
    cell = next(design.cells())
    tracker.start_cell(cell, COMMIT)
    tracker.finish_cell(cell, outcome())
    theirs = Tracker(Destination(tracker.destination.uri, design.study, tmp_path), design, "theirs")
    theirs.start_cell(cell, COMMIT)
    found = [run for run in runs(tracker) if "cell" in run.data.tags]
    assert sorted((run.data.tags["study_id"], run.info.status) for run in found) == [
        ("mine", "FINISHED"), ("theirs", "RUNNING"),
    ]  # fmt: skip
    assert theirs.runs.parent_id != tracker.runs.parent_id


def test_the_command_that_opens_the_dashboard_names_store_and_experiment(tracker: Tracker) -> None:
    assert f"mlflow ui --backend-store-uri {tracker.destination.uri}\n" in tracker.command()
    assert f"http://127.0.0.1:5000/#/experiments/{tracker.experiment.id}/runs?" in tracker.command()


def test_studies_in_one_experiment_are_separate(uri: str, tmp_path: Path) -> None:
    cell = next(DESIGN.cells())
    trackers = []
    for name in ("one", "other"):
        tracker = Tracker(Destination(uri, "shared", tmp_path / "shared"), replace(DESIGN, study=name), name)
        tracker.start_cell(cell, COMMIT)
        tracker.finish_cell(cell, outcome())
        tracker.end(FINISHED)
        trackers.append(tracker)
    assert len({tracker.experiment.id for tracker in trackers}) == 1
    assert len(runs(trackers[0])) == 4
    for tracker in trackers:
        query = unquote(tracker.command().partition("searchFilter=")[2])
        found = MlflowClient(uri).search_runs([tracker.experiment.id], query)  # the filter is valid for MLflow
        assert {run.data.tags.get("mlflow.parentRunId", run.info.run_id) for run in found} == {tracker.runs.parent_id}


def test_runs_of_a_variant_are_found_by_their_options(tracker: Tracker, design: Design) -> None:
    for cell in design.cells():
        tracker.start_cell(cell, COMMIT)
        tracker.finish_cell(cell, outcome())
    tracker.begin("fingerprint0", None)
    tracker.end(FINISHED)

    def found(condition: str) -> set[str]:
        return {
            run.info.run_name
            for run in MlflowClient(tracker.destination.uri).search_runs([tracker.experiment.id], condition)
        }

    assert found("params.attention.groups = '4'") == {"groups=4 r0"}
    assert found("params.attention = 'sa' and params.model = 'resnet8'") == {"groups=4 r0"}
    everything = {design.study, "none r0", "groups=4 r0"}
    assert found("params.train.epochs = '6' and params.data = 'digits'") == everything
    assert found("params.train.test_flip = 'false'") == everything


def test_a_tuned_cell_has_the_options_of_its_training(tracker: Tracker, design: Design) -> None:
    cell = next(design.cells())
    tuned = replace(cell, variant=replace(cell.variant, recipe={"train.learning_rate": 0.125}))
    tracker.start_cell(tuned, COMMIT)
    assert child(tracker, tuned).data.params["train.learning_rate"] == "0.125"


def test_the_link_opens_a_view_of_the_experiment_grouped_by_variant(tracker: Tracker) -> None:
    key = re.search(r"viewStateShareKey=(\w+)", tracker.command())
    assert key is not None
    experiment = MlflowClient(tracker.destination.uri).get_experiment(tracker.experiment.id)
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{key[1]}"])
    assert view["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "variant"}]
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
