"""Measures what variants cost, once a study and machine, while no cell is trained, and keeps it with the study."""

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

TOGETHER = 8  # networks that are timed in turns, besides the plain one


@dataclass
class CostMeasurer:
    """Measures the variants of a study that were not measured on this machine yet.

    What was measured is stored run by run, so an interrupted measurement continues with the run that was cut off. With
    `measure=only` what was stored before is dropped once all has been measured again.
    """

    config: MeasureConfig
    design: Design
    store: StudyStore
    launcher: Launcher
    mirror: StudyMirror
    display: Display
    _measured: set[str] = field(default_factory=set, init=False)  # names of variants, in this process

    def measure(self, variants: Sequence[Variant], interrupts: Interrupts) -> None:
        """Measures those variants that were not measured on this machine, or failed to be in an earlier process.

        With `measure=only` all are measured, each once in this process.

        Raises:
            StudyInterruptedError: after a signal; the runs that were finished before are stored.
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
        taken = describe_seconds(time.monotonic() - started)
        self.display.notify(f"Measured the costs of {count(len(missing), 'variant')} in {taken}.")
        self.mirror.costs(self._metrics([*self.design.variants, *variants]))

    def objectives_of(self, variant: Variant) -> dict[str, float]:
        """Returns the costs of a variant that are objectives of the study, as far as they are known."""
        known = self._metrics([variant]).get(variant.name, {}) if self._objectives else {}
        return {key: known[key] for key in self._objectives if key in known}

    def reason_against(self, variant: Variant) -> str:
        """Returns why a cost of a variant that is an objective is not known; empty where all are."""
        if self._objectives <= self.objectives_of(variant).keys():
            return ""
        found = cost_of(self._stored, variant)
        return (found.failed if found else "") or "it was not measured"

    @cached_property
    def _objectives(self) -> frozenset[str]:
        """The costs that the study has as objectives."""
        return COSTS.intersection(self.design.objectives)

    def _lacks(self, stored: MachineCosts, variant: Variant) -> bool:
        """Says whether a variant is to be measured, given what was before."""
        known = cost_of(stored, variant)
        return self.config.name == "only" or known is None or bool(known.failed)

    @property
    def _stored(self) -> MachineCosts:
        """What was measured on this machine."""
        return stored_costs(self.store.attributes).get(self._here.key, self._here)

    @cached_property
    def _here(self) -> MachineCosts:
        """The machine that cells are trained on, with nothing measured."""
        found = self.launcher.alone(environment, self.launcher.threads)
        return MachineCosts(found | {"device": self.design.protocol["device"]}, "")

    def _together(self, missing: Sequence[Variant]) -> list[tuple[Settings, list[Variant]]]:
        """Splits variants into runs: a few of one backbone, with their baselines; the plain network is in all."""
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
                more = (one for one in compared if one.model == part[0].model and not one.is_plain)
                runs.append((part[0].model, list({variant.name: variant for variant in (*part, *more)}.values())))
        return runs

    def _measure_run(self, model: Settings, variants: Sequence[Variant], interrupts: Interrupts) -> None:
        from ablations.training.cost import CostSetting, measure_costs

        launcher, config = self.launcher, self.config
        setting = CostSetting(
            launcher.recipe,
            len(self.store.attributes["data"]["classes"]),  # the data set itself may be gone
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
        except (WorkerLostError, MemoryError) as error:  # the study goes on without
            costs = dict.fromkeys((PLAIN, *networks), NetworkCost(failed=first_line(error)))
        for name, cost in costs.items():
            if cost.failed:
                self.display.notify(f"The costs of {name} could not be measured: {cost.failed}")
        self._keep((*self._stored.runs, CostRun({PLAIN: plain_network(model), **networks}, costs)))
        self._measured.update(variant.name for variant in variants)

    def _keep(self, runs: Sequence[CostRun]) -> None:
        """Stores the runs of this machine, which becomes the one that was measured last."""
        machines = stored_costs(self.store.attributes)
        machines.pop(self._here.key, None)
        taken = datetime.now(UTC).isoformat(timespec="seconds")
        machines[self._here.key] = replace(self._here, taken=taken, runs=tuple(runs))
        self.store.remember(ATTRIBUTE, costs_to_store(machines))

    def _metrics(self, variants: Sequence[Variant]) -> Mapping[str, dict[str, float]]:
        """Returns what was measured on this machine, by variant and metric."""
        return costs_on(self._stored, replace(self.design, variants=tuple(variants))).metrics
