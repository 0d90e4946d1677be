"""A family of contrasts or effects: verdicts of each, at the end of a study or after each interim analysis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, stdtrit

from ablations.stats.estimates import CONFIDENCE, Estimate, estimate, estimate_of
from ablations.stats.interims import InterimAnalyses, critical_values, median_unbiased
from ablations.stats.significance import ALPHA, Array, Responses, equivalence_ps, family_tests, holm, moderated_errors

# The first `size` replicates (all if None) of the open members; None if some of them are missing.
ResponsesAt = Callable[[int | None, Sequence[int]], Responses | None]


@dataclass(frozen=True)
class Inference:
    """The test results of one member of a family.

    Attributes:
        differences: of its replicates, (n,).
        estimate: their mean with its interval; None without replicates.
        p, p_equivalence: corrected for the family and for interim analyses; 1 if it cannot be tested.
        least: the smallest attainable p-value.
        assumes_normal: whether the tests assume normal differences.
        interim: number of replicates in the last interim analysis of this member; None without interim analyses.
        adjusted: estimate corrected for selection, if an interim analysis decided the member.
    """

    differences: Array
    estimate: Estimate | None
    p: float
    p_equivalence: float
    least: float
    assumes_normal: bool
    interim: int | None = None
    adjusted: float | None = None

    @property
    def is_decided(self) -> bool:
        """Whether one of its tests is significant."""
        return min(self.p, self.p_equivalence) <= ALPHA


def infer(
    responses_at: ResponsesAt, members: int, margin: float | Array, interims: InterimAnalyses | None
) -> list[Inference]:
    """Tests a family, with interim analyses in sequence as far as all open members have the replicates.

    `margin` is common to all members, or has one value per member, (members,).

    Raises:
        ValueError: if a margin is not above 0.
    """
    if not np.all(np.asarray(margin) > 0):
        raise ValueError(f"margin={margin}: must be more than 0")
    everything = responses_at(None, ())
    assert everything is not None
    if interims is None:
        return _tested(everything, margin)
    # Before the first interim analysis no claim is made.
    inferences = [
        replace(inference, p=1.0, p_equivalence=1.0, least=1.0, assumes_normal=False)
        for inference in _tested(everything, margin, interims.levels(members)[0] if members else ALPHA)
    ]
    active = list(range(members))
    for number, size in enumerate(interims.sizes):
        at_size = responses_at(size, active) if active else None
        if at_size is None:
            break
        level = interims.levels(members)[number]
        now = _tested(at_size, margin, level)
        for place in active:
            inferences[place] = replace(now[place], interim=size)
        settled = [place for place in active if inferences[place].is_decided]
        clearer = sorted(
            (place for place in settled if inferences[place].p <= ALPHA), key=lambda place: inferences[place].p
        )
        errors = moderated_errors(at_size.of(np.isin(np.arange(members), clearer)))[0]
        by_place = dict(zip(sorted(clearer), errors.tolist(), strict=True))
        for rank, place in enumerate(clearer):  # the size of the family at its step of the stepdown procedure
            adjusted = _adjusted(inferences[place], by_place[place], interims, number, len(active) - rank)
            inferences[place] = replace(inferences[place], adjusted=adjusted)
        active = [place for place in active if place not in settled]
    return inferences


def _tested(responses: Responses, margin: float | Array, level: float = ALPHA) -> list[Inference]:
    """Tests a family once at `level`; p-values are scaled so that 5 % is the threshold."""
    tests, counts = family_tests(responses), responses.counts
    sums = np.nansum(responses.differences, axis=0)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), math.nan)
    scale = ALPHA / level
    p_equivalence = holm(np.where(counts > 1, equivalence_ps(means, tests.error, tests.freedom, margin), 1.0))
    inferences = []
    for place, n in enumerate(counts.tolist()):
        column = responses.differences[:, place]
        present = column[~np.isnan(column)]
        interval = estimate(present) if n else None
        if n > 1:
            confidence = 1 - level if level < ALPHA else CONFIDENCE
            interval = estimate_of(n, float(means[place]), float(tests.error[place]), tests.freedom[place], confidence)
        ps = (tests.p[place], p_equivalence[place], tests.least[place])
        p, p_small, least = (min(1.0, float(p) * scale) for p in ps)
        inferences.append(Inference(present, interval, p, p_small, least, bool(tests.assumes_normal[place])))
    return inferences


def _adjusted(inference: Inference, error: float, interims: InterimAnalyses, number: int, members: int) -> float:
    """Returns the mean difference of a member that an interim analysis decided, corrected for selection.

    The member's standard deviation entered the selection, so it determines the bound; `error`, the moderated standard
    error, is the precision of the mean.
    """
    assert inference.estimate is not None
    n, mean = inference.estimate.n, inference.estimate.mean
    own = float(np.std(inference.differences, ddof=1)) / math.sqrt(n)
    if error <= 0 or own <= 0:
        return mean
    tail = ndtr(-critical_values(interims.sizes, ALPHA / members)[number])
    bound = -float(stdtrit(n - 1, tail)) * own / error
    z = abs(mean) / error
    return mean * median_unbiased(interims.sizes, ALPHA / members, number, round(z, 2), round(min(bound, z), 2)) / z
