"""Locks that allow one driver per study, on any machine; an error names the process that has the lock.

| database   | lock                                      | excludes processes with         |
| SQLite     | a lock on a file beside the database      | access to the file              |
| PostgreSQL | an advisory lock in a dedicated session   | access to the server            |
| others     | a lock on a file in the study's folder    | the same `results_dir`          |

Every lock ends with its process, even if it is killed: the kernel releases the file and closes the session's socket.
Keepalives detect a lost machine within about a minute. No lock needs cleaning up.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import psutil
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ablations.common.files import refusals_explained
from ablations.common.urls import hide_passwords
from ablations.storage.database import KEEPALIVES, connect_arguments, database_file, engine_url, explain
from ablations.storage.errors import StudyInUseError
from ablations.storage.paths import make_folder

_FAREWELL = 3.0  # seconds in which a server detects that a process has ended
_SESSION_OF_LOCK = text(
    "SELECT a.pid, a.application_name, a.backend_start FROM pg_locks l "
    "LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
    "AND (l.classid::bigint << 32) | l.objid::bigint = :key "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_DESCRIPTORS: set[int] = set()  # of this process's locks and sessions


def _let_go_in_child() -> None:
    # A child that outlives the driver would keep the lock, and one that exits would end the session.
    if _DESCRIPTORS:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in _DESCRIPTORS:
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
        _DESCRIPTORS.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def claimed(folder: Path, storage: str) -> Iterator[Lock]:
    """Creates a study's folder and locks the study, so that it has one driver.

    Raises:
        StorageError: if the folder cannot be written, another process has the lock, or the server does not respond.
    """
    make_folder(folder)
    lock = lock_of(folder, storage)
    lock.take()
    try:
        yield lock
    finally:
        lock.release()


def lock_of(folder: Path, storage: str) -> Lock:
    """Returns the lock of the study in `folder` and the database at `storage`, which may be empty."""
    path, option, caveat = folder / ".lock", ("results_dir", str(folder.parent)), ""
    if storage.startswith("postgresql"):
        return PostgresLock(storage, folder.name)
    if storage.startswith("sqlite"):
        database = database_file(storage)
        if database is not None and database.parent.is_dir():
            path, option = database.with_name(f".{folder.name}.lock"), ("storage", hide_passwords(storage))
    elif storage:
        caveat = (
            f"{hide_passwords(storage)} does not lock a study against a second run with another results_dir; SQLite "
            "and PostgreSQL do."
        )
    return StudyFileLock(path, folder.name, option, caveat)


class StudyFileLock:
    """A lock on a file that contains the holder's host and process.

    Args:
        path: the file, which is not deleted.
        study: the study's name.
        option: the option, with its value, to name in an error if the file cannot be written.
        caveat: limitation of this lock; empty if there is none.
    """

    def __init__(self, path: Path, study: str, option: tuple[str, str], caveat: str) -> None:
        self._path, self._study, self._option, self.caveat = path, study, option, caveat
        self._descriptor: int | None = None

    def take(self) -> None:
        """Acquires the lock and records the holder; raises StorageError if another process has it, or on failure."""
        with refusals_explained(*self._option, f" ({self._path})"):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if isinstance(error, BlockingIOError):
                    raise _refusal(self._study, self._holder()) from None
                raise
        self._descriptor = descriptor
        _DESCRIPTORS.add(descriptor)
        holder = _Holder(socket.gethostname(), os.getpid(), _time_text(datetime.now()))
        with suppress(OSError):  # the lock does not need the record, as on a full disk
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)

    def keep(self) -> None:
        """Does nothing: the kernel keeps the lock while the process runs."""

    def release(self) -> None:
        """Releases the lock."""
        if self._descriptor is not None:
            _DESCRIPTORS.discard(self._descriptor)
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def _holder(self) -> _Holder | None:
        try:
            return _Holder(**json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # incomplete, or of another program
            return None


class PostgresLock:
    """An advisory lock of PostgreSQL in a dedicated session, whose name identifies the holder.

    A connection pooler in between must use session pooling.
    """

    caveat = ""

    def __init__(self, url: str, study: str) -> None:
        self._url, self._study = url, study
        # 64 bits of a hash of the name, equal on all machines and Python versions.
        self._key = int.from_bytes(sha256(f"ablations:{study}".encode()).digest()[:8], "big", signed=True)
        # PostgreSQL keeps 63 bytes of a session's name; the token identifies a lost session of this process.
        self._host = socket.gethostname().encode("ascii", "replace").decode()[:30].replace(" ", "-")
        self._name = f"ablations {self._host} {os.getpid()} {uuid.uuid4().hex[:8]}"
        self._session: Connection | None = None
        self._descriptor: int | None = None

    def take(self) -> None:
        """Acquires the lock; raises StorageError if another process has it or the server does not respond."""
        try:
            self._connect()
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise explain(self._url, error) from None

    def keep(self) -> None:
        """Checks the lock, and acquires it again if the session was lost.

        Raises:
            StudyInUseError: if another process has acquired it.
            SQLAlchemyError: if the server does not respond.
        """
        if self._session is not None:
            try:
                self._session.execute(text("SELECT 1"))
                return
            except SQLAlchemyError:
                self.release()
        self._connect()

    def release(self) -> None:
        """Ends the session and so releases the lock."""
        if self._descriptor is not None:
            _DESCRIPTORS.discard(self._descriptor)
            self._descriptor = None
        if self._session is not None:
            with suppress(Exception):  # it may be broken
                self._session.invalidate()
            with suppress(Exception):
                self._session.close()
            self._session = None

    @cached_property
    def _engine(self) -> Engine:
        url = engine_url(self._url)
        arguments = connect_arguments(url)
        return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments)

    def _connect(self) -> None:
        self._session = self._engine.connect()
        try:
            self._introduce(self._session)
            self._acquire(self._session)
        except BaseException:
            self.release()
            raise

    def _introduce(self, session: Connection) -> None:
        # Only settings that the server has: idle_session_timeout was added in PostgreSQL 14.
        change = text("SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name")
        settings = {"application_name": self._name, "idle_session_timeout": "0"}
        settings |= {f"tcp_{name}": str(value) for name, value in KEEPALIVES.items()}
        for name, value in settings.items():
            session.execute(change, {"name": name, "value": value})
        driver = session.connection.driver_connection
        with suppress(AttributeError):  # a driver without access to its socket
            self._descriptor = driver.fileno()  # type: ignore[union-attr]
            _DESCRIPTORS.add(self._descriptor)

    def _acquire(self, session: Connection) -> None:
        deadline = time.monotonic() + _FAREWELL
        while not session.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}).scalar():
            held = session.execute(_SESSION_OF_LOCK, {"key": self._key}).first()
            holder = _holder_of(held.application_name, held.backend_start) if held else None
            # The session of an ended process on this machine, which the server will close shortly.
            is_leaving = holder is not None and holder.host == self._host and not psutil.pid_exists(holder.process)
            if held and held.application_name == self._name:
                # A lost session of this process, which the server has not closed yet.
                session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": held.pid})
            elif held and not is_leaving:
                raise _refusal(self._study, holder)
            if time.monotonic() > deadline:
                raise _refusal(self._study, holder)
            time.sleep(0.05)


Lock = StudyFileLock | PostgresLock


@dataclass(frozen=True)
class _Holder:
    host: str
    process: int
    since: str


def _holder_of(name: str | None, since: datetime | None) -> _Holder | None:
    """Parses a session's name; None if it is hidden, as for other users' sessions, or of another program."""
    words = (name or "").split()
    if len(words) < 3 or words[0] != "ablations" or not words[2].isdecimal():
        return None
    return _Holder(words[1], int(words[2]), _time_text(since) if since else "")


def _refusal(study: str, holder: _Holder | None) -> StudyInUseError:
    who = f": process {holder.process} on {holder.host}, since {holder.since}" if holder else ""
    return StudyInUseError("study", study, f"is locked by another process{who}")


def _time_text(moment: datetime) -> str:
    return moment.astimezone().isoformat(" ", "seconds")
