"""`replicates=auto`: replicates are spent where verdicts are open, look by look, until all are decided.

All variants get the replicates of the first look. What a look decides gets no more; the others, and their baselines,
get those of the next look. `ablations.stats.looks` says when looks are taken, and why that makes no verdict less sure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from optuna.trial import TrialState

from ablations.analysis.results import collect
from ablations.common.errors import UsageError
from ablations.common.wording import count
from ablations.config import AUTO
from ablations.design import Cell, Design
from ablations.stats import Looks, family, judge, undecided
from ablations.storage.study import StudyStore


def looks_of(design: Design, store: StudyStore) -> Looks:
    """Returns when a study is looked at: as it was planned when it was first run so.

    Raises:
        UsageError: if `replicates.max` can decide nothing, or the study was begun with another one.
    """
    most = design.replicates_max
    stored = Looks.stored(store.attributes.get("looks"))
    if stored is not None:
        if stored.sizes[-1] != most:
            reason = (
                f"the study was begun with replicates.max={stored.sizes[-1]}, which its verdicts allow for; "
                f"to start another study, add study={design.study}-2 (or any name)"
            )
            raise UsageError("replicates.max", most, reason)
        return stored
    return planned_looks(design)


def planned_looks(design: Design) -> Looks:
    """Plans when a study is looked at.

    Raises:
        UsageError: if `replicates.max` can decide nothing, or there is nothing to decide.
    """
    most = design.replicates_max
    contrasts = len(family(design.baselines))
    if not contrasts:
        raise UsageError("replicates", AUTO, "has nothing to decide: no variant is compared with another one")
    looks = Looks.planned(most, contrasts)
    if looks is None:
        least = next(number for number in range(most, 10_000) if Looks.planned(number, contrasts))
        reason = f"cannot decide {count(contrasts, 'contrast')} with so few replicates; {least} can"
        raise UsageError("replicates.max", most, reason)
    return looks


class Sequential:
    """Yields the cells that a study needs beyond its first look.

    Args:
        design: its `replicates` are those of the first look.
        store: what is known; cells are put into its queue.
        looks: when the study is looked at.
        announce: hears, in words, what a look found, and how many cells it adds.
    """

    def __init__(self, design: Design, store: StudyStore, looks: Looks, announce: Callable[[str, int], None]) -> None:
        self._design, self._store, self._looks, self._announce = design, store, looks, announce

    def cells(self) -> Iterator[Cell | None]:
        """Yields cells without an outcome, each in the queue; judges the study when those of a look are trained.

        None says that some of them are still being trained.
        """
        for before, replicates in zip(self._looks.sizes, self._looks.sizes[1:], strict=False):
            while any(cell.state == TrialState.RUNNING for cell in self._store.cells()):
                yield None
            wanted = self._undecided()
            if not wanted:
                return
            stored = {cell.key: cell for cell in self._store.cells()}
            cells = [
                self._design.cell(variant, replicate)
                for replicate in range(replicates)
                for variant in self._design.variants
                if variant.name in wanted
            ]
            missing = [cell for cell in cells if cell.key not in stored or not stored[cell.key].is_done]
            if not missing:
                continue
            contrasts = len(family(self._design.baselines))
            decided = contrasts - len(family({name: self._design.baselines[name] for name in wanted}))
            self._announce(
                f"Look at {before} replicates: {decided} of {count(contrasts, 'contrast')} decided; "
                f"{', '.join(wanted)} get {replicates - before} more.",
                len(missing),
            )
            self._store.enqueue(
                cell for cell in missing if cell.key not in stored or stored[cell.key].state == TrialState.FAIL
            )
            yield from missing

    def _undecided(self) -> list[str]:
        """Returns the variants that need more replicates, and their baselines, in the order of the design."""
        cells = collect(self._design, self._store.cells()).cells
        open_ones = undecided(judge(cells, self._design.baselines, self._design.margin, self._looks))
        wanted = {name for contrast in open_ones for name in (contrast.variant, contrast.baseline)}
        return [variant.name for variant in self._design.variants if variant.name in wanted]
