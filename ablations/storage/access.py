"""Access to Optuna's database: opening it, and retrying while it does not respond."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.storages import RDBStorage
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ablations.storage.database import backend, cause, check_url, connect_arguments, database_file, engine_url, explain
from ablations.storage.errors import StorageError

_T = TypeVar("_T")

PATIENCE = 300.0  # seconds of retrying while a database does not respond
_LONGEST_PAUSE = 10.0  # seconds between two attempts


def study_names(url: str) -> list[str]:
    """Returns the names of all studies in a database, none if a SQLite file is missing; creates nothing."""
    file = database_file(url)
    if file is not None and (is_empty(file) or not file.is_file()):
        return []
    return reached(url, optuna.get_all_study_names)


def is_empty(file: Path) -> bool:
    """Whether a file exists and is empty."""
    return file.is_file() and not file.stat().st_size


def reached(url: str, action: Callable[[RDBStorage], _T]) -> _T:
    """Returns the result of `action` on a database; raises StorageError if it cannot be reached."""
    check_url("storage", url)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        address = engine_url(url)
        connect = connect_arguments(address)
        # Optuna formats the URL as a template, so braces are doubled.
        template = re.sub("[{}]", r"\g<0>\g<0>", address)
        return action(RDBStorage(template, engine_kwargs={"connect_args": connect, "pool_pre_ping": True}))
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError, RuntimeError, ValueError) as error:
        raise explain(url, error) from None


class Persistence:
    """Reads and writes a database, retrying for some minutes while it does not respond.

    Args:
        guard: called before each write; raises if another process may write.
        notify: shows a message to the user while waiting.

    Raises:
        StorageError: from `read` and `write`, if the database fails or does not respond for minutes.
    """

    def __init__(
        self, url: str, guard: Callable[[], None] | None = None, notify: Callable[[str], None] = print
    ) -> None:
        self._url, self._guard, self._notify = url, guard, notify

    def read(self, action: Callable[[], _T]) -> _T:
        """Returns the result of `action`."""
        return self._persist(lambda _: action(), None)

    def write(self, action: Callable[[bool], _T]) -> _T:
        """Returns the result of `action`, whose argument is True on a retry: it may have succeeded before."""
        return self._persist(action, self._guard)

    def _persist(self, action: Callable[[bool], _T], guard: Callable[[], None] | None) -> _T:
        deadline: float | None = None
        pause = 0.5
        while True:
            try:
                if guard is not None:
                    guard()
                result = action(deadline is not None)
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                if not _is_passing(self._url, error):
                    raise explain(self._url, error) from None
                if deadline is None:
                    deadline = time.monotonic() + PATIENCE
                    silent = "is locked by another program" if backend(self._url) == "sqlite" else "does not respond"
                    self._notify(
                        f"The study's database {silent} ({cause(self._url, error)}); retrying for {PATIENCE / 60:.0f} "
                        "minutes, pending results are kept."
                    )
                if time.monotonic() > deadline:
                    known = explain(self._url, error)
                    reason = (
                        f"{known.reason}; stored results are kept, and the same command resumes once the "
                        "database responds"
                    )
                    raise StorageError("storage", known.value, reason) from None
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if deadline is not None:
                    self._notify("The study's database responds again.")
                return result


def _is_passing(url: str, error: BaseException) -> bool:
    """Whether an error may be temporary: a restarting server, or a file that another process has locked."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, (DBAPIError, PoolTimeoutError)):
        found = found.__cause__
    if isinstance(found, DBAPIError):
        if backend(url) == "sqlite":
            return "database is locked" in str(found.orig)
        return found.connection_invalidated or isinstance(found, (OperationalError, InterfaceError))
    return found is not None
