"""A benchmark in MLflow: one run per module or network and setting, and one with the benchmark's files.

The runs are not nested, because the dashboard hides child runs; the parameter `benchmark` groups them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from mlflow.entities import Metric, Param

from ablations.common.parts import RAISE, Parts
from ablations.tracking.experiment import FAILED, FINISHED, Experiment, outage_of


@dataclass(frozen=True)
class Tracked:
    """A module or network in one setting: a run with parameters to filter by, and metrics."""

    name: str
    params: dict[str, str]
    metrics: dict[str, float]


def log_benchmark(
    experiment: Experiment,
    folder: Path,
    tracked: Sequence[Tracked],
    environment: Mapping[str, str],
    started: float,
    parts: Parts = RAISE,
) -> tuple[str | None, str]:
    """Logs a benchmark; returns the command or address that opens it, or None and the reason of the failure.

    Args:
        experiment: the experiment of the runs.
        folder: of the benchmark's files.
        tracked: the measurements, at least one.
        environment: machine and versions.
        started: start of the benchmark, in Unix time.
        parts: receives runs and files that cannot be written although the store responds.
    """
    common = {"benchmark": stamp_of(started)}
    try:
        for one in tracked:
            with _run(experiment, one.name, parts) as run_id:
                now = int(time.time() * 1000)
                metrics = [Metric(name, value, now, 0) for name, value in one.metrics.items()]
                params = [Param(*item) for item in (common | one.params).items()]
                experiment.client.log_batch(run_id, metrics=metrics, params=params)
        with _run(experiment, "report", parts) as run_id:
            params = [Param(*item) for item in (common | dict(environment)).items()]
            experiment.client.log_batch(run_id, params=params)
            experiment.log_files(run_id, folder, parts)
    except Exception as error:  # no failure of the mirror fails the benchmark
        return None, outage_of(error, experiment.destination)
    # The dashboard initially draws ten runs, so filter for the first setting.
    first = tracked[0].params
    chosen = {name: first[name] for name in ("kind", "place", "compile", "precision", "layout")} | common
    condition = " and ".join(f"params.{name} = '{value}'" for name, value in chosen.items())
    return experiment.dashboard(f"searchFilter={quote(condition)}"), ""


@contextmanager
def _run(experiment: Experiment, name: str, parts: Parts) -> Iterator[str]:
    """Creates a run and ends it as finished or failed; errors are recorded in `parts` if the store responds."""
    run_id = experiment.create_run(name)
    try:
        yield run_id
        experiment.client.set_terminated(run_id, FINISHED)
    except Exception as error:
        experiment.client.set_terminated(run_id, FAILED)  # raises if the store does not respond
        parts.add(f"MLflow run {name}", error)


def stamp_of(started: float) -> str:
    """Formats the start time of a benchmark, to the second."""
    return datetime.fromtimestamp(started).astimezone().isoformat(" ", "seconds")
