"""From a sweep to its variants, and from variants to cells: what is to be trained, and what makes two cells the same.

A cell is one training run: variant x replicate x protocol. Its key is a hash of everything that decides its result, so
a cell that was trained once is known again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.common.errors import UsageError, shown
from ablations.common.resolve import resolve_device, resolve_fused, resolve_memory_format, resolve_precision
from ablations.common.settings import Settings, flatten, leaves
from ablations.config import ATTENTION, AUTO, COSTS, OBJECTIVES, Config, ModelConfig, SweepConfig, decisive
from ablations.design.variants import Variant, check_base, check_distinct, level_name, make_variant, variant_of_levels
from sa_core.seeds import stream_seed

_TRIED = 20_000  # combinations


@dataclass(frozen=True)
class Cell:
    """One training run, the unit of work, of resuming and of storage."""

    variant: Variant
    replicate: int
    seed: int
    key: str

    @property
    def name(self) -> str:
        """How people see it: variant and replicate."""
        return f"{self.variant.name} r{self.replicate}"


@dataclass(frozen=True)
class Design:
    """A study as it was asked for: its variants, what all its cells share, and how often each variant is trained.

    `baseline` names a variant, or a level: then every variant is compared with the one that has this level and is
    otherwise equal. A difference of less than `margin` points does not matter. `factors` are the levels of each factor,
    by its dotted name. Under `replicates=auto` up to `replicates_max` of a variant are trained, which is otherwise 0,
    and `replicates` are those of the first look. The variants of a search are those that are known so far; `objectives`
    is what it looks for, among those with up to `max_parameters` (0: no limit).
    """

    study: str
    sweep: str
    question: str
    variants: tuple[Variant, ...]
    baseline: str
    protocol: Settings
    replicates: int
    factors: dict[str, list[Any]]
    is_search: bool = False
    objectives: tuple[str, ...] = ("top1",)
    max_parameters: int = 0
    margin: float = SweepConfig.margin
    replicates_max: int = 0

    @property
    def baseline_factor(self) -> str | None:
        """The factor that the baseline is a level of; None where it is a variant."""
        if any(variant.name == self.baseline for variant in self.variants):
            return None
        for path, levels in self.factors.items():
            if any(level_name(path, level) == self.baseline for level in levels):
                return path
        return None

    @property
    def directions(self) -> list[str]:
        """Whether each objective is to be maximized or minimized."""
        return [OBJECTIVES[objective] for objective in self.objectives]

    @property
    def baselines(self) -> dict[str, str]:
        """The variant that each variant is compared with, by name; baselines are their own."""
        names = {variant.name for variant in self.variants}
        if self.baseline in names:
            return dict.fromkeys((variant.name for variant in self.variants), self.baseline)
        factor = self.baseline_factor
        if factor is None:
            return {}
        baseline = next(level for level in self.factors[factor] if level_name(factor, level) == self.baseline)
        by_levels = {json.dumps(variant.levels, sort_keys=True): variant.name for variant in self.variants}
        partners = {
            variant.name: by_levels.get(json.dumps(variant.levels | {factor: baseline}, sort_keys=True))
            for variant in self.variants
            if factor in variant.levels
        }
        return {name: partner for name, partner in partners.items() if partner is not None}

    def cells(self) -> Iterator[Cell]:
        """Yields all cells, a whole replicate of all variants after the other: a study cut short is still balanced."""
        for replicate in range(self.replicates):
            for variant in self.variants:
                yield self.cell(variant, replicate)

    def cell(self, variant: Variant, replicate: int) -> Cell:
        """Returns the cell of a variant and a replicate."""
        identity = {"protocol": self.protocol, "network": variant.network, "replicate": replicate}
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        # The seed does not depend on the variant: a replicate's networks start from the same backbone weights and see
        # the same batches.
        return Cell(variant, replicate, stream_seed(self.protocol["seed"], "replicate", replicate), key)


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
    _check_search(config, factors)
    named = tuple(_named_variants(config))
    is_search = config.sweep.sampler == "tpe"
    is_auto = _check_replicates(config)
    crossed = () if is_search else tuple(_crossed_variants(config, factors))
    variants = named + crossed
    if not variants and not is_search:
        raise UsageError("sweep.factors", None, "is empty, and so is sweep.variants: there is nothing to train")
    check_distinct(variants)
    _check_base_is_used(config, factors, named)
    design = Design(
        study=config.study,
        sweep=config.sweep.name,
        question=config.sweep.question,
        variants=variants,
        baseline=config.sweep.baseline,
        protocol=_protocol(config, stored),
        replicates=1 if is_auto else int(config.replicates),
        factors=factors,
        is_search=is_search,
        objectives=tuple(config.sweep.objectives) if is_search else ("top1",),
        max_parameters=config.sweep.max_parameters,
        margin=config.sweep.margin,
        replicates_max=config.replicates_max if is_auto else 0,
    )
    if not design.baselines:
        names = [variant.name for variant in variants]
        levels = [level_name(path, level) for path, values in factors.items() for level in values]
        choices = list(dict.fromkeys(names if len(factors) < 2 or is_search else [*names, *levels]))
        reason = "is no variant of this sweep" if config.sweep.baseline else "is empty: name what to compare with"
        raise UsageError("sweep.baseline", config.sweep.baseline or None, reason, choices)
    return design


def _check_replicates(config: Config) -> bool:
    """Returns whether the study itself finds out how many replicates it needs."""
    is_auto = config.replicates == AUTO
    if is_auto and config.sweep.sampler == "tpe":
        reason = "is for sweeps whose variants are all compared; a search takes a number of replicates"
        raise UsageError("replicates", AUTO, reason)
    if not is_auto and config.replicates_max != Config.replicates_max:
        raise UsageError("replicates.max", config.replicates_max, "has no effect without replicates=auto")
    return is_auto


def _check_base_is_used(config: Config, factors: Mapping[str, list[Any]], named: Sequence[Variant]) -> None:
    """Checks that no option was set that the sweep's own factors replace in every variant."""
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


def _check_search(config: Config, factors: Mapping[str, list[Any]]) -> None:
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
    if not sweep.objectives:
        raise UsageError("sweep.objectives", "[]", "is empty", OBJECTIVES)
    for objective in sweep.objectives:
        if objective not in OBJECTIVES:
            raise UsageError("sweep.objectives", objective, "is no metric to look for", OBJECTIVES)
    if len(set(sweep.objectives)) < len(sweep.objectives):
        raise UsageError("sweep.objectives", sweep.objectives, "names an objective twice")
    if config.measure == "off" and (measured := COSTS.intersection(sweep.objectives)):
        raise UsageError("measure", "off", f"leaves the search without its objective {min(measured)}")
    ratios = [objective for objective in sweep.objectives if objective.endswith("_ratio")]
    if ratios and config.train.compile != "none":
        reason = "is not measured of compiled networks, as another one would have to be compiled for every cell"
        raise UsageError("sweep.objectives", ratios[0], reason)
    _check_levels(config, factors)


def _check_levels(config: Config, factors: Mapping[str, Sequence[Any]]) -> None:
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


def protocol_differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Lists what differs between two protocols, one option a line: `train.epochs: 6 is stored, 3 is asked for`."""
    one, other = flatten(stored), flatten(asked)
    return [
        f"{name}: {one.get(name, 'nothing')} is stored, {other.get(name, 'nothing')} is asked for"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _protocol(config: Config, stored: Mapping[str, Any] | None) -> Settings:
    """Returns everything that must be equal for two cells to be compared, with `auto` resolved."""
    if config.data.cutout >= config.data.side:
        raise UsageError("data.cutout", config.data.cutout, f"must be less than the image's {config.data.side} pixels")
    images = getattr(config.data, "train_images", None)  # of real images it is known when they have been found
    if images is not None and config.train.batch_size > images:
        reason = f"is more than the {images:,} training images"
        raise UsageError("train.batch_size", config.train.batch_size, reason)
    train = asdict(config.train)
    if stored is None:
        device = resolve_device(config.device)
        train["precision"] = resolve_precision(config.train.precision, device)
        train["memory_format"] = resolve_memory_format(config.train.memory_format, device)
        train["fused"] = resolve_fused(config.train.fused, device)
    else:
        device = stored["device"] if config.device == "auto" else config.device
        for name in ("precision", "memory_format", "fused"):
            train[name] = stored["train"].get(name) if train[name] == "auto" else train[name]
    return {
        "data": decisive(config.data),
        "train": train,
        "seed": config.seed,
        "device": device,
    }


def _named_variants(config: Config) -> Iterator[Variant]:
    """Yields the variants that are given by name."""
    for name, settings in config.sweep.variants.items():
        option = f"sweep.variants.{name}"
        if not str(name).strip():
            raise UsageError("sweep.variants", None, "a variant has no name")
        if not isinstance(settings, Mapping):
            raise UsageError(option, settings, "is given as settings, as {attention: none}")
        yield make_variant(config, str(name), flatten(settings), {}, option)


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


def _crossed_variants(config: Config, factors: Mapping[str, list[Any]]) -> Iterator[Variant]:
    for combination in itertools.product(*factors.values()) if factors else ():
        yield variant_of_levels(config, dict(zip(factors, combination, strict=True)))
