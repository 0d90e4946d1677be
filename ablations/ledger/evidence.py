"""The evidence for a claim about trained networks: the interval of each comparison of stored networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablations.common.wording import count
from ablations.config import DataConfig
from ablations.ledger.comparisons import Comparison, comparisons_of
from ablations.ledger.declared import Claim, Expectation, Outcome
from ablations.ledger.rules import (
    detectable,
    level,
    outcome_above,
    outcome_within,
    prediction,
    replicates_needed,
    share_of,
)
from ablations.ledger.stored import Study
from ablations.reporting.text.numbers import difference_with_interval
from ablations.reporting.text.reasons import not_equivalent, outlier_clause, reason_clause
from ablations.stats import Contrast, Estimate, Verdict, estimate, judge


@dataclass(frozen=True)
class Evidence:
    """The evidence of one comparison for a claim.

    Args:
        comparison: the networks, their replicates and the studies that have them.
        seen: the mean difference in points with its confidence interval; for a single network the mean top-1 in
            percent with the prediction interval of one new run.
        level: the individual confidence level of that interval, in (0, 1).
        family: number of eligible comparisons of the claim, whose intervals hold simultaneously.
        published: the number that a single network's top-1 is compared with; None for a pair.
        outcome: the outcome for the claim; None if the comparison is not eligible.
        ignored: why the comparison is not eligible, as a clause; empty if it is.
        reason: why the outcome is undecided, as a clause; empty if it is decided.
    """

    comparison: Comparison
    seen: Estimate
    level: float
    family: int
    published: float | None
    outcome: Outcome | None
    ignored: str
    reason: str

    @property
    def studies(self) -> str:
        """The names of the studies."""
        return ", ".join(dict.fromkeys(study.name for study in self.comparison.studies))

    @property
    def value(self) -> str:
        """The difference or the top-1 with its interval and the interval's level."""
        seen = self.seen
        interval = f" [{seen.low:.2f}, {seen.high:.2f}]" if seen.has_spread else ""
        written = f"{seen.mean:.2f} %{interval}" if self.published is not None else difference_with_interval(seen)
        return written + (f" at {level_text(self.level)}" if seen.has_spread else "")

    @property
    def names(self) -> str:
        """The names of the networks, or of the network with the published number."""
        treatment, control = self.comparison.treatment.name, self.comparison.control
        return f"{treatment} against {control.name if control else f'{self.published:.2f} %, published'}"

    @property
    def notes(self) -> list[str]:
        """A clause for each reason why stored replicates were pooled or left out."""
        notes = []
        for repeat in self.comparison.repeats:
            name, store = repeat.study.name, repeat.study.store
            is_copy = any(study.name == name and study.store != store for study in self.comparison.studies)
            where = f"{name} in {store}" if is_copy else name
            if repeat.same:
                notes.append(f"{count(repeat.same, 'replicate')} also stored in {where}: the same runs, counted once")
            if repeat.other:
                notes.append(f"{count(repeat.other, 'seed')} also trained in {where}: only the first result counts")
        if self.comparison.dropped:
            dropped = count(len(self.comparison.dropped), "replicate has", "replicates have")
            notes.append(f"{dropped} no result: diverged, failed or pruned")
        return notes

    @property
    def sentence(self) -> str:
        """The studies, protocol, networks, estimate and outcome in a sentence."""
        study, model = self.comparison.studies[0], self.comparison.treatment.model["name"]
        verdict = f"not counted: {self.ignored}" if self.ignored else self.outcome.value if self.outcome else ""
        details = "; ".join([*filter(None, (self._limit, self.reason)), *self.notes])
        where = f"{study.data}; {model}; {count(study.epochs, 'epoch')}; train.decay={study.decay}"
        return (
            f"{self.studies} ({where}): {self.names}, n = {self.seen.n}, {self.value}"
            + (f": {verdict}" if verdict else "")
            + (f" ({details})" if details else "")
        )

    @property
    def detectable(self) -> float | None:
        """The minimum detectable effect in points at 80 % power; None if not eligible, or without a spread."""
        if self.outcome is None or not self.seen.has_spread:
            return None
        confidence = 1 - share_of(self.family, self.comparison.share)
        return detectable(self.comparison.spread, self.seen.n, confidence, of_one_run=self.published is not None)

    @property
    def _limit(self) -> str:
        """The minimum detectable effect of an undecided comparison, as a clause."""
        if self.outcome is not Outcome.UNDECIDED or self.detectable is None:
            return ""
        return f"minimum detectable effect {self.detectable:.2f} points"


def level_text(level: float) -> str:
    """Formats a confidence level: `98.3 %`."""
    return f"{100 * level:.4g} %" if level > 0.999 else f"{100 * level:.3g} %"


def evidence_of(claim: Claim, studies: Iterable[Study]) -> list[Evidence]:
    """Returns the evidence for a claim, one entry per comparison of networks that has finished replicates.

    The family are all eligible comparisons, including those without finished replicates; their intervals hold
    simultaneously. A comparison that is not eligible has the interval of a family of one.
    """
    comparisons = comparisons_of(claim, studies)
    family = sum(not _ignored(comparison) for comparison in comparisons) if claim.expects else 1
    return [_weighed(claim, comparison, family) for comparison in comparisons if comparison.top1]


def _weighed(claim: Claim, comparison: Comparison, family: int) -> Evidence:
    ignored = _ignored(comparison) if claim.expects else ""
    family = 1 if ignored else family
    error = share_of(family, comparison.share)
    confidence = level(claim.expects, error)
    published = list(claim.top1.values())[comparison.part] if claim.expects is Expectation.TOP1 else None
    interval = estimate if published is None else prediction
    seen, outcome, reason = interval(comparison.values, confidence), None, ""
    if claim.expects is not None and not ignored:
        outcome = (
            outcome_above(seen, claim.bound)
            if claim.expects is Expectation.HELPS
            else outcome_within(seen, interval(comparison.values, 1 - error), published or 0.0, claim.margin)
        )
        reason = _objection(claim, comparison, outcome)
        if reason or outcome is Outcome.UNDECIDED:
            outcome, reason = Outcome.UNDECIDED, reason or _needed(claim, comparison, seen, error, published)
    return Evidence(comparison, seen, confidence, family, published, outcome, ignored, reason)


def _ignored(comparison: Comparison) -> str:
    if not comparison.has_real_images:
        return "not real images"
    return "" if comparison.at_scale else "the claim is about a different scale"


def _objection(claim: Claim, comparison: Comparison, outcome: Outcome) -> str:
    """Returns why the outcome of an interval is overruled, as a clause; empty if it stands."""
    contrast = _contrast(claim, comparison)
    if contrast and contrast.verdict is Verdict.UNSTABLE:
        return f"unstable: {reason_clause(contrast)}"
    if outcome is not Outcome.REPRODUCED or claim.expects is Expectation.HELPS:
        return ""
    if comparison.dropped:
        return not_equivalent("a replicate has no result")
    strays = sum(network.strays for network in contrast.stabilities) if contrast else 0
    return not_equivalent(outlier_clause(strays)) if strays else ""


def _contrast(claim: Claim, comparison: Comparison) -> Contrast | None:
    """Judges a pair of networks by the rules for studies; None for a single network."""
    if comparison.control is None:
        return None
    names = comparison.treatment.name, comparison.control.name
    results = [*comparison.top1.values(), *((np.nan, np.nan) for _ in comparison.dropped - comparison.top1.keys())]
    frame = pd.DataFrame(
        {"variant": variant, "replicate": replicate, "top1": top1}
        for replicate, row in enumerate(results)
        for variant, top1 in zip(names, row, strict=True)
    )
    (contrast,) = judge(frame, {names[0]: names[1], names[1]: names[1]}, claim.margin or DataConfig.margin)
    return contrast


def _needed(claim: Claim, comparison: Comparison, seen: Estimate, error: float, published: float | None) -> str:
    """Returns a clause with the number of replicates needed for a decision at the present mean and spread."""
    if not seen.has_interval:
        return "a single replicate gives no interval"
    if not seen.has_spread:
        return "the result is the same in every replicate, so its variance is unknown"
    confidence = 1 - error
    if claim.expects is Expectation.HELPS:
        distance = abs(seen.mean - claim.bound)
    else:
        distance = claim.margin - abs(seen.mean - (published or 0.0))
        if distance > 0:  # from inside the margin to its nearer end
            confidence = level(claim.expects, error)
    needed = replicates_needed(abs(distance), comparison.spread, confidence, of_one_run=published is not None)
    if needed is not None:
        return f"with this mean and spread about {float(f'{needed:.2g}'):,.0f} replicates would decide it"
    if published is not None:
        return "with this mean and spread no number of replicates would decide it: the published number is of one run"
    return "with this mean and spread more than 100,000 replicates would be needed"
