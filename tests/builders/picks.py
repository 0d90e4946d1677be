"""Variants picked by a search: random ones, or all of a small space, with fabricated metrics."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ablations.analysis.load import Maker
from ablations.common.metrics import CELL_METRICS
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.design.variants import Variant, variant_of_levels

CONFIG = compose_config(
    [
        "device=cpu",
        "sweep=search",
        "sweep.factors={attention: {groups: [1, 2, 4, 8], shuffle: [true, false]}}",
        "sweep.objectives=[top1,peak_memory_mib]",
        "sweep.max_parameters=100",
    ]
)


def some_picks(config: Config, design: Design, number: int) -> list[Variant]:
    """Returns up to `number` different variants that a search could have picked."""
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


def searched() -> Design:
    """A search that picked all eight combinations."""
    declared = make_design(CONFIG)
    picked = [
        variant_of_levels(CONFIG, {"attention.groups": groups, "attention.shuffle": shuffle})
        for groups in (1, 2, 4, 8)
        for shuffle in (True, False)
    ]
    return replace(declared, variants=(*declared.variants, *picked))


def searched_cells(study_design: Design, **metrics: list[float]) -> pd.DataFrame:
    """One cell per variant of a search with these metrics; all other metrics are 1."""
    rows: list[dict[str, Any]] = []
    for index, variant in enumerate(study_design.variants):
        row: dict[str, Any] = dict.fromkeys((*CELL_METRICS, *study_design.objectives), 1.0)
        row |= {"variant": variant.name, "replicate": 0}
        rows.append(row | {key: values[index] for key, values in metrics.items()})
    return pd.DataFrame(rows)
