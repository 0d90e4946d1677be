"""Runs and plans the studies of several protocols sequentially, and writes a joint report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console

from ablations.analysis.multiverse import MultiverseAnalysis, find_multiverse, load_composed, multiverse_folder
from ablations.common.console import make_console, print_text
from ablations.common.errors import SuiteError
from ablations.common.parts import TRACEBACKS, Parts
from ablations.common.urls import hide_passwords
from ablations.common.wording import count
from ablations.config.multiverse import Multiverse, Protocol, compose_several, for_each
from ablations.design import Design
from ablations.execution.estimate import StudyCost
from ablations.execution.forecast import StudyForecast
from ablations.execution.runner import StudyRunner, checked_design
from ablations.reporting.text.not_made import not_made_notice
from ablations.stats import detectable, family
from ablations.storage.paths import storage_url
from ablations.storage.study import find_study

_REFUSED = 2  # the exit status of the command line for usage errors


@dataclass(frozen=True)
class MultiverseRunner:
    """Runs or plans the studies of several protocols."""

    multiverse: Multiverse
    console: Console

    def run(self) -> int:
        """Runs the studies in order, then writes the joint report; an error in one study does not stop the others.

        Returns 0 if all cells have an outcome, 1 if some have none or part of a report failed, 2 if no study could be
        run, and 128 + n after signal n, which ends the whole run.

        Raises:
            SuiteError: if the options are invalid; checked before training.
        """
        self._check()
        statuses, parts = [], Parts()
        for protocol in self._announced():
            status = parts.make(f"study under {protocol.name}", 1, self._run, protocol)
            if status >= 128:
                return status
            statuses.append(status)
        analysis = find_multiverse(self.multiverse)
        if analysis is not None:
            # Imported here because the plotting libraries take seconds to import.
            from ablations.reporting.multiverse import report_multiverse

            report_multiverse(analysis, self.console, parts)
        else:
            tracebacks = parts.write_tracebacks(multiverse_folder(self.multiverse) / TRACEBACKS)
            print_text(self.console, *not_made_notice(parts, tracebacks))
        return 1 if parts.missing or len(set(statuses)) > 1 else statuses[0]

    def plan(self) -> int:
        """Plans each study, then prints the total cost; returns 0, or the exit status of the first pilot that failed.

        Raises:
            SuiteError: if a study cannot be run with these options.
        """
        designs = self._check()
        costs = []
        for protocol in self._announced():
            forecast = StudyForecast(protocol.config, protocol.command, self.console)
            if status := forecast.run_pilot():
                return status
            costs.append(forecast.forecast())
        total = StudyCost(
            tuple(cost for study in costs for cost in study.costs),
            sum(study.missing for study in costs),
            *(sum(getattr(study, key) for study in costs) for key in ("seconds", "low", "high")),
        )
        print_text(self.console, f"\nTotal over {count(len(costs), 'protocol')}. {total.sentence}", *_reach(designs))
        return 0

    def _check(self) -> list[Design]:
        """Returns the designs of all protocols, after all checks that need no training."""
        multiverse_folder(self.multiverse)
        by_name = {protocol.name: protocol for protocol in self.multiverse.protocols}
        return for_each(by_name, lambda name: _checked(by_name[name]))

    def _announced(self) -> Iterator[Protocol]:
        protocols = self.multiverse.protocols
        for number, protocol in enumerate(protocols, 1):
            print_text(self.console, f"\nProtocol {number} of {len(protocols)}: {protocol.name}")
            yield protocol

    def _run(self, protocol: Protocol) -> int:
        try:
            return StudyRunner(protocol.config, protocol.command, self.console).run()
        except SuiteError as error:
            print_text(self.console, f"Not run under {protocol.name}: {hide_passwords(str(error))}")
            return _REFUSED


def run_multiverse(*overrides: str, console: Console | None = None) -> MultiverseAnalysis:
    """Runs the studies of several protocols as `python -m ablations.run` with the same overrides does.

    Overrides are as on the command line: `run_multiverse("sweep=groups", "recipes=[quick,cifar]")`.

    Raises:
        SuiteError: if the studies cannot be run with these options, or no cell could be trained.
        KeyboardInterrupt: if the run was interrupted; finished cells are stored.
    """
    multiverse = compose_several(overrides, "run_study", "run_multiverse")
    if MultiverseRunner(multiverse, console or make_console()).run() >= 128:
        raise KeyboardInterrupt
    return load_composed(multiverse)


def _checked(protocol: Protocol) -> Design:
    design = checked_design(protocol.config)
    store = find_study(storage_url(protocol.config), design.study)
    if store is not None:
        store.check(design, "to start new studies, add study=NAME (any name)")
    return design


def _reach(designs: Sequence[Design]) -> list[str]:
    """Returns a sentence on the power lost by correcting over all protocols; without the loss for interim analyses."""
    # Tuned variants have results under two recipes.
    contrasts = [len(family(design.baselines)) * (2 if design.tuning else 1) for design in designs]
    replicates = designs[0].replicates
    text = f"The report on all protocols corrects verdicts for {count(sum(contrasts), 'contrast')}"
    if designs[0].replicates_max:
        return [f"{text}, the report of each study for its own only."]
    alone, together = (detectable(1.0, replicates, number) for number in (max(contrasts), sum(contrasts)))
    if alone is None or together is None:
        return [f"{text}; with {count(replicates, 'replicate')} none can reach significance."]
    return [
        f"{text}: the minimum detectable effect at 80 % power with {count(replicates, 'replicate')} is "
        f"{together:.2g} SD of paired differences, instead of {alone:.2g} SD in a study alone."
    ]
