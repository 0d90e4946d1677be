"""The variants that a search has picked so far, found again in what is stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablations.common.errors import UsageError
from ablations.common.settings import Settings
from ablations.config import Config
from ablations.design import Design
from ablations.design.variants import Variant, check_distinct, variant_of_levels
from ablations.storage.cells import StoredCell


class Maker:
    """Makes variants of levels, each once: a search asks for the same ones before every pick."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._made: dict[str, Variant | None] = {}

    def variant(self, levels: Settings) -> Variant | None:
        """Returns the variant that a combination of levels is; None where they do not go together."""
        key = json.dumps(levels, sort_keys=True)
        if key not in self._made:
            try:
                self._made[key] = variant_of_levels(self._config, levels)
            except UsageError:
                self._made[key] = None
        return self._made[key]


def with_found_variants(design: Design, stored: Iterable[StoredCell], maker: Maker) -> Design:
    """Returns the design of a search with the variants of its space that it has picked so far, in that order."""
    found: dict[str, Variant] = {}
    for cell in stored:
        if cell.variant not in found and _is_in(cell.levels, design.factors):
            variant = maker.variant(cell.levels)
            if variant and variant.network == cell.network:  # otherwise it is of another base network
                found[cell.variant] = variant
    variants = (*design.variants, *found.values())
    check_distinct(variants)
    return replace(design, variants=variants)


def _is_in(levels: Settings, space: Mapping[str, Sequence[Any]]) -> bool:
    return levels.keys() == space.keys() and all(level in space[path] for path, level in levels.items())
