"""A study as it is stored, sorted and judged: what tables, figures, page and report are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.analysis.effects import Effect, factorial_effects
from ablations.analysis.results import Results
from ablations.analysis.tradeoffs import importances, tradeoffs
from ablations.config import Config
from ablations.design import Design
from ablations.design.variants import plain_network
from ablations.stats import Contrast, Looks, VariantSummary, judge, summarise
from ablations.storage.files import Weights

if TYPE_CHECKING:
    import pandas as pd

    from ablations.analysis.networks import TrainedNetworks


MOST_SHOWN = 60  # variants; of more, tables, figures and text show the ends
ENDS = 12  # variants of the highest top-1, and as many of the lowest


@dataclass(frozen=True)
class StudyAnalysis:
    """What a study has come to; each part is computed when it is first asked for.

    Args:
        config: what was asked for.
        design: the study.
        results: its cells.
        attributes: what the store remembers of the study, as the command that ran it.
        folder: `results/<study>`.
    """

    config: Config
    design: Design
    results: Results
    attributes: Mapping[str, Any]
    folder: Path

    @cached_property
    def looks(self) -> Looks | None:
        """When the study was looked at, under `replicates=auto`."""
        return Looks.stored(self.attributes.get("looks"))

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """What each variant makes of a difference to its baseline."""
        return judge(self.results.cells, self.design.baselines, self.design.margin, self.looks)

    @cached_property
    def summaries(self) -> list[VariantSummary]:
        """What the replicates of each variant say; variants without a finished cell are left out."""
        names = [variant.name for variant in self.design.variants]
        results = self.results
        return summarise(results.cells, names, self.design.baselines, self.contrasts, results.diverged)

    @cached_property
    def shown(self) -> frozenset[str]:
        """The variants that tables, figures and text show: all but of very many, of which nobody could read them.

        Then they are those of the highest and of the lowest top-1, and what these are compared with.
        """
        if len(self.summaries) <= MOST_SHOWN:
            return frozenset(summary.variant for summary in self.summaries)
        ordered = sorted(self.summaries, key=lambda summary: summary.top1.mean)
        ends = [*ordered[:ENDS], *ordered[-ENDS:]]
        finished = {summary.variant for summary in self.summaries}
        baselines = {summary.baseline for summary in ends if summary.baseline in finished}
        return frozenset({summary.variant for summary in ends} | {name for name in baselines if name})

    @property
    def shows_all(self) -> bool:
        """Whether all variants with a finished cell are shown."""
        return len(self.shown) == len(self.summaries)

    @cached_property
    def shown_summaries(self) -> list[VariantSummary]:
        """The summaries of the variants that are shown."""
        return [summary for summary in self.summaries if summary.variant in self.shown]

    @cached_property
    def shown_contrasts(self) -> list[Contrast]:
        """The contrasts of the variants that are shown; all where all are, those without a finished cell included."""
        return [contrast for contrast in self.contrasts if self.shows_all or contrast.variant in self.shown]

    @cached_property
    def effects(self) -> list[Effect]:
        """Main effects and interactions of crossed factors; see `ablations.analysis.effects`."""
        return factorial_effects(self.results.cells, self.design)

    @cached_property
    def tradeoffs(self) -> pd.DataFrame:
        """What a search tried; see `ablations.analysis.tradeoffs`."""
        return tradeoffs(self.results.cells, self.design)

    @cached_property
    def importances(self) -> pd.DataFrame:
        """How much each factor of a search matters; see `ablations.analysis.tradeoffs`."""
        return importances(self.tradeoffs, self.design)

    @cached_property
    def multiply_adds(self) -> dict[str, float]:
        """Those of an image, as papers count them, of each variant that is shown: counting them takes 20 ms each."""
        from ablations.analysis.multiply_adds import count_multiply_adds

        return {
            variant.name: count_multiply_adds(variant.network, self._classes, self.config.data.side)
            for variant in self.design.variants
            if variant.name in self.shown
        }

    @cached_property
    def plain_adds(self) -> dict[str, float]:
        """Those of each variant's backbone without attention."""
        from ablations.analysis.multiply_adds import count_multiply_adds

        models = {str(variant.model): variant.model for variant in self.design.variants}
        known = {
            text: count_multiply_adds(plain_network(model), self._classes, self.config.data.side)
            for text, model in models.items()
        }
        return {variant.name: known[str(variant.model)] for variant in self.design.variants}

    @property
    def _classes(self) -> int:
        return len(self.attributes["data"]["classes"])

    @cached_property
    def networks(self) -> TrainedNetworks:
        """The trained networks that the study kept, of the variants that are shown.

        Raises:
            UsageError: if it kept none.
        """
        from ablations.analysis.networks import TrainedNetworks

        cells = self.results.cells
        finished = self.shown.intersection(cells.loc[cells["replicate"] == 0, "variant"])
        return TrainedNetworks(
            self.design.study,
            [self.design.cell(variant, 0) for variant in self.design.variants if variant.name in finished],
            Weights(self.folder / "weights"),
            self.config.data,
            self.attributes.get("data_fingerprint"),
            self.multiply_adds,
        )
