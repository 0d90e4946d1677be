"""Databases of studies: connection settings, and explanations of errors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ablations.common.files import check_path
from ablations.common.urls import hide_passwords
from ablations.common.wording import first_line
from ablations.storage.errors import StorageError

# Either end detects a lost machine within about a minute.
KEEPALIVES = {"keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3}
_POSTGRESQL = {"connect_timeout": 10, "keepalives": 1, **KEEPALIVES}
_CONNECT = {
    "sqlite": {"timeout": 60},
    "postgresql": {"connect_timeout": 10},
    "postgresql+psycopg2": _POSTGRESQL,
    "postgresql+psycopg": _POSTGRESQL,
    "mysql": {"connect_timeout": 10},
}
_DRIVERS = ("psycopg2", "psycopg")  # for PostgreSQL, in order of preference

# SQLite's messages about a file, with explanations for the user.
_GO_ON = "the same command resumes the study"
_ANEW = "restore a backup, or move the file away to start a new one"
_SQLITE = {
    "disk is full": f"the disk is full; free some space, then {_GO_ON}",
    "disk I/O error": f"disk I/O error ({{cause}}); once it is resolved, {_GO_ON}",
    "readonly database": "cannot be written ({cause}); check the permissions of the file and its folder, then "
    f"{_GO_ON}",
    "unable to open database": "cannot be opened ({cause}); the file and its folder must be writable",
    "not a database": f"is damaged or not a SQLite database ({{cause}}); {_ANEW}",
    "malformed": f"is damaged ({{cause}}); {_ANEW}",
    "no such table": f"is damaged or not an Optuna database ({{cause}}); {_ANEW}",
}


def engine_url(url: str) -> str:
    """Adds an installed driver to a PostgreSQL URL without one.

    SQLAlchemy's default, psycopg2 or psycopg, depends on its version and may not be installed.
    """
    if url.startswith("postgresql://"):
        for driver in _DRIVERS:
            if find_spec(driver):
                return url.replace("postgresql://", f"postgresql+{driver}://", 1)
    return url


def check_url(option: str, url: str) -> None:
    """Checks a database URL without connecting, so that nothing is created for an invalid one.

    Raises:
        StorageError: if it is not the URL of a persistent database, or the database driver is not installed.
    """
    try:
        parsed = make_url(engine_url(url))
        parsed.get_dialect().import_dbapi()
    except (ArgumentError, ValueError, ImportError) as error:
        raise explain(url, error, option) from None
    if parsed.get_backend_name() != "sqlite":
        return
    if not all("=" in part for part in url.partition("?")[2].split("&") if part):
        raise StorageError(option, url, "contains a '?', which starts the query of a URL; write %3F in a path")
    file = database_file(url)
    if file is None:
        raise StorageError(option, url, "an in-memory database is not persistent; give a file path")
    check_path(option, file)


def connect_arguments(url: str) -> dict[str, Any]:
    """Returns the arguments of a connection: timeouts and keepalives."""
    parsed = make_url(url)
    chosen = _CONNECT.get(parsed.drivername, _CONNECT.get(parsed.get_backend_name(), {}))
    # Arguments in the URL have priority.
    return {name: value for name, value in chosen.items() if name not in parsed.query}


def backend(url: str) -> str:
    """Returns `sqlite`, `postgresql`, ...; empty if the URL is invalid."""
    try:
        return make_url(url).get_backend_name()
    except (ArgumentError, ValueError):  # ValueError if the port is not a number
        return ""


def database_file(url: str) -> Path | None:
    """Returns the file of a SQLite database, None for any other."""
    name = make_url(url).database if backend(url) == "sqlite" else None
    return Path(name) if name and name != ":memory:" else None


def cause(url: str, error: BaseException) -> str:
    """Returns the first line of the root cause, without the URL's password."""
    while error.__cause__ is not None:
        error = error.__cause__
    return hide_passwords(first_line(error), url)


def sqlite_meaning(reason: str) -> str | None:
    """Explains an error of SQLite to the user; None if it is unknown."""
    found = (meaning for said, meaning in _SQLITE.items() if said in reason)
    return next((meaning.replace("{cause}", reason) for meaning in found), None)


def explain(url: str, error: BaseException, option: str = "storage") -> StorageError:
    """Converts a database error to a message with cause and remedy; `option` is the option that has the URL."""
    shown, reason = hide_passwords(url), cause(url, error)
    if isinstance(error, ImportError):
        package = getattr(error.__cause__, "name", None) or error.name or "of the database driver"
        hint = ": pip install '.[postgresql]'" if package in _DRIVERS else ""
        return StorageError(option, shown, f"needs the Python package {package}, which is not installed{hint}")
    if isinstance(error, (ArgumentError, ValueError)):
        return StorageError(option, shown, "is not a valid database URL; use for example sqlite:///results/optuna.db")
    if backend(url) == "sqlite":
        file = database_file(url)
        if file is not None and not file.parent.is_dir():
            return StorageError(option, shown, f"folder {file.parent} does not exist; once it does, {_GO_ON}")
        return StorageError(option, shown, sqlite_meaning(reason) or f"cannot be read or written: {reason}")
    return StorageError(option, shown, f"the database does not respond: {reason}")
