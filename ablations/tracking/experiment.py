"""The MLflow store: made whole, opened at one experiment, written to, linked to, and its errors explained."""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from ablations.common.errors import UsageError
from ablations.common.parts import RAISE, Parts
from ablations.common.urls import hide_passwords
from ablations.common.wording import first_line
from ablations.storage.database import connect_arguments, engine_url, sqlite_meaning

# Importing it sets INFO, a line for every table it makes; what its errors say is raised, and the tracker's to speak of.
logging.getLogger("mlflow").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.ERROR)
logging.getLogger("urllib3").setLevel(logging.ERROR)

FINISHED, RUNNING, KILLED, FAILED = "FINISHED", "RUNNING", "KILLED", "FAILED"  # a run's status
_MOST_REFUSED = 3  # artifacts in a row; a store of artifacts that is gone may take minutes to refuse each
VIEW = "variants"  # key of the view that a study's link opens
# What the dashboard's "Share" button would write: replicates grouped by variant, so that charts show a mean and a band
# for each.
_VIEW_STATE = {
    "orderByKey": "attributes.start_time",
    "orderByAsc": True,
    "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "variant"}]},
}
_EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # otherwise the dashboard opens a page for language models
    f"mlflow.sharedViewState.{VIEW}": json.dumps(_VIEW_STATE),
}


@dataclass
class Experiment:
    """One experiment in an MLflow store; `uri` is as the user gave it."""

    uri: str
    client: MlflowClient
    id: str

    def create_run(self, name: str, tags: dict[str, str] | None = None) -> str:
        """Creates a run; returns its id."""
        return str(self.client.create_run(self.id, run_name=name, tags=tags).info.run_id)

    def log_files(self, run_id: str, folder: Path, parts: Parts = RAISE, leave_out: Collection[str] = ()) -> None:
        """Writes the files of a folder to a run as artifacts, without hidden ones and the folders in `leave_out`.

        Files that cannot be written although the store answers are left to `parts`; after three in a row, the rest is.
        """
        refused = 0
        for path in sorted(folder.rglob("*")):
            inside = path.parent.relative_to(folder)
            if not path.is_file() or path.name.startswith(".") or not set(leave_out).isdisjoint(inside.parts[:1]):
                continue
            if refused >= _MOST_REFUSED:
                parts.leave_out("MLflow artifacts", f"{refused} in a row cannot be written; the rest is not tried")
                return
            try:
                self.client.log_artifact(run_id, str(path), inside.as_posix() if inside.parts else None)
                refused = 0
            except Exception as error:
                self.client.get_run(run_id)  # raises if the store has stopped answering, which is another matter
                parts.add(f"MLflow artifact {(inside / path.name).as_posix()}", error)
                refused += 1

    def dashboard(self, query: str) -> str:
        """Returns the command and the address, or of a server the address, that open the runs as charts."""
        place = f"/#/experiments/{self.id}/runs?workflowType=machine_learning&compareRunsMode=CHART&{query}"
        shown = hide_passwords(self.uri)
        if shown.startswith(("http://", "https://")):
            return shown.rstrip("/") + place
        python, here = Path(sys.executable), Path.cwd()
        shown_python = str(python.relative_to(here) if python.is_relative_to(here) else python)
        command = shlex.join([shown_python, "-m", "mlflow", "ui", "--backend-store-uri", shown])
        return f"{command}\nThen open:  http://127.0.0.1:5000{place}"


def open_experiment(uri: str, name: str, artifacts: Path) -> Experiment:
    """Opens the experiment of a name; the store and the experiment are made where there is none.

    `artifacts` is where these lie if the store is a database of our own; a server has a place of its own. Raises
    UsageError if there is no folder for a SQLite store.
    """
    if uri.startswith("sqlite:///"):
        _make_store(uri, Path(uri.removeprefix("sqlite:///")))
    elif uri.startswith(("postgresql", "mysql", "mssql")):
        # A sign of life: MLflow would try for minutes before it says that there is none.
        address = engine_url(uri)
        create_engine(address, poolclass=NullPool, connect_args=connect_arguments(address)).connect().close()
    client = MlflowClient(engine_url(uri))
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        local = None if uri.startswith(("http://", "https://")) else artifacts.resolve().as_uri()
        experiment_id = client.create_experiment(name, artifact_location=local, tags=_EXPERIMENT_TAGS)
    else:
        experiment_id = experiment.experiment_id
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment_id)
    return Experiment(uri, client, str(experiment_id))


def reason_of(error: Exception, uri: str = "") -> str:
    """Returns what an error of MLflow or its database says, in a line without the secrets of the store's address."""
    line = first_line(error, skipping="(raised as a result of ")  # SQLAlchemy says this of itself
    if (meaning := sqlite_meaning(re.sub(r"^\(sqlite3\.\w+\) ", "", line))) is not None:
        line = f"its database {meaning}" if meaning.startswith(("is ", "cannot ")) else meaning
    return hide_passwords(line, uri)[:300]


def _make_store(uri: str, path: Path) -> None:
    """Makes a SQLite store whole or not at all: MLflow cannot go on with tables that a killed process had half made."""
    if path.exists():
        return
    if not path.parent.is_dir():
        raise UsageError("tracking.uri", uri, f"there is no folder {path.parent}")
    with FileLock(path.with_name(f"{path.name}.lock")):
        unfinished = path.with_name(f"{path.name}.unfinished")
        for stale in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
            stale.unlink(missing_ok=True)
        if not path.exists():
            MlflowClient(f"sqlite:///{unfinished}").search_experiments(max_results=1)
            unfinished.replace(path)
