"""What networks cost, as a study remembers it: by machine, one run after the other.

A run has the networks of one backbone, which were timed in turns with each other; times of different runs are compared
through the plain network alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
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
    """What was measured on one machine, and when (UTC, ISO 8601) the last of it."""

    environment: dict[str, str]
    taken: str
    runs: tuple[CostRun, ...] = ()

    @property
    def key(self) -> str:
        """Tells this machine from others, by processor, GPU, kernels, threads, and versions of Python and torch."""
        relevant = {name: value for name, value in self.environment.items() if name not in _IRRELEVANT}
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]

    def run_of(self, variant: str, model: Settings) -> CostRun | None:
        """Returns the last run that a variant of a backbone was measured in; None where it was not."""
        return next((run for run in reversed(self.runs) if run.model == model and variant in run.costs), None)


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
    return {machine.key: machine for machine in sorted(machines, key=lambda machine: machine.taken)}


def costs_to_store(machines: Mapping[str, MachineCosts]) -> list[dict[str, Any]]:
    """Returns plain values, as JSON keeps them."""
    return [
        {
            "environment": machine.environment,
            "taken": machine.taken,
            "runs": [{"model": run.model, "costs": as_stored(run.costs)} for run in machine.runs],
        }
        for machine in machines.values()
    ]
