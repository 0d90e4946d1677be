"""Who runs a study: one driver at a time, on whichever machine, and everybody else is told which.

| database   | what is held                                      | who is kept out                          |
| SQLite     | a lock on a file beside the database              | whoever can reach the file               |
| PostgreSQL | an advisory lock of a session of its own          | whoever can reach the server             |
| others     | a lock on a file in the study's folder            | whoever has the same `results_dir`       |

All of them end with the process, however that ends: the kernel lets go of the file, and closes the session's socket. A
machine that vanished is noticed by the server's keepalives, within about a minute. Nothing is ever left to clean up.
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
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ablations.common.errors import UsageError
from ablations.common.urls import hide_passwords
from ablations.storage.folder import make_folder

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_FAREWELL = 3.0  # seconds that a server may take to notice that a process is gone
_DESCRIPTORS: set[int] = set()  # of locks and sessions that this process holds


def _let_go_in_child() -> None:
    # A child that outlives the driver would keep its lock; and one that ends would end its session.
    if _DESCRIPTORS:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in _DESCRIPTORS:
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
        _DESCRIPTORS.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


@dataclass(frozen=True)
class Holder:
    """Who holds a study: host, process, and since when."""

    host: str
    process: int
    since: str

    @classmethod
    def here(cls) -> Holder:
        """Returns this process, from now on."""
        return cls(socket.gethostname(), os.getpid(), _time(datetime.now()))

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


def _time(moment: datetime) -> str:
    return moment.astimezone().isoformat(" ", "seconds")


def _refusal(study: str, holder: Holder | None) -> UsageError:
    who = f": {holder}" if holder else ""
    return UsageError("study", study, f"is being run by another process, which is its only writer{who}")


class Lock(Protocol):
    """Holds a study."""

    caveat: str

    def take(self) -> None:
        """Takes the lock; raises UsageError if another process has it, or nobody can be asked."""

    def keep(self) -> None:
        """Makes sure that the lock is still held; raises UsageError if another process has it by now."""

    def release(self) -> None:
        """Lets go."""


class FileLock:
    """A lock on a file, in which stands who holds it.

    Args:
        path: of the file; it stays there.
        study: what is held.
        option: what the user has to mend where the file cannot be written.
        caveat: what this does not guard against; empty where it is enough.
    """

    def __init__(self, path: Path, study: str, option: tuple[str, object], caveat: str = "") -> None:
        self._path, self._study, self._option, self.caveat = path, study, option, caveat
        self._descriptor: int | None = None

    def take(self) -> None:
        """Takes the lock, and writes down who has it.

        Raises:
            UsageError: if another process holds it, or the file cannot be written.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._explain(error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _refusal(self._study, self._holder()) from None
        except OSError as error:
            os.close(descriptor)
            raise self._explain(error) from None
        self._descriptor = descriptor
        _DESCRIPTORS.add(descriptor)
        with suppress(OSError):  # on a full disk the lock holds without it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(vars(Holder.here())).encode(), 0)

    def keep(self) -> None:
        """Does nothing: the kernel keeps it as long as the process lives."""

    def release(self) -> None:
        """Lets go."""
        if self._descriptor is not None:
            _DESCRIPTORS.discard(self._descriptor)
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def _holder(self) -> Holder | None:
        try:
            return Holder(**json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):  # half written, or not by us
            return None

    def _explain(self, error: OSError) -> UsageError:
        reason = f"cannot be written: {error.strerror or error} ({self._path})"
        return UsageError(*self._option, reason)


class PostgresLock:
    """An advisory lock of PostgreSQL, on a connection of its own whose name says who holds it.

    It needs a session: a pooler between here and the server has to pool by session.

    Args:
        url: of the database.
        study: what is held.
    """

    caveat = ""

    def __init__(self, url: str, study: str) -> None:
        self._url, self._study = url, study
        # A number of 64 bits from the name: the same on every machine and under every version of Python.
        self._key = int.from_bytes(sha256(f"ablations:{study}".encode()).digest()[:8], "big", signed=True)
        # PostgreSQL keeps 63 bytes of a session's name; the token tells our own lost session from others.
        host = socket.gethostname().encode("ascii", "replace").decode()[:30].replace(" ", "-")
        self._name = f"ablations {host} {os.getpid()} {uuid.uuid4().hex[:8]}"
        self._engine: Engine | None = None
        self._session: Connection | None = None
        self._descriptor: int | None = None

    def take(self) -> None:
        """Takes the lock.

        Raises:
            UsageError: if another process holds it, or the server does not answer.
        """
        from ablations.storage.database import explained

        with explained(self._url):
            self._connect()

    def keep(self) -> None:
        """Makes sure that the lock is held, and takes it anew where the session was lost.

        Raises:
            UsageError: if another process has it by now.
            SQLAlchemyError: if the server does not answer.
        """
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        if self._session is not None:
            try:
                self._session.execute(text("SELECT 1"))
                return
            except SQLAlchemyError:
                self._drop()
        self._connect()

    def release(self) -> None:
        """Ends the session, and with it the lock."""
        self._drop()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _connect(self) -> None:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        from ablations.storage.database import connect_arguments, engine_url

        if self._engine is None:
            url = engine_url(self._url)
            self._engine = create_engine(
                url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=connect_arguments(url)
            )
        self._session = self._engine.connect()
        try:
            self._introduce(self._session)
            self._acquire(self._session)
        except BaseException:
            self._drop()
            raise

    def _introduce(self, session: Connection) -> None:
        from sqlalchemy import text

        from ablations.storage.database import KEEPALIVES

        settings = {"application_name": self._name, "idle_session_timeout": "0"}
        settings |= {f"tcp_keepalives_{name}": str(value) for name, value in KEEPALIVES.items()}
        known = set(session.execute(text("SELECT name FROM pg_settings")).scalars())
        for name, value in settings.items():
            if name in known:  # idle_session_timeout came with PostgreSQL 14
                session.execute(text("SELECT set_config(:name, :value, false)"), {"name": name, "value": value})
        driver = session.connection.driver_connection
        with suppress(AttributeError):  # a driver that does not say which socket it uses
            self._descriptor = driver.fileno()  # type: ignore[union-attr]
            _DESCRIPTORS.add(self._descriptor)

    def _acquire(self, session: Connection) -> None:
        from sqlalchemy import text

        deadline = time.monotonic() + _FAREWELL
        while not session.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}).scalar():
            held = session.execute(
                text(
                    "SELECT a.pid, a.application_name, a.backend_start FROM pg_locks l "
                    "LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
                    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
                    "AND (l.classid::bigint << 32) | l.objid::bigint = :key "
                    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                ),
                {"key": self._key},
            ).first()
            name = held.application_name if held else None
            if held and name == self._name:
                # Our own session, lost on the way, of which the server has not heard yet that nobody is there.
                session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": held.pid})
            elif held and not self._is_leaving(name):
                raise _refusal(self._study, _holder_of(name, held.backend_start))
            if time.monotonic() > deadline:
                raise _refusal(self._study, _holder_of(name, held.backend_start if held else None))
            time.sleep(0.05)

    def _is_leaving(self, name: str | None) -> bool:
        """Whether a session is that of a process of this machine that is gone: the server hears of it in a moment."""
        holder = _holder_of(name, None)
        return holder is not None and holder.host == self._name.split()[1] and not _is_alive(holder.process)

    def _drop(self) -> None:
        if self._descriptor is not None:
            _DESCRIPTORS.discard(self._descriptor)
            self._descriptor = None
        if self._session is not None:
            with suppress(Exception):  # it may be broken
                self._session.invalidate()
            with suppress(Exception):
                self._session.close()
            self._session = None


def _holder_of(name: str | None, since: datetime | None) -> Holder | None:
    """Reads a session's name; None where it is not to be seen, as other users' are not, or not one of ours."""
    words = (name or "").split()
    if len(words) < 3 or words[0] != "ablations" or not words[2].isdecimal():
        return None
    return Holder(words[1], int(words[2]), _time(since) if since else "")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def lock_of(folder: Path, storage: str) -> Lock:
    """Returns what holds the study whose folder is `folder` in the database at `storage`, which may be empty."""
    inside = ("results_dir", folder.parent)
    if not storage:
        return FileLock(folder / ".lock", folder.name, inside)
    if storage.startswith("postgresql"):
        return PostgresLock(storage, folder.name)
    if storage.startswith("sqlite"):
        from ablations.storage.database import database_file

        database = database_file(storage)
        if database is not None and database.parent.is_dir():
            path = database.with_name(f".{folder.name}.lock")
            return FileLock(path, folder.name, ("storage", hide_passwords(storage)))
        return FileLock(folder / ".lock", folder.name, inside)
    caveat = (
        f"In {hide_passwords(storage)} nothing keeps a second run of this study out that has another results_dir; "
        "SQLite and PostgreSQL do."
    )
    return FileLock(folder / ".lock", folder.name, inside, caveat)


@contextmanager
def claimed(folder: Path, storage: str) -> Iterator[Lock]:
    """Makes a study's folder and holds the study, so that it has one driver.

    Raises:
        UsageError: if the folder cannot be written, or another process holds the study, or the server that would say
            so does not answer.
    """
    make_folder(folder)
    lock = lock_of(folder, storage)
    lock.take()
    try:
        yield lock
    finally:
        lock.release()
