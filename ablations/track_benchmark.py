"""A benchmark in MLflow: one run of the experiment of its name, with its numbers and files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.time import get_current_time_millis

from ablations.track import FINISHED, experiment_id, make_store, reason_of

_AT_ONCE = 1000  # metrics that MLflow takes in one call


def log_benchmark(
    uri: str, folder: Path, metrics: Mapping[str, float], environment: Mapping[str, str], artifacts: Path
) -> str | None:
    """Writes a benchmark as a run; returns why it could not, None where it could.

    Args:
        uri: MLflow tracking URI.
        folder: of the benchmark's files, whose name is that of the experiment.
        metrics: by name.
        environment: machine and versions.
        artifacts: folder of the artifacts where the store is a database of our own.
    """
    try:
        make_store(uri)
        client = MlflowClient(uri)
        run = client.create_run(experiment_id(client, folder.name, uri, artifacts), run_name=folder.name)
        run_id, stamp = run.info.run_id, get_current_time_millis()
        client.log_batch(run_id, params=[Param(name, value) for name, value in environment.items()])
        logged = [Metric(name, value, stamp, 0) for name, value in metrics.items()]
        for start in range(0, len(logged), _AT_ONCE):
            client.log_batch(run_id, metrics=logged[start : start + _AT_ONCE])
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                inside = path.parent.relative_to(folder).as_posix()
                client.log_artifact(run_id, str(path), None if inside == "." else inside)
        client.set_terminated(run_id, FINISHED)
    except Exception as error:  # whatever ails the mirror is no failure of the benchmark
        return reason_of(error)
    return None
