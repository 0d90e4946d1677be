"""A study as it is stored, sorted and judged: what tables, figures, page and report are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config import Config
from ablations.design import Design, make_design
from ablations.errors import UsageError
from ablations.folder import storage_url, study_folder
from ablations.results import Results, collect
from ablations.stats import Contrast, Looks, VariantSummary, judge, summarise
from ablations.study import NOT_RUN, StudyStore, open_store
from ablations.wording import count

if TYPE_CHECKING:
    from ablations.networks import TrainedNetworks


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
    def multiply_adds(self) -> dict[str, float]:
        """Those of an image, as papers count them, of each variant that has a finished cell."""
        from ablations.networks import count_multiply_adds

        finished = set(self.results.cells["variant"])
        return {
            variant.name: count_multiply_adds(variant.network, self._classes, self.config.data.side)
            for variant in self.design.variants
            if variant.name in finished
        }

    @cached_property
    def plain_adds(self) -> dict[str, float]:
        """Those of each variant's backbone without attention."""
        from ablations.networks import count_multiply_adds

        plain = {
            variant.name: {"model": variant.model, "attention": {"name": "none"}} for variant in self.design.variants
        }
        classes, side = self._classes, self.config.data.side
        known = {str(network): count_multiply_adds(network, classes, side) for network in plain.values()}
        return {name: known[str(network)] for name, network in plain.items()}

    @property
    def _classes(self) -> int:
        return len(self.attributes["data"]["classes"])

    @cached_property
    def networks(self) -> TrainedNetworks:
        """The trained networks that the study kept."""
        from ablations.networks import TrainedNetworks

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
        named = ", ".join(f"{number} of {name}" for name, number in by_variant.items())
        return f"Not finished: {len(left)} of {count(total, 'cell')} ({named})."


def read_study(*overrides: str) -> Findings:
    """Reads a stored study by what was typed to run it, as `read_study("sweep=groups", "replicates=5")`.

    Raises:
        UsageError: if an override is not understood, or nothing is stored under the study's name.
    """
    from ablations.compose import compose_config

    return read_findings(compose_config(overrides))


def read_findings(config: Config, otherwise: str = NOT_RUN) -> Findings:
    """Reads a stored study; `otherwise` is what to do where there is none.

    Raises:
        UsageError: if nothing is stored under its name, or something else is.
    """
    folder, url = study_folder(config), storage_url(config)
    # What no machine could run is said before what is not stored.
    make_design(config, stored={"device": "cpu", "train": {}})
    store = open_store(url, config.study, create=False, otherwise=otherwise)
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
        from ablations.search import Maker, with_found_variants

        design = with_found_variants(design, stored, Maker(config))
    results = collect(design, stored)
    if results.cells.empty and not results.unfinished["state"].isin(["failed", "diverged"]).any():
        raise UsageError("study", design.study, "no cell of this sweep is finished yet; `run` trains them")
    return Findings(config, design, results, store.attributes, folder)
