"""Cells of variants that a search might have picked, at random."""

from __future__ import annotations

import json

import numpy as np

from ablations.analysis.load import Maker
from ablations.config import Config
from ablations.design import Cell, Design


def some_picks(config: Config, design: Design, number: int) -> list[Cell]:
    """Returns the cells of so many variants that a search might have picked, each variant's after the other's."""
    draw = np.random.default_rng(0)
    maker = Maker(config)
    networks = {json.dumps(variant.network, sort_keys=True) for variant in design.variants}
    cells: list[Cell] = []
    for _ in range(50 * number):
        if len(cells) >= number * design.replicates:
            break
        levels = {path: choices[draw.integers(len(choices))] for path, choices in design.factors.items()}
        variant = maker.variant(levels)
        if variant is None or (network := json.dumps(variant.network, sort_keys=True)) in networks:
            continue
        networks.add(network)
        cells += [design.cell(variant, replicate) for replicate in range(design.replicates)]
    return cells
