"""MLflow as a mirror of what is stored. Importing this package does not import MLflow."""

import os

from ablations.tracking.base import NoTracker, StudyMirror, open_tracker

__all__ = ["NoTracker", "StudyMirror", "open_tracker"]

# MLflow reads some of these when it is imported, which every other module of this package does after this one.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A request that MLflow repeats by itself may be carried out twice, and make a run twice; here it is repeated otherwise.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a cell, with what a URL may hide
