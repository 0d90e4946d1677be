"""An open search: Optuna's TPE picks combinations of levels one by one, from what came of those before.

A combination that is picked becomes a variant like any other, with its replicates as cells. The sampler works on a
study in memory that is built anew from the stored cells before each pick, so a search that was cut off goes on as if it
had not been. Combinations that cannot be built, were trained before, or have more parameters than
`sweep.max_parameters` are never trained: the sampler is asked again.

With one objective that is known after every epoch, Optuna's median pruner gives hopeless cells up. Only a variant's
first replicate is judged, against the first replicates of others, which saw the same batches; the others of a
variant that was given up are not trained.
"""

from __future__ import annotations

import itertools
import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablations.analysis.picked import Maker, with_found_variants
from ablations.common.errors import UsageError
from ablations.common.metrics import EPOCH_METRICS, METRICS
from ablations.common.settings import Settings
from ablations.config import OBJECTIVES, Config
from ablations.design import Cell, Design
from ablations.design.variants import Variant
from ablations.storage.study import StoredCell, StudyStore
from sa_core.seeds import stream_seed

if TYPE_CHECKING:
    from ablations.training.events import Epoch

_ASKED = 200  # picks that the sampler may waste before the combinations that are left are looked through
_LOOKED_THROUGH = 20_000
_UNDER_WAY = (TrialState.RUNNING, TrialState.WAITING)


class Search:
    """Picks the variants of a search.

    Args:
        config: the sweep's factors are the space, their levels the choices.
        design: its named variants, without those that were picked.
        store: what is known; the cells of what is picked are put into its queue.
        count_parameters: says how many parameters a variant has.

    Attributes:
        exhausted: whether fewer variants were to be had than were asked for.
    """

    def __init__(
        self, config: Config, design: Design, store: StudyStore, count_parameters: Callable[[Variant], int]
    ) -> None:
        self._config, self._named, self._store, self._count_parameters = config, design, store, count_parameters
        self.exhausted = False
        self._maker = Maker(config)
        self._counts: dict[str, int] = {}  # parameters, by variant
        self._space = {path: CategoricalDistribution(levels) for path, levels in design.factors.items()}

    def size(self) -> int:
        """Counts the combinations of levels."""
        return math.prod(len(levels) for levels in self._named.factors.values())

    def check(self) -> None:
        """Checks that something can be picked.

        Raises:
            UsageError: if every combination has too many parameters.
        """
        known = self.design.variants[len(self._named.variants) :]
        if self._named.max_parameters and not known and self._pick() is None:
            reason = f"no combination has so few parameters; the smallest has {min(self._counts.values()):,}"
            raise UsageError("sweep.max_parameters", self._named.max_parameters, reason)

    @property
    def design(self) -> Design:
        """The design as far as it is known."""
        return with_found_variants(self._named, self._store.cells(), self._maker)

    def cells(self) -> Iterator[Cell | None]:
        """Picks variants and yields their cells, until there are as many variants as were asked for.

        The further replicates of a variant come when its first one has ended, unless that was given up. None says that
        nothing can be told before one that is being trained has ended.
        """
        open_ones: list[Variant] = []  # whose first replicate is being trained
        while True:
            states = {cell.key: cell.state for cell in self._store.cells()}
            first = {variant.name: states[self._named.cell(variant, 0).key] for variant in open_ones}
            ended = next((variant for variant in open_ones if first[variant.name] not in _UNDER_WAY), None)
            if ended is not None:
                open_ones.remove(ended)
                if first[ended.name] != TrialState.PRUNED:
                    for replicate in range(1, self._named.replicates):
                        yield self._enqueued(ended, replicate)
            elif (variant := self._pick()) is not None:
                open_ones.append(variant)
                yield self._enqueued(variant, 0)
            elif open_ones and self._named.replicates > 1:
                yield None
            else:
                return

    def _enqueued(self, variant: Variant, replicate: int) -> Cell:
        cell = self._named.cell(variant, replicate)
        self._store.enqueue([cell])
        return cell

    def _pick(self) -> Variant | None:
        """Returns the next variant; None when there are enough, or none is left."""
        stored = self._store.cells()
        design = with_found_variants(self._named, stored, self._maker)
        picked = [variant for variant in design.variants if variant.levels]
        if len(picked) >= self._config.sweep.trials:
            return None
        # By how many there are, so that a search that goes on picks what it would have picked.
        seed = stream_seed(self._named.protocol["seed"], "search", len(picked)) % 2**32
        under_way = {cell.variant for cell in stored if cell.state in _UNDER_WAY}
        running = [
            create_trial(state=TrialState.RUNNING, params=variant.levels, distributions=dict(self._space))
            for variant in picked
            if variant.name in under_way
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Variants that are being trained count as bad ones, so that those beside them are others.
            sampler = TPESampler(seed=seed, multivariate=True, constant_liar=len(running) > 0)
        study = make_study(self._named.objectives, sampler)
        study.add_trials(running)
        study.add_trials(history(picked, stored, self._named.objectives, self._space))
        known = [variant.network for variant in design.variants]
        for _ in range(_ASKED):
            trial = study.ask(dict(self._space))
            variant = self._maker.variant(trial.params)
            if variant and self._is_wanted(variant, known):
                return variant
            study.tell(trial, state=TrialState.FAIL)
        return self._first_left(known, seed)

    def _is_wanted(self, variant: Variant, known: Sequence[Settings]) -> bool:
        most = self._named.max_parameters
        if variant.network in known or not most:
            return variant.network not in known
        if variant.name not in self._counts:
            self._counts[variant.name] = self._count_parameters(variant)
        return self._counts[variant.name] <= most

    def _first_left(self, known: Sequence[Settings], seed: int) -> Variant | None:
        """Looks through the combinations, in random order, for one that was not tried."""
        factors = self._named.factors
        combinations = list(itertools.islice(itertools.product(*factors.values()), _LOOKED_THROUGH))
        random.Random(seed).shuffle(combinations)
        for combination in combinations:
            variant = self._maker.variant(dict(zip(factors, combination, strict=True)))
            if variant and self._is_wanted(variant, known):
                return variant
        self.exhausted = True
        return None


def make_study(objectives: Sequence[str], sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    """Makes a study in memory with the directions of the objectives."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        directions=[StudyDirection[OBJECTIVES[objective].upper()] for objective in objectives], sampler=sampler
    )


def history(
    variants: Sequence[Variant],
    stored: Iterable[StoredCell],
    objectives: Sequence[str],
    space: Mapping[str, CategoricalDistribution],
) -> list[FrozenTrial]:
    """Returns a trial for each variant that has a result, with the means over its replicates; all are of the space."""
    cells: dict[str, list[StoredCell]] = {}
    for cell in stored:
        cells.setdefault(cell.variant, []).append(cell)
    trials = []
    for variant in variants:
        own = [cell for cell in cells.get(variant.name, ()) if cell.outcome is not None]
        finished = [cell.outcome["result"] for cell in own if cell.outcome and cell.state == TrialState.COMPLETE]
        given_up = [cell.outcome["result"] for cell in own if cell.outcome and cell.state == TrialState.PRUNED]
        common: dict[str, Any] = {"params": variant.levels, "distributions": dict(space)}
        if given_up:
            steps = {epoch["epoch"]: epoch[objectives[0]] for epoch in given_up[0]["epochs"]}
            trials.append(create_trial(state=TrialState.PRUNED, intermediate_values=steps, **common))
        elif finished:
            values = [float(np.mean([result[objective] for result in finished])) for objective in objectives]
            trials.append(create_trial(values=values, **common))
    return trials


class MedianStopper:
    """Gives up first replicates that are worse than the median of others at the same epoch.

    Args:
        store: knows the others.
        objective: the metric; higher or lower is better as `OBJECTIVES` has it.
        epochs: of a whole training; after the last one there is nothing to save.
    """

    def __init__(self, store: StudyStore, objective: str, epochs: int) -> None:
        self._store, self._objective, self._epochs = store, objective, epochs
        self._pruner = MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 3))

    @classmethod
    def suits(cls, objectives: Sequence[str]) -> bool:
        """Says whether there is one objective, which is known after every epoch."""
        return len(objectives) == 1 and objectives[0] in EPOCH_METRICS

    def reason_to_stop(self, cell: Cell, epochs: Sequence[Epoch]) -> str | None:
        """Says why a cell is hopeless; None while it is not, and for cells that are not judged."""
        if not cell.variant.levels or cell.replicate != 0 or len(epochs) >= self._epochs:
            return None
        study = make_study([self._objective])
        for other in self._store.cells():
            if other.levels and other.replicate == 0 and other.state == TrialState.COMPLETE and other.outcome:
                result = other.outcome["result"]
                steps = {epoch["epoch"]: epoch[self._objective] for epoch in result["epochs"]}
                study.add_trial(create_trial(value=result[self._objective], intermediate_values=steps))
        own = {epoch.epoch: getattr(epoch, self._objective) for epoch in epochs}
        trial = create_trial(state=TrialState.RUNNING, intermediate_values=own)
        if not self._pruner.prune(study, trial):
            return None
        metric = METRICS[self._objective]
        value = f"{metric.label.lower()} {metric.format(own[epochs[-1].epoch])} {metric.unit}"
        return f"after epoch {len(epochs)}, {value} is worse than the median of the others"
