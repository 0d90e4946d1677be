"""The schedule of most sweeps: every variant, as often as was asked for."""

from __future__ import annotations

from collections.abc import Iterator

from ablations.design import Cell
from ablations.execution.schedules.base import Outlook, Schedule, count_by_variant


class GridSchedule(Schedule):
    """Trains all cells of a design that have no outcome."""

    def cells(self) -> Iterator[Cell | None]:
        """Yields the missing cells, a replicate of all variants after the other."""
        yield from self.missing()

    def outlook(self) -> Outlook:
        """Returns what there is to train."""
        design = self.design
        total = len(design.variants) * design.replicates
        return Outlook(design, count_by_variant(self.missing()), 0, total, str(design.replicates))
