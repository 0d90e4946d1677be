"""A study as it is stored, sorted and judged: what tables, figures, page and report are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.analysis.results import Results, collect
from ablations.common.errors import UsageError
from ablations.common.wording import count
from ablations.config import Config
from ablations.design import Design, make_design
from ablations.stats import Contrast, Looks, VariantSummary, judge, summarise
from ablations.storage.folder import storage_url, study_folder
from ablations.storage.study import NOT_RUN, StudyStore, open_store

if TYPE_CHECKING:
    import pandas as pd

    from ablations.analysis.networks import TrainedNetworks


MOST_SHOWN = 60  # variants; of more, tables, figures and text show the ends
ENDS = 12  # variants of the highest top-1, and as many of the lowest
_NAMED = 6  # variants that a sentence names


@dataclass(frozen=True)
class Findings:
    """What a study has come to.

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
    def shown_note(self) -> str:
        """Says which variants are shown; empty where all are."""
        if len(self.shown) == len(self.summaries):
            return ""
        return (
            f"Of {len(self.summaries):,} variants the {ENDS} with the highest and the {ENDS} with the lowest top-1 are "
            "shown, and what they are compared with; the CSV files have all."
        )

    @cached_property
    def shown_summaries(self) -> list[VariantSummary]:
        """The summaries of the variants that are shown."""
        return [summary for summary in self.summaries if summary.variant in self.shown]

    @cached_property
    def shown_contrasts(self) -> list[Contrast]:
        """The contrasts of the variants that are shown; all where all are, those without a finished cell included."""
        is_all = len(self.shown) == len(self.summaries)
        return [contrast for contrast in self.contrasts if is_all or contrast.variant in self.shown]

    @cached_property
    def tradeoffs(self) -> pd.DataFrame:
        """What a search tried; see `ablations.analysis.tradeoffs`."""
        from ablations.analysis.tradeoffs import tradeoffs

        return tradeoffs(self.results.cells, self.design)

    @cached_property
    def importances(self) -> pd.DataFrame:
        """How much each factor of a search matters; see `ablations.analysis.tradeoffs`."""
        from ablations.analysis.tradeoffs import importances

        return importances(self.tradeoffs, self.design)

    @cached_property
    def multiply_adds(self) -> dict[str, float]:
        """Those of an image, as papers count them, of each variant that is shown: counting them takes 20 ms each."""
        from ablations.analysis.networks import count_multiply_adds

        return {
            variant.name: count_multiply_adds(variant.network, self._classes, self.config.data.side)
            for variant in self.design.variants
            if variant.name in self.shown
        }

    @cached_property
    def plain_adds(self) -> dict[str, float]:
        """Those of each variant's backbone without attention."""
        from ablations.analysis.networks import count_multiply_adds

        plain = {
            variant.name: {"model": variant.model, "attention": {"name": "none"}} for variant in self.design.variants
        }
        classes, side = self._classes, self.config.data.side
        distinct = {str(network): network for network in plain.values()}
        known = {text: count_multiply_adds(network, classes, side) for text, network in distinct.items()}
        return {name: known[str(network)] for name, network in plain.items()}

    @property
    def _classes(self) -> int:
        return len(self.attributes["data"]["classes"])

    @cached_property
    def networks(self) -> TrainedNetworks:
        """The trained networks that the study kept."""
        from ablations.analysis.networks import TrainedNetworks

        return TrainedNetworks(self)

    @property
    def missing(self) -> str:
        """Says in a sentence which cells are not finished; empty where all are."""
        left = self.results.unfinished
        left = left[~left["state"].isin(["pruned", "diverged"])]
        if left.empty:
            return ""
        total = len(left) + len(self.results.cells)
        by_variant = left.groupby("variant", sort=False)["replicate"].count()
        most = by_variant if len(by_variant) <= MOST_SHOWN else by_variant.head(_NAMED)
        named = ", ".join(f"{number} of {name}" for name, number in most.items())
        if len(most) < len(by_variant):
            named += f", and of {len(by_variant) - len(most):,} other variants"
        return f"Not finished: {len(left)} of {count(total, 'cell')} ({named})."


def read_study(*overrides: str) -> Findings:
    """Reads a stored study by what was typed to run it, as `read_study("sweep=groups", "replicates=5")`.

    Raises:
        UsageError: if an override is not understood, or nothing is stored under the study's name.
    """
    from ablations.config.compose import compose_config

    return read_findings(compose_config(overrides))


def read_findings(config: Config, otherwise: str = NOT_RUN) -> Findings:
    """Reads a stored study; `otherwise` is what to do where there is none.

    Raises:
        UsageError: if nothing is stored under its name, or something else is.
    """
    folder, url = study_folder(config), storage_url(config)
    # What no machine could run is said before what is not stored.
    make_design(config, stored={"device": "cpu", "train": {}})
    store = open_store(url, config.study, create=False, advice=otherwise)
    design = make_design(config, stored=store.protocol)
    store.check(design, f"it was made by `{store.attributes.get('command')}`, and `analyze` needs the same options")
    return findings_of(config, design, store, folder)


def findings_of(config: Config, design: Design, store: StudyStore, folder: Path) -> Findings:
    """Sorts what a store has of a design.

    Raises:
        UsageError: if nothing was ever tried.
    """
    stored = store.cells()
    if design.is_search:
        from ablations.analysis.picked import Maker, with_found_variants

        design = with_found_variants(design, stored, Maker(config))
    results = collect(design, stored)
    if results.cells.empty and not results.unfinished["state"].isin(["failed", "diverged"]).any():
        raise UsageError("study", design.study, "no cell of this sweep is finished yet; `run` trains them")
    return Findings(config, design, results, store.attributes, folder)
