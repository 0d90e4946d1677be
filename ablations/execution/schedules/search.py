"""An open search: Optuna's TPE picks combinations of levels one by one, from what came of those before.

A combination that is picked becomes a variant like any other, with its replicates as cells. The pruner works on the
stored study itself. The sampler cannot: it sees levels as categories and a variant as one observation, the mean over
its replicates, while the stored study has a trial a replicate and parameters over all that an option may be. So it
works on a study in memory that is built anew from the stored one before each pick, and a search that was cut off goes
on as if it had not been. Combinations that cannot be built, were trained before, or have more parameters than
`sweep.max_parameters` are never trained: the sampler is asked again.

With one objective that is known after every epoch, Optuna's median pruner gives hopeless cells up. Only a variant's
first replicate is judged, against all finished cells; the others of a variant that was given up are not trained.
"""

from __future__ import annotations

import itertools
import math
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablations.analysis.load import Maker, with_found_variants
from ablations.common.errors import UsageError
from ablations.common.metrics import EPOCH_METRICS, METRICS
from ablations.common.settings import Settings
from ablations.config import Config
from ablations.design import Cell, Design
from ablations.design.variants import Variant
from ablations.execution.schedules.base import Outlook, Schedule
from ablations.storage.cell_states import CellState, StoredCell
from ablations.storage.study import StudyStore
from ablations.training.events import Epoch
from sa_core.seeds import stream_seed

_ASKED = 200  # picks that the sampler may waste before the combinations that are left are looked through
_LOOKED_THROUGH = 20_000
_STARTUP = 5  # variants that are trained to their end before any is given up


class SearchSchedule(Schedule):
    """Picks the variants of a search, from the levels of the sweep's factors."""

    def __init__(
        self, config: Config, design: Design, store: StudyStore | None, count_parameters: Callable[[Variant], int]
    ) -> None:
        super().__init__(design, store)
        self._trials, self._epochs = config.sweep.trials, config.train.epochs
        self._count_parameters = count_parameters
        self._maker = Maker(config)
        self._counts: dict[str, int] = {}  # parameters, by variant
        self._space = {path: CategoricalDistribution(levels) for path, levels in design.factors.items()}
        warmup = max(1, self._epochs // 3)
        self._pruner = MedianPruner(n_startup_trials=_STARTUP * design.replicates, n_warmup_steps=warmup + 1)

    @property
    def design(self) -> Design:
        """The design with the variants that were picked so far."""
        return with_found_variants(self.declared, self._stored(), self._maker)

    def check(self) -> None:
        """Checks that something can be picked.

        Raises:
            UsageError: if every combination has too many parameters.
        """
        most = self.declared.max_parameters
        if most and len(self.design.variants) == len(self.declared.variants) and self._pick() is None:
            reason = f"no combination has so few parameters; the smallest has {min(self._counts.values()):,}"
            raise UsageError("sweep.max_parameters", most, reason)

    def outlook(self) -> Outlook:
        """Returns what there is to train."""
        design, asked = self.design, self._trials
        size = math.prod(len(levels) for levels in design.factors.values())
        trials = min(asked, size)
        to_pick = max(0, trials - (len(design.variants) - len(self.declared.variants)))
        note = f"There are {trials} combinations of levels to pick from, not {asked}." if trials < asked else ""
        total = (len(design.variants) + to_pick) * design.replicates
        return Outlook(design, self.missing(), total, to_pick, note)

    def cells(self) -> Iterator[Cell | None]:
        """Yields what is missing of known variants, then picks others until there are as many as were asked for.

        The further replicates of a variant come when its first one has ended, unless that was given up. None says that
        nothing can be told before one that is being trained has ended.
        """
        yield from self.missing()
        open_ones: list[Variant] = []  # whose first replicate is being trained
        while True:
            stored = {cell.key: cell for cell in self._stored()}
            first = {variant.name: stored[self.declared.cell(variant, 0).key] for variant in open_ones}
            ended = next((variant for variant in open_ones if not first[variant.name].is_open), None)
            if ended is not None:
                open_ones.remove(ended)
                if first[ended.name].state is not CellState.PRUNED:
                    for replicate in range(1, self.declared.replicates):
                        yield self.declared.cell(ended, replicate)
            elif (variant := self._pick()) is not None:
                open_ones.append(variant)
                yield self.declared.cell(variant, 0)
            elif open_ones and self.declared.replicates > 1:
                yield None
            else:
                return

    def reason_to_stop(self, cell: Cell, epochs: Sequence[Epoch]) -> str | None:
        """Says why a cell is hopeless; None while it is not, and for cells that are not judged."""
        is_judged = cell.variant.levels and cell.replicate == 0 and len(epochs) < self._epochs
        if not is_judged or not can_prune(self.declared.objectives):
            return None
        if self._store is None or not self._store.should_prune(cell, self._pruner):
            return None
        objective = self.declared.objectives[0]
        metric = METRICS[objective]
        value = f"{metric.label.lower()} {metric.format(getattr(epochs[-1], objective))} {metric.unit}"
        return f"after epoch {len(epochs)}, {value} is worse than the median of the others"

    def _pick(self) -> Variant | None:
        """Returns the next variant; None when there are enough, or none is left."""
        stored = self._stored()
        design = with_found_variants(self.declared, stored, self._maker)
        picked = [variant for variant in design.variants if variant.levels]
        if len(picked) >= self._trials:
            return None
        # By how many there are, so that a search that goes on picks what it would have picked.
        seed = stream_seed(self.declared.protocol["seed"], "search", len(picked)) % 2**32
        in_training = {cell.variant for cell in stored if cell.is_open}
        running = [
            create_trial(state=TrialState.RUNNING, params=variant.levels, distributions=dict(self._space))
            for variant in picked
            if variant.name in in_training
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Variants that are being trained count as bad ones, so that those beside them are others.
            sampler = TPESampler(seed=seed, multivariate=True, constant_liar=len(running) > 0)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = [StudyDirection[direction.upper()] for direction in design.directions]
        study = optuna.create_study(directions=directions, sampler=sampler)
        study.add_trials(running)
        study.add_trials(observations(picked, stored, design.objectives, self._space))
        known = [variant.network for variant in design.variants]
        for _ in range(_ASKED):
            trial = study.ask(dict(self._space))
            variant = self._maker.variant(trial.params)
            if variant and self._is_wanted(variant, known):
                return variant
            study.tell(trial, state=TrialState.FAIL)
        return self._first_left(known, seed)

    def _is_wanted(self, variant: Variant, known: Sequence[Settings]) -> bool:
        most = self.declared.max_parameters
        if variant.network in known:
            return False
        if most and variant.name not in self._counts:
            self._counts[variant.name] = self._count_parameters(variant)
        return not most or self._counts[variant.name] <= most

    def _first_left(self, known: Sequence[Settings], seed: int) -> Variant | None:
        """Looks through the combinations, in random order, for one that was not tried."""
        factors = self.declared.factors
        combinations = list(itertools.islice(itertools.product(*factors.values()), _LOOKED_THROUGH))
        random.Random(seed).shuffle(combinations)
        for combination in combinations:
            variant = self._maker.variant(dict(zip(factors, combination, strict=True)))
            if variant and self._is_wanted(variant, known):
                return variant
        self.ending = "No other combination of levels is left to pick."
        return None


def can_prune(objectives: Sequence[str]) -> bool:
    """Returns whether there is one objective, which is known after every epoch."""
    return len(objectives) == 1 and objectives[0] in EPOCH_METRICS


def observations(
    variants: Sequence[Variant],
    stored: Iterable[StoredCell],
    objectives: Sequence[str],
    space: Mapping[str, CategoricalDistribution],
) -> list[FrozenTrial]:
    """Returns a trial for each variant that has a result, with the means over its replicates; all are of the space."""
    results: defaultdict[tuple[str, CellState], list[Any]] = defaultdict(list)
    for cell in stored:
        if cell.outcome is not None:
            results[cell.variant, cell.state].append(cell.outcome["result"])
    trials = []
    for variant in variants:
        common: dict[str, Any] = {"params": variant.levels, "distributions": dict(space)}
        if pruned := results[variant.name, CellState.PRUNED]:
            steps = {epoch["epoch"]: epoch[objectives[0]] for epoch in pruned[0]["epochs"]}
            trials.append(create_trial(state=TrialState.PRUNED, intermediate_values=steps, **common))
        elif finished := results[variant.name, CellState.FINISHED]:
            values = [float(np.mean([result[objective] for result in finished])) for objective in objectives]
            trials.append(create_trial(values=values, **common))
    return trials
