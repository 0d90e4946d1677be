"""Power of a study as text: minimum detectable effects, reachable margins, and the replicates that either needs.

The standard deviation (SD) of paired differences is that of a typical contrast, the median over contrasts; the contrast
with the largest is added if it is much larger. Without stored results, effects are in SD of paired differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ablations.common.metrics import METRICS
from ablations.common.wording import count
from ablations.design import Design
from ablations.stats import (
    InterimAnalyses,
    baseline_shares,
    detectable,
    family,
    reachable_margin,
    relative_efficiency,
    replicates_for,
    replicates_for_margin,
    spreads,
)
from ablations.stats.significance import ALPHA, FLIPPED

_MUCH = 2.0  # times the typical spread, from which on the largest one is mentioned
_CARRIES = 0.5  # share of a contrast's variance, from which on more baseline replicates are suggested
_LEAST_FOR_SHARES = 5  # baseline replicates needed to estimate shares of a variance
_EFFECTS = (0.5, 1.0, 2.0)  # in SD
_MOST = "more than 100,000"  # replicates


@dataclass(frozen=True)
class Reach:
    """The power of a study with `n` replicates.

    Attributes:
        design: the study.
        cells: its stored cells with the judged metric.
        n: replicates of each variant, at the last interim analysis if there are any.
        level: significance level at that time.
    """

    design: Design
    cells: pd.DataFrame
    n: int
    level: float = ALPHA

    @classmethod
    def planned(cls, design: Design, cells: pd.DataFrame, interims: InterimAnalyses | None) -> Reach:
        """Returns the power of a study with all planned replicates."""
        if interims is None:
            return cls(design, cells, design.replicates)
        return cls(design, cells, interims.sizes[-1], interims.levels(len(family(design.baselines)))[-1])

    @classmethod
    def trained(cls, design: Design, cells: pd.DataFrame, interims: InterimAnalyses | None) -> Reach:
        """Returns the power of a study with its trained replicates; with interim analyses, with all planned ones."""
        if interims is not None:
            return cls.planned(design, cells, interims)
        most = max((one.n for one in spreads(cells, design.baselines, design.metric).values()), default=0)
        return cls(design, cells, most)

    @property
    def contrasts(self) -> int:
        """The number of contrasts that verdicts are corrected for."""
        return len(family(self.design.baselines))

    @cached_property
    def known(self) -> dict[str, float]:
        """The standard deviation of each contrast's differences by variant, reduced for extra baseline replicates."""
        design, factors = self.design, {}
        if design.baseline_replicates > self.n:
            runs = 1 + (design.baseline_replicates - self.n) // self.n
            factors = {name: _factor(share, runs) for name, share in self.shares.items()}
        found = spreads(self.cells, design.baselines, design.metric)
        return {name: one.value * factors.get(design.baselines[name], 1.0) for name, one in found.items()}

    @cached_property
    def shares(self) -> dict[str, float]:
        """The baseline's share of a typical contrast's variance, by baseline, if it has enough replicates."""
        sizes = self.cells["variant"].value_counts()
        found = baseline_shares(self.cells, self.design.baselines, self.design.metric)
        return {name: share for name, share in found.items() if sizes[name] >= _LEAST_FOR_SHARES}

    @cached_property
    def typical(self) -> float | None:
        """The median of the standard deviations; None if none is known."""
        return float(np.median(list(self.known.values()))) if self.known else None

    @cached_property
    def worst(self) -> tuple[str, float] | None:
        """The contrast with the largest standard deviation and its value, if it is much larger than typical."""
        known, typical = self.known, self.typical
        if not typical:
            return None
        name = max(known, key=lambda variant: known[variant])
        return (name, known[name]) if known[name] > _MUCH * typical else None

    def in_unit(self, value: float) -> str:
        """Formats a difference with two significant digits and its unit."""
        return f"{_two(value)} {METRICS[self.design.metric].difference_unit}".rstrip()


def detection_sentence(reach: Reach) -> str | None:
    """Returns a sentence on the minimum detectable effect; None if the spread is unknown."""
    typical = reach.typical
    if not typical:
        return None
    found = detectable(typical, reach.n, reach.contrasts, reach.level)
    if found is None:
        return nothing_sentence(reach)
    text = f"Minimum detectable effect at 80 % power with {_size(reach)}: {reach.in_unit(found)} in a typical contrast"
    text += f" (standard deviation of paired differences {_two(typical)})"
    if reach.worst is not None:
        name, sd = reach.worst
        text += f", {reach.in_unit(found * sd / typical)} for {name} ({_two(sd)})"
    return f"{text}.{_fewer(reach, found / typical)}"


def margin_sentence(reach: Reach) -> str | None:
    """Returns a sentence on the reachable margin and the replicates for the chosen one; None if unknown."""
    typical, chosen, contrasts = reach.typical, reach.design.margin, reach.contrasts
    if not typical or (least := reachable_margin(typical, reach.n, contrasts)) is None:
        return None
    text = (
        f"Smallest equivalence margin at 80 % power (true difference 0): {reach.in_unit(least)} in a typical contrast"
    )
    if reach.worst is not None:
        name, sd = reach.worst
        text += f", {reach.in_unit(least * sd / typical)} for {name}"
    if chosen >= least:
        return f"{text}; the chosen margin is {chosen:g}."
    return (
        f"{text}; the chosen margin of {chosen:g} requires "
        f"{_number(replicates_for_margin(chosen, typical, contrasts))}."
    )


def effect_sentence(reach: Reach, effect: float) -> tuple[str, int | None]:
    """Returns a clause on the replicates that a difference needs, and their number; None if too many."""
    typical = reach.typical or 0.0
    number = replicates_for(effect, typical, reach.contrasts)
    text = f"A difference of {_unit(effect, reach)} requires {_number(number)} at 80 % power"
    if reach.worst is not None:
        name, sd = reach.worst
        text += f", for {name} {_number(replicates_for(effect, sd, reach.contrasts))}"
    return text, number


def unknown_sentences(reach: Reach, effect: float) -> list[str]:
    """Returns sentences on the power if the spread is unknown, in SD and by the largest SD for an effect.

    `effect` is the requested difference in the metric's unit; 0 for none.
    """
    margin, contrasts = reach.design.margin, reach.contrasts
    found = detectable(1.0, reach.n, contrasts, reach.level)
    least = reachable_margin(1.0, reach.n, contrasts)
    if found is None or least is None:
        sentences = [nothing_sentence(reach)]
    else:
        sentences = [
            f"In standard deviations (SD) of paired differences, with {_size(reach)} at 80 % power: minimum "
            f"detectable effect {_two(found)} SD, smallest equivalence margin {_two(least)} SD.{_fewer(reach, found)}",
            f"Equivalence within {_unit(margin, reach)} is attainable if the SD is at most "
            f"{reach.in_unit(margin / least)}.",
        ]
        if effect:
            sentences.append(
                f"A difference of {_unit(effect, reach)} is detectable if the SD is at most "
                f"{reach.in_unit(effect / found)}."
            )
    effects = ", ".join(f"{size:g} SD {_number(replicates_for(size, 1.0, contrasts))}" for size in _EFFECTS)
    return [*sentences, f"Replicates required by effect size: {effects}."]


def nothing_sentence(reach: Reach) -> str:
    """Returns a sentence that so few replicates cannot decide at any spread."""
    if reach.n < 2:
        return "One replicate is not enough for a verdict: the variance of differences cannot be estimated."
    return f"With {_size(reach)} no difference can reach significance."


def efficiency_sentence(reach: Reach) -> str | None:
    """Returns a sentence on the efficiency of pairing by replicate; None if unknown."""
    found = relative_efficiency(reach.cells, reach.design.baselines, reach.design.metric)
    return None if found is None else f"Relative efficiency of the paired design: {found:.2g}."


def baseline_sentences(reach: Reach) -> list[str]:
    """Returns sentences on the gain of more baseline replicates, if the baseline has most of the variance."""
    design = reach.design
    if design.replicates_max or design.is_search or design.baseline_replicates > design.replicates or reach.n < 2:
        return []
    return [
        f"{name} accounts for {share:.0%} of the variance of a typical contrast: with "
        f"{' or '.join(str(runs * reach.n) for runs in (2, 4))} replicates of it alone "
        f"(baseline_replicates={2 * reach.n}) the minimum detectable effect is "
        f"{' or '.join(f'{_factor(share, runs):.2f}' for runs in (2, 4))} times as large.".replace("%", " %")
        for name, share in reach.shares.items()
        if share > _CARRIES
    ]


def shared_sentence(reach: Reach) -> str | None:
    """Returns a sentence on extra baseline replicates; None if there are none."""
    design = reach.design
    if design.baseline_replicates <= design.replicates:
        return None
    each = design.baseline_replicates // design.replicates
    return f"The baseline has {design.baseline_replicates} replicates: each pair uses the mean of {each} of its runs."


def reach_sentences(reach: Reach) -> list[str]:
    """Returns the sentences of a report on the power of its study."""
    makers = (shared_sentence, efficiency_sentence, detection_sentence, margin_sentence)
    return [sentence for make in makers if (sentence := make(reach))]


def _size(reach: Reach) -> str:
    return f"{count(reach.n, 'replicate')} and {count(reach.contrasts, 'contrast')}"


def _fewer(reach: Reach, found: float) -> str:
    """Returns a sentence if 5 replicates detect smaller effects, because their tests assume normal differences."""
    if not FLIPPED <= reach.n < 2 * FLIPPED:
        return ""
    fewer = detectable(1.0, FLIPPED - 1, reach.contrasts, reach.level)
    if fewer is None or fewer > 0.95 * found:
        return ""
    return (
        f" With {FLIPPED - 1} replicates, the tests assume normal differences and detect {fewer / found:.2g} times "
        "that effect."
    )


def _factor(share: float, runs: int) -> float:
    """Returns the relative standard deviation of a contrast with `runs` baseline runs per run of the variant."""
    return math.sqrt(1 - share + share / runs)


def _number(replicates: int | None) -> str:
    return count(replicates, "replicate") if replicates else f"{_MOST} replicates"


def _unit(value: float, reach: Reach) -> str:
    return METRICS[reach.design.metric].quantity(value)


def _two(value: float) -> str:
    """Formats a number with two significant digits, without an exponent."""
    digits = max(0, 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{digits}f}"
