"""Stored studies as the ledger reads them: their networks with the top-1 of ended cells; what it skips, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from ablations.common.parts import reason_of
from ablations.common.urls import hide_passwords
from ablations.common.wording import count
from ablations.config import DATA, StoredConfig, TrainConfig
from ablations.design import Split
from ablations.storage.access import study_names
from ablations.storage.cell_states import CellState, StoredCell
from ablations.storage.study import FORMAT, open_store
from sa_core.attentions.knobs import ATTENTIONS

_ENDED = (CellState.FINISHED, CellState.DIVERGED, CellState.FAILED, CellState.PRUNED)


@dataclass(frozen=True)
class Network:
    """A network of a study: its settings, its name there, and the top-1 in percent of the replicates that have ended.

    The top-1 is nan where a replicate ended without a result: it diverged, failed or was pruned.
    """

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

    def check(self) -> None:
        """Reads all that claims ask for, and raises what that raises: a study that lacks some of it costs no claim."""
        _ = self.data, self.epochs, self.decay, self.has_real_images, self.conditions
        for network in self.networks:
            _ = network.model["name"], network.attention["name"]

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

    @property
    def decay(self) -> str:
        """The parameters that decayed in training, as `train.decay` names them."""
        return str(self.protocol["train"].get("decay", TrainConfig.decay))

    @property
    def has_real_images(self) -> bool:
        """Whether it was trained on photographs or the like that lie in files, instead of scenes made by the suite."""
        schema = DATA.get(self.protocol["data"]["name"])
        return schema is not None and issubclass(schema, StoredConfig)

    @property
    def conditions(self) -> str:
        """All that decides a network's expected top-1: the protocol without its seed, and the images.

        Replicates of the same network under the same conditions are draws from one distribution, whatever study they
        are stored in.
        """
        decisive = {name: value for name, value in self.protocol.items() if name != "seed"}
        return json.dumps(
            [decisive, self.attributes.get("data"), self.attributes.get("data_fingerprint")], sort_keys=True
        )


@dataclass(frozen=True)
class Skipped:
    """A stored study that is no evidence, and why not, as a clause; `error` is what reading it raised, if anything."""

    name: str
    store: str
    reason: str
    error: Exception | None = None

    @property
    def sentence(self) -> str:
        """Says which study is skipped, and why."""
        return f"{self.name} in {self.store}: {self.reason}"


def stored_studies(urls: Sequence[str]) -> tuple[list[Study], list[Skipped]]:
    """Reads all studies of some databases, and returns them and those that are skipped; one not begun is neither.

    A SQLite file that is not there has no studies.

    Raises:
        StorageError: if a database does not answer.
    """
    read = [_study_or_reason(url, name) for url in dict.fromkeys(urls) for name in study_names(url)]
    return [one for one in read if isinstance(one, Study)], [one for one in read if isinstance(one, Skipped)]


def _study_or_reason(url: str, name: str) -> Study | Skipped | None:
    """Reads a study; one that cannot be read costs no other."""
    try:
        return _read_study(url, name)
    except Exception as error:
        return Skipped(name, hide_passwords(url), f"cannot be read ({reason_of(error)})", error)


def _read_study(url: str, name: str) -> Study | Skipped | None:
    """Reads a study that is stored; None where it has not been begun."""
    store = open_store(url, name, create=False)
    shown_url = hide_passwords(url)
    skipped = partial(Skipped, name, shown_url)
    if store.is_foreign:
        return skipped("was created by another program")
    if store.is_empty:
        return None
    if store.format != FORMAT:
        return skipped(f"is stored in format {store.format}, but this version reads format {FORMAT}")
    attributes = store.attributes
    if store.objectives != ["top1"] or attributes.get("sweep") == "search":
        return skipped("is a search, whose variants were selected for their results")
    cells = store.cells()
    networks = [*store.networks.items(), *((cell.variant, cell.network) for cell in cells)]
    if unknown := {network["attention"]["name"] for _, network in networks} - set(ATTENTIONS):
        return skipped(f"has attention modules unknown to this version: {', '.join(sorted(unknown))}")
    study = Study(name, shown_url, store.protocol, attributes, _networks(networks, cells))
    study.check()
    return study


def _networks(named: Iterable[tuple[str, Mapping[str, Any]]], cells: Iterable[StoredCell]) -> tuple[Network, ...]:
    """Sorts cells by their networks: one network may have been stored under several names, and may have no cell yet."""
    settings = {json.dumps(network, sort_keys=True): (name, network) for name, network in reversed([*named])}
    top1: dict[str, dict[int, float]] = {key: {} for key in reversed(settings)}
    for cell in cells:
        if cell.state in _ENDED and cell.split is Split.TEST and not cell.recipe:  # a protocol has one recipe
            result = cell.outcome["result"] if cell.outcome and cell.state is CellState.FINISHED else {}
            top1[json.dumps(cell.network, sort_keys=True)][cell.replicate] = float(result.get("top1", math.nan))
    return tuple(Network(settings[key][1], settings[key][0], by_replicate) for key, by_replicate in top1.items())
