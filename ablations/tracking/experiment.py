"""An experiment in an MLflow store: creation, access, artifacts, links, and explanations of errors."""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from ablations.common.errors import UsageError
from ablations.common.parts import RAISE, Parts
from ablations.common.surroundings import bypass_proxies
from ablations.common.urls import file_url, hide_passwords, sqlite_url
from ablations.common.wording import first_line
from ablations.storage.database import connect_arguments, database_file, engine_url, sqlite_meaning
from ablations.tracking.artifacts import is_gone, update_addresses
from ablations.tracking.destination import Destination

# MLflow's import sets INFO, a line per created table; its errors are raised and reported by the tracker.
logging.getLogger("mlflow").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.ERROR)
logging.getLogger("urllib3").setLevel(logging.ERROR)

FINISHED, RUNNING, KILLED, FAILED = "FINISHED", "RUNNING", "KILLED", "FAILED"  # a run's status
# Errors of files; network errors of requests and urllib3 are also OSErrors.
_FILE_ERRORS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
LONGEST_NAME = 250  # characters of a run's name
_MOST_REFUSED = 3  # consecutive artifacts; an unreachable artifact store may take minutes per artifact
VIEW = "variants"  # key of the view that a study's link opens
# The state that the dashboard's "Share" button would store: replicates grouped by variant, so that charts show means
# with bands.
_VIEW_STATE = {
    "orderByKey": "attributes.start_time",
    "orderByAsc": True,
    "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "variant"}]},
}
_EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # otherwise the dashboard opens a page for language models
    f"mlflow.sharedViewState.{VIEW}": json.dumps(_VIEW_STATE),
}

# Messages for authentication and permission errors, by MLflow's error codes.
_DENIED = {
    "UNAUTHENTICATED": "MLflow refuses the credentials (401); set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "PERMISSION_DENIED": "MLflow denies access to the experiment (403); ask for permission, or name another one with "
    "tracking.experiment",
}


@dataclass
class Experiment:
    """One experiment in an MLflow store."""

    destination: Destination
    client: MlflowClient
    id: str

    def create_run(self, name: str, tags: dict[str, str] | None = None) -> str:
        """Creates a run and returns its id; a name that is too long for MLflow's databases is truncated."""
        return str(self.client.create_run(self.id, run_name=name[:LONGEST_NAME], tags=tags).info.run_id)

    def log_files(self, run_id: str, folder: Path, parts: Parts = RAISE, leave_out: Collection[str] = ()) -> None:
        """Logs the files of a folder as artifacts of a run, without hidden files and the folders in `leave_out`.

        Files that cannot be written although the store responds are recorded in `parts`; after three in a row the rest
        is skipped.

        Raises:
            OSError: if the store's artifacts are in a results folder that does not exist.
        """
        if is_gone(address := self.client.get_run(run_id).info.artifact_uri or ""):
            raise FileNotFoundError(f"it keeps files in {address}, and that results folder is not there")
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
                self.client.get_run(run_id)  # raises if the store does not respond
                parts.add(f"MLflow artifact {(inside / path.name).as_posix()}", error)
                refused += 1

    def dashboard(self, query: str) -> str:
        """Returns the address, for a local store after the command, that opens the runs as charts.

        For other stores, such as Databricks, returns the experiment's name.
        """
        place = f"/#/experiments/{self.id}/runs?workflowType=machine_learning&compareRunsMode=CHART&{query}"
        shown = hide_passwords(self.destination.uri)
        if shown.startswith(("http://", "https://")):
            return shown.rstrip("/") + place
        if self.destination.has_own_artifacts:
            return f"experiment {self.destination.experiment} at {shown}"
        python = Path(sys.executable)
        with suppress(OSError):  # the working directory may not exist
            python = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
        command = shlex.join([str(python), "-m", "mlflow", "ui", "--backend-store-uri", shown])
        return f"{command}\nThen open:  http://127.0.0.1:5000{place}"


def open_experiment(destination: Destination) -> Experiment:
    """Opens an experiment; creates the store and the experiment if missing.

    Raises:
        UsageError: if the store does not respond, or the folder of a SQLite store does not exist.
    """
    with refusals_of(destination):
        return _open_experiment(destination)


@contextmanager
def refusals_of(destination: Destination) -> Iterator[None]:
    """Converts every error of MLflow, its database or the network to a UsageError with a one-line message."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # of MLflow, its database, its driver, or the network
        if isinstance(error, MlflowException) and error.error_code in _DENIED:
            raise destination.refusal(_DENIED[error.error_code]) from None
        silent = "MLflow does not respond" if destination.is_server else "MLflow's store cannot be opened"
        raise destination.refusal(f"{silent}: {reason_of(error, destination.uri)}") from None


def _open_experiment(destination: Destination) -> Experiment:
    bypass_proxies()
    uri, artifacts = destination.uri, destination.artifacts
    file = database_file(uri)
    if file is not None:
        _make_store(destination, file)
        update_addresses(uri, artifacts)
    elif destination.is_database:
        # Connect first, because MLflow would retry for minutes before an error.
        address = engine_url(uri)
        create_engine(address, poolclass=NullPool, connect_args=connect_arguments(address)).connect().close()
        update_addresses(uri, artifacts)
    client = MlflowClient(engine_url(uri))
    experiment = client.get_experiment_by_name(destination.experiment)
    if experiment is None:
        local = None if destination.has_own_artifacts else file_url(artifacts)
        experiment_id = client.create_experiment(destination.experiment, local, _EXPERIMENT_TAGS)
    else:
        experiment_id = experiment.experiment_id
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment_id)
        for key, value in _EXPERIMENT_TAGS.items():  # missing in an experiment that the user created
            if key not in experiment.tags:
                client.set_experiment_tag(experiment_id, key, value)
    if file is not None:
        _remove_literal_folder(uri, file)
    return Experiment(destination, client, str(experiment_id))


def reason_of(error: Exception, uri: str = "") -> str:
    """Returns the message of an error of MLflow or its database in one line, without passwords of the address."""
    line = first_line(error, skipping="(raised as a result of ")  # SQLAlchemy's hint
    if (meaning := sqlite_meaning(re.sub(r"^\(sqlite3\.\w+\) ", "", line))) is not None:
        line = f"its database {meaning}" if meaning.startswith(("is ", "cannot ")) else meaning
    return hide_passwords(line, uri)[:300]


def outage_of(error: Exception, destination: Destination) -> str:
    """Describes an outage as a clause: a server stopped responding, or files cannot be written."""
    is_of_files = type(error) is OSError or isinstance(error, _FILE_ERRORS)
    reason = reason_of(error, destination.uri)
    if is_of_files or not destination.is_server:
        return f"MLflow's store cannot be written ({reason})"
    return f"MLflow stopped responding ({reason})"


def _remove_literal_folder(uri: str, file: Path) -> None:
    """Removes the empty folder that MLflow creates from a URL without decoding its percent signs."""
    literal = Path(uri.removeprefix("sqlite:///")).parent
    if literal != file.parent:
        with suppress(OSError):  # missing or not empty
            for folder in (literal, *literal.parents):
                folder.rmdir()


def _make_store(destination: Destination, path: Path) -> None:
    """Creates a SQLite store atomically, because MLflow cannot complete a partly created schema."""
    if path.exists():
        return
    if not path.parent.is_dir():
        raise destination.refusal(f"folder {path.parent} does not exist")
    with FileLock(path.with_name(f"{path.name}.lock")):
        unfinished = path.with_name(f"{path.name}.unfinished")
        for stale in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
            stale.unlink(missing_ok=True)
        if not path.exists():
            unfinished.touch()  # with default permissions, which may include a group; SQLite's are narrower
            MlflowClient(sqlite_url(unfinished)).search_experiments(max_results=1)
            unfinished.replace(path)
