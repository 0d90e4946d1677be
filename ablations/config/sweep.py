"""The options of a sweep: what a study varies, and what it compares with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ablations.common.metrics import OBJECTIVES
from ablations.config.option import option


@dataclass
class SweepConfig:
    """What a study varies, and what it compares with."""

    name: str = option("", "Name of the sweep: that of its file.")
    question: str = option("", "What the sweep answers, in words.")
    factors: dict[str, Any] = option({}, "Levels of each factor, crossed: attention.groups=[1,2,4].")
    variants: dict[str, Any] = option({}, "Further variants by name, each with the settings that make it.")
    baseline: str = option(
        "", "What variants are compared with: a variant's name, or a level, against which all else is equal."
    )
    margin: float = option(
        0.2,
        "Least difference in top-1 that matters, in points: variants that differ by less are equal.",
        above=0.0,
        maximum=100.0,
    )
    sampler: str = option(
        "grid",
        "Which combinations of levels are trained: all of them (grid), or those that Optuna's TPE picks one by one.",
        choices=("grid", "tpe"),
    )
    trials: int = option(20, "Combinations that the TPE sampler picks.", minimum=1, maximum=100_000)
    objectives: list[str] = option(
        ["top1"], f"What the TPE sampler looks for, of: {', '.join(OBJECTIVES)}; with one, hopeless cells are pruned."
    )
    max_parameters: int = option(
        0, "Combinations with more parameters are left out by the TPE sampler; 0 is no limit.", minimum=0
    )
