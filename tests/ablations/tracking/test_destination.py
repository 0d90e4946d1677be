"""The destination of a study: options, then MLflow's environment variables, then a file beside the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.common.errors import SuiteError
from ablations.config.compose import compose_config
from ablations.tracking import destination_of
from ablations.tracking.destination import Destination
from ablations.tracking.experiment import Experiment, open_experiment
from tests.servers import MLFLOW_PASSWORD, MLFLOW_USER, MlflowServer
from tests.wording import refusal, worded

URI, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"


def destination(folder: Path, *options: str) -> Destination:
    return destination_of(compose_config([f"results_dir={folder}", *options]), "mine")


def test_by_default_the_store_is_a_file_beside_the_results(tmp_path: Path) -> None:
    found = destination(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert found == Destination(uri, "mine", tmp_path / "mlflow-artifacts" / "mine", has_models=True)
    assert found.sentence == worded("tracking.logging", uri=uri, experiment="mine")


def test_options_have_priority_over_mlflows_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, "http://me:secret@host:5000")
    monkeypatch.setenv(EXPERIMENT, "ours")
    found = destination(tmp_path)
    assert (found.uri, found.experiment) == ("http://me:secret@host:5000", "ours")
    shown = {"uri": "http://***@host:5000", "uri_from": URI, "experiment": "ours", "experiment_from": EXPERIMENT}
    assert found.sentence == worded("tracking.logging_by", **shown)
    found = destination(tmp_path, "tracking.uri=http://other", "tracking.experiment=theirs")
    assert found.sentence == worded("tracking.logging", uri="http://other", experiment="theirs")


@pytest.mark.parametrize(("name", "value"), [(URI, " "), (EXPERIMENT, "")])
def test_an_empty_variable_is_ignored(name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = destination(tmp_path)
    monkeypatch.setenv(name, value)
    assert destination(tmp_path) == without


def test_the_error_of_an_invalid_variable_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, "nope://x")
    with pytest.raises(SuiteError, match=refusal(f"{URI}=nope://x", "tracking.kind")):
        destination(tmp_path)


@pytest.mark.parametrize(
    ("uri", "is_server", "has_own_artifacts"),
    [
        ("http://127.0.0.1:5000", True, True),
        ("https://host/mlflow", True, True),
        ("databricks", True, True),
        ("databricks://profile", True, True),
        ("databricks-uc", True, True),
        ("mysql://me@host/db", True, False),
        ("postgresql+psycopg://me@host/db", True, False),
        ("sqlite:///mlflow.db", False, False),
        ("file:///mlruns", False, False),
        ("mlruns", False, False),
    ],
)
def test_servers_and_databricks_determine_the_artifact_location(
    uri: str, is_server: bool, has_own_artifacts: bool
) -> None:
    found = Destination(uri, "mine", Path("artifacts"))
    assert (found.is_server, found.has_own_artifacts) == (is_server, has_own_artifacts)


def opened_as_databricks(server: MlflowServer, uri: str, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """Opens an experiment at a Databricks URI whose requests go to an MLflow server, which has the same API paths."""
    monkeypatch.setenv("DATABRICKS_HOST", server.uri)
    monkeypatch.setenv("DATABRICKS_USERNAME", MLFLOW_USER)
    monkeypatch.setenv("DATABRICKS_PASSWORD", MLFLOW_PASSWORD)
    return open_experiment(Destination(uri, "/Users/me/mine", Path("/nowhere/artifacts")))


def test_databricks_gets_no_local_path_and_no_inapplicable_advice(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = opened_as_databricks(server, "databricks", monkeypatch)
    found = experiment.client.get_experiment(experiment.id)
    assert found.name == "/Users/me/mine"
    assert found.artifact_location.startswith("mlflow-artifacts:/")
    assert experiment.dashboard("") == worded("tracking.named", experiment="/Users/me/mine", uri="databricks")


def test_an_experiment_named_like_a_path_has_a_single_folder(tmp_path: Path) -> None:
    found = destination(tmp_path, "tracking.experiment=../../x/y")
    assert found.artifacts.parent == tmp_path / "mlflow-artifacts"
    assert found.artifacts.name not in (".", "..")
    assert destination(tmp_path, "tracking.experiment=..").artifacts.resolve().parent == tmp_path / "mlflow-artifacts"


def test_an_experiment_is_opened_with_the_right_password_and_refused_with_a_wrong_one(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URI, server.uri)
    assert open_experiment(destination(tmp_path)).create_run("mine")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong password")
    with pytest.raises(SuiteError, match=refusal(f"{URI}={server.uri}", "tracking.credentials")) as caught:
        open_experiment(destination(tmp_path))
    assert "wrong password" not in str(caught.value)
