"""What the comparisons of stored networks say of a claim about trained networks, each by its interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablations.common.wording import count
from ablations.config import DataConfig
from ablations.ledger.comparisons import Comparison, comparisons_of
from ablations.ledger.declared import Claim, Expectation, Outcome
from ablations.ledger.rules import level, outcome_above, outcome_within, prediction, replicates_needed, share_of
from ablations.ledger.stored import Study
from ablations.reporting.text.numbers import difference_with_interval
from ablations.reporting.text.reasons import not_equivalent, outlier_clause, reason_clause
from ablations.stats import Contrast, Estimate, Verdict, estimate, judge


@dataclass(frozen=True)
class Evidence:
    """What one comparison says of a claim.

    Args:
        comparison: the networks, their replicates and the studies that have them.
        seen: the mean difference in points with its interval; of a single network the mean top-1 in percent with the
            interval of one new run.
        level: the confidence level of that interval by itself, as a share of 1.
        family: how many comparisons of the claim count, whose intervals hold together.
        published: the number that a single network's top-1 is compared with; None of a pair.
        outcome: what it makes of the claim; None where it does not count.
        ignored: why it does not count, as a clause; otherwise empty.
        reason: why it is undecided, as a clause; otherwise empty.
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
        """Names the studies."""
        return ", ".join(dict.fromkeys(study.name for study in self.comparison.studies))

    @property
    def value(self) -> str:
        """Writes the difference or the top-1 with its interval and the interval's level."""
        seen = self.seen
        interval = f" [{seen.low:.2f}, {seen.high:.2f}]" if seen.has_spread else ""
        written = f"{seen.mean:.2f} %{interval}" if self.published is not None else difference_with_interval(seen)
        return written + (f" at {level_text(self.level)}" if seen.has_spread else "")

    @property
    def names(self) -> str:
        """Names the networks, or the network and the published number."""
        treatment, control = self.comparison.treatment.name, self.comparison.control
        return f"{treatment} against {control.name if control else f'{self.published:.2f} %, published'}"

    @property
    def notes(self) -> list[str]:
        """Says what of the stored replicates was counted once or left out, a clause each."""
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
        """Says what was found, and where."""
        study, model = self.comparison.studies[0], self.comparison.treatment.model["name"]
        verdict = f"not counted: {self.ignored}" if self.ignored else self.outcome.value if self.outcome else ""
        details = "; ".join([self.reason, *self.notes] if self.reason else self.notes)
        where = f"{study.data}; {model}; {count(study.epochs, 'epoch')}; train.decay={study.decay}"
        return (
            f"{self.studies} ({where}): {self.names}, n = {self.seen.n}, {self.value}"
            + (f": {verdict}" if verdict else "")
            + (f" ({details})" if details else "")
        )


def level_text(level: float) -> str:
    """Writes a confidence level: `98.3 %`."""
    return f"{100 * level:.4g} %" if level > 0.999 else f"{100 * level:.3g} %"


def evidence_of(claim: Claim, studies: Iterable[Study]) -> list[Evidence]:
    """Returns what studies say of a claim, a comparison of networks each; nothing of those without finished replicates.

    The comparisons that count are the family that their intervals hold for together, those included that have no
    finished replicate yet. One that does not count is shown with the interval that it would have by itself.
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
    """Returns why an interval's outcome does not stand, as a clause; empty where it does."""
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
    """Judges a pair of networks, as studies do; None of a single network."""
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
    """Says how many replicates would decide, if their mean and spread stayed what they are."""
    if not seen.has_interval:
        return "a single replicate gives no interval"
    if not seen.has_spread:
        return "the result is the same in every replicate, so its variance is unknown"
    confidence = 1 - error
    if claim.expects is Expectation.HELPS:
        distance = abs(seen.mean - claim.bound)
    else:
        distance = claim.margin - abs(seen.mean - (published or 0.0))
        if distance > 0:  # to the nearer end of the margin, from within
            confidence = level(claim.expects, error)
    spread = float(np.std(comparison.values, ddof=1))
    needed = replicates_needed(abs(distance), spread, confidence, of_one_run=published is not None)
    if needed is not None:
        return f"with this mean and spread about {float(f'{needed:.2g}'):,.0f} replicates would decide it"
    if published is not None:
        return "with this mean and spread no number of replicates would decide it: the published number is of one run"
    return "with this mean and spread more than 100,000 replicates would be needed"
