"""Kept networks as MLflow models, which are loaded without executing code of the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow.pytorch
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.models import get_model_info
from torch import nn

from ablations import cli, run
from ablations.common.errors import SuiteError
from ablations.common.names import plain_names
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.storage.study import open_store
from ablations.tracking import destination_of, follow_results
from ablations.tracking.tracker import Tracker
from ablations.training.weights import KeptNetwork
from tests.conftest import TINY
from tests.servers import MlflowServer
from tests.wording import refusal

STUDY = "groups-digits-resnet8"
MODELS = ("tracking.models=true", "tracking.register=sa-net", "train.epochs=1", "predictions=off", "replicates=1")


@dataclass
class Registered:
    """A stored study of two variants with registered networks, and its MLflow client."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    @property
    def options(self) -> Sequence[str]:
        return (*TINY, *MODELS, "sweep.factors.attention.groups=[4]", f"results_dir={self.folder}")

    def kept(self, variant: str) -> nn.Module:
        files = (self.folder / STUDY / "weights").iterdir()
        (found,) = [kept for kept in map(KeptNetwork.read, files) if kept.variant == variant]
        return found.build()


def typed(arguments: Sequence[str]) -> int:
    return cli.main("run", run.PURPOSE, run.run, arguments)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    registered = Registered(tmp_path_factory.mktemp("registered"))
    assert typed(registered.options) == 0
    return registered


@pytest.fixture(autouse=True)
def _at(study: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", study.uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")


@pytest.fixture
def pixels() -> Iterator[torch.Tensor]:
    with torch.no_grad():
        yield torch.randn(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("variant", "alias"), [("none", "none"), ("groups=4", "groups-4")])
def test_one_line_loads_the_network_of_a_variant(
    variant: str, alias: str, study: Registered, pixels: torch.Tensor
) -> None:
    model = mlflow.pytorch.load_model(f"models:/sa-net@{alias}")
    expected = study.kept(variant)(pixels)
    torch.testing.assert_close(model(pixels), expected)
    (found,) = study.client.search_runs(["1"], f"params.variant = '{variant}' and params.replicate = '0'")
    same = mlflow.pytorch.load_model(f"runs:/{found.info.run_id}/{alias}")
    torch.testing.assert_close(same(pixels), expected)
    served = mlflow.pyfunc.load_model(f"models:/sa-net@{alias}").predict(pixels.numpy())
    np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-4)


def test_a_model_has_a_signature_and_an_example(study: Registered) -> None:
    info = get_model_info("models:/sa-net@groups-4")
    assert [spec.shape for spec in (*info.signature.inputs.inputs, *info.signature.outputs.inputs)] == [
        (-1, 3, 20, 20), (-1, 10),
    ]  # fmt: skip
    assert info.saved_input_example_info
    assert info.metadata["side"] == 20
    assert len(info.metadata["mean"]) == 3
    assert info.metadata["classes"] == [str(digit) for digit in range(10)]
    files = {path.suffix for path in (study.folder / "mlflow-artifacts").rglob("models/*/artifacts/data/*")}
    assert files == {".pt2"}


def test_a_model_has_parameters_and_metrics_of_its_run_without_changing_its_curves(study: Registered) -> None:
    models = {model.name: model for model in study.client.search_logged_models(["1"])}
    assert set(models) == {"none", "groups-4"}
    one = models["groups-4"]
    assert one.params["attention.groups"] == "4"
    run = study.client.get_run(one.source_run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [one.model_id]
    (version,) = study.client.search_model_versions(f"run_id = '{one.source_run_id}'")
    assert json.loads(one.tags["mlflow.modelVersions"]) == [{"name": "sa-net", "version": version.version}]
    assert {metric.key: metric.value for metric in one.metrics or []}["top1"] == run.data.metrics["top1"]
    assert [metric.step for metric in study.client.get_metric_history(one.source_run_id, "top1")] == [1]


def test_a_second_run_registers_nothing_again(study: Registered) -> None:
    before = study.client.search_model_versions("name = 'sa-net'")
    assert sorted(version.tags["variant"] for version in before) == ["groups=4", "none"]
    assert typed(study.options) == 0
    after = study.client.search_model_versions("name = 'sa-net'")
    assert [version.version for version in after] == [version.version for version in before]
    assert len(study.client.search_logged_models(["1"])) == 2


def test_models_are_found_after_their_results_folder_has_moved(
    study: Registered, tmp_path: Path, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Registered(tmp_path / "moved")
    shutil.copytree(study.folder, moved.folder)
    follow_results(compose_config([f"results_dir={moved.folder}", f"tracking.uri={moved.uri}"]))
    for path in moved.client.search_model_versions("name = 'sa-net'"):
        assert path.source.startswith(moved.folder.as_uri())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", moved.uri)
    model = mlflow.pytorch.load_model("models:/sa-net@groups-4")
    torch.testing.assert_close(model(pixels), moved.kept("groups=4")(pixels))


@pytest.mark.parametrize(
    ("register", "also", "reason"),
    [
        ("a/b", [], "tracking.registered_name"),
        ("x", ["weights=off"], "tracking.unregistered"),
        ("x", ["tracking.models=false"], "tracking.unregistered"),
        ("x", ["tracking.enabled=false"], "tracking.unregistered"),
    ],
)
def test_impossible_registrations_are_refused(register: str, also: list[str], reason: str) -> None:
    message = refusal(f"tracking.register={register}", reason, then=tuple(also), setting="")
    with pytest.raises(SuiteError, match=message):
        destination_of(compose_config([f"tracking.register={register}", *also]), "mine")


def test_on_a_server_a_model_is_registered_and_found(
    study: Registered, server: MlflowServer, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose_config([*study.options, f"tracking.uri={server.uri}", "tracking.experiment=models"])
    design = make_design(config)
    store = open_store(f"sqlite:///{study.folder / 'optuna.db'}", STUDY, create=False)
    tracker = Tracker(destination_of(config, STUDY), design, "of a server")
    tracker.sync(store.outcomes(design), "f00d")
    tracker.end("FINISHED", study.folder / STUDY)
    assert tracker.lost is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    model = mlflow.pytorch.load_model("models:/sa-net@groups-4")
    torch.testing.assert_close(model(pixels), study.kept("groups=4")(pixels))


def test_plain_names_of_variants_are_aliases_that_mlflow_accepts(study: Registered) -> None:
    for alias in plain_names(["groups=4", "w/o CS", "latest", "V2", "größe=研究", "/", "x" * 300]).values():
        study.client.set_registered_model_alias("sa-net", alias, "1")
