"""Stored studies as the ledger reads them: their networks with the top-1 of finished cells; what it skips, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from ablations.common.errors import UsageError
from ablations.common.urls import hide_passwords
from ablations.common.wording import count
from ablations.storage.database import check_url, connect_arguments, database_file, engine_url, explain
from ablations.storage.study import _VERSION as VERSION  # stand-in: made public by the new ablations.storage.study
from ablations.storage.study import StoredCell, StudyStore, open_store
from sa_core.knobs import ATTENTIONS


@dataclass(frozen=True)
class Network:
    """A network of a study: its settings, what the study calls it, and the top-1 of finished replicates in percent."""

    settings: Mapping[str, Any]
    name: str
    top1: Mapping[int, float]

    @property
    def model(self) -> Mapping[str, Any]:
        """The backbone's settings."""
        return cast(Mapping[str, Any], self.settings["model"])

    @property
    def attention(self) -> Mapping[str, Any]:
        """The attention's settings."""
        return cast(Mapping[str, Any], self.settings["attention"])


@dataclass(frozen=True)
class Study:
    """A stored study, as far as claims need it."""

    name: str
    store: str
    protocol: Mapping[str, Any]
    attributes: Mapping[str, Any]
    networks: tuple[Network, ...]

    @property
    def data(self) -> str:
        """Names the data and how much of it there was: `digits (2,048 training images, 10 classes)`."""
        options, images = self.protocol["data"], self.attributes.get("data")
        parts = []
        if images:
            parts = [count(images["train"], "training image"), count(len(images["classes"]), "class", "classes")]
        if "resolution" in options:
            parts.append(f"{options['resolution']}x{options['resolution']} pixels")
        return f"{options['name']} ({', '.join(parts)})" if parts else str(options["name"])

    @property
    def epochs(self) -> int:
        """What each cell was trained for."""
        return int(self.protocol["train"]["epochs"])


@dataclass(frozen=True)
class Skipped:
    """A stored study that is no evidence, and why not, as a clause."""

    name: str
    store: str
    reason: str

    @property
    def sentence(self) -> str:
        """Says which study is skipped, and why."""
        return f"{self.name} in {self.store}: {self.reason}"


def stored_studies(urls: Sequence[str]) -> tuple[list[Study], list[Skipped]]:
    """Reads all studies of some databases.

    Args:
        urls: of the databases; a SQLite file that is not there has no studies.

    Returns:
        The studies, and those that are skipped. A study that has not been begun is neither.

    Raises:
        UsageError: if a database does not answer.
    """
    studies: list[Study] = []
    skipped: list[Skipped] = []
    for url in dict.fromkeys(urls):
        for name in study_names(url):
            study = read_study(url, name)
            if isinstance(study, Skipped):
                skipped.append(study)
            elif study is not None:
                studies.append(study)
    return studies, skipped


def read_study(url: str, name: str) -> Study | Skipped | None:
    """Reads a study that is stored; None where it has not been begun.

    Raises:
        UsageError: if the database does not answer.
    """
    store = open_store(url, name, create=False)
    shown_url = hide_passwords(url)
    skipped = partial(Skipped, name, shown_url)
    attributes = store.attributes
    identity = attributes.get("identity")
    if identity is None:
        return skipped(_FOREIGN) if is_foreign(store) else None
    version = identity.get("version")
    if version != VERSION:
        return skipped(f"is stored in format {version}; this version of the suite reads format {VERSION}")
    if identity["objectives"] != ["top1"] or attributes.get("sweep") == "search":
        return skipped("is a search, whose variants were picked for being good")
    if is_foreign(store):
        return skipped(_FOREIGN)
    cells = store.cells()
    if unknown := {cell.network["attention"]["name"] for cell in cells} - set(ATTENTIONS):
        return skipped(f"has attention that this version of the suite does not know: {', '.join(sorted(unknown))}")
    return Study(name, shown_url, identity["protocol"], attributes, _networks(cells))


_FOREIGN = "is a study of another program"


def _networks(cells: Iterable[StoredCell]) -> tuple[Network, ...]:
    """Sorts cells by their networks: one network may have been stored under several names."""
    by_network: dict[str, list[StoredCell]] = {}
    for cell in cells:
        by_network.setdefault(json.dumps(cell.network, sort_keys=True), []).append(cell)
    return tuple(
        Network(
            replicates[0].network,
            replicates[0].variant,
            {
                cell.replicate: float(cell.outcome["result"]["top1"])
                for cell in replicates
                if cell.state == TrialState.COMPLETE and cell.outcome is not None
            },
        )
        for replicates in by_network.values()
    )


# Stand-ins, to be deleted when ablations.storage.study answers these two questions itself:
# `study_names(url)` of the same signature, and a property of StudyStore in place of `is_foreign(store)`.


def study_names(url: str) -> list[str]:
    """Lists the studies of a database: none where a SQLite file is not there.

    Raises:
        UsageError: if the database does not answer.
    """
    check_url("storage", url)
    if (file := database_file(url)) is not None and not file.is_file():
        return []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    reached = engine_url(url)
    try:
        storage = RDBStorage(reached, engine_kwargs={"connect_args": connect_arguments(reached), "pool_pre_ping": True})
        return optuna.get_all_study_names(storage)
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError, RuntimeError, ValueError) as error:
        raise explain(url, error) from None


def is_foreign(store: StudyStore) -> bool:
    """Whether a study has trials of another program."""
    try:
        store.cells()
    except UsageError as error:
        if error.option != "study":
            raise
        return True
    return False
