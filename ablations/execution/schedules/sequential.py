"""`replicates=auto`: trains replicates where verdicts are open, one interim analysis after the other.

All variants get the replicates of the first interim analysis. What it decides gets no more; open variants and their
baselines get those of the next. `ablations.stats.interims` defines the analyses, and why no verdict is less certain.
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
    """Returns the interim analyses of a study: the stored ones if it was run so before, otherwise new ones.

    Raises:
        StorageError: if the study was begun with another `replicates.max`.
        UsageError: if `replicates.max` can decide nothing, or there is nothing to decide.
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
    """Trains an interim analysis's replicates, judges, and goes on with what is undecided."""

    interims: InterimAnalyses

    def __init__(self, design: Design, store: StudyStore | None, interims: InterimAnalyses) -> None:
        super().__init__(replace(design, replicates=interims.sizes[0]), store)
        self.interims = interims
        self._total: int | None = None  # up to the interim analysis that is being taken

    @property
    def total(self) -> int:
        """How many cells the study has up to the interim analysis that is being taken."""
        return super().total if self._total is None else self._total

    def cells(self) -> Iterator[Cell | Measure | None]:
        """Yields the cells of an interim analysis after the other; judges the study when those of one are trained."""
        for found, batch in self._batches():
            self._total = self.count_done() + len(batch)
            if found:
                self.notify(found)
            yield from batch
            while any(cell.is_open for cell in self._stored()):
                yield None

    def outlook(self) -> Outlook:
        """Returns what there is to train up to the next interim analysis."""
        batch = next((batch for _, batch in self._batches()), [])
        return Outlook(self.design, batch, self.count_done() + len(batch))

    def _batches(self) -> Iterator[tuple[str, list[Cell]]]:
        """Yields the cells that each interim analysis lacks, with what the one before it found."""
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
        """Returns the variants that need more replicates, and their baselines, in the order of the design."""
        ended = collect(self.declared, self._stored()).ended
        declared = self.declared
        contrasts = judge(ended, declared.baselines, declared.margin, declared.metric, self.interims)
        wanted = {name for contrast in undecided(contrasts) for name in (contrast.variant, contrast.baseline)}
        return [variant.name for variant in self.declared.variants if variant.name in wanted]
