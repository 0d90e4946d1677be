"""The options of the verb `plan`."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.config.option import option


@dataclass
class PlanConfig:
    """What `plan` finds out before a study is run."""

    pilot: int = option(
        0,
        "Replicates that are trained first, as the study's first ones, to know how much they differ; 0 takes what is "
        "stored.",
        minimum=0,
        maximum=100,
    )
    effect: float = option(
        0.0,
        "Difference in points that the study is to detect: how many replicates that needs is said; 0 is sweep.margin.",
        minimum=0.0,
        maximum=100.0,
    )
