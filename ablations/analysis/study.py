"""A study as it is stored, sorted and judged: what tables, figures, page and report are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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

MOST_SHOWN = 60  # variants, and effects; of more, tables, figures and text show the ends
ENDS = 12  # those of the highest top-1, and as many of the lowest


@dataclass(frozen=True)
class StudyAnalysis:
    """What a study has come to; each part is computed when it is first asked for.

    `attributes` is what the store remembers of the study, as the command that ran it; `folder` is `results/<study>`.
    Of a search, `design` and `results` are those of the variants that are confirmed; what these were selected by, from
    all that were tried, is `selection`, which is None of other sweeps. Where variants are tuned, `design` and `results`
    are those under the study's one recipe, and `tuned` has the others; otherwise it is None.
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
        """The same study with each variant under its best recipe; None where no variant has one."""
        if self.tuned is None or not self.tuned.recipes:
            return None
        return replace(self, design=self.tuned.best, results=self.tuned.results, tuned=None)

    @cached_property
    def interims(self) -> InterimAnalyses | None:
        """When the study was looked at, under `replicates=auto`."""
        return InterimAnalyses.stored(self.attributes.get("looks"))

    @cached_property
    def declared(self) -> History | None:
        """What the study declared before its first cell, and since; None where it declared nothing."""
        return History.stored(self.attributes.get("declared"))

    @cached_property
    def deviations(self) -> list[Change]:
        """In what this analysis differs from what was declared before the first cell."""
        if self.declared is None:
            return []
        return self.declared.deviations(Declaration.of(self.design, self.interims.sizes if self.interims else ()))

    @property
    def is_exploratory(self) -> bool:
        """Whether verdicts are not about what was declared before the first cell, or nothing was."""
        return self.declared is None or any(change.is_exploratory for change in self.deviations)

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """What each variant makes of a difference to its baseline."""
        design = self.design
        return judge(self.results.ended, design.baselines, design.margin, design.metric, self.interims)

    @cached_property
    def costs(self) -> StudyCosts | None:
        """What the variants cost on the machine where that was measured last; None where nothing was measured."""
        return collect_costs(self.attributes, self.design)

    @property
    def cost_margin(self) -> float:
        """The relative difference in time below which two variants count as equally fast."""
        return self.config.measure.margin / 100

    @cached_property
    def cost_contrasts(self) -> dict[str, dict[str, CostContrast]]:
        """Each variant's time relative to its baseline's, by mode (`train`, `test`) and variant; a family each."""
        if self.costs is None:
            return {mode: {} for mode in MODES}
        judged = {mode: self.costs.judge(mode, self.cost_margin) for mode in MODES}
        return {mode: {contrast.variant: contrast for contrast in contrasts} for mode, contrasts in judged.items()}

    @cached_property
    def summaries(self) -> list[VariantSummary]:
        """What the replicates of each variant say; variants without a finished cell are left out."""
        names, results = [variant.name for variant in self.design.variants], self.results
        design = self.design
        return summarise(results.cells, names, design.baselines, self.contrasts, results.diverged, design.metric)

    @cached_property
    def shown(self) -> frozenset[str]:
        """The variants that tables, figures and text show: all but of very many, of which nobody could read them.

        Then they are those of the highest and of the lowest top-1, and what these are compared with.
        """
        finished = frozenset(summary.variant for summary in self.summaries)
        if len(finished) <= MOST_SHOWN:
            return finished
        ordered = sorted(self.summaries, key=lambda summary: summary.top1.mean)
        ends = [*ordered[:ENDS], *ordered[-ENDS:]]
        return finished & {name for summary in ends for name in (summary.variant, summary.baseline)}

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
        return factorial_effects(self.results.ended, self.design, self.interims)

    @cached_property
    def shown_effects(self) -> list[Effect]:
        """The effects that tables and figures show: all, or the highest and the lowest of very many."""
        if len(self.effects) <= MOST_SHOWN:
            return self.effects
        ordered = sorted(self.effects, key=lambda effect: effect.estimate.mean)
        ends = {effect.name for effect in (*ordered[:ENDS], *ordered[-ENDS:])}
        return [effect for effect in self.effects if effect.name in ends]

    @property
    def tried(self) -> Design:
        """The design with all variants that have cells, those included that a search tried and did not confirm."""
        return self.selection.design if self.selection else self.design

    @cached_property
    def multiply_adds(self) -> dict[str, float]:
        """Those of an image, as papers count them, of each variant that is shown: counting them takes 20 ms each."""
        shown = [variant for variant in self.design.variants if variant.name in self.shown]
        return {variant.name: self._count(variant.network) for variant in shown}

    @cached_property
    def plain_adds(self) -> dict[str, float]:
        """Those of each variant's backbone without attention."""
        models = {str(variant.model): variant.model for variant in self.design.variants}
        known = {text: self._count(plain_network(model)) for text, model in models.items()}
        return {variant.name: known[str(variant.model)] for variant in self.design.variants}

    def _count(self, network: Settings) -> float:
        from ablations.analysis.networks import count_multiply_adds

        return count_multiply_adds(network, len(self.attributes["data"]["classes"]), self.config.data.side)

    @cached_property
    def networks(self) -> TrainedNetworks:
        """The trained networks that the study kept, of the variants that are shown.

        Raises:
            UsageError: if it kept none.
        """
        from ablations.analysis.networks import TrainedNetworks

        return TrainedNetworks(self)

    @cached_property
    def predictions(self) -> StudyPredictions:
        """The predictions on the test images that were kept, of the variants that are shown.

        Raises:
            UsageError: if none were, or none of the variants that `against` names.
        """
        kept = kept_predictions(self)
        return kept.against(self.config.against) if self.config.against else kept
