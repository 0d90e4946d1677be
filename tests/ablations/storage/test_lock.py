from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from ablations.common.errors import SuiteError
from ablations.storage.lock import PostgresLock, claimed, lock_of
from tests.servers import Cluster

STUDY = "groups-digits-resnet8"
# Locks a study until it is killed.
HOLD = """
import sys, time
from pathlib import Path
from ablations.storage.lock import claimed
with claimed(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""
HOLD_WITH_CHILD = HOLD.replace(
    "    time.sleep",
    """
    import os
    if not os.fork():
        print(os.getpid(), flush=True)
    time.sleep""",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'optuna.db'}"
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.new_database()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / STUDY


@contextmanager
def held_elsewhere(folder: Path, storage: str, program: str = HOLD) -> Iterator[subprocess.Popen[str]]:
    """Locks a study in another process."""
    with subprocess.Popen(
        [sys.executable, "-c", program, folder, storage], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_the_error_of_a_second_driver_names_the_holder(folder: Path, storage: str) -> None:
    with held_elsewhere(folder, storage) as process, pytest.raises(SuiteError) as caught, claimed(folder, storage):
        pass
    text = str(caught.value)
    assert text.startswith(f"study={STUDY}: is locked by another process: ")
    assert f"process {process.pid} on {socket.gethostname()[:30]}, since 20" in text


def test_the_lock_of_a_killed_driver_is_free_at_once(folder: Path, storage: str) -> None:
    for _ in range(5):
        with held_elsewhere(folder, storage) as process:
            process.send_signal(signal.SIGKILL)
            process.wait()
            with claimed(folder, storage):
                pass


def test_the_lock_is_free_after_the_driver_ends(folder: Path, storage: str) -> None:
    for _ in range(2):
        with claimed(folder, storage):
            pass


def test_studies_in_one_database_are_locked_independently(folder: Path, storage: str) -> None:
    with claimed(folder, storage), claimed(folder.with_name("another"), storage):
        pass


def test_a_child_that_outlives_its_killed_driver_does_not_keep_the_lock(folder: Path, storage: str) -> None:
    with held_elsewhere(folder, storage, HOLD_WITH_CHILD) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            with pytest.raises(SuiteError, match=f"process {process.pid} on"), claimed(folder, storage):
                pass
            process.send_signal(signal.SIGKILL)
            process.wait()
            with claimed(folder, storage):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("content", ["", "{", '{"host": "x"}', "[1]", "\0" * 99])
def test_a_lock_file_with_invalid_content_is_still_a_lock(folder: Path, content: str) -> None:
    storage = f"sqlite:///{folder.parent / 'optuna.db'}"
    path = folder.parent / f".{STUDY}.lock"
    path.write_text(content)
    with claimed(folder, storage):
        assert json.loads(path.read_text())["process"] == os.getpid()
        path.write_text(content)
        with pytest.raises(SuiteError, match=r"is locked by another process$"):
            lock_of(folder, storage).take()


def test_a_folder_in_place_of_the_lock_file_is_a_single_message(folder: Path) -> None:
    (folder.parent / f".{STUDY}.lock").mkdir()
    storage = f"sqlite:///{folder.parent / 'optuna.db'}"
    with (
        pytest.raises(SuiteError, match=r"storage=.*: cannot be written: Is a directory \(.*\.lock\)"),
        ExitStack() as s,
    ):
        s.enter_context(claimed(folder, storage))


def test_a_database_without_locks_has_a_caveat(folder: Path) -> None:
    with claimed(folder, "mysql://me:secret@host/db") as lock:
        assert "mysql://me:***@host/db does not lock a study against a second run" in lock.caveat


@pytest.fixture
def lock(cluster: Cluster, folder: Path) -> Iterator[PostgresLock]:
    lock = lock_of(folder, cluster.new_database())
    assert isinstance(lock, PostgresLock)
    lock.take()
    yield lock
    lock.release()


def drop_sessions(cluster: Cluster) -> None:
    cluster.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ablations%'")


def test_a_lost_lock_is_acquired_again(cluster: Cluster, lock: PostgresLock) -> None:
    drop_sessions(cluster)
    lock.keep()
    held = cluster.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert held == [(1,)]


def test_a_lost_lock_is_acquired_again_after_the_server_restarts(cluster: Cluster, lock: PostgresLock) -> None:
    cluster.stop()
    try:
        with pytest.raises(OperationalError):
            lock.keep()
    finally:
        cluster.start()
    lock.keep()
    assert cluster.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(1,)]


def test_a_lost_lock_that_another_driver_acquired_is_an_error(cluster: Cluster, folder: Path) -> None:
    storage = cluster.new_database()
    lock = lock_of(folder, storage)
    lock.take()
    drop_sessions(cluster)
    with held_elsewhere(folder, storage) as process, pytest.raises(SuiteError, match=f"process {process.pid} on"):
        lock.keep()
    lock.release()


def test_a_lost_session_that_is_still_open_on_the_server_is_terminated(cluster: Cluster, lock: PostgresLock) -> None:
    # As after a network outage: the client knows that the connection is lost, the server does not.
    lost = lock._session
    assert lost is not None
    lock._session = None
    lock.keep()
    assert cluster.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(1,)]
    with pytest.raises(OperationalError):
        lost.exec_driver_sql("SELECT 1")
    lost.invalidate()


def test_the_server_detects_a_lost_machine_within_about_a_minute(lock: PostgresLock) -> None:
    session = lock._session
    assert session is not None
    settings = [
        session.exec_driver_sql(f"SHOW tcp_keepalives_{name}").scalar() for name in ("idle", "interval", "count")
    ]
    assert settings == ["20", "10", "3"]
