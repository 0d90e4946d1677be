"""The folder of a study's results, and the stores beside it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from unicodedata import category, normalize

from ablations.common.errors import UsageError
from ablations.common.files import check_path, refusals_explained, user_path
from ablations.common.urls import sqlite_url
from ablations.config import Config
from ablations.storage.database import check_url, database_file

# Ends the message if a study cannot be written.
GO_ON = "; once this is resolved, the same command resumes the study"
ARTIFACTS = "mlflow-artifacts"  # MLflow's folder in the folder of all results
EXPORTS_FOLDER = "export"  # in a study's folder
_RESERVED = ("reference", ARTIFACTS)
_LONGEST = 200  # bytes of a folder name; most file systems allow 255, and names of locks and copies are longer
_DEVICES = re.compile("con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)


def study_folder(config: Config) -> Path:
    """Returns `results_dir/<study>`; raises UsageError if the name is not a valid folder name on every system."""
    name = config.study
    letters = "".join(sign for sign in name if not category(sign).startswith("M"))  # combining marks
    if len(name) > 100 or not re.fullmatch(r"\w[\w.+=-]*", letters):
        reason = "invalid study name: use up to 100 letters, digits, '-', '_', '.'"
        raise UsageError("study", name, reason)
    if len(name.encode()) > _LONGEST:
        raise UsageError("study", name, f"is too long: {len(name.encode())} bytes, at most {_LONGEST} are allowed")
    if name.endswith(".") or _DEVICES.fullmatch(name.partition(".")[0]):
        raise UsageError("study", name, "is not a valid folder name on Windows; choose another name")
    if name.casefold() in _RESERVED:
        raise UsageError("study", name, "is reserved; choose another name")
    return results_folder(config) / name


def results_folder(config: Config) -> Path:
    """Returns the folder of all studies."""
    if not config.results_dir.strip():
        raise UsageError("results_dir", None, "must not be empty")
    folder = user_path("results_dir", config.results_dir)
    check_path("results_dir", folder)
    return folder


def storage_url(config: Config) -> str:
    """Returns the URL of Optuna's database; raises as `check_url`, and UsageError if its folder is missing."""
    if not config.storage:
        return own_database(config, "optuna.db")
    check_url("storage", config.storage)
    file = database_file(config.storage)
    if file is not None and not file.parent.is_dir():
        raise UsageError("storage", config.storage, f"folder {file.parent} does not exist")
    return config.storage


def reference_url(config: Config) -> str:
    """Returns the URL of the database of the committed reference results."""
    return own_database(config, "reference/optuna.db")


def make_folder(folder: Path) -> None:
    """Creates a study's folder.

    Raises:
        UsageError: if it cannot be written, is another study's folder, or its path has a broken symbolic link.
    """
    for place in (*reversed(folder.parents), folder):
        if place.is_symlink() and not place.exists():
            reason = f"{place} is a broken symbolic link to {place.readlink()}"
            raise UsageError("results_dir", folder.parent, reason)
    with refusals_explained("results_dir", folder.parent, GO_ON):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "figures"):
            pass
        entries = [entry.name for entry in folder.parent.iterdir()]
    # Many file systems ignore case and Unicode normalization.
    alike = [name for name in entries if name != folder.name and _folded(name) == _folded(folder.name)]
    for name in alike:
        if (folder.parent / name).exists() and (folder.parent / name).samefile(folder):
            reason = f"has the same folder as the study {name} on this file system; choose another name"
            raise UsageError("study", folder.name, reason)


def _folded(name: str) -> str:
    return normalize("NFC", name).casefold()


def own_database(config: Config, name: str) -> str:
    """Returns the URL of a SQLite file in `results_dir`; raises UsageError if its path cannot be in a URL."""
    try:
        return sqlite_url(results_folder(config) / name)
    except ValueError as error:
        raise UsageError("results_dir", config.results_dir, f"cannot be part of a database URL: {error}") from None
