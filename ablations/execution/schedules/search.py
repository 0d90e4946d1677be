"""An open search: Optuna's TPE picks combinations of levels one by one from the results of earlier ones.

A picked combination becomes a variant, trained once and evaluated on the validation images. After all picks, the best
ones and the named variants are confirmed: trained with new seeds in all replicates, and evaluated on the test images,
which no pick depends on (`ablations.analysis.selection`).

The pruner uses the stored study. The sampler cannot: it needs levels as categories and one observation per variant,
while the stored study also has trials of confirmations, and parameters over each option's whole domain. So it uses a
study in memory that is rebuilt from the stored one before each pick, and a resumed search makes the same picks as an
uninterrupted one. Combinations that cannot be built, were picked before, have more parameters than
`sweep.max_parameters`, or have degenerate modules are not trained: the sampler picks again.

With a single objective that is measured after every epoch, Optuna's median pruner stops variants that are worse than
the finished cells of the selection. Confirmation is never pruned.
"""

from __future__ import annotations

import itertools
import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablations.analysis.load import Maker, with_found_variants
from ablations.analysis.selection import collect_selection, confirmed_design
from ablations.common.errors import UsageError
from ablations.common.metrics import COSTS, EPOCH_METRICS, METRICS
from ablations.common.settings import Settings
from ablations.common.wording import count
from ablations.config import Config
from ablations.design import Cell, Design, Split
from ablations.design.variants import Variant
from ablations.execution.schedules.base import Measure, Outlook, Schedule
from ablations.storage.cell_states import CellState, StoredCell
from ablations.storage.study import StudyStore
from ablations.training.events import Epoch
from sa_core.seeds import stream_seed

_ASKED = 200  # rejected picks of the sampler before the remaining combinations are enumerated
_LOOKED_THROUGH = 20_000  # enumerated combinations
_STARTUP = 5  # variants trained to their end before any is pruned


class SearchSchedule(Schedule):
    """Picks the variants of a search from the levels of the sweep's factors."""

    def __init__(
        self,
        config: Config,
        design: Design,
        store: StudyStore | None,
        count_parameters: Callable[[Variant], int],
        refusal_of: Callable[[Variant], str],
    ) -> None:
        super().__init__(design, store)
        self._trials, self._epochs = config.sweep.trials, config.train.epochs
        self._count_parameters, self._refusal_of = count_parameters, refusal_of
        self._refused = ""  # the reason against the last refused pick
        self._maker = Maker(config)
        self._counts: dict[str, int] = {}  # parameters, by variant
        self._space = {path: CategoricalDistribution(levels) for path, levels in design.factors.items()}
        warmup = max(1, self._epochs // 3)
        self._pruner = MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=warmup + 1)

    @property
    def design(self) -> Design:
        """The design with the variants picked so far."""
        return with_found_variants(self.declared, self._stored(), self._maker)

    def check(self) -> None:
        """Checks that a variant can be picked.

        Raises:
            UsageError: if every combination has too many parameters or a degenerate module.
        """
        most = self.declared.max_parameters
        if len(self.design.variants) > len(self.declared.variants) or self._pick() is not None:
            return
        if most and min(self._counts.values(), default=0) > most:
            reason = f"no combination has so few parameters; the minimum is {min(self._counts.values()):,}"
            raise UsageError("sweep.max_parameters", most, reason)
        if self._refused:
            reason = "every combination of levels has a degenerate module; to train them anyway, set degenerate=warn:"
            raise UsageError("degenerate", "refuse", f"{reason}\n  {self._refused}")

    def outlook(self) -> Outlook:
        """Returns the cells to train; the confirmed picks are known after the selection."""
        design, asked = self.design, self._trials
        size = math.prod(len(levels) for levels in design.factors.values())
        trials = min(asked, size)
        to_pick = max(0, trials - (len(design.variants) - len(self.declared.variants)))
        note = f"There are only {trials} combinations of levels, not {asked}." if trials < asked else ""
        selection = self.not_done(design.selection_cells())
        is_selected = not selection and (not to_pick or self._pick() is None)
        if is_selected:
            to_pick = to_confirm = 0
            confirmed = self._confirmed()
        else:
            to_confirm = min(self.declared.confirm, trials)
            confirmed = self._confirmed_already()
        total = len(design.variants) + to_pick + (len(confirmed.variants) + to_confirm) * design.replicates
        cells = [*selection, *self.missing(confirmed)]
        return Outlook(design, cells, total, to_pick, to_confirm, note, confirmed)

    @property
    def measured_first(self) -> tuple[Variant, ...]:
        """The named variants, which are always confirmed; picks are measured when needed."""
        return self.declared.variants

    def cells(self) -> Iterator[Cell | Measure | None]:
        """Yields the cells of the selection, picking variants one by one, then those of the confirmation.

        Yields None while the next cell depends on a cell of the selection in training.
        """
        is_measured = not COSTS.isdisjoint(self.declared.objectives)
        begun = self.not_done(self.design.selection_cells())
        if is_measured and begun:
            yield Measure(tuple(cell.variant for cell in begun))
        yield from begun
        while True:
            # Costs cannot be measured during training, so as many variants as are trained in parallel are picked and
            # measured together, after the results of the earlier ones.
            if is_measured:
                yield from self._until_selection_ends()
            if not (picked := self._pick_several(self.at_once if is_measured else 1)):
                break
            if is_measured:
                yield Measure(tuple(picked))
            for variant in picked:
                yield self.declared.cell(variant, 0, Split.VALIDATION)
        yield from self._until_selection_ends()
        confirmed = self._confirmed()
        if missing := self.missing(confirmed):
            picks = "; ".join(variant.name for variant in confirmed.variants if variant.levels)
            named = "".join(f"; {variant.name}" for variant in confirmed.named)
            replicates = count(confirmed.replicates, "new replicate")
            self.notify(
                f"Selected on the validation images: {picks}. Confirming, with {replicates} each: these{named}."
            )
            yield Measure(confirmed.variants)
        yield from missing

    def _until_selection_ends(self) -> Iterator[None]:
        """Yields None while a cell of the selection is in training."""
        while any(cell.is_open for cell in self._stored() if cell.split is Split.VALIDATION):
            yield None

    def count_done(self) -> int:
        """Returns the number of cells of both phases that need no more training."""
        known = (*self.design.selection_cells(), *self._confirmed_already().cells())
        return len(known) - len(self.not_done(known))

    def _confirmed(self) -> Design:
        """Returns the design of the confirmation, after the selection."""
        stored = self._stored()
        design = confirmed_design(collect_selection(self.design, stored), stored)
        # If every pick failed there is nothing to confirm.
        return design if len(design.variants) > len(design.named) else replace(design, variants=())

    def _confirmed_already(self) -> Design:
        """Returns the design of the named variants and of those whose confirmation has started."""
        design = self.design
        begun = {cell.variant for cell in self._stored() if cell.split is Split.TEST}
        return replace(design, variants=tuple(one for one in design.variants if not one.levels or one.name in begun))

    def reason_to_stop(self, cell: Cell, epochs: Sequence[Epoch]) -> str | None:
        """Returns why to prune a cell; None to continue, and for cells that are never pruned."""
        is_judged = cell.variant.levels and cell.split is Split.VALIDATION and len(epochs) < self._epochs
        if not is_judged or not can_prune(self.declared.objectives):
            return None
        if self._store is None or not self._store.should_prune(cell, self._pruner):
            return None
        objective = self.declared.objectives[0]
        metric = METRICS[objective]
        value = f"{metric.label.lower()} {metric.format(getattr(epochs[-1], objective))} {metric.unit}"
        return f"after epoch {len(epochs)}, {value} is worse than the median of the others"

    def _pick_several(self, most: int) -> list[Variant]:
        """Returns the next variants, up to `most`; none if there are enough or none is left."""
        picks: list[Variant] = []
        while len(picks) < most and (variant := self._pick(picks)) is not None:
            picks.append(variant)
        return picks

    def _pick(self, ahead: Sequence[Variant] = ()) -> Variant | None:
        """Returns the next variant; None if there are enough or none is left.

        `ahead` are picked variants that are not in training yet.
        """
        stored = self._stored()
        design = with_found_variants(self.declared, stored, self._maker)
        picked = [*(variant for variant in design.variants if variant.levels), *ahead]
        if len(picked) >= self._trials:
            return None
        # Seeded by the number of picks, so that a resumed search makes the same picks.
        seed = stream_seed(self.declared.protocol["seed"], "search", len(picked)) % 2**32
        in_training = {cell.variant for cell in stored if cell.is_open and cell.split is Split.VALIDATION}
        in_training |= {variant.name for variant in ahead}
        running = [
            create_trial(state=TrialState.RUNNING, params=variant.levels, distributions=dict(self._space))
            for variant in picked
            if variant.name in in_training
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Variants in training count as bad, so that the sampler picks different ones.
            sampler = TPESampler(seed=seed, multivariate=True, constant_liar=len(running) > 0)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = [StudyDirection[direction.upper()] for direction in design.directions]
        study = optuna.create_study(directions=directions, sampler=sampler)
        study.add_trials(running)
        study.add_trials(observations(picked, stored, design.objectives, self._space))
        known = [variant.network for variant in (*design.variants, *ahead)]
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
        if most and self._counts[variant.name] > most:
            return False
        refusal = self._refusal_of(variant)
        self._refused = refusal or self._refused
        return not refusal

    def _first_left(self, known: Sequence[Settings], seed: int) -> Variant | None:
        """Enumerates combinations in random order and returns the first wanted one; None if there is none."""
        factors = self.declared.factors
        combinations = list(itertools.islice(itertools.product(*factors.values()), _LOOKED_THROUGH))
        random.Random(seed).shuffle(combinations)
        for combination in combinations:
            variant = self._maker.variant(dict(zip(factors, combination, strict=True)))
            if variant and self._is_wanted(variant, known):
                return variant
        self.ending = "All combinations of levels have been tried."
        return None


def can_prune(objectives: Sequence[str]) -> bool:
    """Returns whether there is a single objective that is measured after every epoch."""
    return len(objectives) == 1 and objectives[0] in EPOCH_METRICS


def observations(
    variants: Sequence[Variant],
    stored: Iterable[StoredCell],
    objectives: Sequence[str],
    space: Mapping[str, CategoricalDistribution],
) -> list[FrozenTrial]:
    """Returns a trial in `space` for each variant with a result on the validation images."""
    selection = {cell.variant: cell for cell in stored if cell.split is Split.VALIDATION and cell.outcome is not None}
    trials = []
    for variant in variants:
        common: dict[str, Any] = {"params": variant.levels, "distributions": dict(space)}
        cell = selection.get(variant.name)
        if cell is None or cell.outcome is None:
            continue
        result = cell.outcome["result"]
        if cell.state is CellState.PRUNED:
            steps = {epoch["epoch"]: epoch[objectives[0]] for epoch in result["epochs"]}
            trials.append(create_trial(state=TrialState.PRUNED, intermediate_values=steps, **common))
        else:
            trials.append(create_trial(values=[float(result[name]) for name in objectives], **common))
    return trials
