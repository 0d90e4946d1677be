"""A benchmark in MLflow: a run for each module and network in each setting, and one with the benchmark's files.

They stand side by side, as the dashboard hides what is below another run; the parameter `benchmark` joins them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from mlflow.entities import Metric, Param

from ablations.tracking.experiment import FAILED, FINISHED, open_experiment, outage_of


@dataclass(frozen=True)
class Tracked:
    """A module or network in one setting: a run with parameters to filter by, and metrics."""

    name: str
    params: dict[str, str]
    metrics: dict[str, float]


def log_benchmark(
    uri: str, folder: Path, tracked: Sequence[Tracked], environment: Mapping[str, str], artifacts: Path, started: float
) -> tuple[str | None, str]:
    """Writes a benchmark; returns what opens it, or None and why it could not be written.

    Args:
        folder: of the benchmark's files, whose name is that of the experiment.
        tracked: what was measured, something at least.
        environment: machine and versions.
        artifacts: their folder where the store is a database of our own.
        started: when the benchmark began, in Unix time.
    """
    run_id = ""
    try:
        experiment = open_experiment(uri, folder.name, artifacts)
        client = experiment.client
        common = {"benchmark": stamp_of(started)}
        for one in tracked:
            run_id = experiment.create_run(one.name)
            now = int(time.time() * 1000)
            metrics = [Metric(name, value, now, 0) for name, value in one.metrics.items()]
            params = [Param(*item) for item in (common | one.params).items()]
            client.log_batch(run_id, metrics=metrics, params=params)
            client.set_terminated(run_id, FINISHED)
        run_id = experiment.create_run("report")
        client.log_batch(run_id, params=[Param(*item) for item in (common | dict(environment)).items()])
        experiment.log_files(run_id, folder)
        client.set_terminated(run_id, FINISHED)
    except Exception as error:  # whatever ails the mirror is no failure of the benchmark
        if run_id:
            with suppress(Exception):  # what would not be written may not be closed either
                client.set_terminated(run_id, FAILED)
        return None, outage_of(error, uri)
    # The dashboard draws ten runs at first: those of the first setting.
    first = tracked[0].params
    chosen = {name: first[name] for name in ("kind", "place", "compile", "precision", "layout")} | common
    condition = " and ".join(f"params.{name} = '{value}'" for name, value in chosen.items())
    return experiment.dashboard(f"searchFilter={quote(condition)}"), ""


def stamp_of(started: float) -> str:
    """Says when a benchmark began, to the second."""
    return datetime.fromtimestamp(started).astimezone().isoformat(" ", "seconds")
