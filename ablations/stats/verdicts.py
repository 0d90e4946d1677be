"""Contrasts to verdicts: does a variant help, hurt, come to the same within a margin, or is that undecided?

    equivalent   the difference is less than the margin either way (TOST): whatever else it is, it does not matter
    helps, hurts the permutation test says that there is a difference
    undecided    neither: the study is too small for the difference that there is
    none         one replicate, or no pair of them: nothing says how sure anything is

All contrasts of a study are a family, and each kind of claim is corrected by Holm's method: at most 5 % of studies of
variants that do nothing say of any of them that it helps or hurts, and at most 5 % of studies of variants that differ
by the margin say of any that it is equivalent. Where a study was looked at on the way, `ablations.stats.looks` says
what holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.stats.estimates import Estimate, Pairs, all_pairs, bca_interval, estimate
from ablations.stats.looks import Looks
from ablations.stats.significance import ALPHA, equivalence_p, fewest_pairs, holm, least_p, sign_flip_p


class Verdict(Enum):
    """What a contrast comes to."""

    HELPS = "helps"
    HURTS = "hurts"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    NONE = "no verdict"


@dataclass(frozen=True)
class Contrast:
    """A variant against its baseline, over the replicates that both have.

    Args:
        variant, baseline: by name.
        difference: in points, with its 95 % CI; under looks, an interval that holds at all of them together. None
            where no replicate has both.
        bca: the bootstrap's 95 % interval, for comparison; None of a single replicate.
        p: of the permutation test, corrected by Holm's method and for looks; None where it could decide nothing.
        p_equivalence: of the equivalence tests, corrected likewise.
        verdict: what follows.
        reason: why there is none, or why it is undecided, as a clause; otherwise empty.
        look: how many replicates the last look had that the contrast has reached, None where there are no looks.
    """

    variant: str
    baseline: str
    difference: Estimate | None
    bca: tuple[float, float] | None
    p: float | None
    p_equivalence: float | None
    verdict: Verdict
    reason: str = ""
    look: int | None = None

    @property
    def is_decided(self) -> bool:
        """Whether more replicates are not needed."""
        return self.verdict in (Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT)


@dataclass(frozen=True)
class _Evidence:
    """What the replicates of a contrast say by themselves.

    `direction` is the mean difference that gave the least p, `share` what the last look may spend.
    """

    variant: str
    baseline: str
    differences: NDArray[np.float64]
    p: float
    p_equivalence: float
    least: float
    direction: float = 0.0
    share: float = 1.0
    look: int | None = None


def judge(
    cells: pd.DataFrame, baselines: Mapping[str, str], margin: float, looks: Looks | None = None
) -> list[Contrast]:
    """Judges every contrast of a study.

    Args:
        cells: a row a finished cell, with `variant`, `replicate` and `top1` in percent.
        baselines: what each variant is compared with, by name; baselines with themselves.
        margin: the least difference that matters, in points.
        looks: when the study was looked at on the way to this; None where it was not.

    Raises:
        ValueError: if the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin={margin}: must be more than 0")
    evidence = [_weigh(pairs, margin, looks) for pairs in all_pairs(cells, baselines)]
    ps, equivalence_ps = holm([one.p for one in evidence]), holm([one.p_equivalence for one in evidence])
    # What could be decided if every contrast were as clear as so many replicates can make it.
    attainable = holm([one.least for one in evidence])
    return [
        _conclude(one, p, p_equivalence, least, len(evidence), looks)
        for one, p, p_equivalence, least in zip(evidence, ps, equivalence_ps, attainable, strict=True)
    ]


def pairing_gain(cells: pd.DataFrame, baselines: Mapping[str, str]) -> float | None:
    """Returns how many times as many replicates the study would have needed without pairs; None of fewer than three.

    That is the variance of unpaired differences over that of paired ones, over all contrasts.
    """
    paired = unpaired = 0.0
    for pairs in all_pairs(cells, baselines):
        if len(pairs.replicates) > 2:
            paired += float(pairs.differences.var(ddof=1))
            unpaired += float(pairs.of_variant.var(ddof=1) + pairs.of_baseline.var(ddof=1))
    return unpaired / paired if paired > 0 else None


def missing_pairs(cells: pd.DataFrame, baselines: Mapping[str, str]) -> dict[str, list[int]]:
    """Returns the replicates that a contrast's variant or its baseline has and the other lacks, by variant."""
    known = cells[cells["top1"].notna()]
    replicates = {str(name): set(own.astype(int)) for name, own in known.groupby("variant")["replicate"]}
    found = {}
    for variant, baseline in baselines.items():
        alone = replicates.get(variant, set()) ^ replicates.get(baseline, set())
        if alone and variant != baseline:
            found[variant] = sorted(alone)
    return found


def _weigh(pairs: Pairs, margin: float, looks: Looks | None) -> _Evidence:
    variant, baseline, differences = pairs.variant, pairs.baseline, pairs.differences
    whole = _evidence(variant, baseline, differences, margin)
    if looks is None:
        return whole
    reached = None
    for number, replicates in enumerate(looks.sizes):
        if replicates - 1 not in pairs.replicates:  # the last of its batch: the others were trained before
            continue
        seen = _evidence(variant, baseline, differences[pairs.replicates < replicates], margin)
        share = looks.share(number)
        reached = replace(
            seen,
            p=min(1.0, seen.p / share, reached.p if reached else 1.0),
            direction=reached.direction if reached and reached.p < seen.p / share else seen.direction,
            p_equivalence=min(1.0, seen.p_equivalence / share, reached.p_equivalence if reached else 1.0),
            least=seen.least / share,
            share=share,
            look=replicates,
        )
    return reached or replace(whole, p=1.0, p_equivalence=1.0, least=1.0, share=looks.share(0))


def _evidence(variant: str, baseline: str, differences: NDArray[np.float64], margin: float) -> _Evidence:
    p, p_equivalence = sign_flip_p(differences), equivalence_p(differences, margin)
    direction = float(differences.mean()) if len(differences) else 0.0
    return _Evidence(variant, baseline, differences, p, p_equivalence, least_p(differences), direction)


def _conclude(
    one: _Evidence, p: float, p_equivalence: float, attainable: float, contrasts: int, looks: Looks | None
) -> Contrast:
    n = len(one.differences)
    if n < 2:
        reason = "no replicate of both is finished" if n == 0 else "one replicate says nothing about how sure that is"
        difference = estimate(one.differences) if n else None
        return Contrast(one.variant, one.baseline, difference, None, None, None, Verdict.NONE, reason, one.look)
    difference = estimate(one.differences, 1 - ALPHA * one.share)
    verdict, reason = Verdict.UNDECIDED, ""
    if p_equivalence <= ALPHA:
        verdict = Verdict.EQUIVALENT
    elif p <= ALPHA:
        verdict = Verdict.HELPS if one.direction > 0 else Verdict.HURTS
    elif looks and one.look is None:
        reason = f"the first look is at {looks.sizes[0]} replicates"
    elif not difference.has_spread:
        reason = "the same in every replicate: no spread to judge it by"
    elif attainable > ALPHA:
        needed = fewest_pairs(contrasts)
        of_how_many = f", and there are {contrasts} contrasts" if contrasts > 1 else ""
        least = f"{one.least:.2g}" if one.least < 1 else "1"
        reason = f"too few replicates: no p of theirs is below {least}{of_how_many}; {max(needed, n + 1)} can decide"
    elif difference.low > 0 or difference.high < 0:
        reason = f"its own interval excludes 0, which among {contrasts} contrasts is not enough"
    known_p = p if attainable <= ALPHA and difference.has_interval else None
    bca, known_p_equivalence = None, None
    if difference.has_spread:
        bca, known_p_equivalence = bca_interval(one.differences), p_equivalence
    return Contrast(one.variant, one.baseline, difference, bca, known_p, known_p_equivalence, verdict, reason, one.look)


def undecided(contrasts: Iterable[Contrast]) -> list[Contrast]:
    """Returns the contrasts that more replicates could decide."""
    return [contrast for contrast in contrasts if not contrast.is_decided]


def family(baselines: Mapping[str, str]) -> Sequence[str]:
    """Returns the variants that are compared with another one: a study's contrasts."""
    return [variant for variant, baseline in baselines.items() if variant != baseline]
