"""An MLflow server that dies, restarts, freezes, or executes requests without responding."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ablations import analyze, cli
from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.design import Cell, Design, make_design
from ablations.storage.lock import claimed
from ablations.tracking import outage
from ablations.tracking import tracker as track
from ablations.tracking.destination import Destination
from ablations.tracking.experiment import FINISHED
from ablations.tracking.outage import State
from ablations.tracking.tracker import Tracker
from ablations.training.train import Epoch, Result
from tests.conftest import TINY
from tests.servers import MlflowServer, Proxy

STUDY = "groups-digits-resnet8"
ENVIRONMENT = {"cpu": "one", "commit": "abc123"}
DESIGN = make_design(compose_config(["device=cpu", "replicates=1", "sweep.factors.attention.groups=[4]"]))
CURVE = tuple(Epoch(i, 2.0 - i / 4, 2.1, 40.0 + i, 0.1, 1.0, 1_700_000_000.25 + i) for i in range(3))
OUTCOME: dict[str, Any] = {
    "result": Result(42.0, 1.5, 75_000, 4.0, CURVE).to_dict(),
    "environment": ENVIRONMENT,
}


@pytest.fixture
def running(server: MlflowServer) -> Iterator[MlflowServer]:
    """A server that is running at the start and after the end of a test."""
    yield server
    server.thaw()
    if not server.runs:
        server.start()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(track, "LIVE_SECONDS", -1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # for slow machines


@pytest.fixture
def design(request: pytest.FixtureRequest) -> Design:
    return replace(DESIGN, study=request.node.name)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check(uri: str, study: str, cells: list[Cell]) -> None:
    """Checks that each cell has exactly one finished run with all metrics, below one parent."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    (parent,) = [run for run in runs if "cell" not in run.data.tags]
    children = {run.data.tags["cell"]: run for run in runs if "cell" in run.data.tags}
    assert len(children) == len(runs) - 1
    assert set(children) == {cell.key for cell in cells}
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in children.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params["variant"]
        assert run.inputs.dataset_inputs[0].dataset.digest
        assert {"train_loss", "top1", "parameters"} <= set(run.data.metrics)
        history = client.get_metric_history(run.info.run_id, "top1")
        assert [metric.step for metric in history] == list(range(1, len(history) + 1))
        assert len(history) > 1


def drive(tracker: Tracker, cells: list[Cell], between: Callable[[int], None] = lambda _: None) -> None:
    """Sends a tracker the events of a driver that trains all cells in parallel."""
    tracker.begin("fingerprint0", "abc123")
    between(0)
    for cell in cells:
        tracker.start_cell(cell, ENVIRONMENT["commit"])
    for number, epoch in enumerate(CURVE, 1):
        for cell in cells:
            tracker.epoch(cell, epoch)
        between(number)
    for cell in cells:
        tracker.finish_cell(cell, OUTCOME)


def test_epochs_of_cells_trained_in_parallel_are_kept_apart(
    running: MlflowServer, design: Design, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "LIVE_SECONDS", 1e9)
    tracker = Tracker(Destination(running.uri, design.study, tmp_path), design, "mine")
    first, second = design.cells()
    tracker.begin("fingerprint0", None)
    for cell in (first, second):
        tracker.start_cell(cell, ENVIRONMENT["commit"])
    tracker.epoch(first, CURVE[0])
    monkeypatch.setattr(track, "LIVE_SECONDS", -1.0)
    tracker.epoch(second, CURVE[1])
    client = MlflowClient(running.uri)
    metrics = {run.data.tags.get("cell"): run.data.metrics for run in client.search_runs([tracker.experiment.id])}
    assert "top1" not in metrics[first.key]
    assert metrics[second.key]["top1"] == 41.0
    tracker.epoch(first, CURVE[1])
    for cell in (first, second):
        tracker.finish_cell(cell, OUTCOME)
    tracker.end(FINISHED)
    check(running.uri, design.study, [first, second])


def test_missed_updates_are_sent_when_the_server_is_back(running: MlflowServer, design: Design, tmp_path: Path) -> None:
    tracker = Tracker(Destination(running.uri, design.study, tmp_path), design, "mine")
    cells = list(design.cells())
    after = replace(DESIGN, replicates=2)
    last = [cell for cell in after.cells() if cell.replicate == 1]
    drive(tracker, cells, lambda now: running.kill() if now == 2 else None)
    assert tracker.lost is not None
    running.start()
    wait_until(lambda: tracker.connection.state is State.REACHABLE)
    drive(tracker, last)
    assert tracker.lost is None
    check_children = [*cells, *last]
    tracker.end(FINISHED)
    check(running.uri, design.study, check_children)


def test_a_frozen_server_gets_a_single_request(
    running: MlflowServer, design: Design, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(Destination(running.uri, design.study, tmp_path), design, "mine")
    cells = list(design.cells())
    calls = 0

    def freeze(now: int) -> None:
        if now == 1:
            running.freeze()
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")

    drive(tracker, cells, freeze)
    original = tracker.experiment.client.log_batch

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(*args, **kwargs)

    tracker.experiment.client.log_batch = counted
    for epoch in CURVE * 50:
        tracker.epoch(cells[0], epoch)
    assert calls == 0
    tracker.experiment.client.log_batch = original
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    running.thaw()  # it executes the accepted requests now
    wait_until(lambda: tracker.connection.state is State.REACHABLE)
    tracker.finish_cell(cells[0], OUTCOME)
    tracker.end(FINISHED)
    assert tracker.lost is None
    check(running.uri, design.study, cells)


def test_an_executed_request_without_a_response_creates_no_duplicate(running: MlflowServer, tmp_path: Path) -> None:
    proxy = Proxy(running.port)
    number, swallowed = 0, True
    try:
        while swallowed:
            number += 1
            design = replace(DESIGN, study=f"unanswered-{number}")
            cells = list(design.cells())[:1]
            proxy.requests, proxy.swallowed = 0, lambda _: False
            tracker = Tracker(Destination(proxy.uri, design.study, tmp_path), design, "mine")
            start = proxy.requests
            proxy.swallowed = (start + number).__eq__
            drive(tracker, cells)
            tracker.end(FINISHED)
            if tracker.lost:
                tracker.end(FINISHED)
            swallowed = proxy.requests >= start + number
            assert tracker.lost is None
            check(running.uri, design.study, cells)
    finally:
        proxy.close()
    assert number > 15


def test_a_parent_run_created_without_a_response_is_found_by_the_next_run(
    running: MlflowServer, design: Design, tmp_path: Path
) -> None:
    proxy = Proxy(running.port)
    try:
        Tracker(Destination(proxy.uri, "first", tmp_path), replace(design, study="first"), "mine")
        creation = proxy.requests  # the last of these creates the parent run
        proxy.requests, proxy.swallowed = 0, lambda now: now == creation
        with pytest.raises(UsageError, match="MLflow does not respond"):
            Tracker(Destination(proxy.uri, design.study, tmp_path), design, "mine")
    finally:
        proxy.close()
    tracker = Tracker(Destination(running.uri, design.study, tmp_path), design, "mine")
    cells = list(design.cells())
    drive(tracker, cells)
    tracker.end(FINISHED)
    check(running.uri, design.study, cells)


def test_one_of_two_runs_of_a_cell_is_kept(running: MlflowServer, design: Design, tmp_path: Path) -> None:
    tracker = Tracker(Destination(running.uri, design.study, tmp_path), design, "mine")
    cells = list(design.cells())
    drive(tracker, cells)
    client = MlflowClient(running.uri)
    child = {"cell": cells[0].key, "mlflow.parentRunId": tracker.runs.parent_id}
    for name, tags in ((cells[0].name, child), (design.study, {})):
        client.create_run(tracker.experiment.id, run_name=name, tags={"study_id": "mine", **tags})
    again = Tracker(Destination(running.uri, design.study, tmp_path), design, "mine")
    again.sync([(cell, OUTCOME) for cell in cells], "fingerprint")
    again.end(FINISHED)
    check(running.uri, design.study, cells)


def test_a_study_is_trained_without_its_server_and_sent_when_it_is_back(
    running: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"results_dir={tmp_path}", f"tracking.uri={running.uri}", "study=dies", "weights=off"]
    arguments = [sys.executable, "-u", "-m", "ablations.run", *TINY, *places]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "[1/6]" in line:
                running.kill()
                break
        printed, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert "MLflow stopped responding (" in printed
    assert "sync=true" in printed

    def sync(*overrides: str) -> tuple[int, str, str]:
        typed = [*TINY, *places, "sync=true", "figures=forest", *overrides]
        status = cli.main("analyze", analyze.PURPOSE, analyze.analyze, typed)
        return status, *capsys.readouterr()

    status, _, message = sync()
    assert (status, message.count("\n")) == (2, 1)
    assert message.startswith(f"error: tracking.uri={running.uri}: MLflow does not respond: ")
    running.start()
    with claimed(tmp_path / "dies", f"sqlite:///{tmp_path / 'optuna.db'}"):
        status, _, message = sync()
    assert (status, message.count("\n")) == (2, 1)
    assert "study=dies: is locked by another process: process " in message
    status, _, message = sync("tracking.enabled=false")
    assert (status, message) == (2, "error: sync=true: sends a study to MLflow, and tracking.enabled is false\n")
    status, said, message = sync()
    assert (status, message) == (0, "")
    assert re.search("Sent to MLflow: [1-6] cells? that it lacked", said)
    check(running.uri, "dies", list(make_design(compose_config(TINY)).cells()))
    assert "Sent to MLflow: 0 cells that it lacked." in sync()[1]
