"""The folder of a study's results, and the stores beside it."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from ablations.config import Config
from ablations.errors import UsageError


def study_folder(config: Config) -> Path:
    """Returns `results_dir/<study>`.

    Raises:
        UsageError: if the study's name is no name of a folder.
    """
    if not re.fullmatch(r"[\w][\w.+=-]*", config.study):
        raise UsageError("study", config.study, "is no name for a folder; letters, digits, '-', '_' and '.' are")
    return Path(config.results_dir) / config.study


def storage_url(config: Config) -> str:
    """Returns the URL of Optuna's database."""
    return config.storage or f"sqlite:///{Path(config.results_dir) / 'optuna.db'}"


def tracking_uri(config: Config) -> str:
    """Returns MLflow's tracking URI."""
    return config.tracking.uri or f"sqlite:///{Path(config.results_dir) / 'mlflow.db'}"


def claim_folder(folder: Path) -> FileLock:
    """Makes a study's folder and holds it, so that a study has one driver; the kernel lets go when the process ends.

    Raises:
        UsageError: if the folder cannot be written, or another process holds it.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        lock.acquire()
    except Timeout:
        raise UsageError("study", folder.name, "is being run by another process, which is its only writer") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError("results_dir", folder.parent, f"cannot be written: {reason}") from None
    return lock
