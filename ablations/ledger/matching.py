"""Which networks of a study a claim is about: pairs that differ only in what is claimed, and at which scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ablations.ledger.declared import OFFICIAL, Claim, Pair, Scale
from ablations.ledger.stored import Network, Study
from sa_core.attentions.knobs import ATTENTIONS
from sa_core.backbones.registry import find_backbone
from sa_core.errors import OptionError

_PLACED = {"stages", "position"}  # settings that every attention module has, whatever its knobs
_CORRUPT = 1000  # of so many training images one may be missing: those that cannot be decoded


def claimed_pairs(claim: Claim, study: Study) -> list[tuple[int, Network, Network]]:
    """Returns the pairs of a claim that a study has: the number of the pair, the treatment and the control."""
    return [
        (number, treatment, control)
        for number, pair in enumerate(claim.pairs)
        for treatment in study.networks
        for control in study.networks
        if matches(pair, treatment.settings, control.settings) and _is_narrow(treatment, claim.below)
    ]


def released_networks(claim: Claim, study: Study) -> Iterator[Network]:
    """Yields the networks of a study, of those with a finished cell, whose top-1 the claim says."""
    for network in study.networks:
        if network.top1 and network.model["name"] in claim.top1 and _has(network.attention, OFFICIAL):
            yield network


def matches(pair: Pair, treatment: Mapping[str, Any], control: Mapping[str, Any]) -> bool:
    """Returns whether two networks are such a pair, and otherwise equal.

    Knobs that only one of two modules has, or that mean something else in the other, are its own.
    """
    treated, controlled = treatment["attention"], control["attention"]
    if treatment["model"] != control["model"]:
        return False
    if not (_has(treated, pair.treatment) and _has(controlled, pair.control)):
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


def _has(attention: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    return all(name in attention and attention[name] == value for name, value in settings.items())


def _is_narrow(network: Network, below: int) -> bool:
    """Returns whether a backbone has an insertion point of fewer channels; any backbone has where `below` is 0."""
    if not below:
        return True
    try:
        places = find_backbone(network.model["name"]).places()
    except OptionError:  # a model that this machine's timm does not have
        return False
    return min(place.channels for place in places) < below
