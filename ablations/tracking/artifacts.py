"""Artifact addresses in MLflow's database, updated after a results folder has moved.

MLflow stores absolute artifact addresses of experiments and runs, without an API to change them. They are rewritten in
its database when it is opened from a results folder that was moved, copied, restored or mounted.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ablations.storage.database import connect_arguments, database_file, engine_url
from ablations.storage.paths import ARTIFACTS

# For each table its key column and the column with the address.
_ADDRESSES = (
    ("experiments", "experiment_id", "artifact_location"),
    ("runs", "run_uuid", "artifact_uri"),
    ("logged_models", "model_id", "artifact_location"),
    ("model_versions", "source", "source"),
    ("model_versions", "storage_location", "storage_location"),
)


def update_addresses(uri: str, artifacts: Path) -> None:
    """Rewrites addresses in MLflow's database that point to another results folder than that of `artifacts`.

    A database in the results folder has moved with it, so all its addresses are rewritten. Any other database may be
    shared by several results folders, so only this experiment's addresses that point to a missing folder are rewritten.

    Args:
        uri: of the database.
        artifacts: `results_dir/mlflow-artifacts/<experiment>`, which may not exist.

    Raises:
        SQLAlchemyError: if the database cannot be read, or has a wrong address and cannot be written.
    """
    file, folder = database_file(uri), artifacts.parent.resolve()
    is_inside = file is not None and file.parent.resolve() == folder.parent
    engine = create_engine(engine_url(uri), poolclass=NullPool, connect_args=connect_arguments(engine_url(uri)))
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()  # none in an empty file, in which MLflow creates them
        here = f"{folder.as_uri()}/"
        for table, key, column in _ADDRESSES:
            if table not in tables:
                continue
            elsewhere = text(f"SELECT {key}, {column} FROM {table} WHERE substr({column}, 1, {len(here)}) <> :here")
            changes = []
            for identity, address in connection.execute(elsewhere, {"here": here}).all():
                inside = _inside(address)
                if is_inside and str(identity) == "0" and address.endswith("/mlruns/0"):
                    inside = "0"  # MLflow's experiment "Default", located in the working directory of its creation
                is_experiments = unquote(inside.split("/")[0]) == artifacts.name
                is_ours = is_inside or (is_experiments and not _folder_of(address).is_dir())
                if inside and is_ours:
                    changes.append({"identity": identity, "address": here + inside})
            if changes:
                connection.execute(text(f"UPDATE {table} SET {column} = :address WHERE {key} = :identity"), changes)
        connection.commit()


def follow_artifacts(uri: str, artifacts: Path) -> None:
    """Updates the addresses in a SQLite store if it exists and is writable, for verbs that only read."""
    file = database_file(uri)
    if file is not None and file.is_file():
        with suppress(SQLAlchemyError, OSError):
            update_addresses(uri, artifacts)


def is_gone(address: str) -> bool:
    """Whether an address points to a results folder that does not exist on this machine."""
    return bool(_inside(address)) and not _folder_of(address).is_dir()


def _inside(address: str) -> str:
    """Returns the path of an address in `mlflow-artifacts`; empty if it points elsewhere."""
    _, mark, inside = address.rpartition(f"/{ARTIFACTS}/")
    return inside if mark and address.startswith("file:") else ""


def _folder_of(address: str) -> Path:
    """Returns the results folder that an address points to."""
    return Path(unquote(urlsplit(address).path.rpartition(f"/{ARTIFACTS}/")[0]))
