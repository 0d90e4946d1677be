"""What a schedule is: it says which cells are trained next, and how many there will be.

`run` trains what a schedule names and `plan` describes it, so that both speak of the same cells. A schedule reads what
is stored and writes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablations.design import Cell, Design
from ablations.stats import Looks
from ablations.storage.cells import CellState, StoredCell

if TYPE_CHECKING:
    from ablations.training.events import Epoch


@dataclass(frozen=True)
class Outlook:
    """What a schedule will train, as far as that is known.

    Attributes:
        design: the study, with the variants that are known by now.
        missing: how many cells of each of these variants are to be trained.
        to_pick: variants that a search has yet to pick.
        total: cells of the study, those that are done included.
        replicates: how many of each variant there will be, as `3` or `9 to 16`.
        note: what else people should know; empty where there is nothing.
    """

    design: Design
    missing: Mapping[str, int]
    to_pick: int
    total: int
    replicates: str
    note: str = ""

    @property
    def cells_to_pick(self) -> int:
        """Cells of the variants that a search has yet to pick."""
        return self.to_pick * self.design.replicates

    @property
    def to_train(self) -> int:
        """Cells that are to be trained."""
        return sum(self.missing.values()) + self.cells_to_pick

    @property
    def variants(self) -> int:
        """Variants of the study, those included that a search has yet to pick."""
        return len(self.design.variants) + self.to_pick


class Schedule(ABC):
    """Says which cells come next.

    Args:
        design: the study as it was asked for.
        stored: returns what is known of its cells.
    """

    def __init__(self, design: Design, stored: Callable[[], list[StoredCell]]) -> None:
        self._design, self._stored = design, stored

    @property
    def declared(self) -> Design:
        """The study as it was asked for, without the variants that a search has picked."""
        return self._design

    @property
    def design(self) -> Design:
        """The study, with the variants that are known by now."""
        return self._design

    @property
    def total(self) -> int:
        """How many cells the study has, as far as is known by now."""
        return self.outlook().total

    @abstractmethod
    def cells(self) -> Iterator[Cell | None]:
        """Yields the cells to be trained; None says that nothing can be said before one in training has ended."""

    @abstractmethod
    def outlook(self) -> Outlook:
        """Returns what there is to train, before any of it is in training."""

    def check(self) -> None:  # noqa: B027 - most schedules have nothing to check
        """Checks that there can be something to train; raises UsageError otherwise."""

    def reason_to_stop(self, cell: Cell, epochs: Sequence[Epoch]) -> str | None:
        """Says why a cell is hopeless after the given epochs; None while it is not."""
        del cell, epochs
        return None

    @property
    def looks(self) -> Looks | None:
        """When the study is judged on its way; None where it is judged at its end alone."""
        return None

    @property
    def ending(self) -> str:
        """What people should know when all has been trained; empty where there is nothing."""
        return ""

    def count_done(self) -> int:
        """Counts the study's cells that need no training any more."""
        wanted = {variant.name for variant in self.design.variants}
        return sum(cell.state.is_done and cell.variant in wanted for cell in self._stored())

    def missing(self) -> list[Cell]:
        """Returns the cells of the known variants that are to be trained, a replicate after the other."""
        stored = {cell.key: cell for cell in self._stored()}
        pruned = {cell.variant for cell in stored.values() if cell.state is CellState.PRUNED}
        return [
            cell
            for cell in self.design.cells()
            if (not stored[cell.key].state.is_done if cell.key in stored else cell.variant.name not in pruned)
        ]


def count_by_variant(cells: Sequence[Cell]) -> Counter[str]:
    """Counts cells by the names of their variants."""
    return Counter(cell.variant.name for cell in cells)
