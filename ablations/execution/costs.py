"""Measures the costs of variants, once per study and machine, while no cell is trained; stores them in the study."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property

from ablations.analysis.costs import cost_of, costs_on
from ablations.common.metrics import COSTS
from ablations.common.settings import Settings
from ablations.common.wording import count, first_line
from ablations.config import MeasureConfig
from ablations.design import Design
from ablations.design.variants import Variant, plain_network
from ablations.execution.interrupts import Interrupts
from ablations.execution.launchers.base import Launcher, WorkerLostError
from ablations.execution.progress import Display, describe_seconds
from ablations.measure.costs import PLAIN, NetworkCost
from ablations.storage.costs import ATTRIBUTE, CostRun, MachineCosts, costs_to_store, stored_costs
from ablations.storage.study import StudyStore
from ablations.tracking import StudyMirror
from ablations.training.job import environment

TOGETHER = 8  # networks timed alternately in one run, in addition to the plain one


@dataclass
class CostMeasurer:
    """Measures the variants of a study that have no stored costs for this machine.

    Costs are stored after each run, so an interrupted measurement resumes with the interrupted run. With `measure=only`
    the new costs replace those stored earlier once all variants are measured.
    """

    config: MeasureConfig
    design: Design
    store: StudyStore
    launcher: Launcher
    mirror: StudyMirror
    display: Display
    _measured: set[str] = field(default_factory=set, init=False)  # names of the variants measured in this process

    def measure(self, variants: Sequence[Variant], interrupts: Interrupts) -> None:
        """Measures the variants that have no costs for this machine or whose measurement failed in an earlier process.

        With `measure=only` it measures all variants, each once per process.

        Raises:
            StudyInterruptedError: after a signal; finished runs are stored.
        """
        if self.config.name == "off":
            return
        stored = self._stored
        missing = [
            variant for variant in variants if variant.name not in self._measured and self._lacks(stored, variant)
        ]
        if not missing:
            return
        started = time.monotonic()
        for model, together in self._together(missing):
            self._measure_run(model, together, interrupts)
        if self.config.name == "only":
            self._keep(self._stored.runs[len(stored.runs) :])
        elapsed = describe_seconds(time.monotonic() - started)
        self.display.notify(f"Measured the costs of {count(len(missing), 'variant')} in {elapsed}.")
        self.mirror.costs(self._metrics([*self.design.variants, *variants]))

    def objectives_of(self, variant: Variant) -> dict[str, float]:
        """Returns the known costs of a variant that are objectives of the study."""
        known = self._metrics([variant]).get(variant.name, {}) if self._objectives else {}
        return {key: known[key] for key in self._objectives if key in known}

    def reason_against(self, variant: Variant) -> str:
        """Returns why a cost that is an objective is unknown for a variant; empty if all are known."""
        if self._objectives <= self.objectives_of(variant).keys():
            return ""
        found = cost_of(self._stored, variant)
        return (found.failed if found else "") or "it was not measured"

    @cached_property
    def _objectives(self) -> frozenset[str]:
        """The costs among the objectives of the study."""
        return COSTS.intersection(self.design.objectives)

    def _lacks(self, stored: MachineCosts, variant: Variant) -> bool:
        """Returns whether a variant must be measured, given the stored costs."""
        known = cost_of(stored, variant)
        return self.config.name == "only" or known is None or bool(known.failed)

    @property
    def _stored(self) -> MachineCosts:
        """The costs measured on this machine."""
        return stored_costs(self.store.attributes).get(self._here.key, self._here)

    @cached_property
    def _here(self) -> MachineCosts:
        """The machine that trains the cells, without measured costs."""
        found = self.launcher.alone(environment, self.launcher.threads)
        return MachineCosts(found | {"device": self.design.protocol["device"]}, "")

    def _together(self, missing: Sequence[Variant]) -> list[tuple[Settings, list[Variant]]]:
        """Splits variants into runs of one backbone, with their baselines; every run times the plain network."""
        by_model: dict[str, list[Variant]] = {}
        for variant in missing:
            by_model.setdefault(json.dumps(variant.model, sort_keys=True), []).append(variant)
        known = {variant.name: variant for variant in (*self.design.variants, *missing)}
        baselines = replace(self.design, variants=tuple(known.values())).baselines
        runs = []
        for same in by_model.values():
            for first in range(0, len(same), TOGETHER):
                part = same[first : first + TOGETHER]
                compared = [known[baselines[variant.name]] for variant in part if variant.name in baselines]
                same_model = (other for other in compared if other.model == part[0].model and not other.is_plain)
                runs.append((part[0].model, list({variant.name: variant for variant in (*part, *same_model)}.values())))
        return runs

    def _measure_run(self, model: Settings, variants: Sequence[Variant], interrupts: Interrupts) -> None:
        from ablations.training.cost import CostSetting, measure_costs

        launcher, config = self.launcher, self.config
        setting = CostSetting(
            launcher.recipe,
            len(self.store.attributes["data"]["classes"]),  # the data set itself may no longer exist
            launcher.data.side,
            self.design.protocol["device"],
            config.precision / 100,
            config.seconds,
        )
        networks = {variant.name: variant.network for variant in variants if not variant.is_plain}
        self.display.notify(f"Measuring the costs of {', '.join(variant.name for variant in variants)}")
        try:
            with interrupts.at_once():
                costs = launcher.alone(measure_costs, networks, model, setting)
        except (WorkerLostError, MemoryError) as error:  # the study continues without costs
            costs = dict.fromkeys((PLAIN, *networks), NetworkCost(failed=first_line(error)))
        for name, cost in costs.items():
            if cost.failed:
                self.display.notify(f"The costs of {name} could not be measured: {cost.failed}")
        self._keep((*self._stored.runs, CostRun({PLAIN: plain_network(model), **networks}, costs)))
        self._measured.update(variant.name for variant in variants)

    def _keep(self, runs: Sequence[CostRun]) -> None:
        """Stores the runs of this machine as the most recently measured machine."""
        machines = stored_costs(self.store.attributes)
        machines.pop(self._here.key, None)
        taken = datetime.now(UTC).isoformat(timespec="seconds")
        machines[self._here.key] = replace(self._here, taken=taken, runs=tuple(runs))
        self.store.remember(ATTRIBUTE, costs_to_store(machines))

    def _metrics(self, variants: Sequence[Variant]) -> Mapping[str, dict[str, float]]:
        """Returns the costs measured on this machine, by variant and metric."""
        return costs_on(self._stored, replace(self.design, variants=tuple(variants))).metrics
