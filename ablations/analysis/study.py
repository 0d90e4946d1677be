"""The analysis of a stored study, from which tables, figures, page and report are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.analysis.costs import StudyCosts, collect_costs
from ablations.analysis.effects import Effect, factorial_effects
from ablations.analysis.predictions import StudyPredictions, kept_predictions
from ablations.analysis.results import Results
from ablations.analysis.selection import Selection
from ablations.analysis.tuning import Tuned
from ablations.common.settings import Settings
from ablations.config import Config
from ablations.design import Design
from ablations.design.declaration import Change, Declaration, History
from ablations.design.variants import plain_network
from ablations.measure.costs import MODES
from ablations.stats import Contrast, InterimAnalyses, VariantSummary, judge, summarise
from ablations.stats.costs import CostContrast

if TYPE_CHECKING:
    from ablations.analysis.networks import TrainedNetworks

MOST_SHOWN = 60  # variants, and effects; of more, only the highest and lowest are displayed
ENDS = 12  # number of the highest, and of the lowest


@dataclass(frozen=True)
class StudyAnalysis:
    """The analysis of a study; each part is computed on first access.

    Attributes:
        config: the configuration.
        design, results: the variants and their cells; of a search those of the confirmed variants, and with tuning
            those under the common recipe.
        attributes: the study's attributes in the store, such as the command that ran it.
        folder: `results/<study>`.
        selection: the selection phase of a search, otherwise None.
        tuned: the variants under their tuned recipes; None without tuning.
    """

    config: Config
    design: Design
    results: Results
    attributes: Mapping[str, Any]
    folder: Path
    selection: Selection | None = None
    tuned: Tuned | None = None

    @cached_property
    def at_best(self) -> StudyAnalysis | None:
        """The same study with each variant under its best recipe; None if no variant has one."""
        if self.tuned is None or not self.tuned.recipes:
            return None
        return replace(self, design=self.tuned.best, results=self.tuned.results, tuned=None)

    @cached_property
    def interims(self) -> InterimAnalyses | None:
        """The interim analyses of the study, with `replicates=auto`."""
        return InterimAnalyses.stored(self.attributes.get("looks"))

    @cached_property
    def declared(self) -> History | None:
        """The study's declarations, the first one from before its first cell; None if there are none."""
        return History.stored(self.attributes.get("declared"))

    @cached_property
    def deviations(self) -> list[Change]:
        """The differences between this analysis and the declaration from before the first cell."""
        if self.declared is None:
            return []
        return self.declared.deviations(Declaration.of(self.design, self.interims.sizes if self.interims else ()))

    @cached_property
    def known_before(self) -> int:
        """The number of reused cells whose results were known when the study was declared."""
        if self.declared is None:
            return 0
        declared = datetime.fromisoformat(self.declared.first.time).timestamp()
        return int((self.results.reused["finished"] < declared).sum())

    @property
    def is_exploratory(self) -> bool:
        """Whether verdicts are about something else than was declared before results were known."""
        changed = any(change.is_exploratory for change in self.deviations)
        return self.declared is None or changed or self.known_before > 0

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """The contrast of each variant with its baseline."""
        design = self.design
        return judge(self.results.ended, design.baselines, design.margin, design.metric, self.interims)

    @cached_property
    def costs(self) -> StudyCosts | None:
        """The costs of the variants on the machine of the latest measurement; None if nothing was measured."""
        return collect_costs(self.attributes, self.design)

    @property
    def cost_margin(self) -> float:
        """The equivalence margin of times, as a relative difference."""
        return self.config.measure.margin / 100

    @cached_property
    def cost_contrasts(self) -> dict[str, dict[str, CostContrast]]:
        """The contrasts of times by mode (`train`, `test`) and variant; each mode is a family."""
        if self.costs is None:
            return {mode: {} for mode in MODES}
        judged = {mode: self.costs.judge(mode, self.cost_margin) for mode in MODES}
        return {mode: {contrast.variant: contrast for contrast in contrasts} for mode, contrasts in judged.items()}

    @cached_property
    def summaries(self) -> list[VariantSummary]:
        """A summary of the replicates of each variant with a finished cell."""
        design, results = self.design, self.results
        names = [variant.name for variant in design.variants]
        return summarise(results.cells, names, design.baselines, self.contrasts, results.diverged, design.metric)

    @cached_property
    def shown(self) -> frozenset[str]:
        """The variants in tables, figures and text: all up to `MOST_SHOWN`.

        Of more, those with the highest and lowest top-1, and their baselines.
        """
        finished = frozenset(summary.variant for summary in self.summaries)
        if len(finished) <= MOST_SHOWN:
            return finished
        ordered = sorted(self.summaries, key=lambda summary: summary.top1.mean)
        ends = [*ordered[:ENDS], *ordered[-ENDS:]]
        return finished & {name for summary in ends for name in (summary.variant, summary.baseline)}

    @property
    def shows_all(self) -> bool:
        """Whether `shown` has all variants with a finished cell."""
        return len(self.shown) == len(self.summaries)

    @cached_property
    def shown_summaries(self) -> list[VariantSummary]:
        """The summaries of the variants in `shown`."""
        return [summary for summary in self.summaries if summary.variant in self.shown]

    @cached_property
    def shown_contrasts(self) -> list[Contrast]:
        """The contrasts of the variants in `shown`; if it has all, also those without a finished cell."""
        return [contrast for contrast in self.contrasts if self.shows_all or contrast.variant in self.shown]

    @cached_property
    def effects(self) -> list[Effect]:
        """Main effects and interactions of crossed factors; see `ablations.analysis.effects`."""
        return factorial_effects(self.results.ended, self.design, self.interims)

    @cached_property
    def shown_effects(self) -> list[Effect]:
        """The effects in tables and figures: all up to `MOST_SHOWN`, of more the highest and lowest."""
        if len(self.effects) <= MOST_SHOWN:
            return self.effects
        ordered = sorted(self.effects, key=lambda effect: effect.estimate.mean)
        ends = {effect.name for effect in (*ordered[:ENDS], *ordered[-ENDS:])}
        return [effect for effect in self.effects if effect.name in ends]

    @property
    def tried(self) -> Design:
        """The design with all variants that have cells, including those that a search tried and did not confirm."""
        return self.selection.design if self.selection else self.design

    @cached_property
    def multiply_adds(self) -> dict[str, float]:
        """Multiply-adds per image of each variant in `shown` (counting takes 20 ms per variant)."""
        return {each.name: self._count(each.network) for each in self.design.variants if each.name in self.shown}

    @cached_property
    def plain_adds(self) -> dict[str, float]:
        """Multiply-adds per image of each variant's backbone without attention."""
        models = {str(variant.model): variant.model for variant in self.design.variants}
        adds = {text: self._count(plain_network(model)) for text, model in models.items()}
        return {variant.name: adds[str(variant.model)] for variant in self.design.variants}

    def _count(self, network: Settings) -> float:
        from ablations.analysis.networks import count_multiply_adds

        return count_multiply_adds(network, len(self.attributes["data"]["classes"]), self.config.data.side)

    @cached_property
    def networks(self) -> TrainedNetworks:
        """The saved trained networks of the variants in `shown`.

        Raises:
            UsageError: if there are none.
        """
        from ablations.analysis.networks import TrainedNetworks

        return TrainedNetworks(self)

    @cached_property
    def predictions(self) -> StudyPredictions:
        """The saved predictions on the test images of the variants in `shown`.

        Raises:
            UsageError: if there are none, or none of a variant that `against` names.
        """
        kept = kept_predictions(self)
        return kept.against(self.config.against) if self.config.against else kept
