"""What a benchmark is to measure: every comparison, checked before anything is run."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ablations.benchmarking.workloads import Candidate, Shape, candidate_from, candidate_of, shapes_of
from ablations.config import BenchConfig, Config, DigitsConfig, ImageTreeConfig
from ablations.design import Design, make_design
from ablations.errors import UsageError
from ablations.machine import resolve_device, resolve_precision
from ablations.measure.record import Setting, Subject
from ablations.variants import SMALL_SIDE, Variant
from sa_core.knobs import ShuffleAttentionKnobs, default_groups
from sa_core.places import BACKBONES, find_backbone

COPY, PLAIN = "copy", "none"
MODULE, NETWORK = "module", "network"
_SMALLEST = 8  # pixels
_FALLBACK_ALSO = BenchConfig().also  # what is left out with a note where the tests are not installed


@dataclass(frozen=True)
class Comparison:
    """Subjects that are timed in turns: all of one backbone's networks, or all modules on one shape, in one setting."""

    kind: str
    model: dict[str, Any]
    shape: Shape
    batch: int
    precision: str
    layout: str
    compile: str
    candidates: tuple[Candidate, ...]

    @property
    def baseline(self) -> str:
        """Name of what the others are compared with."""
        return PLAIN if self.kind == NETWORK else COPY

    @property
    def title(self) -> str:
        """Says what it is in a line."""
        place = self.model["name"] if self.kind == NETWORK else f"modules on {self.shape.stage}"
        return f"{place}, {self.compile}, {self.precision}, {self.layout}"

    def subject(self, name: str) -> Subject:
        """Returns what stands in a row for a candidate of that name."""
        place = self.model["name"] if self.kind == NETWORK else self.shape.stage
        return Subject(self.kind, name, place, self.batch, self.shape.channels, self.shape.height, self.shape.width)

    def setting(self, mode: str) -> Setting:
        """Returns what stands in a row for a mode."""
        return Setting(mode, self.compile, self.precision, self.layout)


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and what of the defaults cannot be (`notes`)."""

    design: Design
    device: torch.device
    resolution: int
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


def make_plan(config: Config) -> Plan:
    """Lists what a configuration asks for, and checks it.

    Raises:
        UsageError: if a variant does not fit its backbone, the device lacks a precision, or a module cannot be made.
    """
    bench = config.bench
    if config.sweep.sampler == "tpe":
        raise UsageError(
            "sweep", config.sweep.name, "picks its variants while it trains; a grid of them can be measured"
        )
    device = torch.device(resolve_device(config.device))
    side = _resolution(config)
    # The design knows images by their data set: any of that side will do.
    data = DigitsConfig() if side <= SMALL_SIDE else ImageTreeConfig(resolution=side)
    design = make_design(replace(config, data=data))
    settings = list(_settings(bench, device.type))
    cpu = device.type == "cpu"
    module_batch, network_batch = bench.module_batch or (8 if cpu else 64), bench.network_batch or (4 if cpu else 64)
    also, notes = _others(bench)
    comparisons: list[Comparison] = []
    models = {variant.model["name"]: variant.model for variant in design.variants}
    for name, model in models.items():
        attended = [variant for variant in design.variants if variant.model == model and _has_attention(variant)]
        groups = default_groups(ShuffleAttentionKnobs, [place.channels for place in find_backbone(name).places()])
        others = [candidate_from(other, made, groups) for other, made in also.items()]
        candidates = (*(candidate_of(variant) for variant in attended), *others)
        image = Shape("", 3, side, side)
        for kind in ("modules", "networks"):
            if kind not in bench.of:
                continue
            if kind == "networks":
                comparisons += [
                    Comparison(NETWORK, model, image, network_batch, *setting, candidates)
                    for setting in settings
                    if bench.compile_networks or setting[2] == "eager"
                ]
                continue
            try:
                shapes = shapes_of(model, "residual", side)
            except RuntimeError as error:
                raise UsageError("bench.resolution", side, f"does not fit {name}: {first_line(error)}") from None
            comparisons += [
                Comparison(MODULE, model, shape, module_batch, *setting, candidates)
                for setting in settings
                for shape in shapes
            ]
    return Plan(design, device, side, tuple(comparisons), tuple(notes))


def _has_attention(variant: Variant) -> bool:
    return bool(variant.attention["name"] != PLAIN)


def _resolution(config: Config) -> int:
    """Returns the side of the images: as given, that of the data that were chosen, or what suits the backbone."""
    asked = config.bench.resolution
    if asked:
        if asked < _SMALLEST:
            raise UsageError("bench.resolution", asked, f"must be 0, or at least {_SMALLEST}")
        return asked
    if not isinstance(config.data, DigitsConfig):
        return config.data.side
    backbone = BACKBONES.get(config.model.name)
    return 32 if backbone is not None and backbone.family == "cifar_resnet" else 224


def _settings(bench: BenchConfig, device: str) -> Iterator[tuple[str, str, str]]:
    """Yields (precision, layout, compile): the first of each, then each other one alone, or all crossed.

    Raises:
        UsageError: if the device does not compute in a precision.
    """
    best = resolve_precision("auto", device)
    if "bf16" in bench.precision and best != "bf16":
        what = "this GPU" if device == "cuda" else "this CPU"
        raise UsageError("bench.precision", "bf16", f"is not to be had: {what} has no instructions for it", ("fp32",))
    precisions = list(dict.fromkeys(best if precision == "auto" else precision for precision in bench.precision))
    layouts, compiles = list(dict.fromkeys(bench.layout)), list(dict.fromkeys(bench.compile))
    first = (precisions[0], layouts[0], compiles[0])
    for setting in itertools.product(precisions, layouts, compiles):
        if bench.crossed or sum(one != other for one, other in zip(setting, first, strict=True)) <= 1:
            yield setting


def _others(bench: BenchConfig) -> tuple[dict[str, Callable[..., nn.Module]], list[str]]:
    """Imports the modules from elsewhere; returns them by name, and what is left out.

    Raises:
        UsageError: if one that was asked for cannot be had.
    """
    found: dict[str, Callable[..., nn.Module]] = {}
    notes = []
    for path in bench.also:
        package, colon, name = path.partition(":")
        try:
            if not (package and colon and name):
                raise ImportError("it is given as package.module:Class")
            found[_short_name(path)] = getattr(importlib.import_module(package), name)
        except (ImportError, AttributeError) as error:
            if bench.also != _FALLBACK_ALSO:
                raise UsageError("bench.also", path, f"cannot be imported: {first_line(error)}") from None
            notes.append(f"Left out: {path}, the official way of computing, is only where the tests are.")
    return found, notes


def _short_name(path: str) -> str:
    """Returns what tables call a class from elsewhere: its module, as `official`."""
    return path.partition(":")[0].rpartition(".")[2]


def first_line(error: Exception) -> str:
    """Returns what an error says, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
