"""What stored studies say of claims about trained networks.

Of a study's networks those are taken that a claim is about, pairs of which differ only in what is claimed. Their
contrasts get verdicts, and what these make of the claim depends on its scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablations.common.wording import count
from ablations.ledger.declared import OFFICIAL, Claim, Expectation, Outcome, Pair, Scale
from ablations.ledger.stored import Network, Study
from ablations.reporting.text.numbers import difference_with_interval
from ablations.stats import Contrast, Estimate, Looks, Verdict, estimate, judge
from sa_core.attentions.knobs import ATTENTIONS
from sa_core.backbones.registry import find_backbone
from sa_core.errors import OptionError

_PLACED = {"stages", "position"}  # settings that every attention module has, whatever its knobs
_CORRUPT = 1000  # of so many training images one may be missing: those that cannot be decoded


@dataclass(frozen=True)
class Evidence:
    """What a study says of a claim: one pair of networks, or one network.

    Args:
        study: where it was found.
        treatment, control: the networks; no control where a network is judged by itself.
        pair: the number of the claim's pair that they are.
        seen: the difference in points, or the top-1 in percent, with its interval.
        verdict: of the contrast, in words; empty where there is none.
        reason: why that is no verdict or undecided, as a clause; otherwise empty.
        at_scale: whether the claim is about networks and data such as these.
        outcome: what it makes of the claim; None where the claim is computed, and this stands beside it.
    """

    study: Study
    treatment: Network
    control: Network | None
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
            return difference_with_interval(self.seen)
        interval = f" [{self.seen.low:.2f}, {self.seen.high:.2f}]" if self.seen.has_spread else ""
        return f"{self.seen.mean:.2f} %{interval}"

    @property
    def names(self) -> str:
        """Names the networks."""
        return f"{self.treatment.name} against {self.control.name}" if self.control else self.treatment.name

    @property
    def sentence(self) -> str:
        """Says what was found, and where."""
        study, model = self.study, self.treatment.model["name"]
        verdict = f": {self.verdict}" if self.verdict else ""
        reason = f" ({self.reason})" if self.reason else ""
        consequence = ""
        if not self.at_scale:
            consequence = "; the claim is about another scale"
        elif self.outcome is not None and self.outcome.is_settled:
            consequence = f"; {self.outcome.value} here"
        return (
            f"{study.name} ({study.data}; {model}; {count(study.epochs, 'epoch')}): {self.names}, "
            f"n = {self.seen.n}, {self.value}{verdict}{reason}{consequence}"
        )


def evidence_of(claim: Claim, study: Study, margin: float) -> list[Evidence]:
    """Returns what a study says of a claim; nothing where it has none of its networks with a finished cell.

    The contrasts of the claim are the family that verdicts are corrected for, those not trained yet included; `margin`
    is the least difference in top-1 that matters, in points.
    """
    if claim.expects is Expectation.TOP1:
        trained = [one for one in study.networks if one.top1 and one.model["name"] in claim.top1]
        return [_of_released(claim, study, one) for one in trained if OFFICIAL.items() <= one.attention.items()]
    pairs = _claimed_pairs(claim, study)
    found = []
    for (number, treatment, control), contrast in zip(pairs, _contrasts(pairs, study, margin), strict=True):
        if (seen := contrast.difference) is not None:
            at_scale, verdict = is_at_scale(claim.scale, study, treatment), contrast.verdict.value
            outcome = None if claim.expects is None else outcome_of(claim, contrast, at_scale)
            found.append(Evidence(study, treatment, control, number, seen, verdict, contrast.reason, at_scale, outcome))
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
    if not at_scale:
        return Outcome.UNDECIDED
    seen = contrast.difference
    claimed = Verdict.EQUIVALENT if claim.expects is Expectation.EQUIVALENT else Verdict.HELPS
    falls_short = claim.number is not None and seen is not None and seen.has_spread and seen.high < claim.number
    if falls_short or (contrast.is_decided and contrast.verdict is not claimed):
        return Outcome.CONTRADICTED
    return Outcome.REPRODUCED if contrast.verdict is claimed else Outcome.UNDECIDED


def _contrasts(pairs: Sequence[tuple[int, Network, Network]], study: Study, margin: float) -> list[Contrast]:
    """Judges pairs of networks as one family, in their order."""
    # A network stands in as many contrasts as it has partners, in each under a name of its own.
    rows = [
        {"variant": f"{role} {number}", "replicate": replicate, "top1": top1}
        for number, (_, *networks) in enumerate(pairs)
        for role, network in zip(("treatment", "control"), networks, strict=True)
        for replicate, top1 in network.top1.items()
    ]
    frame = pd.DataFrame(rows, columns=["variant", "replicate", "top1"])
    baselines = {f"treatment {number}": f"control {number}" for number in range(len(pairs))}
    return judge(frame, baselines, margin, looks=Looks.stored(study.attributes.get("looks")))


def _of_released(claim: Claim, study: Study, network: Network) -> Evidence:
    seen, published = estimate(list(network.top1.values())), claim.top1[network.model["name"]]
    at_scale, reason = is_at_scale(claim.scale, study, network), "" if seen.has_spread else "no spread to judge it by"
    outcome = Outcome.UNDECIDED
    if at_scale and seen.has_spread:
        outcome = Outcome.REPRODUCED if seen.low <= published <= seen.high else Outcome.CONTRADICTED
    return Evidence(study, network, None, 0, seen, f"{published:.2f} % is published", reason, at_scale, outcome)


def _claimed_pairs(claim: Claim, study: Study) -> list[tuple[int, Network, Network]]:
    """Returns the pairs of a claim that a study has: the number of the pair, the treatment and the control."""
    return [
        (number, treatment, control)
        for number, pair in enumerate(claim.pairs)
        for treatment in study.networks
        for control in study.networks
        if matches(pair, treatment.settings, control.settings) and _is_narrow(treatment, claim.below)
    ]


def matches(pair: Pair, treatment: Mapping[str, Any], control: Mapping[str, Any]) -> bool:
    """Returns whether two networks are such a pair, and otherwise equal.

    Knobs that only one of two modules has, or that mean something else in the other, are its own.
    """
    treated, controlled = treatment["attention"], control["attention"]
    is_claimed = pair.treatment.items() <= treated.items() and pair.control.items() <= controlled.items()
    if treatment["model"] != control["model"] or not is_claimed:
        return False
    shared = ATTENTIONS[treated["name"]].shared_with(ATTENTIONS[controlled["name"]]) | _PLACED
    claimed = pair.treatment.keys() & pair.control.keys()
    compared = (shared & treated.keys() & controlled.keys()) - claimed
    return all(treated[name] == controlled[name] for name in compared)


def is_at_scale(scale: Scale | None, study: Study, network: Network) -> bool:
    """Returns whether a network of a study, with the study's data, is what a claim was made about."""
    if scale is None:
        return True
    data, images = study.protocol["data"], study.attributes.get("data") or {"train": 0, "classes": []}
    return (
        network.model["name"] in scale.models
        and network.model.get("stem") == "imagenet"
        and network.attention.get("groups") == scale.groups
        and data.get("resolution") == scale.pixels
        and data.get("val_per_class") == 0  # top-1 on other images is another number
        and len(images["classes"]) == scale.classes
        and images["train"] >= scale.images - scale.images // _CORRUPT
    )


def _is_narrow(network: Network, below: int) -> bool:
    """Returns whether a backbone has an insertion point of fewer channels; any backbone has where `below` is 0."""
    if not below:
        return True
    try:
        places = find_backbone(network.model["name"]).places()
    except OptionError:  # a model that this machine's timm does not have
        return False
    return min(place.channels for place in places) < below
