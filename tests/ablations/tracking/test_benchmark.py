from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ablations.benchmarking.report import tracked_of
from ablations.tracking.benchmark import Tracked, log_benchmark, stamp_of
from ablations.tracking.destination import Destination
from ablations.tracking.experiment import Experiment, open_experiment
from tests.builders.benchmarks import benchmark_rows

ENVIRONMENT = {"cpu": "one", "commit": "abc123", "threads": "2"}
STARTED = 1_700_000_000.4
SETTING = {
    "kind": "network", "place": "resnet8", "compile": "eager", "precision": "fp32", "layout": "contiguous",
}  # fmt: skip
ONE = [Tracked("sa resnet8", SETTING, {"forward_ms": 1.5, "saved_mib": 2.0})]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real store, shared because creating its tables takes seconds; each test uses another benchmark."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The files of a benchmark named after the test."""
    files = tmp_path / f"bench-{request.node.originalname}"
    (files / "figures").mkdir(parents=True)
    (files / "measurements.csv").write_text("name,ms\nsa,1.5\n")
    (files / "report.md").write_text("# hello")
    (files / "figures" / "overhead.png").write_bytes(b"png")
    (files / ".lock").write_text("")
    return files


def runs(uri: str, folder: Path) -> list[Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(folder.name)
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def opened(uri: str, folder: Path) -> Experiment:
    return open_experiment(Destination(uri, folder.name, folder.parent / "artifacts"))


def log(uri: str, folder: Path, tracked: list[Tracked], started: float = STARTED) -> str:
    opens, lost = log_benchmark(opened(uri, folder), folder, tracked, ENVIRONMENT, started)
    assert lost == ""
    assert opens is not None
    return opens


def test_each_module_or_network_is_a_run_with_its_setting_and_all_metrics(uri: str, folder: Path) -> None:
    tracked = tracked_of(benchmark_rows())[::5]  # networks and modules
    log(uri, folder, tracked)
    logged = [run for run in runs(uri, folder) if run.info.run_name != "report"]
    assert len(logged) == len(tracked) > 8
    by_params = {tuple(sorted(run.data.params.items())): run for run in logged}
    for subject in tracked:
        run = by_params[tuple(sorted((subject.params | {"benchmark": stamp_of(STARTED)}).items()))]
        assert run.data.metrics == subject.metrics
        assert run.info.run_name == subject.name
        assert run.info.status == "FINISHED"


def test_a_thousand_metrics_are_all_logged(uri: str, folder: Path) -> None:
    many = [Tracked("sa", SETTING, {f"m{at}": float(at) for at in range(1000)})]
    log(uri, folder, [*many, *ONE])
    stored = next(run for run in runs(uri, folder) if run.info.run_name == "sa")
    assert stored.data.metrics == many[0].metrics


def test_the_benchmarks_files_and_machine_are_logged_in_a_separate_run(uri: str, folder: Path) -> None:
    log(uri, folder, ONE)
    (report,) = [run for run in runs(uri, folder) if run.info.run_name == "report"]
    assert report.data.params == ENVIRONMENT | {"benchmark": stamp_of(STARTED)}
    assert report.info.status == "FINISHED"
    client = MlflowClient(uri)
    assert [artifact.path for artifact in client.list_artifacts(report.info.run_id)] == [
        "figures", "measurements.csv", "report.md",
    ]  # fmt: skip
    assert [artifact.path for artifact in client.list_artifacts(report.info.run_id, "figures")] == [
        "figures/overhead.png"
    ]
    stored = Path(client.download_artifacts(report.info.run_id, "measurements.csv"))
    assert stored.read_text() == "name,ms\nsa,1.5\n"
    assert report.info.artifact_uri.startswith((folder.parent / "artifacts").as_uri())


def test_benchmarks_of_the_same_name_are_distinguished_by_time(uri: str, folder: Path) -> None:
    log(uri, folder, ONE)
    log(uri, folder, ONE, STARTED + 60)
    found = runs(uri, folder)
    assert sorted((run.info.run_name, run.data.params["benchmark"]) for run in found) == [
        (name, stamp_of(started)) for name in ("report", "sa resnet8") for started in (STARTED, STARTED + 60)
    ]


def test_a_deleted_experiment_is_restored(uri: str, folder: Path) -> None:
    log(uri, folder, ONE)
    client = MlflowClient(uri)
    client.delete_experiment(client.get_experiment_by_name(folder.name).experiment_id)
    log(uri, folder, ONE, STARTED + 60)
    assert stamp_of(STARTED + 60) in {run.data.params["benchmark"] for run in runs(uri, folder)}


def test_the_link_shows_the_first_setting_of_this_benchmark(uri: str, folder: Path) -> None:
    other = Tracked("sa layer1", SETTING | {"kind": "module", "place": "layer1"}, {"forward_ms": 3.0})
    log(uri, folder, ONE, STARTED - 60)
    opens = log(uri, folder, [*ONE, other])
    experiment = MlflowClient(uri).get_experiment_by_name(folder.name).experiment_id
    command, _, address = opens.partition("\nThen open:  ")
    assert command.endswith(f"mlflow ui --backend-store-uri {uri}")
    assert address.startswith(f"http://127.0.0.1:5000/#/experiments/{experiment}/runs?")
    query = unquote(address.partition("searchFilter=")[2])
    (run,) = MlflowClient(uri).search_runs([experiment], query)  # the filter is valid for MLflow
    assert (run.data.params["kind"], run.data.params["benchmark"]) == ("network", stamp_of(STARTED))


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_a_benchmark_is_identified_by_its_start_time_to_the_second(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        expected = {"UTC": "2023-11-14 22:13:20+00:00", "Asia/Kolkata": "2023-11-15 03:43:20+05:30"}
        assert stamp_of(STARTED) == expected[zone]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_failed_log_returns_the_reason_and_leaves_no_running_run(uri: str, folder: Path) -> None:
    refused = [Tracked("sa resnet8", SETTING, {"a=b": 1.0})]
    opens, lost = log_benchmark(opened(uri, folder), folder, refused, ENVIRONMENT, STARTED)
    assert opens is None
    assert "a=b" in lost
    assert "RUNNING" not in {run.info.status for run in runs(uri, folder)}
