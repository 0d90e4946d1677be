from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import requests

from ablations.tracking.destination import Destination
from ablations.tracking.experiment import outage_of
from tests.wording import worded


@pytest.mark.parametrize(
    ("uri", "error", "text"),
    [
        ("http://host:5000", requests.ConnectionError("refused"), "tracking.stopped_answering"),
        ("http://host:5000", TimeoutError("timed out"), "tracking.stopped_answering"),
        ("postgresql://host/db", RuntimeError("connection lost"), "tracking.stopped_answering"),
        ("http://host:5000", FileNotFoundError("refused"), "tracking.unwritten"),
        ("http://host:5000", PermissionError("refused"), "tracking.unwritten"),
        ("http://host:5000", OSError("refused"), "tracking.unwritten"),
        ("sqlite:////results/mlflow.db", sqlite3.OperationalError("database is locked"), "tracking.unwritten"),
        ("file:///results/mlruns", TimeoutError("timed out"), "tracking.unwritten"),
    ],
)
def test_only_a_server_stops_responding(uri: str, error: Exception, text: str) -> None:
    assert outage_of(error, Destination(uri, "mine", Path("artifacts"))) == worded(text, cause=error)
