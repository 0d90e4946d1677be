"""The selection phase of a search, and the design of its confirmed variants.

A search has two phases. In the first, each sampled variant is trained once and evaluated on the validation images. In
the second, the best of them and the named variants are trained with new seeds on all training images, and evaluated on
the test images. These results are independent of the selection, so they are judged like those of any other sweep.
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
    """The selection phase of a search: the design with all tried variants, and their cells."""

    design: Design
    results: Results

    @cached_property
    def tradeoffs(self) -> pd.DataFrame:
        """The tried variants; see `ablations.analysis.tradeoffs`."""
        return tradeoffs(self.results.cells, self.design)

    @cached_property
    def importances(self) -> pd.DataFrame:
        """The importance of each factor; see `ablations.analysis.importances`."""
        return importances(self.tradeoffs, self.design)

    @property
    def picked(self) -> int:
        """The number of sampled variants that were trained to the end."""
        return int(self.tradeoffs["picked"].sum())

    @property
    def given_up(self) -> int:
        """The number of pruned variants."""
        return int((self.results.unfinished["state"] == "pruned").sum())


def collect_selection(design: Design, stored: Sequence[StoredCell]) -> Selection:
    """Collects the selection phase of a search, given its design with all tried variants."""
    return Selection(design, collect(replace(design, replicates=1), stored, Split.VALIDATION))


def confirmed_design(selection: Selection, stored: Sequence[StoredCell]) -> Design:
    """Returns the design of the confirmation phase: the named variants, then the sampled ones, the best first.

    Variants that were confirmed when fewer had been tried remain even if better ones have been found since: dropping
    results because of other results would be another selection.
    """
    frame, tried = selection.tradeoffs, {variant.name: variant for variant in selection.design.variants}
    best = frame[frame["rank"] > 0].sort_values("rank")["variant"]
    earlier = [cell.variant for cell in stored if cell.split is Split.TEST and cell.variant in tried]
    named = [variant.name for variant in selection.design.named]
    variants = tuple(tried[name] for name in dict.fromkeys([*named, *best, *earlier]))
    return replace(selection.design, variants=variants)
