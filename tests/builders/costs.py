"""Fabricated costs of variants, in the forms of a store and of an analysis."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.analysis.costs import StudyCosts, costs_on
from ablations.common.settings import Settings
from ablations.design import Design
from ablations.measure.costs import PLAIN, NetworkCost, Speed
from ablations.storage.costs import ATTRIBUTE, CostRun, MachineCosts, costs_to_store

HERE = {
    "cpu": "Machine & Co, 2 cores", "gpu": "none", "system": "Linux x86_64", "kernels": "cpu", "python": "3.12.1",
    "torch": "2.11.0", "commit": "0" * 40, "threads": "2", "device": "cpu",
}  # fmt: skip
TAKEN = "2026-11-30T14:02:11+00:00"
COPIES = 8


def ratios(mean: float, copies: int = COPIES, spread: float = 0.01) -> list[float]:
    """Relative times of copies with geometric mean `mean`; `spread` is their relative range."""
    logs = [spread * (copy - (copies - 1) / 2) / max(1, copies - 1) for copy in range(copies)]
    return [mean * math.exp(log) for log in logs]


def speed(relative: Sequence[float] = (), images_per_second: float = 1000.0, batch: int = 128) -> Speed | None:
    """A speed with these ratios; None without ratios and images per second."""
    if not relative and math.isnan(images_per_second):
        return None
    return Speed(1000 * batch / images_per_second, tuple(math.log(ratio) for ratio in relative))


def machine_of(design: Design, costs: Mapping[str, NetworkCost], environment: Mapping[str, str] = HERE) -> MachineCosts:
    """Costs of a design's variants on one machine, with all variants of a backbone in one run."""
    runs: dict[str, tuple[dict[str, Settings], dict[str, NetworkCost]]] = {}
    for variant in design.variants:
        if variant.name in costs:
            networks, measured = runs.setdefault(json.dumps(variant.model, sort_keys=True), ({}, {}))
            name = PLAIN if variant.is_plain else variant.name
            networks[name], measured[name] = json.loads(json.dumps(variant.network)), costs[variant.name]
    return MachineCosts(dict(environment), TAKEN, tuple(CostRun(*run) for run in runs.values()))


def costs_of(
    design: Design,
    *,
    train_time_ratio: Mapping[str, Sequence[float]] | None = None,
    test_time_ratio: Mapping[str, Sequence[float]] | None = None,
    train_images_per_second: Mapping[str, float] | None = None,
    peak_memory_mib: Mapping[str, float] | None = None,
) -> StudyCosts:
    """The costs of a design's variants, from values by name; relative times have one value per copy."""
    batch = int(design.protocol["train"]["batch_size"])
    costs = {}
    for variant in design.variants:
        name = variant.name
        train = speed(
            (train_time_ratio or {}).get(name, ()), (train_images_per_second or {}).get(name, math.nan), batch
        )
        test = speed((test_time_ratio or {}).get(name, ()), math.nan, batch)
        memory = (peak_memory_mib or {}).get(name)
        if train or test or memory is not None:
            costs[name] = NetworkCost(10, memory, train, test)
    return costs_on(machine_of(design, costs), design)


def usual_costs(design: Design, copies: int = COPIES) -> dict[str, NetworkCost]:
    """Costs in which each variant takes 10 % of the baseline's time and 1 MiB more than the one before."""
    batch = int(design.protocol["train"]["batch_size"])
    return {
        variant.name: NetworkCost(
            75_000 + 100 * index,
            11.5 + index,
            speed(ratios(1 + 0.1 * index, copies), 1000 / (1 + 0.1 * index), batch),
            speed(ratios(1 + 0.05 * index, copies), 3000 / (1 + 0.05 * index), batch),
        )
        for index, variant in enumerate(design.variants)
    }


def stored_attributes(*machines: MachineCosts) -> dict[str, Any]:
    """Study attributes with the costs of machines, in the order of their measurements."""
    stored = costs_to_store({machine.key: machine for machine in machines})
    return {ATTRIBUTE: json.loads(json.dumps(stored))}


def usual_attributes(design: Design) -> dict[str, Any]:
    """Study attributes with the `usual_costs` of the variants."""
    return stored_attributes(machine_of(design, usual_costs(design)))
