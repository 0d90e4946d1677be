"""What a search selected by, and the design of its results: the variants that are confirmed.

A search has two phases. In the first each variant is tried once, on the validation images. In the second the best picks
and the variants that were given by name are trained anew, with seeds that no selection has used, on all training
images, and evaluated on the test images. Nothing that these results depend on has chosen them, so they are judged as
those of any other sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from ablations.analysis.importances import importances
from ablations.analysis.results import Results, collect
from ablations.analysis.tradeoffs import tradeoffs
from ablations.design import Design, Split
from ablations.storage.cell_states import StoredCell


@dataclass(frozen=True)
class Selection:
    """What a search selected by: the design with all variants that it tried, and their cells."""

    design: Design
    results: Results

    @cached_property
    def tradeoffs(self) -> pd.DataFrame:
        """What was tried; see `ablations.analysis.tradeoffs`."""
        return tradeoffs(self.results.cells, self.design)

    @cached_property
    def importances(self) -> pd.DataFrame:
        """How much each factor matters; see `ablations.analysis.importances`."""
        return importances(self.tradeoffs, self.design)

    @property
    def picked(self) -> int:
        """How many variants the search picked and tried to their end."""
        return int(self.tradeoffs["picked"].sum())

    @property
    def given_up(self) -> int:
        """How many variants the pruner gave up."""
        return int((self.results.unfinished["state"] == "pruned").sum())


def collect_selection(design: Design, stored: Sequence[StoredCell]) -> Selection:
    """Collects what a search selected by, of a design with all variants that it tried."""
    return Selection(design, collect(replace(design, replicates=1), stored, Split.VALIDATION))


def confirmed_design(selection: Selection, stored: Sequence[StoredCell]) -> Design:
    """Returns the design of a search's results: the variants that were given by name, then the picks, the best first.

    Picks that were confirmed when fewer variants had been tried stay, although others are better by now: to leave
    results out because of other results would be a choice again.
    """
    frame, tried = selection.tradeoffs, {variant.name: variant for variant in selection.design.variants}
    best = frame[frame["rank"] > 0].sort_values("rank")["variant"]
    earlier = [cell.variant for cell in stored if cell.split is Split.TEST and cell.variant in tried]
    named = [variant.name for variant in selection.design.named]
    variants = tuple(tried[name] for name in dict.fromkeys([*named, *best, *earlier]))
    return replace(selection.design, variants=variants)
