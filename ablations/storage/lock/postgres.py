"""The advisory lock of PostgreSQL, which a session of its own holds; it takes SQLAlchemy to be imported."""

from __future__ import annotations

import os
import socket
import time
import uuid
from contextlib import suppress
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ablations.storage.database import KEEPALIVES, connect_arguments, engine_url, explain
from ablations.storage.lock.base import DESCRIPTORS, Holder, refusal, time_text

_FAREWELL = 3.0  # seconds that a server may take to notice that a process is gone


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
            StorageError: if another process holds it, or the server does not answer.
        """
        try:
            self._connect()
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise explain(self._url, error) from None

    def keep(self) -> None:
        """Makes sure that the lock is held, and takes it anew where the session was lost.

        Raises:
            StudyInUseError: if another process has it by now.
            SQLAlchemyError: if the server does not answer.
        """
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
        settings = {"application_name": self._name, "idle_session_timeout": "0"}
        settings |= {f"tcp_keepalives_{name}": str(value) for name, value in KEEPALIVES.items()}
        known = set(session.execute(text("SELECT name FROM pg_settings")).scalars())
        for name, value in settings.items():
            if name in known:  # idle_session_timeout came with PostgreSQL 14
                session.execute(text("SELECT set_config(:name, :value, false)"), {"name": name, "value": value})
        driver = session.connection.driver_connection
        with suppress(AttributeError):  # a driver that does not say which socket it uses
            self._descriptor = driver.fileno()  # type: ignore[union-attr]
            DESCRIPTORS.add(self._descriptor)

    def _acquire(self, session: Connection) -> None:
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
                raise refusal(self._study, _holder_of(name, held.backend_start))
            if time.monotonic() > deadline:
                raise refusal(self._study, _holder_of(name, held.backend_start if held else None))
            time.sleep(0.05)

    def _is_leaving(self, name: str | None) -> bool:
        """Whether a session is that of a process of this machine that is gone: the server hears of it in a moment."""
        holder = _holder_of(name, None)
        return holder is not None and holder.host == self._name.split()[1] and not _is_alive(holder.process)

    def _drop(self) -> None:
        if self._descriptor is not None:
            DESCRIPTORS.discard(self._descriptor)
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
    return Holder(words[1], int(words[2]), time_text(since) if since else "")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
