"""The measured costs of a study's variants: ratios to the plain network, and verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablations.common.metrics import COSTS
from ablations.common.settings import as_stored
from ablations.design import Design
from ablations.design.variants import Variant
from ablations.measure.costs import PLAIN, NetworkCost, Speed
from ablations.stats import Estimate, estimate
from ablations.stats.costs import CostContrast, judge_costs
from ablations.storage.costs import MachineCosts, stored_costs


@dataclass(frozen=True)
class VariantCost:
    """The costs of a variant; None or NaN if not measured.

    Attributes:
        train_time, test_time: time of a training step and of inference relative to the plain network: geometric mean
            over `n` copies, with its 95 % CI. For the plain network these are the ratios of a second copy (A/A), which
            show the noise.
        captured_train_time, captured_test_time: the same for replays as CUDA graphs; None on a CPU.
        train_images_per_second, test_images_per_second: at the median time of a batch.
        peak_memory_mib: of a training step.
        failed: the reason if nothing could be measured, otherwise empty.
    """

    train_time: Estimate | None = None
    test_time: Estimate | None = None
    captured_train_time: Estimate | None = None
    captured_test_time: Estimate | None = None
    train_images_per_second: float = math.nan
    test_images_per_second: float = math.nan
    peak_memory_mib: float = math.nan
    failed: str = ""

    @property
    def has_captured(self) -> bool:
        """Whether replays as CUDA graphs were timed."""
        return self.captured_train_time is not None or self.captured_test_time is not None

    @property
    def metrics(self) -> dict[str, float]:
        """The measured values, by the keys of `ablations.common.metrics`."""
        values = {
            "train_time_ratio": self.train_time.mean if self.train_time else math.nan,
            "test_time_ratio": self.test_time.mean if self.test_time else math.nan,
            **{key: float(getattr(self, key)) for key in COSTS if hasattr(self, key)},
        }
        return {key: value for key, value in values.items() if not math.isnan(value)}


@dataclass(frozen=True)
class StudyCosts:
    """The costs of a study's variants on one machine.

    Attributes:
        machine: the machine with its measurements.
        design: the study's design.
        variants: the costs of measured variants, by name.
    """

    machine: MachineCosts
    design: Design
    variants: Mapping[str, VariantCost]

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The measured values by variant, then by the keys of `ablations.common.metrics`."""
        return {name: cost.metrics for name, cost in self.variants.items()}

    def of(self, variant: str) -> VariantCost:
        """Returns the costs of a variant."""
        return self.variants.get(variant, VariantCost())

    def judge(self, mode: str, margin: float) -> list[CostContrast]:
        """Compares each variant's time in a mode (`train`, `test`) with its baseline's; the contrasts are a family.

        Args:
            mode: a training step or inference.
            margin: equivalence margin as a relative difference, such as 0.05.
        """
        rows: list[tuple[str, int, float]] = []
        networks = {variant.name: as_stored(variant.network) for variant in self.design.variants}
        first = 0  # number of a run's first copy: copies of different runs are not paired
        for run in self.machine.runs:
            speeds = {name: getattr(cost, mode) for name, cost in run.costs.items() if getattr(cost, mode)}
            for variant in self.design.variants:
                name = _name(variant)
                if (speed := speeds.get(name)) and run.networks[name] == networks[variant.name]:
                    ratios = [0.0] * len(speed.log_ratios) if variant.is_plain else speed.log_ratios
                    rows += [(variant.name, first + copy, ratio) for copy, ratio in enumerate(ratios)]
            first += max((len(speed.log_ratios) for speed in speeds.values()), default=0)
        values = pd.DataFrame(rows, columns=["variant", "copy", "log_ratio"])
        baselines = {name: base for name, base in self.design.baselines.items() if {name, base} <= self.variants.keys()}
        return judge_costs(values, baselines, margin)


def collect_costs(attributes: Mapping[str, Any], design: Design) -> StudyCosts | None:
    """Collects the costs of a design's variants on the machine of the latest measurement; None if there is none.

    `attributes` are those of the study in the store.
    """
    machines = stored_costs(attributes)
    if not machines:
        return None
    costs = costs_on(list(machines.values())[-1], design)
    return costs if costs.variants else None


def costs_on(machine: MachineCosts, design: Design) -> StudyCosts:
    """Collects the measured costs of a design's variants on one machine."""
    batch = int(design.protocol["train"]["batch_size"])
    costs = {variant.name: cost_of(machine, variant) for variant in design.variants}
    return StudyCosts(machine, design, {name: _variant_cost(cost, batch) for name, cost in costs.items() if cost})


def cost_of(machine: MachineCosts, variant: Variant) -> NetworkCost | None:
    """Returns the latest measurement of a variant; None if there is none."""
    return machine.of(_name(variant), variant.network)


def _name(variant: Variant) -> str:
    """Returns the name under which a variant was measured."""
    return PLAIN if variant.is_plain else variant.name


def _variant_cost(cost: NetworkCost, batch: int) -> VariantCost:
    return VariantCost(
        train_time=_ratio(cost.train),
        test_time=_ratio(cost.test),
        captured_train_time=_ratio(cost.captured_train),
        captured_test_time=_ratio(cost.captured_test),
        train_images_per_second=batch / cost.train.ms * 1000 if cost.train else math.nan,
        test_images_per_second=batch / cost.test.ms * 1000 if cost.test else math.nan,
        peak_memory_mib=math.nan if cost.peak_memory_mib is None else cost.peak_memory_mib,
        failed=cost.failed,
    )


def _ratio(speed: Speed | None) -> Estimate | None:
    """Returns the geometric mean of the ratios of copies, with its interval."""
    if speed is None or not speed.log_ratios:
        return None
    logs = estimate(speed.log_ratios)
    return Estimate(logs.n, *(float(np.exp(value)) for value in (logs.mean, logs.low, logs.high)))
