"""The rules: what the interval of a comparison says of a claim, and what all comparisons say of it together.

Every rule compares intervals with bounds that the claim declares. For a single comparison:

| claim                  | interval of             | reproduced if          | contradicted if        |
| more than X            | the mean difference     | above X at 95 %        | below X at 95 %        |
| about the same         | the mean difference     | within margin at 90 %  | beyond margin at 95 %  |
| a published number Y   | the top-1 of a new run  | within margin at 90 %  | beyond margin at 95 %  |

An interval that holds a bound decides nothing. Intervals are Student's t: they assume that the mean of so many
replicates is about normal, and, of a new run, that a run is.

**Family.** A claim may be about several pairs of networks, and may have been studied under several protocols. If m
comparisons count, each spends 5 %/m of the errors (Bonferroni), which holds whatever they share: in at most 5 % of
ledgers a claim is decided by a comparison whose truth is otherwise. So it does not matter which of them decides, and
two that decide differently show that the truth differs between them. A comparison of a study with interim analyses
spends less still, see `spent`. Replicates added by hand, because a verdict was not clear, are not corrected for.

**Equivalence.** The interval at 90 % lies within the margin exactly if both one-sided tests at 5 % reject that the
difference is the margin or more (TOST, Schuirmann 1987). Either of its ends can lie beyond a small margin by chance, so
contradiction takes the interval at 95 %: of networks that differ by the margin or less, at most 5 % are contradicted.

**Runs that fail.** Where a replicate ended without a result or fell far below the others, equivalence is not concluded,
and a pair with an unstable network (`ablations.stats.stability`) decides nothing.

**A published number** is the result of a single run, which varies like ours. If both are drawn from normal
distributions of the same spread, the mean of n replicates less the published number has the standard error
s * sqrt(1 + 1/n) around the difference of the two networks' means. So the prediction interval of one new run is the
confidence interval of that difference, moved by the published number, and the rule is that of equivalence with this
standard error. A network whose mean differs by the margin or more is called reproduced in at most 5 % of studies, and
one whose mean differs by less is called contradicted in at most 5 %. The margin says what counts as the same, and a
network that is worse by less may be called reproduced: if runs vary by 0.1 points and the margin is 0.3, twelve
replicates reproduce an equal network in 71 % of studies, one that is 0.2 points worse in 23 %, one that is 0.3 points
worse in 5 %. More replicates shrink the interval to 1.64 standard deviations of a run either way and no further: with a
margin below that, nothing can reproduce a single number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ablations.ledger.declared import Expectation, Outcome
from ablations.stats import Estimate, estimate

ERRORS = 0.05  # share of claims that may be decided wrongly
_MOST = 100_000  # replicates

Values = Sequence[float] | NDArray[np.float64]


def share_of(comparisons: int, spends: float = 1.0) -> float:
    """Returns the share of wrong decisions that one of so many comparisons may have; `spends` is that of `spent`."""
    return ERRORS * spends / max(1, comparisons)


def level(expects: Expectation | None, error: float) -> float:
    """Returns the confidence level of the interval that reproduces a claim, as a share of 1.

    Equivalence is two tests of which a wrong claim can pass one alone, so its interval spends the error on both sides.
    """
    return 1 - error if expects in (None, Expectation.HELPS) else 1 - 2 * error


def spent(sizes: Sequence[int], replicates: int) -> float:
    """Returns the share of the errors that a comparison may spend in a study with interim analyses at these sizes.

    Such a study stops after one of its analyses, depending on what it shows. Of N replicates at most, the analysis at n
    gets (n^2 - m^2) / N^2, m being the size before: the spending function of `ablations.stats.interims`. Replicates
    between two sizes get what the next analysis would. The shares of all ends that a study can have add up to 1 at
    most, so by Bonferroni's inequality the intervals at all of them hold together, also where replicates of other
    studies are pooled with them.
    """
    before = 0
    for size in sizes:
        if replicates <= size or size == sizes[-1]:
            return float((size**2 - before**2) / sizes[-1] ** 2)
        before = size
    return 1.0


def prediction(values: Values, confidence: float) -> Estimate:
    """Returns the mean of some values with the interval in which one further value lies, at a confidence level.

    Raises:
        ValueError: if there are no values.
    """
    of_mean = estimate(values, confidence)
    half = (of_mean.high - of_mean.mean) * math.sqrt(of_mean.n + 1)
    return replace(of_mean, low=of_mean.mean - half, high=of_mean.mean + half)


def outcome_above(interval: Estimate, bound: float) -> Outcome:
    """Returns what an interval makes of the claim that a difference is more than `bound`."""
    if not interval.has_spread:
        return Outcome.UNDECIDED
    if interval.low > bound:
        return Outcome.REPRODUCED
    return Outcome.CONTRADICTED if interval.high < bound else Outcome.UNDECIDED


def outcome_within(narrow: Estimate, wide: Estimate, target: float, margin: float) -> Outcome:
    """Returns what intervals make of the claim that a value is within `margin` of `target`.

    `narrow` is at the level of equivalence tests, `wide` at that of a two-sided test.
    """
    if not narrow.has_spread:
        return Outcome.UNDECIDED
    lowest, highest = target - margin, target + margin
    if lowest < narrow.low and narrow.high < highest:
        return Outcome.REPRODUCED
    return Outcome.CONTRADICTED if wide.high < lowest or wide.low > highest else Outcome.UNDECIDED


def replicates_needed(distance: float, deviation: float, confidence: float, *, of_one_run: bool = False) -> int | None:
    """Returns how many replicates make half of an interval shorter than `distance`; None if no number of them does.

    `deviation` is the standard deviation of a replicate, `of_one_run` says whether the interval is that of a new run.
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


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """Returns what the comparisons of one pair of networks come to together.

    One that is undecided takes nothing from one that is decided, as the intervals of all of them hold together.
    """
    found = set(outcomes)
    if {Outcome.REPRODUCED, Outcome.CONTRADICTED} <= found:
        return Outcome.DEPENDS
    ordered = (Outcome.REPRODUCED, Outcome.CONTRADICTED, Outcome.UNDECIDED)
    return next((outcome for outcome in ordered if outcome in found), Outcome.NOT_RUN)


def concluded(parts: Mapping[int, Sequence[Outcome]]) -> Outcome:
    """Returns what a claim comes to, from the comparisons of each of its parts: its pairs, or its published numbers.

    A claim is about all its parts: one that is contradicted is enough to contradict it, and all must be reproduced.
    """
    found = {joined(outcomes) for outcomes in parts.values()}
    for outcome in (Outcome.DEPENDS, Outcome.CONTRADICTED):
        if outcome in found:
            return outcome
    if found == {Outcome.REPRODUCED}:
        return Outcome.REPRODUCED
    return Outcome.UNDECIDED if found - {Outcome.NOT_RUN} else Outcome.NOT_RUN
