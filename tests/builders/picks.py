"""Variants that a search might have picked, at random."""

from __future__ import annotations

import json

import numpy as np

from ablations.analysis.load import Maker
from ablations.config import Config
from ablations.design import Design
from ablations.design.variants import Variant


def some_picks(config: Config, design: Design, number: int) -> list[Variant]:
    """Returns so many variants that a search might have picked, or as many as there are found."""
    draw = np.random.default_rng(0)
    maker = Maker(config)
    networks = {json.dumps(variant.network, sort_keys=True) for variant in design.variants}
    picks: list[Variant] = []
    for _ in range(50 * number):
        if len(picks) >= number:
            break
        levels = {path: choices[draw.integers(len(choices))] for path, choices in design.factors.items()}
        variant = maker.variant(levels)
        if variant is None or (network := json.dumps(variant.network, sort_keys=True)) in networks:
            continue
        networks.add(network)
        picks.append(variant)
    return picks
