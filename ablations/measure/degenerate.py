"""Finds degenerate attention modules of networks at each insertion point, except those that are intended."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import torch

from ablations.common.settings import Settings
from ablations.design.network import knobs_of, places_of
from ablations.design.variants import Variant
from sa_core import ATTENTION, create_model
from sa_core.attentions.degenerate import SIDE, find_degenerate, map_shapes
from sa_core.attentions.findings import Finding
from sa_core.backbones.insertion_points import InsertionPoint

_Shape = tuple[int, int, int]


@dataclass(frozen=True)
class DegenerateModule:
    """A degenerate module of a variant, for all insertion points with the same shape of feature maps.

    Attributes:
        variant: the variant's name.
        network: its settings.
        places: the insertion points, from the input of the network to its output.
        shape: C, H and W of the module's input.
        findings: the ways in which the module is degenerate.
    """

    variant: str
    network: Settings
    places: tuple[InsertionPoint, ...]
    shape: _Shape
    findings: tuple[Finding, ...]


@dataclass
class DegeneracyProbe:
    """Finds the degenerate modules of variants on square images of `side` pixels.

    Each distinct module is built and probed once, on the CPU, with inputs of the shape that it has in its network. One
    forward pass for each backbone and position determines the shapes.
    """

    side: int
    _shapes: dict[str, dict[str, _Shape]] = field(default_factory=dict)
    _findings: dict[str, tuple[Finding, ...]] = field(default_factory=dict)

    def find(self, variants: Iterable[Variant]) -> list[DegenerateModule]:
        """Returns the degenerate modules, variant by variant, from the input of the network to its output."""
        return [module for variant in variants for module in self._of(variant)]

    def _of(self, variant: Variant) -> list[DegenerateModule]:
        network, by_shape = variant.network, dict[_Shape, list[InsertionPoint]]()
        shapes = self._shapes_of(network)
        for place in places_of(network):
            if place.path in shapes:
                by_shape.setdefault(shapes[place.path], []).append(place)
        found = ((shape, places, self._findings_of(network, shape)) for shape, places in by_shape.items())
        return [
            DegenerateModule(variant.name, network, tuple(places), shape, findings)
            for shape, places, findings in found
            if findings
        ]

    def _shapes_of(self, network: Settings) -> dict[str, _Shape]:
        """Returns the shape of the maps at each insertion point; empty if the backbone rejects images of this size."""
        if "position" not in network["attention"]:
            return {}
        position = network["attention"]["position"]
        key = json.dumps([network["model"], position], sort_keys=True)
        if key not in self._shapes:
            everywhere = network | {"attention": network["attention"] | {"stages": "all"}}
            # On the CPU: the meta device imports SymPy and Dynamo, which takes longer than a pass through ResNet-101.
            plain = create_model(**network["model"], attention="identity", position=position, seed=0).eval()
            images = torch.zeros(1, 3, self.side, self.side)
            try:
                self._shapes[key] = map_shapes(plain, [place.path for place in places_of(everywhere)], images)
            except (RuntimeError, ValueError):  # the cells report the error
                self._shapes[key] = {}
        return self._shapes[key]

    def _findings_of(self, network: Settings, shape: _Shape) -> tuple[Finding, ...]:
        name, knobs = network["attention"]["name"], knobs_of(network)
        channels, height, width = shape
        key = json.dumps([name, asdict(knobs), channels, min(height, SIDE), min(width, SIDE)], sort_keys=True)
        if key not in self._findings:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                module = ATTENTION[name](channels, **asdict(knobs))
            meant = knobs.meant_degenerate()
            self._findings[key] = tuple(found for found in find_degenerate(module, shape) if found not in meant)
        return self._findings[key]
