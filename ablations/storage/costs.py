"""What networks cost, as a study remembers it: by machine, one run after the other.

A run has the networks of one backbone, which were timed in turns with each other; times of different runs are compared
through the plain network alone.
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

ATTRIBUTE = "costs"  # of the study
_IRRELEVANT = ("commit", "mlflow", "optuna", "numpy", "torchvision")  # to the speed of networks


@dataclass(frozen=True)
class CostRun:
    """Networks of one backbone that were measured together, with their costs: by the names of variants, and `PLAIN`."""

    networks: Mapping[str, Settings]
    costs: Mapping[str, NetworkCost]


@dataclass(frozen=True)
class MachineCosts:
    """What was measured on one machine.

    Attributes:
        environment: the machine and its software, as cells keep them, and `device`.
        taken: when the last run ended (UTC, ISO 8601).
        runs: in the order in which they were made.
    """

    environment: dict[str, str]
    taken: str
    runs: tuple[CostRun, ...] = ()

    @property
    def key(self) -> str:
        """Tells this machine from others, by processor, GPU, kernels, threads, and versions of Python and torch."""
        relevant = {name: value for name, value in self.environment.items() if name not in _IRRELEVANT}
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]

    def of(self, name: str, network: Settings) -> NetworkCost | None:
        """Returns what was measured last of a network under a name; None where nothing was."""
        return self._latest.get((name, _text(network)))

    @cached_property
    def _latest(self) -> dict[tuple[str, str], NetworkCost]:
        """The last cost of each network, by its name and settings: a study that has no cells may change these."""
        return {(name, _text(run.networks[name])): cost for run in self.runs for name, cost in run.costs.items()}


def _text(network: Settings) -> str:
    return json.dumps(network, sort_keys=True)


def stored_costs(attributes: Mapping[str, Any]) -> dict[str, MachineCosts]:
    """Reads what a study remembers, by machine, the one that was measured last at the end."""
    machines = [
        MachineCosts(
            known["environment"],
            known["taken"],
            tuple(CostRun(run["networks"], from_stored(run["costs"])) for run in known["runs"]),
        )
        for known in attributes.get(ATTRIBUTE, ())
    ]
    return {machine.key: machine for machine in machines}


def costs_to_store(machines: Mapping[str, MachineCosts]) -> list[dict[str, Any]]:
    """Returns plain values, as JSON keeps them, in the given order."""
    return [
        {
            "environment": machine.environment,
            "taken": machine.taken,
            "runs": [{"networks": dict(run.networks), "costs": as_stored(run.costs)} for run in machine.runs],
        }
        for machine in machines.values()
    ]
