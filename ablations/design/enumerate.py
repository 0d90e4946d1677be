"""Enumerates the variants of a sweep: crossed levels and named variants, each checked against its backbone.

`ablations.config` checks single options; combinations of options are checked here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ablations.common.errors import UsageError, shown
from ablations.common.metrics import METRICS
from ablations.common.names import check_name
from ablations.common.settings import flatten, leaves
from ablations.config import ATTENTION, AUTO, COSTS, OBJECTIVES, Config, ModelConfig, SweepConfig
from ablations.design.cells import Design
from ablations.design.protocol import make_protocol, validation_share
from ablations.design.tuning import make_tuning
from ablations.design.variants import Variant, check_base, check_distinct, level_name, make_variant, variant_of_levels

_TRIED = 20_000  # maximum number of combinations that are checked for a level

_Factors = Mapping[str, list[Any]]  # the levels of each factor, by its dotted name


def make_design(config: Config, stored: Mapping[str, Any] | None = None) -> Design:
    """Enumerates a sweep's variants and checks each against its backbone, stage by stage.

    Args:
        config: the configuration.
        stored: the protocol of a stored study to read, from any machine; None if cells are to be trained on this one.

    Raises:
        UsageError: if a factor is not an option of the network, a level does not fit, two variants are equal, the
            baseline is not a variant, or options conflict or are not available on this machine.
    """
    check_base(config)
    factors = _factors(config)
    _check_search(config, factors)
    named = tuple(_named_variants(config))
    _check_replicates(config)
    is_search, is_auto = config.sweep.sampler == "tpe", config.replicates == AUTO
    crossed = itertools.product(*factors.values()) if factors and not is_search else ()
    variants = named + tuple(variant_of_levels(config, dict(zip(factors, levels, strict=True))) for levels in crossed)
    if not variants and not is_search:
        raise UsageError("sweep.factors", None, "must not be empty if sweep.variants is empty, too")
    check_distinct(variants)
    _check_base_is_used(config, factors, named)
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
        confirm=config.sweep.confirm if is_search else 0,
        metric=config.judge.metric,
        margin=_margin(config),
        replicates_max=config.replicates_max if is_auto else 0,
        baseline_replicates=config.baseline_replicates,
        varied=_varied(config, factors),
        tuning=make_tuning(config, validation_share(config), _varied(config, factors)),
    )
    _check_baseline(design)
    return design


def _check_baseline(design: Design) -> None:
    """Checks that the baseline is a variant or a level of a factor."""
    if design.baselines:
        return
    names = [variant.name for variant in design.variants]
    levels = [level_name(path, level) for path, values in design.factors.items() for level in values]
    choices = list(dict.fromkeys(names if len(design.factors) < 2 or design.is_search else [*names, *levels]))
    reason = "is not a variant of this sweep" if design.baseline else "must not be empty"
    raise UsageError("sweep.baseline", design.baseline or None, reason, choices)


def _factors(config: Config) -> dict[str, list[Any]]:
    """Returns the levels of each factor by its dotted name, without a final `.name` (`attention`, `model`)."""
    factors: dict[str, list[Any]] = {}
    _check_nothing_is_empty(config.sweep.factors, "sweep.factors")
    for path, levels in leaves(config.sweep.factors):
        name = path.removesuffix(".name")
        if not isinstance(levels, list) or not levels:
            raise UsageError(f"sweep.factors.{path}", levels, "must be a list of levels such as [1,2,4]")
        if name in factors:
            other = shown(factors[name])
            raise UsageError(f"sweep.factors.{path}", levels, f"is given twice, also as {other}")
        factors[name] = levels
    return factors


def _check_nothing_is_empty(settings: Mapping[str, Any], path: str) -> None:
    """Checks that no factor is an empty mapping, which `leaves` would skip."""
    for name, below in settings.items():
        if isinstance(below, Mapping):
            if not below:
                raise UsageError(f"{path}.{name}", below, "must be a list of levels such as [1,2,4]")
            _check_nothing_is_empty(below, f"{path}.{name}")


def _varied(config: Config, factors: _Factors) -> tuple[str, ...]:
    """Returns `Design.varied`, with `attention` and `model` for modules and backbones."""
    named = (path for settings in config.sweep.variants.values() for path in flatten(settings))
    return tuple(dict.fromkeys([*factors, *(path.removesuffix(".name") for path in named)]))


def _named_variants(config: Config) -> Iterator[Variant]:
    """Yields the named variants."""
    for name, settings in config.sweep.variants.items():
        option = f"sweep.variants.{name}"
        if not str(name).strip():
            raise UsageError("sweep.variants", None, "a variant has an empty name")
        check_name("sweep.variants", str(name))
        if not isinstance(settings, Mapping):
            raise UsageError(option, settings, "must be a mapping such as {attention: none}")
        yield make_variant(config, str(name), flatten(settings), {}, option)


def _check_replicates(config: Config) -> None:
    """Checks that options about replicates are compatible with each other and with the sweep."""
    is_auto = config.replicates == AUTO
    if is_auto and config.sweep.sampler == "tpe":
        reason = "is not supported in a search; use a number"
        raise UsageError("replicates", AUTO, reason)
    if not is_auto and config.replicates_max != Config.replicates_max:
        raise UsageError("replicates.max", config.replicates_max, "has no effect without replicates=auto")
    of_baselines = config.baseline_replicates
    if of_baselines and is_auto:
        raise UsageError("baseline_replicates", of_baselines, "is not supported with replicates=auto")
    if of_baselines and config.sweep.sampler == "tpe":
        raise UsageError("baseline_replicates", of_baselines, "is not supported in a search")
    if of_baselines and of_baselines % int(config.replicates):
        reason = f"must be 0 or a multiple of replicates={config.replicates}"
        raise UsageError("baseline_replicates", of_baselines, reason)


def _margin(config: Config) -> float:
    """Returns the equivalence margin, by default that of the data set, which applies to accuracies only."""
    if config.sweep.margin != AUTO:
        return float(config.sweep.margin)
    metric = METRICS[config.judge.metric]
    if not metric.is_accuracy:
        unit = f"in {metric.difference_unit}" if metric.unit else "without a unit"
        reason = f"applies to accuracies only; judge.metric={metric.key} requires a number {unit}"
        raise UsageError("sweep.margin", AUTO, reason)
    return config.data.margin


def _check_base_is_used(config: Config, factors: _Factors, named: Iterable[Variant]) -> None:
    """Checks that no option is set that the sweep's factors replace in every variant."""
    base = flatten({"attention": asdict(config.attention), "model": asdict(config.model)})
    defaults = flatten({"attention": asdict(ATTENTION[config.attention.name]()), "model": asdict(ModelConfig())})
    for path, levels in factors.items():
        option = "model.name" if path == "model" else path
        root, _, name = option.partition(".")
        if option not in base or base[option] == defaults[option]:
            continue
        if not any(variant.network[root].get(name) == base[option] for variant in named):
            reason = f"cannot be set: the sweep itself varies it, with levels {shown(levels)}"
            raise UsageError("model" if path == "model" else option, base[option], reason)


def _check_search(config: Config, factors: _Factors) -> None:
    """Checks the options of a search, and that other sweeps do not set them."""
    sweep = config.sweep
    if sweep.sampler == "grid":
        for name in ("trials", "confirm", "objectives", "max_parameters"):
            value = getattr(sweep, name)
            if value != getattr(SweepConfig(), name):
                reason = "requires a search (sweep.sampler=tpe)"
                raise UsageError(f"sweep.{name}", value, reason)
        return
    if not factors:
        raise UsageError("sweep.factors", None, "must not be empty in a search")
    for path, levels in factors.items():
        if len({json.dumps(level) for level in levels}) < len(levels):
            raise UsageError(f"sweep.factors.{path}", levels, "contains a duplicate level")
    _check_objectives(config)
    _check_levels(config, factors)


def _check_objectives(config: Config) -> None:
    """Checks that the objectives of a search are distinct metrics, and are measured."""
    objectives = config.sweep.objectives
    if not objectives:
        raise UsageError("sweep.objectives", "[]", "is empty", OBJECTIVES)
    for objective in objectives:
        if objective not in OBJECTIVES:
            raise UsageError("sweep.objectives", objective, "is not a valid objective", OBJECTIVES)
    if len(set(objectives)) < len(objectives):
        raise UsageError("sweep.objectives", objectives, "contains a duplicate objective")
    if config.measure.name == "off" and (measured := COSTS.intersection(objectives)):
        raise UsageError("measure", "off", f"does not measure the objective {min(measured)} of the search")


def _check_levels(config: Config, factors: _Factors) -> None:
    """Checks that each level of a search is valid in at least one combination."""
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
