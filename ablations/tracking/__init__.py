"""MLflow as a mirror of stored studies. Importing this package does not import MLflow."""

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

# MLflow reads some of these on import, and only modules imported after this one import it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# MLflow's automatic retries may create a run twice; `ablations.tracking.outage` retries instead.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Otherwise MLflow prints two lines per cell, with a URL that may contain a password.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def open_tracker(config: Config, design: Design, study_id: str, console: Console) -> StudyMirror:
    """Opens the mirror of a study and prints its location; imports MLflow only if tracking is enabled.

    `study_id` distinguishes studies of the same name on a server. Raises UsageError if the store does not respond.
    """
    if not config.tracking.enabled:
        return StudyMirror()
    destination = _announced(config, design.study, console)
    from ablations.tracking.tracker import Tracker

    return Tracker(destination, design, study_id)


def open_benchmark(config: Config, name: str, console: Console) -> Experiment | None:
    """Opens the experiment of a benchmark and prints its location; returns None if tracking is off.

    Raises:
        UsageError: if the store does not respond.
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
    """Updates the MLflow store of a moved results folder, without importing MLflow."""
    if config.tracking.enabled:
        destination = destination_of(config, config.study)
        follow_artifacts(destination.uri, destination.artifacts)
