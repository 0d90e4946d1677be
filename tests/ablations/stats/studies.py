"""Studies that are made up: as data frames, and many at a time as arrays, judged by the package's own primitives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.stats import Looks, Verdict, equivalence_p, holm
from ablations.stats.significance import ALPHA, EXACT, signs

Array = NDArray[np.float64]

BASELINE = "none"
OPEN, HELPS, HURTS, EQUIVALENT = range(4)
CODES = {
    Verdict.NONE: OPEN,
    Verdict.UNDECIDED: OPEN,
    Verdict.HELPS: HELPS,
    Verdict.HURTS: HURTS,
    Verdict.EQUIVALENT: EQUIVALENT,
}
BETWEEN, WITHIN = 0.6, 0.5  # standard deviations: of what the variants of a replicate share, and of what they do not
SPREAD = WITHIN * 2**0.5  # of a paired difference


def frame(top1: Mapping[str, Mapping[int, float] | Sequence[float]]) -> pd.DataFrame:
    """Returns cells of what each variant reached, by replicate."""
    rows = [
        {"variant": variant, "replicate": replicate, "top1": value}
        for variant, values in top1.items()
        for replicate, value in (values.items() if isinstance(values, Mapping) else enumerate(values))
    ]
    return pd.DataFrame(rows, columns=["variant", "replicate", "top1"])


def against_nothing(*variants: str) -> dict[str, str]:
    """Returns the baselines of a study that compares so many variants with one."""
    return dict.fromkeys((BASELINE, *variants), BASELINE)


@dataclass(frozen=True)
class Studies:
    """Many studies of one design: top-1 by study, variant and replicate; the first variant is the baseline."""

    top1: Array

    @classmethod
    def drawn(
        cls,
        seed: int,
        number: int,
        replicates: int,
        effects: Sequence[float] = (0.0,) * 4,
        *,
        skewed: bool = False,
    ) -> Studies:
        """Draws studies whose variants share a replicate's effect; `effects` are what variants truly add."""
        rng = np.random.default_rng(seed)
        size = (number, len(effects) + 1, replicates)
        # A gamma distribution of shape 1 has a skewness of 2: now and then a run goes very well.
        own = rng.gamma(1.0, size=size) - 1.0 if skewed else rng.standard_normal(size)
        shared = BETWEEN * rng.standard_normal((number, 1, replicates))
        return cls(70.0 + shared + WITHIN * own + np.array([0.0, *effects])[None, :, None])

    @property
    def differences(self) -> Array:
        """By study, contrast and replicate."""
        return self.top1[:, 1:] - self.top1[:, :1]

    @property
    def baselines(self) -> dict[str, str]:
        """What each variant is compared with, as `judge` takes it."""
        return against_nothing(*(f"v{number}" for number in range(1, self.top1.shape[1])))

    def cells(self, study: int) -> pd.DataFrame:
        """Returns a study as `judge` takes it."""
        return frame({name: list(values) for name, values in zip(self.baselines, self.top1[study], strict=True)})


def permutation_ps(differences: Array) -> Array:
    """Returns `sign_flip_p` of every row of differences, none of them 0, by few large products."""
    count = differences.shape[-1]
    chosen = signs(count)
    rows = differences.reshape(-1, count)
    as_far = np.empty(len(rows))
    step = max(1, 2**19 // len(chosen))  # rows at a time, so that sums stay in the processor's cache
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        sums = np.abs(chosen @ part.T)
        as_far[start : start + step] = np.count_nonzero(sums >= np.abs(part.sum(axis=1)) * (1 - 1e-9), axis=0)
    added = 0 if count <= EXACT else 1
    return ((as_far + added) / (len(chosen) + added)).reshape(differences.shape[:-1])


def equivalence_ps(differences: Array, margin: float) -> Array:
    """Returns `equivalence_p` of every row of differences."""
    rows = differences.reshape(-1, differences.shape[-1])
    return np.array([equivalence_p(row, margin) for row in rows]).reshape(differences.shape[:-1])


def corrected(ps: Array) -> Array:
    """Returns the p values of every study by Holm's method."""
    return np.array([holm(list(row)) for row in ps])


def verdicts(differences: Array, margin: float | None = None, looks: Looks | None = None) -> NDArray[np.int64]:
    """Judges studies by contrast: after their last replicate, or look by look until a contrast is decided.

    Args:
        differences: by study, contrast and replicate.
        margin: the least difference that matters; None to claim no equivalence.
        looks: when the studies are looked at.
    """
    sizes, shares = [differences.shape[-1]], [1.0]
    if looks:
        sizes, shares = list(looks.sizes), [looks.share(number) for number in range(len(looks.sizes))]
    p, p_equivalence = (np.ones(differences.shape[:2]) for _ in range(2))
    found = np.full(differences.shape[:2], OPEN)
    for size, share in zip(sizes, shares, strict=True):
        still = found == OPEN
        seen = differences[..., :size][still]
        p[still] = np.minimum(p[still], permutation_ps(seen) / share)
        if margin is not None:
            p_equivalence[still] = np.minimum(p_equivalence[still], equivalence_ps(seen, margin) / share)
        differs = corrected(p) <= ALPHA
        now = np.where(differs, np.where(differences[..., :size].mean(axis=2) > 0, HELPS, HURTS), OPEN)
        now = np.where(corrected(p_equivalence) <= ALPHA, EQUIVALENT, now)
        found = np.where(still, now, found)
    return found


def rate(claimed: NDArray[np.bool_]) -> float:
    """Returns the share of studies with a claim of any contrast."""
    return float(claimed.any(axis=1).mean())
