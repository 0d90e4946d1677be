"""What a schedule is: it says which cells are trained next, and how many there will be.

`run` trains what a schedule names and `plan` describes it, so that both speak of the same cells. A schedule reads what
is stored and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ablations.common.wording import count
from ablations.design import Cell, Design
from ablations.design.variants import Variant
from ablations.stats import InterimAnalyses
from ablations.storage.cell_states import StoredCell
from ablations.storage.study import StudyStore
from ablations.training.events import Epoch


@dataclass(frozen=True)
class Outlook:
    """What a schedule will train, as far as that is known.

    Attributes:
        design: the study, with the variants that are known by now.
        cells: of these variants, that are to be trained.
        total: cells of the study, those that are done included.
        to_pick: variants that a search has yet to pick, each of which it tries in one cell.
        to_confirm: variants that a search has yet to confirm and does not know by now, each in a cell a replicate.
        note: what else people should know; empty where there is nothing.
        confirmed: of a search, the design of the variants that are known to be confirmed.
    """

    design: Design
    cells: Sequence[Cell]
    total: int
    to_pick: int = 0
    to_confirm: int = 0
    note: str = ""
    confirmed: Design | None = None

    @property
    def planned(self) -> Counter[str]:
        """How many cells each known variant has, those that are done included."""
        if self.confirmed is None:
            return Counter(self.design.sizes)
        cells = (*self.design.selection_cells(), *self.confirmed.cells())
        return Counter(cell.variant.name for cell in cells)

    @property
    def phases(self) -> str:
        """Says which cells a search has in each of its phases; empty for other sweeps."""
        if self.confirmed is None:
            return ""
        design, picks = self.design, sum(1 for variant in self.confirmed.variants if variant.levels)
        share = f"{100 * design.validation:g} % of the training images"
        results = (len(self.confirmed.variants) + self.to_confirm) * design.replicates
        named = f" and {', '.join(variant.name for variant in design.named)}" if design.named else ""
        return (
            f"Selection: {count(self.variants, 'cell')}, one per variant, evaluated on {share}, which are held out "
            f"from training. Confirmation: up to {count(results, 'cell')} on the test images, "
            f"{count(design.replicates, 'replicate')} of the {picks + self.to_confirm} best{named}."
        )

    @property
    def missing(self) -> Counter[str]:
        """How many cells of each known variant are to be trained."""
        return Counter(cell.variant.name for cell in self.cells)

    @property
    def cells_to_pick(self) -> int:
        """Cells of variants that are not known yet."""
        return self.to_pick + self.to_confirm * self.design.replicates

    @property
    def to_train(self) -> int:
        """Cells that are to be trained."""
        return len(self.cells) + self.cells_to_pick

    @property
    def variants(self) -> int:
        """Variants of the study, those included that a search has yet to pick."""
        return len(self.design.variants) + self.to_pick


@dataclass(frozen=True)
class Measure:
    """Has the costs of variants measured before the cells that follow are trained, when none is in training."""

    variants: tuple[Variant, ...]


class Schedule:
    """Says which cells come next: of most sweeps all that have no outcome; other schedules say something else.

    Attributes:
        declared: the study as it was asked for, without the variants that a search has picked.
        notify: is told, in words, why the study goes on as it does.
        interims: when the study is judged on its way; None where it is judged at its end alone.
        ending: what people should know when all has been trained; empty where there is nothing.
        at_once: how many cells are trained at once.
    """

    interims: InterimAnalyses | None = None
    ending: str = ""
    at_once: int = 1

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

    @property
    def measured_first(self) -> tuple[Variant, ...]:
        """The variants whose costs are measured before the first cell is trained."""
        return self.design.variants

    def cells(self) -> Iterator[Cell | Measure | None]:
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
        return self.not_done((design or self.design).cells())

    def not_done(self, cells: Iterable[Cell]) -> list[Cell]:
        """Returns those of some cells that are to be trained."""
        done = {cell.key for cell in self._stored() if cell.state.is_done}
        return [cell for cell in cells if cell.key not in done]

    def _stored(self) -> list[StoredCell]:
        return self._store.cells() if self._store is not None else []
