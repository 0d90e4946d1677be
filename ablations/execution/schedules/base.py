"""The interface of a schedule, which determines the order and the number of cells to train.

`run` trains the cells of a schedule and `plan` describes them, so both refer to the same cells. A schedule reads the
store and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from ablations.common.wording import count
from ablations.design import Cell, Design
from ablations.design.variants import Variant
from ablations.stats import InterimAnalyses
from ablations.storage.cell_states import StoredCell
from ablations.storage.study import StudyStore
from ablations.training.events import Epoch


@dataclass(frozen=True)
class Outlook:
    """The cells that a schedule will train, as far as they are known.

    Attributes:
        design: the study with its known variants.
        cells: cells of known variants to train.
        total: number of cells of the study, including finished ones.
        to_pick: number of variants that a search has yet to pick, with one cell each.
        to_confirm: number of unknown variants that a search will confirm, with one cell per replicate.
        note: a remark for the user; may be empty.
        confirmed: for a search, the design of the variants known to be confirmed.
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
        """The number of cells of each known variant, including finished ones."""
        if self.confirmed is None:
            return Counter(self.design.sizes)
        cells = (*self.design.selection_cells(), *self.confirmed.cells())
        return Counter(cell.variant.name for cell in cells)

    @property
    def phases(self) -> str:
        """A description of a search's phases with their cells; empty for other sweeps."""
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
        """The number of cells to train of each known variant."""
        return Counter(cell.variant.name for cell in self.cells)

    def without(self, keys: Container[str]) -> Self:
        """Returns the outlook without the cells to train that have one of the given keys."""
        return replace(self, cells=[cell for cell in self.cells if cell.key not in keys])

    @property
    def cells_to_pick(self) -> int:
        """The number of cells of unknown variants."""
        return self.to_pick + self.to_confirm * self.design.replicates

    @property
    def to_train(self) -> int:
        """The number of cells to train."""
        return len(self.cells) + self.cells_to_pick

    @property
    def variants(self) -> int:
        """The number of variants of the study, including those that a search has yet to pick."""
        return len(self.design.variants) + self.to_pick


@dataclass(frozen=True)
class Measure:
    """Requests measuring the costs of variants before the following cells, while no cell is in training."""

    variants: tuple[Variant, ...]


class Schedule:
    """Determines the next cells: by default all without an outcome; subclasses select others.

    Attributes:
        declared: the study as configured, without the variants that a search has picked.
        notify: receives messages about decisions of the schedule.
        interims: the interim analyses; None if the study is judged only at its end.
        ending: a remark for the user at the end of training; may be empty.
        at_once: number of cells trained in parallel.
    """

    interims: InterimAnalyses | None = None
    ending: str = ""
    at_once: int = 1

    def __init__(self, design: Design, store: StudyStore | None) -> None:
        self.declared, self._store = design, store
        self.notify: Callable[[str], None] = print

    @property
    def design(self) -> Design:
        """The study with its known variants."""
        return self.declared

    @property
    def total(self) -> int:
        """The number of cells of the study, as far as known."""
        return self.outlook().total

    @property
    def measured_first(self) -> tuple[Variant, ...]:
        """The variants to measure before the first cell."""
        return self.design.variants

    def cells(self) -> Iterator[Cell | Measure | None]:
        """Yields the cells to train, or None if the next one is unknown until a cell in training ends."""
        yield from self.missing()

    def outlook(self) -> Outlook:
        """Returns the cells to train, before training starts."""
        return Outlook(self.design, self.missing(), sum(self.design.sizes.values()))

    def check(self) -> None:
        """Raises UsageError if nothing can be trained."""

    def reason_to_stop(self, cell: Cell, epochs: Sequence[Epoch]) -> str | None:
        """Returns why to prune a cell after the given epochs; None to continue."""
        del cell, epochs
        return None

    def count_done(self) -> int:
        """Returns the number of cells that need no more training."""
        wanted = {variant.name for variant in self.design.variants}
        return sum(cell.state.is_done and cell.variant in wanted for cell in self._stored())

    def missing(self, design: Design | None = None) -> list[Cell]:
        """Returns the cells to train of a design, by default the known variants, in the order of replicates."""
        return self.not_done((design or self.design).cells())

    def not_done(self, cells: Iterable[Cell]) -> list[Cell]:
        """Returns those of the given cells that need training."""
        done = {cell.key for cell in self._stored() if cell.state.is_done}
        return [cell for cell in cells if cell.key not in done]

    def _stored(self) -> list[StoredCell]:
        return self._store.cells() if self._store is not None else []
