"""Kept networks as MLflow models, one per cell's run, registered on request.

`mlflow.pytorch.load_model("models:/NAME@VARIANT")` loads the network of a variant without this suite: it is stored as
a `torch.export` program (`pt2`), which executes no code of the file on loading. The model's metadata describe its
input images.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.exceptions import MlflowException

from ablations.tracking.experiment import Experiment

_METRICS = ("top1", "test_loss", "ece", "parameters")  # of a run, copied to its model
_VERSIONS = "mlflow.modelVersions"
_DIGEST = "weights"  # tag of a model: a digest of its weights file


class Models:
    """The models of a study in an experiment.

    Args:
        experiment: the study's experiment.
        study_id: distinguishes studies in it.
    """

    def __init__(self, experiment: Experiment, study_id: str) -> None:
        self._experiment, self._study_id = experiment, study_id
        self._logged: dict[str, LoggedModel] = {}  # by the key of the cell
        token = None
        while True:
            page = experiment.client.search_logged_models(
                [experiment.id], f"tags.study_id = '{study_id}'", page_token=token
            )
            self._logged |= {model.tags["cell"]: model for model in page if model.status == LoggedModelStatus.READY}
            token = page.token
            if not token:
                return

    def log(self, run: Run, weights: Path, name: str) -> str:
        """Logs the network in a file as the model of a cell's run, unless it exists; returns the model's id.

        Raises:
            OSError, ValueError: if the file cannot be read.
            Exception: of torch, if the network cannot be exported, or of the store.
        """
        client, digest, key = self._experiment.client, _digest_of(weights), run.data.tags["cell"]
        if (known := self._logged.get(key)) is not None:
            if known.tags[_DIGEST] == digest:
                return str(known.model_id)
            client.delete_logged_model(known.model_id)
        tags = {"study_id": self._study_id, "cell": key, _DIGEST: digest}
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "model"
            _save(weights, written)
            model = client.create_logged_model(
                self._experiment.id, name, run.info.run_id, tags, dict(run.data.params), "network"
            )
            try:
                client.log_model_artifacts(model.model_id, str(written))
            except BaseException:
                client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
                raise
        # The run's values with their time stamps, so that its curves do not change.
        run_id = run.info.run_id
        last = [client.get_metric_history(run_id, key)[-1] for key in _METRICS if key in run.data.metrics]
        metrics = [Metric(one.key, one.value, one.timestamp, one.step, model.model_id) for one in last]
        client.log_batch(run_id, metrics=metrics)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return str(model.model_id)

    def register(self, registered: str, model_id: str, run: Run, alias: str) -> None:
        """Registers the model of a run as a version of a registered model, unless it is one.

        The first replicate of a variant gets the alias, even if another study's version had it.
        """
        client, params = self._experiment.client, run.data.params
        try:
            client.create_registered_model(registered)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        of_run = client.search_model_versions(f"run_id = '{run.info.run_id}'")
        version = next((one for one in of_run if (one.name, one.tags.get("model")) == (registered, model_id)), None)
        if version is None:
            tags = {"model": model_id, "variant": params["variant"], "replicate": params["replicate"]}
            # For a local database MLflow would resolve `models:/...` in its global store, which may differ.
            is_server = self._experiment.destination.has_own_artifacts
            source = f"models:/{model_id}" if is_server else client.get_logged_model(model_id).artifact_location
            version = client.create_model_version(registered, source, run.info.run_id, tags, model_id=model_id)
            # As in MLflow's `register_model`, for links in the dashboard.
            known = json.loads(client.get_logged_model(model_id).tags.get(_VERSIONS, "[]"))
            versions = [*known, {"name": registered, "version": version.version}]
            client.set_logged_model_tags(model_id, {_VERSIONS: json.dumps(versions)})
        if params["replicate"] == "0":
            client.set_registered_model_alias(registered, alias, version.version)


def _digest_of(path: Path) -> str:
    """Returns a digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _save(weights: Path, folder: Path) -> None:
    """Saves the network in a file as an MLflow model to a folder, with signature and example."""
    import mlflow.pytorch  # which imports torch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from ablations.training.weights import KeptNetwork

    kept = KeptNetwork.read(weights)
    side = kept.inputs.side
    images, logits = ((-1, 3, side, side), (-1, len(kept.classes)))
    number = np.dtype(np.float32)
    signature = ModelSignature(Schema([TensorSpec(number, images)]), Schema([TensorSpec(number, logits)]))
    # Two images, because export with one image would fix the batch size; rounded, because they are stored as text.
    example = np.random.default_rng(0).standard_normal((2, 3, side, side)).round(2).astype(np.float32)
    versions = (f"mlflow=={mlflow.__version__}", f"numpy=={np.__version__}", f"torch=={torch.__version__}")
    mlflow.pytorch.save_model(
        kept.build(),
        str(folder),
        signature=signature,
        input_example=example,
        serialization_format="pt2",
        pip_requirements=[version.partition("+")[0] for version in versions],
        metadata={"classes": list(kept.classes), **asdict(kept.inputs)},
    )
