"""What is written to MLflow of a study, a cell and a folder; writing it again writes the same."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from ablations.common.metrics import CELL_METRICS, EPOCH_METRICS
from ablations.common.settings import flatten
from ablations.design import Cell, Design
from ablations.tracking.experiment import FINISHED

_COMMIT = "mlflow.source.git.commit"


def describe_study(client: MlflowClient, run_id: str, design: Design, fingerprint: str, commit: str | None) -> None:
    """Writes a study's protocol, question and data set to its run."""
    # What may change between runs of a study are tags: MLflow refuses another value of a parameter.
    tags = {"sweep": design.sweep, "question": design.question, "baseline": design.baseline, _COMMIT: commit}
    client.log_batch(run_id, params=_params(flatten(design.protocol)), tags=_tags(tags))
    client.log_inputs(run_id, [_data_input(design, fingerprint)])


def describe_cell(
    client: MlflowClient, run_id: str, cell: Cell, commit: str | None, design: Design, fingerprint: str
) -> None:
    """Writes what a cell trains, and on what, to its run."""
    params = {"variant": cell.variant.name, "replicate": cell.replicate, "key": cell.key}
    settings = {"network": cell.variant.network, "clamped": cell.variant.clamped, "protocol": design.protocol}
    client.log_batch(run_id, params=_params(params | flatten(settings)), tags=_tags({_COMMIT: commit}))
    client.log_inputs(run_id, [_data_input(design, fingerprint)])


def complete_cell(client: MlflowClient, run_id: str, outcome: Mapping[str, Any]) -> None:
    """Writes a finished cell's metrics to its run, and closes it."""
    result = outcome["result"]
    # All epochs, those that were written live included: the same numbers at the same times change nothing.
    epochs = [metric for epoch in result["epochs"] for metric in epoch_metrics(epoch)]
    stamp = int(result["epochs"][-1]["finished"] * 1000)
    # At step 0, which the dashboard draws as bars.
    once = [
        Metric(key, float(result[key]), stamp, 0)
        for key in CELL_METRICS
        # A pruned cell has its epochs alone; what was not measured is None.
        if result.get(key) is not None and key not in EPOCH_METRICS
    ]
    tags = {"attention_by": result.get("attention_by") or None, "pruned": outcome.get("pruned")}
    client.log_batch(run_id, metrics=epochs + once, tags=_tags(tags))
    if "failure" in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, "failure")  # of an earlier attempt
    client.set_terminated(run_id, FINISHED)


def epoch_metrics(epoch: Mapping[str, Any]) -> list[Metric]:
    """Returns the metrics of an epoch, whose step is its number from 1."""
    # The time stamp is the epoch's own: writing an epoch again adds nothing.
    stamp = int(epoch["finished"] * 1000)
    return [Metric(key, float(epoch[key]), stamp, epoch["epoch"] + 1) for key in EPOCH_METRICS]


def log_files(client: MlflowClient, run_id: str, folder: Path, leave_out: Collection[str] = ()) -> None:
    """Writes the files of a folder to a run as artifacts, without hidden ones.

    Args:
        client: of the store.
        run_id: of the run.
        folder: of the files.
        leave_out: folders in it whose files stay where they are.
    """
    for path in sorted(folder.rglob("*")):
        inside = path.parent.relative_to(folder)
        if path.is_file() and not path.name.startswith(".") and inside.parts[:1] not in {(name,) for name in leave_out}:
            client.log_artifact(run_id, str(path), inside.as_posix() if inside.parts else None)


def _params(values: Mapping[str, object]) -> list[Param]:
    return [Param(name, str(value)) for name, value in values.items()]


def _tags(values: Mapping[str, str | None]) -> list[RunTag]:
    return [RunTag(name, value) for name, value in values.items() if value is not None]


def _data_input(design: Design, fingerprint: str) -> DatasetInput:
    data = design.protocol["data"]
    source = json.dumps({key: value for key, value in data.items() if key != "name"})
    data_set = Dataset(data["name"], fingerprint, "options", source)
    return DatasetInput(data_set, [InputTag("mlflow.data.context", "training")])
