"""Asking a database again that does not answer: a server that is being restarted, a file that another process holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import optuna
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ablations.storage.database import backend, cause, explain
from ablations.storage.errors import StorageError

_T = TypeVar("_T")

PATIENCE = 300.0  # seconds for which a database that does not answer is asked again
_LONGEST_PAUSE = 10.0  # seconds between two tries


def is_passing(url: str, error: BaseException) -> bool:
    """Whether an error may be gone in a moment: a server that is being restarted, a file that another process holds."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, (DBAPIError, PoolTimeoutError)):
        found = found.__cause__
    if found is None:
        return False
    if isinstance(found, PoolTimeoutError):
        return True
    if backend(url) == "sqlite":
        return "database is locked" in str(found.orig)
    kind = type(found.orig).__mro__
    return found.connection_invalidated or any(k.__name__ in ("OperationalError", "InterfaceError") for k in kind)


class Persistence:
    """Does what a database is asked for, again and again for some minutes where it does not answer.

    Args:
        url: of the database.
        guard: called before each write; it makes sure that nobody else may write.
        notify: tells people that they wait, and what for.
    """

    def __init__(
        self, url: str, guard: Callable[[], None] | None = None, notify: Callable[[str], None] = print
    ) -> None:
        self._url, self._guard, self._notify = url, guard, notify

    def read(self, action: Callable[[], _T]) -> _T:
        """Returns what `action` returns.

        Raises:
            StorageError: if the database fails, or does not answer for minutes.
        """
        return self._persist(lambda _: action(), None)

    def write(self, action: Callable[[bool], _T]) -> _T:
        """Returns what `action` returns, which gets whether it is tried again: it may have been done already then.

        Raises:
            StorageError: if the database fails, or does not answer for minutes, or somebody else is writing by now.
        """
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
                if not is_passing(self._url, error):
                    raise explain(self._url, error) from None
                if deadline is None:
                    deadline = time.monotonic() + PATIENCE
                    self._notify(
                        f"The study's database does not answer ({cause(self._url, error)}); it is asked again for "
                        f"{PATIENCE / 60:.0f} minutes, with what there is to store kept."
                    )
                if time.monotonic() > deadline:
                    known = explain(self._url, error)
                    reason = f"{known.reason}; what is stored stays, and the same command goes on once it answers"
                    raise StorageError("storage", known.value, reason) from None
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if deadline is not None:
                self._notify("The study's database answers again.")
            return result
