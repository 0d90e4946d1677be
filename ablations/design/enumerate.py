"""From a sweep to its variants: levels crossed, variants given by name, each checked against its backbone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ablations.common.errors import UsageError, shown
from ablations.common.settings import flatten, leaves
from ablations.config import AUTO, Config
from ablations.design.cells import Design
from ablations.design.checks import check_base_is_used, check_replicates, check_search
from ablations.design.protocol import make_protocol
from ablations.design.variants import Variant, check_base, check_distinct, level_name, make_variant, variant_of_levels


def make_design(config: Config, stored: Mapping[str, Any] | None = None) -> Design:
    """Enumerates a sweep's variants and checks each against its backbone, stage by stage.

    Args:
        config: what was asked for.
        stored: the protocol of a stored study that is to be read, on whatever machine it was made; None where cells are
            to be trained on this one.

    Raises:
        UsageError: if a factor is none of the network's, a level does not fit, a variant is listed twice, or the
            baseline is no variant.
    """
    check_base(config)
    factors = _factors(config)
    check_search(config, factors)
    named = tuple(_named_variants(config))
    check_replicates(config)
    is_search, is_auto = config.sweep.sampler == "tpe", config.replicates == AUTO
    variants = named + (() if is_search else tuple(_crossed_variants(config, factors)))
    if not variants and not is_search:
        raise UsageError("sweep.factors", None, "is empty, and so is sweep.variants: there is nothing to train")
    check_distinct(variants)
    check_base_is_used(config, factors, named)
    design = Design(
        study=config.study,
        sweep=config.sweep.name,
        question=config.sweep.question,
        variants=variants,
        baseline=config.sweep.baseline,
        protocol=make_protocol(config, stored),
        replicates=1 if is_auto else int(config.replicates),
        factors=factors,
        is_search=is_search,
        objectives=tuple(config.sweep.objectives) if is_search else ("top1",),
        max_parameters=config.sweep.max_parameters,
        margin=config.sweep.margin,
        replicates_max=config.replicates_max if is_auto else 0,
        varied=_varied(config, factors),
    )
    _check_baseline(design)
    return design


def _check_baseline(design: Design) -> None:
    """Checks that the baseline is a variant or a level."""
    if design.baselines:
        return
    names = [variant.name for variant in design.variants]
    levels = [level_name(path, level) for path, values in design.factors.items() for level in values]
    choices = list(dict.fromkeys(names if len(design.factors) < 2 or design.is_search else [*names, *levels]))
    reason = "is no variant of this sweep" if design.baseline else "is empty: name what to compare with"
    raise UsageError("sweep.baseline", design.baseline or None, reason, choices)


def _factors(config: Config) -> dict[str, list[Any]]:
    """Returns the levels of each factor by its dotted name; a whole module is `attention`, a whole backbone `model`."""
    factors: dict[str, list[Any]] = {}
    _check_nothing_is_empty(config.sweep.factors, "sweep.factors")
    for path, levels in leaves(config.sweep.factors):
        name = path.removesuffix(".name")
        if not isinstance(levels, list) or not levels:
            raise UsageError(f"sweep.factors.{path}", levels, "is given as a list of levels, as [1,2,4]")
        if name in factors:
            other = shown(factors[name])
            raise UsageError(f"sweep.factors.{path}", levels, f"is given twice; the other time as {other}")
        factors[name] = levels
    return factors


def _check_nothing_is_empty(settings: Mapping[str, Any], path: str) -> None:
    """Checks that no factor is `{}`, which has no levels and no names below it."""
    for name, below in settings.items():
        if isinstance(below, Mapping):
            if not below:
                raise UsageError(f"{path}.{name}", below, "is given as a list of levels, as [1,2,4]")
            _check_nothing_is_empty(below, f"{path}.{name}")


def _varied(config: Config, factors: Mapping[str, list[Any]]) -> tuple[str, ...]:
    """Returns the options that differ between variants; a module or a backbone is `attention` or `model`."""
    named = (path for settings in config.sweep.variants.values() for path in flatten(settings))
    return tuple(dict.fromkeys([*factors, *(path.removesuffix(".name") for path in named)]))


def _named_variants(config: Config) -> Iterator[Variant]:
    """Yields the variants that are given by name."""
    for name, settings in config.sweep.variants.items():
        option = f"sweep.variants.{name}"
        if not str(name).strip():
            raise UsageError("sweep.variants", None, "a variant has no name")
        if not isinstance(settings, Mapping):
            raise UsageError(option, settings, "is given as settings, as {attention: none}")
        yield make_variant(config, str(name), flatten(settings), {}, option)


def _crossed_variants(config: Config, factors: Mapping[str, list[Any]]) -> Iterator[Variant]:
    for combination in itertools.product(*factors.values()) if factors else ():
        yield variant_of_levels(config, dict(zip(factors, combination, strict=True)))
