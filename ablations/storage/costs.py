"""Stored costs of a study's networks, by machine and run.

A run has the networks of one backbone, timed in alternation; times of different runs are compared only relative to the
plain network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ablations.common.settings import Settings
from ablations.measure.costs import NetworkCost, as_stored, from_stored

ATTRIBUTE = "costs"  # the study's user attribute
_IRRELEVANT = ("commit", "mlflow", "optuna", "numpy", "torchvision")  # for the speed of networks


@dataclass(frozen=True)
class CostRun:
    """Networks of one backbone measured together, with their costs, by variant name; `PLAIN` has no attention."""

    networks: Mapping[str, Settings]
    costs: Mapping[str, NetworkCost]


@dataclass(frozen=True)
class MachineCosts:
    """The measurements of one machine.

    Attributes:
        environment: machine and software versions, as stored with cells, and `device`.
        taken: time at which the last run ended (UTC, ISO 8601).
        runs: in order of time.
    """

    environment: dict[str, str]
    taken: str
    runs: tuple[CostRun, ...] = ()

    @property
    def key(self) -> str:
        """Identifies the machine by processor, GPU, kernels, threads, and versions of Python and torch."""
        relevant = {name: value for name, value in self.environment.items() if name not in _IRRELEVANT}
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]

    def of(self, name: str, network: Settings) -> NetworkCost | None:
        """Returns the latest cost of a network under a name; None if it was not measured."""
        return self._latest.get((name, _text(network)))

    @cached_property
    def _latest(self) -> dict[tuple[str, str], NetworkCost]:
        """The latest cost by name and settings, because a study without cells may change the settings of a name."""
        return {(name, _text(run.networks[name])): cost for run in self.runs for name, cost in run.costs.items()}


def _text(network: Settings) -> str:
    return json.dumps(network, sort_keys=True)


def stored_costs(attributes: Mapping[str, Any]) -> dict[str, MachineCosts]:
    """Reads the costs from a study's attributes, by machine, the latest measured last."""
    machines = [
        MachineCosts(
            stored["environment"],
            stored["taken"],
            tuple(CostRun(run["networks"], from_stored(run["costs"])) for run in stored["runs"]),
        )
        for stored in attributes.get(ATTRIBUTE, ())
    ]
    return {machine.key: machine for machine in machines}


def costs_to_store(machines: Mapping[str, MachineCosts]) -> list[dict[str, Any]]:
    """Returns values for JSON, in the given order."""
    return [
        {
            "environment": machine.environment,
            "taken": machine.taken,
            "runs": [{"networks": dict(run.networks), "costs": as_stored(run.costs)} for run in machine.runs],
        }
        for machine in machines.values()
    ]
