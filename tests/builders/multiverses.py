"""Studies of several protocols with fabricated cells, and data frames of their contrasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ablations.analysis.multiverse import MultiverseAnalysis
from ablations.analysis.study import StudyAnalysis
from ablations.config.multiverse import Multiverse, compose_multiverse
from tests.builders.analyses import study_analysis

GROUPS = "sweep.factors.attention.groups=[2,4]"
Top1 = Callable[[int, int], float]


def multiverse(*overrides: str) -> Multiverse:
    """Returns the protocols that the overrides specify."""
    composed = compose_multiverse(overrides, None, " ".join)
    assert composed is not None
    return composed


def multiverse_analysis(
    folder: Path,
    tops: Mapping[str, Top1 | None],
    replicates: int | Mapping[str, int] = 6,
    overrides: Sequence[str] = (GROUPS,),
    interims: Sequence[int] = (),
) -> MultiverseAnalysis:
    """Returns an analysis of protocols with the top-1 of each variant (none, groups=2, groups=4) and replicate.

    A protocol whose top-1 is None has no cells.
    """
    composed = multiverse(f"recipes=[{','.join(tops)}]", *overrides)
    studies: dict[str, StudyAnalysis] = {}
    for protocol in composed.protocols:
        top1 = tops[protocol.name]
        if top1 is None:
            continue
        typed = protocol.command.split()
        number = replicates if isinstance(replicates, int) else replicates[protocol.name]
        study = study_analysis(folder / protocol.config.study, typed, number, top1=top1)
        if interims:
            study = replace(study, attributes={**study.attributes, "looks": list(interims)})
        studies[protocol.name] = study
    return MultiverseAnalysis(composed, folder / composed.name, studies)


def moved(*effects: float, scale: float = 0.1) -> Top1:
    """Returns a top-1 function with these effects relative to the first variant, and noise of about `scale`."""

    def top1(variant: int, replicate: int) -> float:
        noise = ((7 * replicate + 5 * variant + 3 * replicate * variant) % 11 - 5) / 3.3
        return 60 + (0.0, *effects)[variant] + scale * noise

    return top1


def protocol_frame(verdicts: Mapping[str, Mapping[str, str]], n: int = 8, baseline: str = "none") -> pd.DataFrame:
    """Returns one row per contrast and protocol, with the given verdicts and matching differences."""
    means = {"helps": 1.0, "hurts": -1.0, "equivalent": 0.0, "undecided": 0.4}
    return pd.DataFrame(
        [
            {"protocol": protocol, "variant": variant, "baseline": baseline, "n": n, "mean": means[verdict]}
            | {"low": means[verdict] - 0.5, "high": means[verdict] + 0.5, "verdict": verdict}
            for protocol, by_variant in verdicts.items()
            for variant, verdict in by_variant.items()
        ]
    )
