"""The folder of a study's results, and the stores beside it."""

from __future__ import annotations

import re
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

from ablations.common.errors import UsageError
from ablations.common.files import refusals_explained, user_path
from ablations.config import Config
from ablations.storage.database import check_url, database_file

# Where a study cannot be written: what follows the reason.
GO_ON = "; once it can be, the same command goes on with what is stored"
ARTIFACTS = "mlflow-artifacts"  # folder of MLflow's files in that of all results
_RESERVED = ("reference", ARTIFACTS)
# What MLflow keeps runs in.
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https", "file", "databricks", "databricks-uc", "uc")


def study_folder(config: Config) -> Path:
    """Returns `results_dir/<study>`; raises UsageError if the study's name is no name of a folder."""
    if not re.fullmatch(r"\w[\w.+=-]{0,99}", config.study):
        reason = "is no name for a folder; up to 100 letters, digits, '-', '_' and '.' are"
        raise UsageError("study", config.study, reason)
    if config.study in _RESERVED:
        raise UsageError("study", config.study, "is the name of a folder of the suite's own")
    return results_folder(config) / config.study


def results_folder(config: Config) -> Path:
    """Returns the folder of all studies."""
    if not config.results_dir.strip():
        raise UsageError("results_dir", None, "needs the name of a folder")
    return user_path("results_dir", config.results_dir)


def artifacts_folder(config: Config, name: str) -> Path:
    """Returns the folder of the artifacts of a study or benchmark, where MLflow's store is a database of our own."""
    return results_folder(config) / ARTIFACTS / name


def storage_url(config: Config) -> str:
    """Returns the URL of Optuna's database; raises what `check_url` does, and UsageError if its folder is missing."""
    if not config.storage:
        return f"sqlite:///{results_folder(config) / 'optuna.db'}"
    check_url("storage", config.storage)
    file = database_file(config.storage)
    if file is not None and not file.parent.is_dir():
        raise UsageError("storage", config.storage, f"there is no folder {file.parent}")
    return config.storage


def tracking_uri(config: Config) -> str:
    """Returns MLflow's tracking URI; raises UsageError if MLflow knows none of its kind, or what `check_url` does."""
    uri = config.tracking.uri
    if not uri:
        return f"sqlite:///{results_folder(config) / 'mlflow.db'}"
    scheme, is_url, _ = uri.partition("://")
    if scheme.partition("+")[0] in _DATABASES:
        check_url("tracking.uri", uri)
    elif is_url and scheme not in (*_SERVERS, *(one.name for one in entry_points(group="mlflow.tracking_store"))):
        kinds = [f"{one}://" for one in (*_DATABASES, "http", "https", "file")]
        raise UsageError("tracking.uri", uri, "is of no kind that MLflow knows", kinds)
    return uri


def make_folder(folder: Path) -> None:
    """Makes a study's folder; raises UsageError if it cannot be written, or a link on the way leads nowhere."""
    for place in (*reversed(folder.parents), folder):
        if place.is_symlink() and not place.exists():
            reason = f"{place} is a symbolic link to {place.readlink()}, which is not there"
            raise UsageError("results_dir", folder.parent, reason)
    with refusals_explained("results_dir", folder.parent, GO_ON):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "figures"):
            pass
