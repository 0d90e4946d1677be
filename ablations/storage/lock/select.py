"""Which lock holds a study, and holding it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablations.common.urls import hide_passwords
from ablations.storage.lock.base import Lock
from ablations.storage.lock.file import StudyFileLock
from ablations.storage.paths import make_folder


def lock_of(folder: Path, storage: str) -> Lock:
    """Returns what holds the study whose folder is `folder` in the database at `storage`, which may be empty."""
    path, option, caveat = folder / ".lock", ("results_dir", str(folder.parent)), ""
    if storage.startswith("postgresql"):
        from ablations.storage.lock.postgres import PostgresLock

        return PostgresLock(storage, folder.name)
    if storage.startswith("sqlite"):
        from ablations.storage.database import database_file

        database = database_file(storage)
        if database is not None and database.parent.is_dir():
            path, option = database.with_name(f".{folder.name}.lock"), ("storage", hide_passwords(storage))
    elif storage:
        caveat = (
            f"In {hide_passwords(storage)} nothing keeps a second run of this study out that has another results_dir; "
            "SQLite and PostgreSQL do."
        )
    return StudyFileLock(path, folder.name, option, caveat)


@contextmanager
def claimed(folder: Path, storage: str) -> Iterator[Lock]:
    """Makes a study's folder and holds the study, so that it has one driver.

    Raises:
        StorageError: if the folder cannot be written, or another process holds the study, or the server that would say
            so does not answer.
    """
    make_folder(folder)
    lock = lock_of(folder, storage)
    lock.take()
    try:
        yield lock
    finally:
        lock.release()
