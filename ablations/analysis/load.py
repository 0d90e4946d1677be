"""Reads a stored study by the options that it was run with; of a search, including the variants that it sampled."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ablations.analysis.results import collect
from ablations.analysis.selection import collect_selection, confirmed_design
from ablations.analysis.study import StudyAnalysis
from ablations.analysis.tuning import collect_tuned
from ablations.common.errors import UsageError
from ablations.common.settings import Settings
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.design.variants import Variant, check_distinct, variant_of_levels
from ablations.storage.cell_states import StoredCell
from ablations.storage.paths import storage_url, study_folder
from ablations.storage.study import NOT_RUN, StudyStore, find_study, open_store


def load_study(*overrides: str) -> StudyAnalysis:
    """Reads a stored study by the overrides that it was run with, as `load_study("sweep=groups", "replicates=5")`.

    Raises:
        UsageError: if an override is invalid, or the study is not stored.
    """
    return load_configured(compose_config(overrides))


def load_configured(config: Config, advice: str = NOT_RUN) -> StudyAnalysis:
    """Reads the stored study of a configuration; `advice` is for the error message if it is not stored.

    Raises:
        UsageError: if the study is not stored, or another study is stored under its name.
    """
    url = _checked_url(config)
    analysis = _analyzed(config, open_store(url, config.study, create=False, advice=advice))
    if analysis is None:
        raise _no_cells(config.study)
    return analysis


def find_configured(config: Config) -> StudyAnalysis | None:
    """Reads the stored study of a configuration; returns None if no cell has ended.

    Raises:
        UsageError: if another study is stored under its name.
    """
    store = find_study(_checked_url(config), config.study)
    return None if store is None else _analyzed(config, store)


def _checked_url(config: Config) -> str:
    """Returns the storage URL of a study after checking its name and that its design is valid on any machine."""
    study_folder(config)
    url = storage_url(config)
    make_design(config, stored={"device": "cpu", "train": {}})
    return url


def _analyzed(config: Config, store: StudyStore) -> StudyAnalysis | None:
    design = make_design(config, stored=store.protocol)
    store.check(design, f"it was created by `{store.attributes.get('command')}`; `analyze` needs the same options")
    return find_stored(config, design, store, study_folder(config))


def analyze_stored(config: Config, design: Design, store: StudyStore, folder: Path) -> StudyAnalysis:
    """Returns the analysis of a design from a store.

    Raises:
        UsageError: if no cell has ended.
    """
    analysis = find_stored(config, design, store, folder)
    if analysis is None:
        raise _no_cells(design.study)
    return analysis


def _no_cells(study: str) -> UsageError:
    return UsageError("study", study, "no cell of this sweep is finished yet; train them with `run`")


def find_stored(config: Config, design: Design, store: StudyStore, folder: Path) -> StudyAnalysis | None:
    """Returns the analysis of a design from a store; None if no cell has ended."""
    stored = store.cells()
    selection = None
    if design.is_search:
        selection = collect_selection(with_found_variants(design, stored, Maker(config)), stored)
        design = confirmed_design(selection, stored)
    results, tuned = collect(design, stored), collect_tuned(design, stored)
    phases = [results, *([selection.results] if selection else []), *([tuned.results] if tuned else [])]
    if all(phase.ended.empty for phase in phases) and (tuned is None or tuned.trials.empty):
        return None
    return StudyAnalysis(config, design, results, store.attributes, folder, selection, tuned)


class Maker:
    """Makes variants from levels, with a cache: a search needs the same variants before every new trial."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._cache: dict[str, Variant | None] = {}

    def variant(self, levels: Settings) -> Variant | None:
        """Returns the variant of a combination of levels; None if the combination is invalid."""
        key = json.dumps(levels, sort_keys=True)
        if key not in self._cache:
            try:
                self._cache[key] = variant_of_levels(self._config, levels)
            except UsageError:
                self._cache[key] = None
        return self._cache[key]


def with_found_variants(design: Design, stored: Iterable[StoredCell], maker: Maker) -> Design:
    """Returns the design of a search with the variants that it has sampled so far, in that order."""
    sampled: dict[str, Variant] = {}
    space = design.factors
    for cell in stored:
        levels = cell.levels
        if cell.variant in sampled or levels.keys() != space.keys():
            continue
        variant = maker.variant(levels) if all(level in space[path] for path, level in levels.items()) else None
        if variant and variant.network == cell.network:  # otherwise the cell is of another base network
            sampled[cell.variant] = variant
    variants = (*design.variants, *sampled.values())
    check_distinct(variants)
    return replace(design, variants=variants)
