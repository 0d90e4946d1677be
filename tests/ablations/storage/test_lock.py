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
# Holds a study until it is killed.
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
    """Has another process hold a study."""
    with subprocess.Popen(
        [sys.executable, "-c", program, folder, storage], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_driver_is_told_who_holds_the_study(folder: Path, storage: str) -> None:
    with held_elsewhere(folder, storage) as process, pytest.raises(SuiteError) as caught, claimed(folder, storage):
        pass
    text = str(caught.value)
    assert text.startswith(f"study={STUDY}: is locked by another process: ")
    assert f"process {process.pid} on {socket.gethostname()[:30]}, since 20" in text


def test_a_study_whose_driver_was_killed_is_taken_over_at_once(folder: Path, storage: str) -> None:
    for _ in range(5):
        with held_elsewhere(folder, storage) as process:
            process.send_signal(signal.SIGKILL)
            process.wait()
            with claimed(folder, storage):
                pass


def test_a_study_is_free_when_its_driver_is_done(folder: Path, storage: str) -> None:
    for _ in range(2):
        with claimed(folder, storage):
            pass


def test_studies_of_one_database_do_not_hinder_each_other(folder: Path, storage: str) -> None:
    with claimed(folder, storage), claimed(folder.with_name("another"), storage):
        pass


def test_a_child_that_outlives_its_killed_driver_does_not_hold_the_study(folder: Path, storage: str) -> None:
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
def test_a_lock_file_that_says_nothing_of_use_is_a_lock_all_the_same(folder: Path, content: str) -> None:
    storage = f"sqlite:///{folder.parent / 'optuna.db'}"
    path = folder.parent / f".{STUDY}.lock"
    path.write_text(content)
    with claimed(folder, storage):
        assert json.loads(path.read_text())["process"] == os.getpid()
        path.write_text(content)
        with pytest.raises(SuiteError, match=r"is locked by another process$"):
            lock_of(folder, storage).take()


def test_a_lock_file_that_is_none_is_one_message(folder: Path) -> None:
    (folder.parent / f".{STUDY}.lock").mkdir()
    storage = f"sqlite:///{folder.parent / 'optuna.db'}"
    with (
        pytest.raises(SuiteError, match=r"storage=.*: cannot be written: Is a directory \(.*\.lock\)"),
        ExitStack() as s,
    ):
        s.enter_context(claimed(folder, storage))


def test_a_database_that_cannot_hold_studies_says_what_it_does_not_guard(folder: Path) -> None:
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


def test_a_lock_that_was_lost_is_taken_anew(cluster: Cluster, lock: PostgresLock) -> None:
    drop_sessions(cluster)
    lock.keep()
    held = cluster.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert held == [(1,)]


def test_a_lock_that_was_lost_is_taken_anew_when_the_server_is_back(cluster: Cluster, lock: PostgresLock) -> None:
    cluster.stop()
    try:
        with pytest.raises(OperationalError):
            lock.keep()
    finally:
        cluster.start()
    lock.keep()
    assert cluster.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(1,)]


def test_a_lock_that_another_driver_took_meanwhile_is_lost(cluster: Cluster, folder: Path) -> None:
    storage = cluster.new_database()
    lock = lock_of(folder, storage)
    lock.take()
    drop_sessions(cluster)
    with held_elsewhere(folder, storage) as process, pytest.raises(SuiteError, match=f"process {process.pid} on"):
        lock.keep()
    lock.release()


def test_a_session_of_ours_that_the_server_has_not_missed_yet_is_ended_by_us(
    cluster: Cluster, lock: PostgresLock
) -> None:
    # As after a network that was away: this end knows that the connection is lost, the other end does not.
    lost = lock._session
    assert lost is not None
    lock._session = None
    lock.keep()
    assert cluster.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(1,)]
    with pytest.raises(OperationalError):
        lost.exec_driver_sql("SELECT 1")
    lost.invalidate()


def test_the_server_notices_within_about_a_minute_that_a_machine_is_gone(lock: PostgresLock) -> None:
    session = lock._session
    assert session is not None
    shown = [session.exec_driver_sql(f"SHOW tcp_keepalives_{name}").scalar() for name in ("idle", "interval", "count")]
    assert shown == ["20", "10", "3"]
