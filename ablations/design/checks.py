"""Checks of options against each other: what each allows by itself, `ablations.config` has checked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ablations.common.errors import UsageError, shown
from ablations.common.settings import flatten
from ablations.config import ATTENTION, AUTO, COSTS, OBJECTIVES, Config, ModelConfig, SweepConfig
from ablations.design.variants import Variant, variant_of_levels

_TRIED = 20_000  # combinations

Factors = Mapping[str, Sequence[Any]]


def check_replicates(config: Config) -> None:
    """Checks that `replicates=auto` is asked of a sweep that it is for, and `replicates.max` with it alone."""
    is_auto = config.replicates == AUTO
    if is_auto and config.sweep.sampler == "tpe":
        reason = "is for sweeps whose variants are all compared; a search takes a number of replicates"
        raise UsageError("replicates", AUTO, reason)
    if not is_auto and config.replicates_max != Config.replicates_max:
        raise UsageError("replicates.max", config.replicates_max, "has no effect without replicates=auto")


def check_base_is_used(config: Config, factors: Factors, named: Iterable[Variant]) -> None:
    """Checks that no option is set that the sweep's own factors replace in every variant."""
    base = flatten({"attention": asdict(config.attention), "model": asdict(config.model)})
    usual = flatten({"attention": asdict(ATTENTION[config.attention.name]()), "model": asdict(ModelConfig())})
    for path, levels in factors.items():
        option = "model.name" if path == "model" else path
        root, _, name = option.partition(".")
        if option not in base or base[option] == usual[option]:
            continue
        if not any(variant.network[root].get(name) == base[option] for variant in named):
            reason = f"has no effect: it is a factor of this sweep, with the levels {shown(levels)}"
            raise UsageError("model" if path == "model" else option, base[option], reason)


def check_search(config: Config, factors: Factors) -> None:
    """Checks the options of a search, and that none is given to a sweep that trains every combination."""
    sweep = config.sweep
    if sweep.sampler == "grid":
        for name in ("trials", "objectives", "max_parameters"):
            value = getattr(sweep, name)
            if value != getattr(SweepConfig(), name):
                reason = "is an option of a search alone; sweep.sampler=tpe makes this sweep one"
                raise UsageError(f"sweep.{name}", value, reason)
        return
    if not factors:
        raise UsageError("sweep.factors", None, "is empty: a search needs factors to pick levels of")
    for path, levels in factors.items():
        if len({json.dumps(level) for level in levels}) < len(levels):
            raise UsageError(f"sweep.factors.{path}", levels, "lists a level twice")
    _check_objectives(config)
    _check_levels(config, factors)


def _check_objectives(config: Config) -> None:
    """Checks that a search looks for metrics that there are, each once, and that its cells have them."""
    objectives = config.sweep.objectives
    if not objectives:
        raise UsageError("sweep.objectives", "[]", "is empty", OBJECTIVES)
    for objective in objectives:
        if objective not in OBJECTIVES:
            raise UsageError("sweep.objectives", objective, "is no metric to look for", OBJECTIVES)
    if len(set(objectives)) < len(objectives):
        raise UsageError("sweep.objectives", objectives, "names an objective twice")
    if config.measure == "off" and (measured := COSTS.intersection(objectives)):
        raise UsageError("measure", "off", f"leaves the search without its objective {min(measured)}")
    ratios = [objective for objective in objectives if objective.endswith("_ratio")]
    if ratios and config.train.compile != "none":
        reason = "is not measured of compiled networks, as another one would have to be compiled for every cell"
        raise UsageError("sweep.objectives", ratios[0], reason)


def _check_levels(config: Config, factors: Factors) -> None:
    """Checks that each level of a search fits in some combination: one that never does is a slip.

    Raises:
        UsageError: for the first level that does not, with the reason of the last combination that was tried.
    """
    for path, levels in factors.items():
        others = {other: choices for other, choices in factors.items() if other != path}
        for level in levels:
            refused: UsageError | None = None
            for combination in itertools.islice(itertools.product(*others.values()), _TRIED):
                try:
                    variant_of_levels(config, dict(zip(others, combination, strict=True)) | {path: level})
                except UsageError as error:
                    refused = refused or error
                else:
                    break
            else:
                assert refused is not None
                raise refused
