"""MLflow as a mirror of what is stored. Importing this package does not import MLflow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ablations.storage.database import database_file
from ablations.storage.paths import artifacts_folder, tracking_uri
from ablations.tracking.artifacts import follow_artifacts
from ablations.tracking.base import StudyMirror

if TYPE_CHECKING:
    from rich.console import Console

    from ablations.config import Config
    from ablations.design import Design

__all__ = ["StudyMirror", "follow_results", "open_tracker"]

# MLflow reads some of these when it is imported, which every other module of this package does after this one.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A request that MLflow repeats by itself may be carried out twice, and make a run twice; here it is repeated otherwise.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a cell, with what a URL may hide


def open_tracker(config: Config, design: Design, study_id: str, console: Console) -> StudyMirror:
    """Opens the mirror of a study; MLflow is imported only where tracking is enabled.

    `study_id` tells the study from other people's of its name on the same server. Raises UsageError if the store does
    not answer.
    """
    if not config.tracking.enabled:
        return StudyMirror()
    uri = tracking_uri(config)
    file = database_file(uri)
    if file is not None and not file.exists():
        console.print("Making the MLflow store, once; this takes some seconds.")
    from ablations.tracking.tracker import Tracker

    return Tracker(uri, design, study_id, artifacts_folder(config, design.study))


def follow_results(config: Config) -> None:
    """Has the MLflow store of a results folder that has moved find its files again, without importing MLflow."""
    if config.tracking.enabled:
        follow_artifacts(tracking_uri(config), artifacts_folder(config, config.study))
