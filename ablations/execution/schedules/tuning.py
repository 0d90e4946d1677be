"""Tuning with an equal budget: each variant gets the same number of trials, then replicates with its best recipe.

The trials, on the validation images, come first, then the replicates of all variants under the study's recipe and under
the best recipe of each, so that no test image is used before every recipe has been selected.

Quasi-random recipes are the same for all variants. TPE proposes a variant's next recipe from the results of its trials,
with the same random numbers for all variants. Optuna's samplers use a study in memory that is rebuilt before each
proposal, so that resumed tuning proposes the same recipes as uninterrupted tuning; with TPE only if one cell is trained
at a time.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, QMCSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from ablations.analysis.tuning import Tuned, collect_tuned, trials_of
from ablations.common.metrics import METRICS
from ablations.common.settings import Settings
from ablations.common.wording import count
from ablations.design import Cell, Design, Split
from ablations.design.tuning import STARTUP, Dimension, Tuning
from ablations.design.variants import Variant
from ablations.execution.schedules.base import Measure, Outlook, Schedule
from ablations.reporting.text.tuning import recipe_text
from ablations.storage.cell_states import CellState, StoredCell
from ablations.storage.study import StudyStore
from sa_core.seeds import stream_seed


@dataclass(frozen=True)
class TuningOutlook(Outlook):
    """The cells of a study with tuning; `pending` counts by variant the cells whose recipe is unknown."""

    pending: Counter[str] = field(default_factory=Counter)

    @property
    def planned(self) -> Counter[str]:
        """The number of cells of each variant: its trials, and twice its replicates."""
        assert self.design.tuning is not None
        trials = self.design.tuning.trials
        return Counter({name: trials + 2 * size for name, size in self.design.sizes.items()})

    @property
    def missing(self) -> Counter[str]:
        """The number of cells to train of each variant."""
        return super().missing + self.pending

    @property
    def to_train(self) -> int:
        """The number of cells to train."""
        return self.missing.total()

    @property
    def phases(self) -> str:
        """A description of trials and results with their cells."""
        tuning = self.design.tuning
        assert tuning is not None
        share = f"{100 * tuning.validation:g} % of the training images"
        results = sum(self.design.sizes.values())
        return (
            f"Tuning: {count(tuning.trials, 'trial')} per variant, evaluated on {share}, which are held out from "
            f"training. Results: {count(results, 'cell')} under the common recipe and {results} under the best recipe "
            "of each variant, on the test images."
        )


class TuningSchedule(Schedule):
    """Tunes each variant, then trains its replicates under the common recipe and under its best one."""

    def __init__(self, design: Design, store: StudyStore | None) -> None:
        super().__init__(design, store)
        assert design.tuning is not None
        self._tuning: Tuning = design.tuning
        self._space = {path: _distribution(dimension) for path, dimension in self._tuning.space.items()}

    def outlook(self) -> TuningOutlook:
        """Returns the cells to train; the best recipes are known after all trials."""
        design, stored = self.declared, self._stored()
        trials, pending = self._trials_to_train(stored)
        results = self.missing()
        if trials or pending:
            pending += Counter(design.sizes)
        else:
            results += self.missing(self._tuned(stored).best)
        total = len(design.variants) * self._tuning.trials + 2 * sum(design.sizes.values())
        return TuningOutlook(design, [*trials, *results], total, pending=pending)

    def cells(self) -> Iterator[Cell | Measure | None]:
        """Yields the first trial of each variant, then the second, and so on; then results by replicate."""
        for number in range(self._tuning.trials):
            for variant in self.declared.variants:
                begun = trials_of(self.declared, self._stored())
                if not _is_settled(begun.get((variant.name, number))):
                    yield self._trial(variant, number, begun)
        while any(cell.is_open for cell in self._stored() if cell.split is Split.VALIDATION):
            yield None
        tuned = self._tuned(self._stored())
        cells = sorted([*self.missing(), *self.missing(tuned.best)], key=lambda cell: cell.replicate)
        if cells and tuned.recipes:
            best = "; ".join(f"{name}: {recipe_text(recipe)}" for name, recipe in tuned.recipes.items())
            self.notify(f"Best recipes on the validation images: {best}.")
        yield from cells

    def count_done(self) -> int:
        """Returns the number of trials and result cells that need no more training."""
        stored = self._stored()
        trials, pending = self._trials_to_train(stored)
        asked = len(self.declared.variants) * self._tuning.trials
        results = [*self.declared.cells(), *self._tuned(stored).best.cells()]
        return asked - len(trials) - pending.total() + len(results) - len(self.not_done(results))

    def _tuned(self, stored: Sequence[StoredCell]) -> Tuned:
        tuned = collect_tuned(self.declared, stored)
        assert tuned is not None
        return tuned

    def _trials_to_train(self, stored: Sequence[StoredCell]) -> tuple[list[Cell], Counter[str]]:
        """Returns the known trials to train, and the number of each variant's unknown trials."""
        known: list[Cell] = []
        unknown: Counter[str] = Counter()
        begun = trials_of(self.declared, stored)
        for number in range(self._tuning.trials):
            for variant in self.declared.variants:
                trial = begun.get((variant.name, number))
                if trial is None and self._tuning.sampler == "tpe":
                    unknown[variant.name] += 1
                elif trial is None or not trial.state.is_done:
                    known.append(self._trial(variant, number, begun))
        return known, unknown

    def _trial(self, variant: Variant, number: int, begun: Mapping[tuple[str, int], StoredCell]) -> Cell:
        """Returns a trial of a variant, with its stored recipe if it was started before."""
        trial = begun.get((variant.name, number))
        if trial is not None:
            recipe = trial.recipe
        elif self._tuning.sampler == "qmc":
            recipe = self._quasi_random[number]
        else:
            recipe = self._proposed(number, [own for (name, _), own in begun.items() if name == variant.name])
        return self.declared.cell(replace(variant, recipe=recipe), number, Split.VALIDATION)

    @cached_property
    def _quasi_random(self) -> list[Settings]:
        """The recipes of all variants: the first points of a scrambled Sobol sequence."""
        seed = stream_seed(self.declared.protocol["seed"], "tuning") % 2**32
        study = _study(lambda: QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False))
        # Optuna's sampler draws the first trial at random to infer the space, so add one.
        corner = {path: (space.choices or [space.low])[0] for path, space in self._tuning.space.items()}
        study.add_trial(create_trial(value=0.0, params=corner, distributions=self._space))
        return [self._as_typed(study.ask(self._space).params) for _ in range(self._tuning.trials)]

    def _proposed(self, number: int, begun: Sequence[StoredCell]) -> Settings:
        """Returns the recipe that TPE proposes for a trial, given earlier trials of the variant."""
        seed = stream_seed(self.declared.protocol["seed"], "tuning", number) % 2**32
        is_parallel = any(cell.is_open for cell in begun)
        study = _study(
            lambda: TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=is_parallel),
            METRICS[self.declared.metric].direction,
        )
        for cell in sorted(begun, key=lambda cell: cell.replicate):
            params: dict[str, Any] = {"params": cell.recipe, "distributions": self._space}
            if cell.is_open:
                study.add_trial(create_trial(state=TrialState.RUNNING, **params))
            elif cell.outcome is not None and cell.state is CellState.FINISHED:
                value = float(cell.outcome["result"][self.declared.metric])
                study.add_trial(create_trial(value=value, **params))
            elif cell.state.is_done:  # diverged: TPE ranks a trial that was pruned at once below any other
                study.add_trial(create_trial(state=TrialState.PRUNED, **params))
        return self._as_typed(study.ask(self._space).params)

    def _as_typed(self, params: Settings) -> Settings:
        """Returns a recipe rounded to three significant digits, to be easily typed, within the ranges."""
        return {path: _rounded(self._tuning.space[path], params[path]) for path in self._tuning.space}


def _is_settled(trial: StoredCell | None) -> bool:
    """Whether a trial is in training, or needs no more training."""
    return trial is not None and (trial.state.is_done or trial.is_open)


def _study(make_sampler: Callable[[], BaseSampler], direction: str = "maximize") -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = make_sampler()
    return optuna.create_study(direction=StudyDirection[direction.upper()], sampler=sampler)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    low, high = dimension.ends
    if dimension.is_integer:
        return IntDistribution(int(low), int(high), log=dimension.is_log)
    return FloatDistribution(low, high, log=dimension.is_log)


def _rounded(dimension: Dimension, value: Any) -> Any:
    if dimension.choices or dimension.is_integer:
        return value
    low, high = dimension.ends
    return min(max(float(f"{value:.3g}"), low), high)
