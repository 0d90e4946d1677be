"""MLflow as a mirror of what is stored. Importing this package does not import MLflow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ablations.common.console import print_text
from ablations.storage.database import database_file
from ablations.tracking.artifacts import follow_artifacts
from ablations.tracking.base import StudyMirror
from ablations.tracking.destination import Destination, destination_of

if TYPE_CHECKING:
    from rich.console import Console

    from ablations.config import Config
    from ablations.design import Design
    from ablations.tracking.experiment import Experiment

__all__ = ["Destination", "StudyMirror", "destination_of", "follow_results", "open_benchmark", "open_tracker"]

# MLflow reads some of these when it is imported, which every other module of this package does after this one.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A request that MLflow repeats by itself may be carried out twice, and make a run twice; here it is repeated otherwise.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a cell, with what a URL may hide


def open_tracker(config: Config, design: Design, study_id: str, console: Console) -> StudyMirror:
    """Opens the mirror of a study, and says where it is; MLflow is imported only where tracking is enabled.

    `study_id` tells the study from other people's of its name on the same server. Raises UsageError if the store does
    not answer.
    """
    if not config.tracking.enabled:
        return StudyMirror()
    destination = _announced(config, design.study, console)
    from ablations.tracking.tracker import Tracker

    return Tracker(destination, design, study_id)


def open_benchmark(config: Config, name: str, console: Console) -> Experiment | None:
    """Opens the experiment of a benchmark, and says where it is; returns None where tracking is off.

    Raises:
        UsageError: if the store does not answer.
    """
    if not config.tracking.enabled:
        return None
    destination = _announced(config, name, console)
    from ablations.tracking.experiment import open_experiment

    return open_experiment(destination)


def _announced(config: Config, name: str, console: Console) -> Destination:
    destination = destination_of(config, name)
    file = database_file(destination.uri)
    if file is not None and not file.exists():
        print_text(console, "Creating the MLflow database (once, takes some seconds).")
    print_text(console, destination.sentence)
    return destination


def follow_results(config: Config) -> None:
    """Has the MLflow store of a results folder that has moved find its files again, without importing MLflow."""
    if config.tracking.enabled:
        destination = destination_of(config, config.study)
        follow_artifacts(destination.uri, destination.artifacts)
