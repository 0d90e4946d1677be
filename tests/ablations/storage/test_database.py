from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy.exc import OperationalError

from ablations.storage.database import connect_arguments, engine_url, explain


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("database or disk is full", "the disk is full; free some space, then the same command resumes the study"),
        ("attempt to write a readonly database", "cannot be written (attempt to write a readonly database); check"),
        ("database disk image is malformed", "is damaged (database disk image is malformed); restore a backup"),
        ("file is not a database", "is damaged or not a SQLite database (file is not a database); restore a backup"),
        ("no such table: studies", "is damaged or not an Optuna database (no such table: studies); restore a backup"),
    ],
)
def test_sqlite_errors_are_explained_with_a_remedy(said: str, reason: str) -> None:
    error = OperationalError("INSERT", {}, Exception(said))
    error.__cause__ = Exception(said)
    assert str(explain("sqlite:///x.db", error)).startswith(f"storage=sqlite:///x.db: {reason}")


def test_a_url_without_a_driver_gets_an_installed_one() -> None:
    assert engine_url("postgresql://me@host/db").startswith("postgresql+psycopg")
    assert engine_url("postgresql+pg8000://me@host/db") == "postgresql+pg8000://me@host/db"
    assert engine_url("sqlite:///x.db") == "sqlite:///x.db"


def test_connection_arguments_in_a_url_have_priority() -> None:
    assert connect_arguments("postgresql+psycopg2://me@host/db")["connect_timeout"] == 10
    assert "connect_timeout" not in connect_arguments("postgresql+psycopg2://me@host/db?connect_timeout=3")


def test_database_checks_do_not_import_optuna() -> None:
    code = "import sys, ablations.storage.database, ablations.storage.lock; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
