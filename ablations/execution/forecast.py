"""Plans a study: the cells left to train, their cost, and the effects that the study can detect."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, replace

from rich.console import Console

from ablations.analysis.results import collect
from ablations.common.console import make_console, print_path, print_text
from ablations.common.errors import UsageError
from ablations.common.files import refusals_explained, write_whole
from ablations.common.metrics import METRICS
from ablations.common.urls import hide_passwords
from ablations.common.wording import three_digits
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import Design
from ablations.design.declaration import Declaration, History
from ablations.design.network import capacities_of
from ablations.execution.degenerate import DegeneracyCheck
from ablations.execution.estimate import (
    CellCost,
    StudyCost,
    costed_cells,
    estimate_costs,
    measuring_seconds,
    peak_memory,
    power_sentences,
    wanted,
)
from ablations.execution.launchers import make_launcher
from ablations.execution.reuse import reusable_cells, reuse_sentences
from ablations.execution.runner import StudyRunner, checked_design
from ablations.execution.schedules import make_schedule
from ablations.execution.schedules.base import Outlook
from ablations.reporting.tables.render import markdown_table, print_table
from ablations.reporting.text.capacity import capacity_clause
from ablations.reporting.text.declaration import EXPLORATORY, difference_clause
from ablations.reporting.text.markdown import code_block, markdown_text
from ablations.stats import InterimAnalyses
from ablations.storage.paths import storage_url, study_folder
from ablations.storage.study import StudyStore, find_study

_PROBED = 1.0  # seconds of training steps to probe a variant
_HEADERS = ("variant", "cells", "to train", "s per cell", "peak MiB", "parameters", "by", "capacity")


@dataclass(frozen=True)
class StudyForecast:
    """Plans a study; the plan includes `command`, the command line as typed."""

    config: Config
    command: str
    console: Console

    def plan(self) -> int:
        """Plans the study; returns 0, or the exit status of its pilot if that is not 0.

        Raises:
            SuiteError: if the study cannot be run with these options.
        """
        if status := self.run_pilot():
            return status
        self.forecast()
        return 0

    def forecast(self) -> StudyCost:
        """Prints and writes the plan; returns the remaining cells and their estimated cost.

        Raises:
            SuiteError: see `plan`.
        """
        config = self.config
        design = checked_design(config)
        store, degenerate = self._store(design), DegeneracyCheck(config)
        print_text(self.console, design.question, title=design.study)
        with closing(make_launcher(config, design, self.console)) as launcher:
            launcher.warm_up()
            schedule = make_schedule(config, design, store, launcher.count_parameters, degenerate.refusal_of)
            outlook, interims = schedule.outlook(), schedule.interims
            reusable = reusable_cells(config, design, launcher, store)
            copied, outlook = reuse_sentences(outlook, reusable), outlook.without(reusable)
            stored = store.cells() if store is not None else []
            results = collect(outlook.confirmed or outlook.design, stored)
            costed = costed_cells(outlook.design, stored)
            estimate = estimate_costs(outlook, costed, launcher, _PROBED, peak_memory(store, outlook.design))
            if outlook.to_train:
                estimate = replace(estimate, measuring=measuring_seconds(schedule, config.measure, store))
        planned = outlook.confirmed or outlook.design
        sentences = [
            f"All {len(outlook.design.variants)} variants are valid; {outlook.to_train} of {outlook.total} cells "
            f"remain to be trained on {planned.protocol['device']} in {planned.protocol['train']['precision']}.",
            *copied,
            *([outlook.phases] if outlook.phases else []),
            estimate.sentence,
            *([_looks_sentence(planned, interims)] if interims else []),
            *power_sentences(planned, results.cells, interims),
            *wanted(planned, results.cells, interims, config.plan.effect, estimate.costs),
            *_deviation_sentence(planned, interims, store),
            *degenerate.sentences(outlook.design.variants),
        ]
        self._publish(planned, sentences, _rows(estimate, outlook))
        return estimate

    def run_pilot(self) -> int:
        """Trains the first `plan.pilot` replicates of the study; returns the exit status, 0 without a pilot."""
        design, pilot = checked_design(self.config), self.config.plan.pilot
        if not pilot:
            return 0
        most = design.replicates_max or design.replicates
        if pilot > most:
            raise UsageError("plan.pilot", pilot, f"exceeds the {most} replicates of the study")
        if design.is_search:
            reason = "is not supported in a search, whose verdicts are on variants that are not selected yet"
            raise UsageError("plan.pilot", pilot, reason)
        if design.tuning:
            reason = "is not supported with tune.trials: replicates are trained after tuning"
            raise UsageError("plan.pilot", pilot, reason)
        self._store(design)  # raises before training if the study cannot be planned
        first = replace(self.config, replicates=pilot, replicates_max=Config.replicates_max, baseline_replicates=0)
        return StudyRunner(first, self.command, self.console, planned=design).run()

    def _store(self, design: Design) -> StudyStore | None:
        """Returns the store of the study, checked against the design; None if the study does not exist."""
        store = find_study(storage_url(self.config), design.study)
        if store is not None:
            store.check(design, f"to plan a new study, add study={design.study}-2 (or any name)")
        return store

    def _publish(self, design: Design, sentences: list[str], rows: list[list[str]]) -> None:
        print_table(self.console, _HEADERS, rows, sentences=("capacity",))
        print_text(self.console, *sentences)
        lines = [f"# Plan of {markdown_text(design.study)}", "", markdown_text(design.question), ""]
        lines += [*(f"- {markdown_text(text)}" for text in sentences), ""]
        lines += [*markdown_table(_HEADERS, rows), "", *code_block(self.command), ""]
        path = study_folder(self.config) / "plan.md"
        with refusals_explained("results_dir", path.parent):
            write_whole(path, "\n".join(lines))
        print_path(self.console, "Plan", path)


def plan_study(*overrides: str, console: Console | None = None) -> None:
    """Plans a study as `python -m ablations.plan` with the same overrides does, and prints the plan.

    Overrides are as on the command line: `plan_study("sweep=groups", "replicates=8")`.

    Raises:
        SuiteError: if the study cannot be run with these options.
    """
    call = f"plan_study({', '.join(map(repr, overrides))})"
    StudyForecast(compose_config(overrides), hide_passwords(call), console or make_console()).plan()


def _seconds(cost: CellCost) -> str:
    """Formats the time of a cell with its interval, in seconds; a dash if it is unknown."""
    if math.isnan(cost.seconds):
        return "–"
    return f"{three_digits(cost.seconds)} ({three_digits(cost.low)} to {three_digits(cost.high)})"


def _rows(estimate: StudyCost, outlook: Outlook) -> list[list[str]]:
    missing = outlook.missing
    capacities = {variant.name: capacities_of(variant.network) for variant in outlook.design.variants}
    return [
        [
            cost.variant,
            str(outlook.planned[cost.variant]),
            str(missing[cost.variant]),
            _seconds(cost),
            METRICS["peak_memory_mib"].format(cost.peak_memory_mib),
            f"{cost.parameters:,}",
            cost.by,
            capacity_clause(capacities[cost.variant]),
        ]
        for cost in estimate.costs
    ]


def _deviation_sentence(design: Design, interims: InterimAnalyses | None, store: StudyStore | None) -> list[str]:
    """Returns a sentence on how the plan deviates from the declaration before the first cell; empty without one."""
    history = History.stored(store.attributes.get("declared")) if store is not None else None
    if history is None:
        return []
    asked = Declaration.of(design, interims.sizes if interims else ())
    if asked.replicates < history.latest.replicates:  # the declared replicates exist already or will be trained
        asked = asked.with_replicates_of(history.latest)
    changes = asked.changes_since(history.first)
    if not any(change.is_exploratory for change in changes):
        return []
    return [
        f"Differs from the declaration before the first cell: {', '.join(map(difference_clause, changes))}. "
        f"{EXPLORATORY}"
    ]


def _looks_sentence(design: Design, interims: InterimAnalyses) -> str:
    most = len(design.variants) * interims.sizes[-1]
    return (
        f"This covers the first interim analysis. Interim analyses are at {', '.join(map(str, interims.sizes))} "
        f"replicates; at most {most} cells are trained."
    )
