"""The folder of a study's results, and the stores beside it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablations.config import Config
from ablations.errors import UsageError

GO_ON = "once it can be, the same command goes on with what is stored"
_RESERVED = ("reference", "mlflow-artifacts")


def study_folder(config: Config) -> Path:
    """Returns `results_dir/<study>`.

    Raises:
        UsageError: if the study's name is no name of a folder.
    """
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
    return Path(config.results_dir).expanduser()


def storage_url(config: Config) -> str:
    """Returns the URL of Optuna's database."""
    return config.storage or f"sqlite:///{results_folder(config) / 'optuna.db'}"


def tracking_uri(config: Config) -> str:
    """Returns MLflow's tracking URI."""
    return config.tracking.uri or f"sqlite:///{results_folder(config) / 'mlflow.db'}"


@contextmanager
def refusals_explained(folder: Path) -> Iterator[None]:
    """Turns a failure to write into `folder` into a message.

    Raises:
        UsageError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}; {GO_ON}"
        raise UsageError("results_dir", error.filename or folder, reason) from None


def make_folder(folder: Path) -> None:
    """Makes a study's folder.

    Raises:
        UsageError: if it cannot be written.
    """
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "figures"):
            pass
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}; {GO_ON}"
        raise UsageError("results_dir", folder.parent, reason) from None
