"""From a sweep to its variants, and from variants to cells: what is to be trained, and what makes two cells the same.

A cell is one training run: variant x replicate x protocol. Its key is a hash of everything that decides its result, so
a cell that was trained once is known again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablations import machine
from ablations.config import ATTENTION, AttentionConfig, Config
from ablations.errors import UsageError
from sa_core.catalog import ATTENTIONS, BACKBONES, fitting_groups
from sa_core.seeds import stream_seed

Settings = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A network to be trained: a backbone with attention.

    `levels` holds the factors that made it (`{"attention.groups": 8}`) and is empty for a variant given by name.
    """

    name: str
    model: Settings
    attention: Settings
    levels: Settings

    @property
    def network(self) -> Settings:
        """What tells this network from any other."""
        return {"model": self.model, "attention": self.attention}


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
    """A study as it was asked for: its variants, what all its cells share, and how often each variant is trained."""

    study: str
    sweep: str
    question: str
    variants: tuple[Variant, ...]
    baseline: str
    protocol: Settings
    replicates: int

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
    variants = tuple(_variants(config))
    if not variants:
        raise UsageError("sweep.factors", None, "is empty, and so is sweep.variants: there is nothing to train")
    _check_distinct(variants)
    names = [variant.name for variant in variants]
    if config.sweep.baseline not in names:
        raise UsageError("sweep.baseline", config.sweep.baseline or "''", "is no variant of this sweep", names)
    return Design(
        study=config.study,
        sweep=config.sweep.name,
        question=config.sweep.question,
        variants=variants,
        baseline=config.sweep.baseline,
        protocol=_protocol(config, stored),
        replicates=config.replicates,
    )


def protocol_differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Lists what differs between two protocols, one option a line: `train.epochs: 6 is stored, 3 is asked for`."""
    one, other = flatten(stored), flatten(asked)
    return [
        f"{name}: {one.get(name, 'nothing')} is stored, {other.get(name, 'nothing')} is asked for"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Settings:
    """Turns nested settings into dotted names."""
    flat: Settings = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _protocol(config: Config, stored: Mapping[str, Any] | None) -> Settings:
    """Returns everything that must be equal for two cells to be compared, with `auto` resolved."""
    if config.train.batch_size > getattr(config.data, "train_images", config.train.batch_size):
        raise UsageError("train.batch_size", config.train.batch_size, "is more than data.train_images")
    train = asdict(config.train)
    if stored is None:
        device = machine.resolve_device(config.device)
        train["precision"] = machine.resolve_precision(config.train.precision, device)
        train["memory_format"] = machine.resolve_memory_format(config.train.memory_format, device)
    else:
        device = stored["device"] if config.device == "auto" else config.device
        for name in ("precision", "memory_format"):
            train[name] = stored["train"].get(name) if train[name] == "auto" else train[name]
    return {
        "data": asdict(config.data),
        "train": train,
        "seed": config.seed,
        "device": device,
    }


def _variants(config: Config) -> Iterator[Variant]:
    """Yields the named variants, then the factors' levels, crossed."""
    for name, settings in config.sweep.variants.items():
        option = f"sweep.variants.{name}"
        if not str(name).strip():
            raise UsageError("sweep.variants", None, "a variant has no name")
        if not isinstance(settings, Mapping):
            raise UsageError(option, settings, "is given as settings, as {attention: none}")
        yield _make_variant(config, str(name), flatten(settings), {}, option)
    factors = flatten(config.sweep.factors)
    for path, levels in factors.items():
        if not isinstance(levels, list) or not levels:
            raise UsageError(f"sweep.factors.{path}", levels, "is given as a list of levels, as [1,2,4]")
    for combination in itertools.product(*factors.values()) if factors else ():
        levels = dict(zip(factors, combination, strict=True))
        name = ", ".join(_level_name(path, level) for path, level in levels.items())
        option = "; ".join(f"sweep.factors.{path}={level}" for path, level in levels.items())
        yield _make_variant(config, name, levels, levels, option)


def _level_name(path: str, level: object) -> str:
    shown = {True: "on", False: "off"}[level] if isinstance(level, bool) else str(level)
    factor = path.rpartition(".")[2]
    # A whole module or backbone is its own name; a knob is named with its level.
    return shown if "." not in path or factor == "name" else f"{factor}={shown}"


def _make_variant(config: Config, name: str, settings: Settings, levels: Settings, option: str) -> Variant:
    """Applies a variant's settings to the base network and checks what comes out."""
    chosen = {(path if "." in path else f"{path}.name"): value for path, value in settings.items()}
    for path, value in settings.items():
        if isinstance(value, (list, dict)):
            raise UsageError(option, None, f"{path}={value}: is one value, not several")
        if path.partition(".")[0] not in ("attention", "model"):
            raise UsageError(
                option, None, f"{path} belongs to the protocol, which all cells share; attention.* and model.* can vary"
            )
    model = asdict(config.model)
    attention = asdict(config.attention)
    if chosen.get("attention.name", attention["name"]) != attention["name"]:
        attention = {}  # another module: the base module's knobs are none of its own
    for path, value in chosen.items():
        root, _, knob = path.partition(".")
        (attention if root == "attention" else model)[knob] = value
    if unknown := sorted(set(model) - {"name"}):
        raise UsageError(option, None, f"a model has no {', '.join(unknown)}")
    if model["name"] not in BACKBONES:
        raise UsageError(option, None, f"there is no model {model['name']}", tuple(BACKBONES))
    attention = _typed_attention(attention, option)
    _check_places(model["name"], attention, chosen, option)
    return Variant(name, model, attention, levels)


def _typed_attention(settings: Settings, option: str) -> Settings:
    """Fills in defaults and converts types as the module's knobs declare them."""
    name = settings["name"]
    if name not in ATTENTION:
        raise UsageError(option, None, f"there is no attention {name}", tuple(ATTENTION))
    schema = OmegaConf.structured(ATTENTION[name])
    for knob, value in settings.items():
        if knob not in schema:
            known = [known for known in schema if known != "name"]
            reason = f"attention {name} has no knob {knob}" + ("" if known else ", nor any other")
            raise UsageError(option, None, reason, [str(known) for known in known])
        try:
            schema[knob] = value
        except OmegaConfBaseException as error:
            raise UsageError(option, None, str(error).splitlines()[0]) from None
    return asdict(cast(AttentionConfig, OmegaConf.to_object(schema)))


def _check_places(model: str, attention: Settings, chosen: Settings, option: str) -> None:
    knobs = {knob: value for knob, value in attention.items() if knob != "name"}
    for stage in BACKBONES[model]:
        try:
            ATTENTIONS[attention["name"]](**knobs).check(stage.channels)
        except ValueError as error:
            everywhere = set.intersection(*(set(fitting_groups(stage.channels)) for stage in BACKBONES[model]))
            knob = str(error).partition("=")[0]
            if f"attention.{knob}" not in chosen:
                option = f"attention.{knob}"
            advice = ""
            if "groups" in knobs and knobs["groups"] not in everywhere:
                advice = f"; groups that fit every stage of {model}: {', '.join(map(str, sorted(everywhere)))}"
            raise UsageError(option, None, f"stage {stage.name} of {model}: {error}{advice}") from None


def _check_distinct(variants: tuple[Variant, ...]) -> None:
    by_name: dict[str, Variant] = {}
    by_network: dict[str, Variant] = {}
    for variant in variants:
        network = json.dumps(variant.network, sort_keys=True)
        if variant.name in by_name:
            raise UsageError("sweep", None, f"the variant {variant.name} is listed twice")
        if network in by_network:
            raise UsageError("sweep", None, f"{variant.name} is the same network as {by_network[network].name}")
        by_name[variant.name] = by_network[network] = variant
