"""What a schedule is: it says which cells are trained next, and how many there will be.

`run` trains what a schedule names and `plan` describes it, so that both speak of the same cells. A schedule reads what
is stored and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ablations.design import Cell, Design
from ablations.stats import Looks
from ablations.storage.cell_states import CellState, StoredCell
from ablations.storage.study import StudyStore
from ablations.training.events import Epoch


@dataclass(frozen=True)
class Outlook:
    """What a schedule will train, as far as that is known.

    Attributes:
        design: the study, with the variants that are known by now.
        cells: of these variants, that are to be trained.
        total: cells of the study, those that are done included.
        to_pick: variants that a search has yet to pick.
        note: what else people should know; empty where there is nothing.
    """

    design: Design
    cells: Sequence[Cell]
    total: int
    to_pick: int = 0
    note: str = ""

    @property
    def missing(self) -> Counter[str]:
        """How many cells of each known variant are to be trained."""
        return Counter(cell.variant.name for cell in self.cells)

    @property
    def cells_to_pick(self) -> int:
        """Cells of the variants that a search has yet to pick."""
        return self.to_pick * self.design.replicates

    @property
    def to_train(self) -> int:
        """Cells that are to be trained."""
        return len(self.cells) + self.cells_to_pick

    @property
    def cells_of_all(self) -> int:
        """Cells of the study, those included of variants that a search has yet to pick."""
        return sum(self.design.sizes.values()) + self.cells_to_pick

    @property
    def variants(self) -> int:
        """Variants of the study, those included that a search has yet to pick."""
        return len(self.design.variants) + self.to_pick


class Schedule:
    """Says which cells come next: of most sweeps all that have no outcome; other schedules say something else.

    Attributes:
        declared: the study as it was asked for, without the variants that a search has picked.
        notify: is told, in words, why the study goes on as it does.
        looks: when the study is judged on its way; None where it is judged at its end alone.
        ending: what people should know when all has been trained; empty where there is nothing.
    """

    looks: Looks | None = None
    ending: str = ""

    def __init__(self, design: Design, store: StudyStore | None) -> None:
        self.declared, self._store = design, store
        self.notify: Callable[[str], None] = print

    @property
    def design(self) -> Design:
        """The study, with the variants that are known by now."""
        return self.declared

    @property
    def total(self) -> int:
        """How many cells the study has, as far as is known by now."""
        return self.outlook().total

    def cells(self) -> Iterator[Cell | None]:
        """Yields the cells to be trained; None says that nothing can be said before one in training has ended."""
        yield from self.missing()

    def outlook(self) -> Outlook:
        """Returns what there is to train, before any of it is in training."""
        return Outlook(self.design, self.missing(), sum(self.design.sizes.values()))

    def check(self) -> None:
        """Checks that there can be something to train; raises UsageError otherwise."""

    def reason_to_stop(self, cell: Cell, epochs: Sequence[Epoch]) -> str | None:
        """Says why a cell is hopeless after the given epochs; None while it is not."""
        del cell, epochs
        return None

    def count_done(self) -> int:
        """Counts the study's cells that need no training any more."""
        wanted = {variant.name for variant in self.design.variants}
        return sum(cell.state.is_done and cell.variant in wanted for cell in self._stored())

    def missing(self, design: Design | None = None) -> list[Cell]:
        """Returns the cells of a design, or of the known variants, that are to be trained, replicate by replicate."""
        stored = {cell.key: cell for cell in self._stored()}
        pruned = {cell.variant for cell in stored.values() if cell.state is CellState.PRUNED}
        return [
            cell
            for cell in (design or self.design).cells()
            if (not stored[cell.key].state.is_done if cell.key in stored else cell.variant.name not in pruned)
        ]

    def _stored(self) -> list[StoredCell]:
        return self._store.cells() if self._store is not None else []
