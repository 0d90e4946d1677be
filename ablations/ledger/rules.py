"""The rules: from the interval of each comparison, and from all comparisons together, to the outcome of a claim.

Every rule compares intervals with bounds declared with the claim. For a single comparison:

| claim                  | interval of             | reproduced if          | contradicted if        |
| more than X            | the mean difference     | above X at 95 %        | below X at 95 %        |
| about the same         | the mean difference     | within margin at 90 %  | beyond margin at 95 %  |
| a published number Y   | the top-1 of a new run  | within margin at 90 %  | beyond margin at 95 %  |

An interval that contains a bound is undecided. Intervals are Student's t: they assume that the mean of the replicates
is approximately normal and, for a new run, that single runs are.

**Family.** A claim may be about several pairs of networks, and may have been studied under several protocols. If m
comparisons are eligible, each has an error rate of 5 %/m (Bonferroni, valid under any dependence): in at most 5 % of
ledgers any comparison decides a claim wrongly. So any of them can decide, and two opposite decisions show that the
truth differs between them. A comparison from a study with interim analyses has a smaller error rate, see `spent`.
Replicates added by hand because a verdict was unclear are not corrected for.

**Equivalence.** The 90 % interval lies within the margin exactly if both one-sided tests at 5 % reject that the
difference is the margin or more (TOST, Schuirmann 1987). Either end can exceed a small margin by chance, so
contradiction requires the 95 % interval: of networks that differ by the margin or less, at most 5 % are contradicted.

**Failed runs.** If a replicate ended without a result or fell far below the others, equivalence is not concluded. A
pair with an unstable network (`ablations.stats.stability`) is undecided.

**A published number** is the result of a single run, which varies like ours. If both are drawn from normal
distributions with the same spread, the mean of n replicates minus the published number has the standard error
s * sqrt(1 + 1/n) around the difference of the two networks' means. So the prediction interval of one new run, shifted
by the published number, is the confidence interval of that difference, and the equivalence rule applies with this
standard error. A network whose mean differs by the margin or more is reproduced in at most 5 % of studies, and one
whose mean differs by less is contradicted in at most 5 %. A network that is worse by less than the margin may be
reproduced: if runs vary by 0.1 points and the margin is 0.3, twelve replicates reproduce an equal network in 71 % of
studies, one that is 0.2 points worse in 23 %, one that is 0.3 points worse in 5 %. With more replicates the half-width
approaches 1.64 standard deviations of a run: with a smaller margin a single number cannot be reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtrinc, stdtrit

from ablations.ledger.declared import Expectation, Outcome
from ablations.stats import Estimate, estimate

ERRORS = 0.05  # error rate of a claim
_POWER = 0.8  # of a minimum detectable effect
_MOST = 100_000  # replicates

Values = Sequence[float] | NDArray[np.float64]


def share_of(comparisons: int, spends: float = 1.0) -> float:
    """Returns the error rate of one of several comparisons; `spends` is the share that `spent` returns."""
    return ERRORS * spends / max(1, comparisons)


def level(expects: Expectation | None, error: float) -> float:
    """Returns the confidence level, in (0, 1), of the interval that reproduces a claim.

    Equivalence consists of two one-sided tests, and a wrong claim can pass only one of them, so each test has the whole
    error rate.
    """
    return 1 - error if expects in (None, Expectation.HELPS) else 1 - 2 * error


def spent(sizes: Sequence[int], replicates: int) -> float:
    """Returns the share of the error rate that a comparison may spend in a study with interim analyses at `sizes`.

    Such a study may stop after any of its analyses, depending on the results. With at most N replicates, the analysis
    at n spends (n^2 - m^2) / N^2, where m is the previous size: the spending function of `ablations.stats.interims`.
    Between two sizes the share of the next analysis applies. The shares of all stopping points add up to at most 1, so
    by Bonferroni's inequality the intervals at all of them hold simultaneously, even if replicates of other studies are
    pooled with them.
    """
    before = 0
    for size in sizes:
        if replicates <= size or size == sizes[-1]:
            return float((size**2 - before**2) / sizes[-1] ** 2)
        before = size
    return 1.0


def prediction(values: Values, confidence: float) -> Estimate:
    """Returns the mean of some values with the prediction interval of one further value.

    Raises:
        ValueError: if there are no values.
    """
    of_mean = estimate(values, confidence)
    half = (of_mean.high - of_mean.mean) * math.sqrt(of_mean.n + 1)
    return replace(of_mean, low=of_mean.mean - half, high=of_mean.mean + half)


def outcome_above(interval: Estimate, bound: float) -> Outcome:
    """Returns the outcome of the claim that a difference is more than `bound`."""
    if not interval.has_spread:
        return Outcome.UNDECIDED
    if interval.low > bound:
        return Outcome.REPRODUCED
    return Outcome.CONTRADICTED if interval.high < bound else Outcome.UNDECIDED


def outcome_within(narrow: Estimate, wide: Estimate, target: float, margin: float) -> Outcome:
    """Returns the outcome of the claim that a value is within `margin` of `target`.

    `narrow` has the confidence level of an equivalence test, `wide` that of a two-sided test.
    """
    if not narrow.has_spread:
        return Outcome.UNDECIDED
    lowest, highest = target - margin, target + margin
    if lowest < narrow.low and narrow.high < highest:
        return Outcome.REPRODUCED
    return Outcome.CONTRADICTED if wide.high < lowest or wide.low > highest else Outcome.UNDECIDED


def replicates_needed(distance: float, deviation: float, confidence: float, *, of_one_run: bool = False) -> int | None:
    """Returns the number of replicates at which an interval's half-width is below `distance`; None if there is none.

    `deviation` is the standard deviation of a replicate; `of_one_run` selects the prediction interval of a new run.
    """

    def is_enough(n: int) -> bool:
        factor = math.sqrt(1 / n + (1 if of_one_run else 0))
        return float(stdtrit(n - 1, 0.5 + confidence / 2)) * deviation * factor < distance

    if not is_enough(_MOST):
        return None
    low, high = 1, _MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def detectable(deviation: float, n: int, confidence: float, *, of_one_run: bool = False) -> float:
    """Returns the minimum detectable effect: the distance from a bound that an interval excludes with 80 % power.

    Args:
        deviation: the standard deviation of a replicate; the result has its unit.
        n: number of replicates, 2 or more.
        confidence: level of the two-sided interval, in (0, 1).
        of_one_run: whether it is the prediction interval of a new run.
    """
    beyond = float(nctdtrinc(n - 1, 1 - _POWER, stdtrit(n - 1, 0.5 + confidence / 2)))  # noncentrality of t
    return beyond * deviation * math.sqrt(1 / n + (1 if of_one_run else 0))


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """Combines the outcomes of the comparisons of one pair of networks.

    Undecided comparisons do not weaken a decided one, because the intervals of all of them hold simultaneously.
    """
    found = set(outcomes)
    if {Outcome.REPRODUCED, Outcome.CONTRADICTED} <= found:
        return Outcome.DEPENDS
    ordered = (Outcome.REPRODUCED, Outcome.CONTRADICTED, Outcome.UNDECIDED)
    return next((outcome for outcome in ordered if outcome in found), Outcome.NOT_RUN)


def concluded(parts: Mapping[int, Sequence[Outcome]]) -> Outcome:
    """Returns the outcome of a claim from the outcomes of its parts: its pairs, or its published numbers.

    A claim is reproduced if all its parts are, and contradicted if any part is.
    """
    found = {joined(outcomes) for outcomes in parts.values()}
    for outcome in (Outcome.DEPENDS, Outcome.CONTRADICTED):
        if outcome in found:
            return outcome
    if found == {Outcome.REPRODUCED}:
        return Outcome.REPRODUCED
    return Outcome.UNDECIDED if found - {Outcome.NOT_RUN} else Outcome.NOT_RUN
