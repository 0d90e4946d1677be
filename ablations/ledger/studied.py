"""Claims about trained networks: their contrasts in whatever studies are stored, found by the networks themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from ablations.common.errors import UsageError
from ablations.common.urls import hide_passwords
from ablations.common.wording import count
from ablations.ledger.declared import OFFICIAL, Claim, Expectation, Outcome, Pair, Scale
from ablations.reporting.text.numbers import points_with_interval
from ablations.stats import Contrast, Estimate, Looks, Verdict, estimate, judge
from ablations.storage.cells import CellState, StoredCell
from ablations.storage.study import StudyStore, open_store
from sa_core.errors import OptionError
from sa_core.knobs import ATTENTIONS
from sa_core.registry import find_backbone

_PLACED = {"stages", "position"}  # settings that every attention module has, whatever its knobs
_CORRUPT = 1000  # of so many training images one may be missing: those that cannot be decoded


@dataclass(frozen=True)
class Network:
    """A network of a study: its settings, what the study calls it, and the top-1 of finished replicates in percent."""

    settings: Mapping[str, Any]
    name: str
    top1: Mapping[int, float]

    @property
    def model(self) -> Mapping[str, Any]:
        """The backbone's settings."""
        return cast(Mapping[str, Any], self.settings["model"])

    @property
    def attention(self) -> Mapping[str, Any]:
        """The attention's settings."""
        return cast(Mapping[str, Any], self.settings["attention"])


@dataclass(frozen=True)
class Study:
    """A stored study, as far as claims need it."""

    name: str
    store: str
    protocol: Mapping[str, Any]
    attributes: Mapping[str, Any]
    networks: tuple[Network, ...]

    @property
    def data(self) -> str:
        """Names the data and how much of it there was: `digits (2,048 training images, 10 classes)`."""
        options, known = self.protocol["data"], self.attributes.get("data")
        parts = []
        if known:
            parts = [count(known["train"], "training image"), count(len(known["classes"]), "class", "classes")]
        if "resolution" in options:
            parts.append(f"{options['resolution']}x{options['resolution']} pixels")
        return f"{options['name']} ({', '.join(parts)})" if parts else str(options["name"])

    @property
    def epochs(self) -> int:
        """What each cell was trained for."""
        return int(self.protocol["train"]["epochs"])


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
            so = "; the claim is about another scale"
        else:
            so = f"; {self.outcome.value} here" if self.outcome is not None and self.outcome.is_settled else ""
        return (
            f"{study.name} ({study.data}; {self.model}; {count(study.epochs, 'epoch')}): {self.names}, "
            f"n = {self.seen.n}, {self.value}{verdict}{reason}{so}"
        )


def stored_studies(urls: Sequence[str]) -> tuple[list[Study], list[str]]:
    """Reads all studies of some databases.

    Args:
        urls: of the databases; a SQLite file that is not there has no studies.

    Returns:
        The studies, and of those that cannot be read which they are and why, a line each.

    Raises:
        UsageError: if a database does not answer.
    """
    studies, skipped = [], []
    for url in dict.fromkeys(urls):
        for name in _names(url):
            try:
                study = _study(open_store(url, name, create=False), name, hide_passwords(url))
            except UsageError as error:
                skipped.append(f"{name} in {hide_passwords(url)}: {error.reason.partition('; another ')[0]}")
            else:
                studies += [study] if study is not None else []
    return studies, skipped


def evidence_of(claim: Claim, study: Study, margin: float) -> list[Evidence]:
    """Returns what a study says of a claim; nothing where it has none of its networks with a finished cell.

    The contrasts of the claim are the family that verdicts are corrected for, those not trained yet included.

    Args:
        claim: about trained networks, or one that has pairs to stand beside it.
        study: any.
        margin: the least difference in top-1 that matters, in points.
    """
    if claim.expects is Expectation.TOP1:
        return list(_by_themselves(claim, study))
    found = [
        (number, one, other)
        for number, pair in enumerate(claim.pairs)
        for one in study.networks
        for other in study.networks
        if matches(pair, one.settings, other.settings) and _is_narrow(one, claim.below)
    ]
    # A network stands in as many contrasts as it has partners, in each under a name of its own.
    rows = [
        {"variant": f"{role} {number}", "replicate": replicate, "top1": top1}
        for number, (_, *networks) in enumerate(found)
        for role, network in zip(("treatment", "control"), networks, strict=True)
        for replicate, top1 in network.top1.items()
    ]
    frame = pd.DataFrame(rows, columns=["variant", "replicate", "top1"])
    baselines = {f"treatment {number}": f"control {number}" for number in range(len(found))}
    contrasts = judge(frame, baselines, margin, Looks.stored(study.attributes.get("looks")))
    made = []
    for (pair_number, one, other), contrast in zip(found, contrasts, strict=True):
        if contrast.difference is None:
            continue
        at_scale = is_at_scale(claim.scale, study, one)
        made.append(
            Evidence(
                study=study,
                model=str(one.model["name"]),
                treatment=one.name,
                control=other.name,
                pair=pair_number,
                seen=contrast.difference,
                verdict=contrast.verdict.value,
                reason=contrast.reason,
                at_scale=at_scale,
                outcome=None if claim.expects is None else outcome_of(claim, contrast, at_scale),
            )
        )
    return made


def study_outcome(claim: Claim, found: Sequence[Evidence]) -> Outcome:
    """Returns what one study makes of a claim.

    A claim is about all its pairs: one that contradicts it is enough to contradict, and all must be there and agree to
    reproduce it. What was found at another scale than the claim's takes nothing from what was found at it.
    """
    counted = [one for one in found if one.at_scale] or list(found)
    outcomes = {one.outcome for one in counted}
    if not counted:
        return Outcome.NOT_RUN
    if Outcome.CONTRADICTED in outcomes:
        return Outcome.CONTRADICTED
    is_whole = {one.pair for one in counted} >= set(range(len(claim.pairs)))
    return Outcome.REPRODUCED if outcomes == {Outcome.REPRODUCED} and is_whole else Outcome.UNDECIDED


def matches(pair: Pair, treatment: Mapping[str, Any], control: Mapping[str, Any]) -> bool:
    """Returns whether two networks are such a pair, and otherwise equal.

    Knobs that only one of two modules has, or that mean something else in the other, are its own.
    """
    one, other = treatment["attention"], control["attention"]
    if treatment["model"] != control["model"] or not _has(one, pair.treatment) or not _has(other, pair.control):
        return False
    shared = ATTENTIONS[one["name"]].shared_with(ATTENTIONS[other["name"]]) | _PLACED
    claimed = pair.treatment.keys() & pair.control.keys()
    return all(one[name] == other[name] for name in (shared & one.keys() & other.keys()) - claimed)


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


def is_at_scale(scale: Scale | None, study: Study, network: Network) -> bool:
    """Returns whether a network of a study, with the study's data, is what a claim was made about."""
    if scale is None:
        return True
    data, known = study.protocol["data"], study.attributes.get("data") or {"train": 0, "classes": []}
    return (
        network.model["name"] in scale.models
        and network.model.get("stem") == "imagenet"
        and network.attention.get("groups") == scale.groups
        and data.get("resolution") == scale.pixels
        and data.get("val_per_class") == 0  # top-1 on other images is another number
        and len(known["classes"]) == scale.classes
        and known["train"] >= scale.images - scale.images // _CORRUPT
    )


def _by_themselves(claim: Claim, study: Study) -> Iterator[Evidence]:
    for network in study.networks:
        model = network.model["name"]
        if not network.top1 or model not in claim.top1 or not _has(network.attention, OFFICIAL):
            continue
        seen, published = estimate(list(network.top1.values())), claim.top1[model]
        at_scale = is_at_scale(claim.scale, study, network)
        outcome = Outcome.UNDECIDED
        if at_scale and seen.has_spread:
            outcome = Outcome.REPRODUCED if seen.low <= published <= seen.high else Outcome.CONTRADICTED
        yield Evidence(
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


def _has(attention: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    return all(name in attention and attention[name] == value for name, value in settings.items())


def _is_narrow(network: Network, below: int) -> bool:
    """Returns whether a backbone has a place of fewer channels; where `below` is 0 that is not asked."""
    if not below:
        return True
    try:
        places = find_backbone(network.model["name"]).places()
    except OptionError:  # a model that this machine's timm does not have
        return False
    return min(place.channels for place in places) < below


def _names(url: str) -> Sequence[str]:
    """Lists the studies of a database: `open_store` answers a name that is not there with those that are."""
    try:
        open_store(url, "", create=False)
    except UsageError as error:
        if error.option != "study":
            raise
        return error.choices
    return ("",)


def _study(store: StudyStore, name: str, url: str) -> Study | None:
    """Reads a study; None where nobody has begun it yet.

    Raises:
        UsageError: if it is another program's, of another version, or a search.
    """
    if store.is_empty and not store.cells():
        return None
    protocol = store.protocol
    if store.attributes["identity"]["objectives"] != ["top1"] or store.attributes.get("sweep") == "search":
        raise UsageError("study", name, "is a search, whose variants were picked for being good")
    cells = store.cells()
    if unknown := {cell.network["attention"]["name"] for cell in cells} - set(ATTENTIONS):
        reason = f"has attention that this version of the suite does not know: {', '.join(sorted(unknown))}"
        raise UsageError("study", name, reason)
    return Study(name, url, protocol, store.attributes, _networks(cells))


def _networks(cells: Iterable[StoredCell]) -> tuple[Network, ...]:
    """Sorts cells by their networks: one network may have been stored under several names."""
    by_network: dict[str, list[StoredCell]] = {}
    for cell in cells:
        by_network.setdefault(json.dumps(cell.network, sort_keys=True), []).append(cell)
    return tuple(
        Network(
            own[0].network,
            own[0].variant,
            {
                cell.replicate: float(cell.outcome["result"]["top1"])
                for cell in own
                if cell.state is CellState.FINISHED and cell.outcome is not None
            },
        )
        for own in by_network.values()
    )
