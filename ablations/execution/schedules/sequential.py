"""`replicates=auto`: trains replicates of undecided contrasts, up to one interim analysis after the other.

All variants get the replicates of the first interim analysis. Decided contrasts get no more; undecided variants and
their baselines get those of the next. `ablations.stats.interims` defines the analyses and their error rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ablations.analysis.results import collect
from ablations.common.errors import UsageError
from ablations.common.wording import count
from ablations.config import AUTO
from ablations.design import Cell, Design
from ablations.execution.schedules.base import Measure, Outlook, Schedule
from ablations.stats import InterimAnalyses, family, judge, undecided
from ablations.stats.significance import FLIPPED
from ablations.storage.errors import StorageError
from ablations.storage.study import StudyStore


def interims_of(design: Design, stored: Any = None) -> InterimAnalyses:
    """Returns the interim analyses of a study: the stored ones, otherwise new ones.

    Raises:
        StorageError: if the study was started with another `replicates.max`.
        UsageError: if `replicates.max` is too small to decide, or there is no contrast.
    """
    interims, most = InterimAnalyses.stored(stored), design.replicates_max
    if interims is not None and interims.sizes[-1] != most:
        reason = (
            f"the study was started with replicates.max={interims.sizes[-1]}, which determines its interim analyses; "
            f"to start a new study, add study={design.study}-2 (or any name)"
        )
        raise StorageError("replicates.max", most, reason)
    if interims is not None:
        return interims
    contrasts = len(family(design.baselines))
    if not contrasts:
        raise UsageError("replicates", AUTO, "has no contrast: no variant is compared with a baseline")
    interims = InterimAnalyses.planned(most)
    if interims is None:
        reason = f"is too small to reach significance; use at least {FLIPPED}"
        raise UsageError("replicates.max", most, reason)
    return interims


class SequentialSchedule(Schedule):
    """Trains the replicates of an interim analysis, judges, and continues with undecided contrasts."""

    interims: InterimAnalyses

    def __init__(self, design: Design, store: StudyStore | None, interims: InterimAnalyses) -> None:
        super().__init__(replace(design, replicates=interims.sizes[0]), store)
        self.interims = interims
        self._total: int | None = None  # up to the current interim analysis

    @property
    def total(self) -> int:
        """The number of cells of the study up to the current interim analysis."""
        return super().total if self._total is None else self._total

    def cells(self) -> Iterator[Cell | Measure | None]:
        """Yields the cells of each interim analysis in turn, judging the study after each."""
        for found, batch in self._batches():
            self._total = self.count_done() + len(batch)
            if found:
                self.notify(found)
            yield from batch
            while any(cell.is_open for cell in self._stored()):
                yield None

    def outlook(self) -> Outlook:
        """Returns the cells to train up to the next interim analysis."""
        batch = next((batch for _, batch in self._batches()), [])
        return Outlook(self.design, batch, self.count_done() + len(batch))

    def _batches(self) -> Iterator[tuple[str, list[Cell]]]:
        """Yields the missing cells of each interim analysis, with a message about the one before."""
        if first := self.missing():
            yield "", first
        for before, replicates in pairwise(self.interims.sizes):
            wanted = self._undecided()
            if not wanted:
                return
            missing = self.missing(replace(self.declared, replicates=replicates))
            if batch := [cell for cell in missing if cell.variant.name in wanted]:
                yield self._found(before, replicates, wanted), batch

    def _found(self, before: int, replicates: int, wanted: list[str]) -> str:
        baselines = self.declared.baselines
        contrasts = len(family(baselines))
        decided = contrasts - len(family({name: baselines[name] for name in wanted}))
        return (
            f"Interim analysis at {before} replicates: {decided} of {count(contrasts, 'contrast')} decided; adding "
            f"{replicates - before} replicates of {', '.join(wanted)}."
        )

    def _undecided(self) -> list[str]:
        """Returns the undecided variants and their baselines, in the order of the design."""
        declared = self.declared
        ended = collect(declared, self._stored()).ended
        contrasts = judge(ended, declared.baselines, declared.margin, declared.metric, self.interims)
        wanted = {name for contrast in undecided(contrasts) for name in (contrast.variant, contrast.baseline)}
        return [variant.name for variant in declared.variants if variant.name in wanted]
