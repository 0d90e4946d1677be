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
    """Networks of one backbone that were measured together: by the names of variants, and `PLAIN`."""

    model: Settings
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

    def of(self, name: str, model: Settings) -> NetworkCost | None:
        """Returns what was measured last of a network of a backbone; None where nothing was."""
        return self._latest.get((_text(model), name))

    @cached_property
    def _latest(self) -> dict[tuple[str, str], NetworkCost]:
        """The last cost of each network, by backbone and name."""
        return {(_text(run.model), name): cost for run in self.runs for name, cost in run.costs.items()}


def _text(model: Settings) -> str:
    return json.dumps(model, sort_keys=True)


def stored_costs(attributes: Mapping[str, Any]) -> dict[str, MachineCosts]:
    """Reads what a study remembers, by machine, the one that was measured last at the end."""
    machines = [
        MachineCosts(
            known["environment"],
            known["taken"],
            tuple(CostRun(run["model"], from_stored(run["costs"])) for run in known["runs"]),
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
            "runs": [{"model": run.model, "costs": as_stored(run.costs)} for run in machine.runs],
        }
        for machine in machines.values()
    ]
