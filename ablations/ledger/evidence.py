"""What stored studies say of claims about trained networks: contrasts with verdicts, and what those make of a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ablations.common.wording import count
from ablations.ledger.declared import Claim, Expectation, Outcome
from ablations.ledger.matching import claimed_pairs, is_at_scale, released_networks
from ablations.ledger.stored import Network, Study
from ablations.reporting.text.numbers import points_with_interval
from ablations.stats import Contrast, Estimate, Looks, Verdict, estimate, judge


@dataclass(frozen=True)
class Evidence:
    """What a study says of a claim: one pair of networks, or one network.

    Args:
        study: where it was found.
        model: the backbone.
        treatment, control: what the study calls the networks; no control where a network is judged by itself.
        pair: the number of the claim's pair that they are.
        seen: the difference in points, or the top-1 in percent, with its interval.
        verdict: of the contrast, in words; empty where there is none.
        reason: why that is no verdict or undecided, as a clause; otherwise empty.
        at_scale: whether the claim is about networks and data such as these.
        outcome: what it makes of the claim; None where the claim is computed, and this stands beside it.
    """

    study: Study
    model: str
    treatment: str
    control: str
    pair: int
    seen: Estimate
    verdict: str
    reason: str
    at_scale: bool
    outcome: Outcome | None

    @property
    def value(self) -> str:
        """Writes the difference or the top-1 with its interval."""
        if self.control:
            return points_with_interval(self.seen)
        interval = f" [{self.seen.low:.2f}, {self.seen.high:.2f}]" if self.seen.has_spread else ""
        return f"{self.seen.mean:.2f} %{interval}"

    @property
    def names(self) -> str:
        """Names the networks."""
        return f"{self.treatment} against {self.control}" if self.control else self.treatment

    @property
    def sentence(self) -> str:
        """Says what was found, and where."""
        study = self.study
        verdict = f": {self.verdict}" if self.verdict else ""
        reason = f" ({self.reason})" if self.reason else ""
        if not self.at_scale:
            consequence = "; the claim is about another scale"
        else:
            is_settled = self.outcome is not None and self.outcome.is_settled
            consequence = f"; {self.outcome.value} here" if self.outcome is not None and is_settled else ""
        return (
            f"{study.name} ({study.data}; {self.model}; {count(study.epochs, 'epoch')}): {self.names}, "
            f"n = {self.seen.n}, {self.value}{verdict}{reason}{consequence}"
        )


def evidence_of(claim: Claim, study: Study, margin: float) -> list[Evidence]:
    """Returns what a study says of a claim; nothing where it has none of its networks with a finished cell.

    The contrasts of the claim are the family that verdicts are corrected for, those not trained yet included.

    Args:
        claim: about trained networks, or one that has pairs to stand beside it.
        study: any.
        margin: the least difference in top-1 that matters, in points.
    """
    if claim.expects is Expectation.TOP1:
        return [_of_released(claim, study, network) for network in released_networks(claim, study)]
    pairs = claimed_pairs(claim, study)
    contrasts = _contrasts([(treatment, control) for _, treatment, control in pairs], study, margin)
    found = []
    for (number, treatment, control), contrast in zip(pairs, contrasts, strict=True):
        if contrast.difference is None:
            continue
        at_scale = is_at_scale(claim.scale, study, treatment)
        found.append(
            Evidence(
                study=study,
                model=str(treatment.model["name"]),
                treatment=treatment.name,
                control=control.name,
                pair=number,
                seen=contrast.difference,
                verdict=contrast.verdict.value,
                reason=contrast.reason,
                at_scale=at_scale,
                outcome=None if claim.expects is None else outcome_of(claim, contrast, at_scale),
            )
        )
    return found


def study_outcome(claim: Claim, found: Sequence[Evidence]) -> Outcome:
    """Returns what one study makes of a claim.

    A claim is about all its pairs: one that contradicts it is enough to contradict, and all must be there and agree to
    reproduce it. What was found at another scale than the claim's takes nothing from what was found at it.
    """
    counted = [evidence for evidence in found if evidence.at_scale] or list(found)
    outcomes = {evidence.outcome for evidence in counted}
    if not counted:
        return Outcome.NOT_RUN
    if Outcome.CONTRADICTED in outcomes:
        return Outcome.CONTRADICTED
    is_whole = {evidence.pair for evidence in counted} >= set(range(len(claim.pairs)))
    return Outcome.REPRODUCED if outcomes == {Outcome.REPRODUCED} and is_whole else Outcome.UNDECIDED


def outcome_of(claim: Claim, contrast: Contrast, at_scale: bool) -> Outcome:
    """Returns what a contrast makes of a claim."""
    verdict, difference = contrast.verdict, contrast.difference
    if not at_scale:
        return Outcome.UNDECIDED
    if claim.expects is Expectation.EQUIVALENT:
        return {
            Verdict.EQUIVALENT: Outcome.REPRODUCED,
            Verdict.HELPS: Outcome.CONTRADICTED,
            Verdict.HURTS: Outcome.CONTRADICTED,
        }.get(verdict, Outcome.UNDECIDED)
    falls_short = (
        claim.number is not None and difference is not None and difference.has_spread and difference.high < claim.number
    )
    if verdict in (Verdict.HURTS, Verdict.EQUIVALENT) or falls_short:
        return Outcome.CONTRADICTED
    return Outcome.REPRODUCED if verdict is Verdict.HELPS else Outcome.UNDECIDED


def _contrasts(pairs: Sequence[tuple[Network, Network]], study: Study, margin: float) -> list[Contrast]:
    """Judges pairs of networks as one family, in their order."""
    # A network stands in as many contrasts as it has partners, in each under a name of its own.
    rows = [
        {"variant": f"{role} {number}", "replicate": replicate, "top1": top1}
        for number, networks in enumerate(pairs)
        for role, network in zip(("treatment", "control"), networks, strict=True)
        for replicate, top1 in network.top1.items()
    ]
    frame = pd.DataFrame(rows, columns=["variant", "replicate", "top1"])
    baselines = {f"treatment {number}": f"control {number}" for number in range(len(pairs))}
    return judge(frame, baselines, margin, Looks.stored(study.attributes.get("looks")))


def _of_released(claim: Claim, study: Study, network: Network) -> Evidence:
    model = network.model["name"]
    seen, published = estimate(list(network.top1.values())), claim.top1[model]
    at_scale = is_at_scale(claim.scale, study, network)
    outcome = Outcome.UNDECIDED
    if at_scale and seen.has_spread:
        outcome = Outcome.REPRODUCED if seen.low <= published <= seen.high else Outcome.CONTRADICTED
    return Evidence(
        study=study,
        model=model,
        treatment=network.name,
        control="",
        pair=0,
        seen=seen,
        verdict=f"{published:.2f} % is published",
        reason="" if seen.has_spread else "no spread to judge it by",
        at_scale=at_scale,
        outcome=outcome,
    )
