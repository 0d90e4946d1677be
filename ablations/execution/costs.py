"""Measures what variants cost, once a study and machine, while no cell is trained, and keeps it with the study."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property

from ablations.analysis.costs import collect_costs, cost_of
from ablations.common.metrics import COSTS
from ablations.common.settings import Settings
from ablations.common.wording import count, first_line
from ablations.config import MeasureConfig
from ablations.design import Design
from ablations.design.variants import Variant
from ablations.execution.interrupts import Interrupts
from ablations.execution.launchers.base import Launcher, WorkerLostError
from ablations.execution.progress import Display, describe_seconds
from ablations.measure.costs import NetworkCost
from ablations.storage.costs import ATTRIBUTE, CostRun, MachineCosts, costs_to_store, stored_costs
from ablations.storage.study import StudyStore
from ablations.tracking import StudyMirror
from ablations.training.job import environment

_TOGETHER = 8  # networks that are timed in turns, besides the plain one


@dataclass
class CostMeasurer:
    """Measures the variants of a study that were not measured on this machine yet.

    What was measured is stored run by run, so an interrupted measurement goes on with the next run.
    """

    config: MeasureConfig
    design: Design
    store: StudyStore
    launcher: Launcher
    mirror: StudyMirror
    display: Display
    _measured: set[str] = field(default_factory=set, init=False)  # variants in this process

    def measure(self, variants: Sequence[Variant], interrupts: Interrupts) -> None:
        """Measures those of some variants that lack it; with `measure=only` all of them, each once in this process.

        Raises StudyInterruptedError after a signal; what was measured before is stored.
        """
        if self.config.name == "off":
            return
        is_again = self.config.name == "only"
        missing = [
            one
            for one in variants
            if one.name not in self._measured and (is_again or self._machine is None or not cost_of(self._machine, one))
        ]
        if not missing:
            return
        started = time.monotonic()
        for model, together in self._together(missing):
            self._measure_run(model, together, interrupts)
        taken = describe_seconds(time.monotonic() - started)
        self.display.say(f"Costs: {count(len(missing), 'variant')} measured beside the plain network in {taken}.")
        self.mirror.costs(self._metrics([*self.design.variants, *variants]))

    def objectives_of(self, variant: Variant) -> dict[str, float]:
        """Returns the costs of a variant that the study has as objectives, as far as they are known."""
        wanted = COSTS.intersection(self.design.objectives)
        known = self._metrics([variant]).get(variant.name, {}) if wanted else {}
        return {key: known[key] for key in wanted if key in known}

    def reason_against(self, variant: Variant) -> str:
        """Returns why a variant lacks a cost that is an objective; empty where it lacks none."""
        wanted = COSTS.intersection(self.design.objectives)
        if wanted <= self.objectives_of(variant).keys():
            return ""
        found = cost_of(self._machine, variant) if self._machine else None
        return (found.failed if found else "") or "it was not measured"

    @property
    def _machine(self) -> MachineCosts | None:
        return stored_costs(self.store.attributes).get(self._here.key)

    @cached_property
    def _here(self) -> MachineCosts:
        """The machine that cells are trained on, with nothing measured."""
        found = self.launcher.alone(environment, self.launcher.threads)
        return MachineCosts(found | {"device": self.design.protocol["device"]}, "")

    def _together(self, missing: Sequence[Variant]) -> list[tuple[Settings, list[Variant]]]:
        """Returns runs: a few variants of one backbone, each run with the baselines of its variants."""
        by_model: dict[str, list[Variant]] = {}
        for variant in missing:
            by_model.setdefault(json.dumps(variant.model, sort_keys=True), []).append(variant)
        known = {variant.name: variant for variant in (*self.design.variants, *missing)}
        runs = []
        for own in by_model.values():
            for first in range(0, len(own), _TOGETHER):
                part = own[first : first + _TOGETHER]
                baselines = [known.get(self.design.baselines.get(variant.name, "")) for variant in part]
                more = [one for one in baselines if one and one.model == part[0].model]
                runs.append((part[0].model, list({one.name: one for one in (*part, *more)}.values())))
        return runs

    def _measure_run(self, model: Settings, variants: Sequence[Variant], interrupts: Interrupts) -> None:
        from ablations.training.cost import CostSetting, measure_costs

        launcher, config = self.launcher, self.config
        setting = CostSetting(
            launcher.recipe,
            len(launcher.images.classes),
            launcher.data.side,
            self.design.protocol["device"],
            config.precision / 100,
            config.seconds,
        )
        networks = {variant.name: variant.network for variant in variants if not variant.is_plain}
        self.display.say(f"Measuring costs: {', '.join(variant.name for variant in variants)}")
        try:
            with interrupts.at_once():
                costs = launcher.alone(measure_costs, networks, model, setting)
        except (WorkerLostError, MemoryError) as error:  # the study goes on without
            costs = {variant.name: NetworkCost(failed=first_line(error)) for variant in variants}
        failed = {name: cost.failed for name, cost in costs.items() if cost.failed}
        for name, reason in failed.items():
            self.display.say(f"The costs of {name} are not known: {reason}")
        self._keep(CostRun(model, costs))
        self._measured.update(variant.name for variant in variants)

    def _keep(self, run: CostRun) -> None:
        machines = stored_costs(self.store.attributes)
        known = machines.pop(self._here.key, self._here)
        # What is measured again takes the place of what was measured before.
        begun_anew = self.config.name == "only" and not self._measured
        runs = () if begun_anew else known.runs
        taken = datetime.now(UTC).isoformat(timespec="seconds")
        machines[known.key] = replace(known, environment=self._here.environment, taken=taken, runs=(*runs, run))
        self.store.remember(ATTRIBUTE, costs_to_store(machines))

    def _metrics(self, variants: Sequence[Variant]) -> Mapping[str, dict[str, float]]:
        costs = collect_costs(self.store.attributes, replace(self.design, variants=tuple(variants)))
        return costs.metrics if costs else {}
