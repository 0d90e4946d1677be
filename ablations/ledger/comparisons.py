"""What there is to compare: the networks of stored studies that a claim is about, each replicate of them once.

A claim is about pairs of networks that differ only in what is claimed, or about single networks. The same networks
under the same conditions are one comparison, whatever studies hold them: their replicates are pooled, and a replicate
of the same seed counts once. So a copy of a store adds nothing, nor does a study that has cells of another one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablations.ledger.declared import OFFICIAL, Claim, Expectation, Pair, Scale
from ablations.ledger.rules import spent
from ablations.ledger.stored import Network, Study
from ablations.stats import InterimAnalyses
from sa_core.attentions.knobs import ATTENTIONS
from sa_core.backbones.registry import find_backbone
from sa_core.errors import OptionError

_PLACED = {"stages", "position"}  # settings that every attention module has, whatever its knobs
_CORRUPT = 1000  # of so many training images one may be missing: those that cannot be decoded
_SAME = 1e-9  # points; a run that was done once is stored with the same top-1 everywhere

Seed = tuple[int, int]  # of the protocol, and the number of the replicate: what a replicate draws from


@dataclass(frozen=True)
class Repeat:
    """Replicates that a study holds although an earlier one has them, which count once.

    `same` have the same results: they are the same runs. `other` have other results: the same seeds were trained again,
    as on another machine.
    """

    study: Study
    same: int
    other: int


@dataclass(frozen=True)
class Comparison:
    """A pair of networks, or one network, under the same conditions, with its replicates from all studies.

    Args:
        part: which of the claim's parts it is about: the number of the pair, or of the published number.
        studies: those whose replicates count, in the order in which they were read.
        repeats: other studies that hold some of these replicates, or studies that hold them beside further ones.
        treatment, control: the networks as the first study has them; no control where a network is judged by itself.
        top1: in percent, of both networks or of the one, by seed; only of replicates that both have finished.
        dropped: the seeds of replicates that ended without a result in some study.
        share: what the comparison may spend of its part of the errors, 1 without interim analyses.
        at_scale: whether the claim is about networks and data such as these.
    """

    part: int
    studies: tuple[Study, ...]
    repeats: tuple[Repeat, ...]
    treatment: Network
    control: Network | None
    top1: Mapping[Seed, tuple[float, ...]]
    dropped: frozenset[Seed]
    share: float
    at_scale: bool

    @property
    def has_real_images(self) -> bool:
        """Whether the networks were trained on real images."""
        return self.studies[0].has_real_images

    @property
    def values(self) -> NDArray[np.float64]:
        """The difference of each replicate in points, treatment less control; of a single network its top-1."""
        return np.array([row[0] - row[1] if len(row) > 1 else row[0] for row in self.top1.values()], dtype=np.float64)


@dataclass(frozen=True)
class _Found:
    """The networks of a comparison in one study."""

    study: Study
    part: int
    networks: tuple[Network, ...]

    @property
    def key(self) -> str:
        """What is the same in all studies that hold the comparison."""
        return json.dumps([self.part, self.study.conditions, [one.settings for one in self.networks]], sort_keys=True)

    @property
    def ended(self) -> dict[Seed, list[float | None]]:
        """The top-1 of each network by seed: nan where it ended without a result, None where it has not ended."""
        seed = int(self.study.protocol["seed"])
        replicates = sorted({replicate for network in self.networks for replicate in network.top1})
        return {(seed, number): [network.top1.get(number) for network in self.networks] for number in replicates}

    @property
    def finished(self) -> dict[Seed, tuple[float, ...]]:
        """The top-1 of all networks, of the seeds that all have finished."""
        complete = {seed: tuple(top1 for top1 in row if top1 is not None) for seed, row in self.ended.items()}
        return {seed: row for seed, row in complete.items() if len(row) == len(self.networks) and not _has_nan(row)}

    @property
    def dropped(self) -> set[Seed]:
        """The seeds of which some network ended without a result."""
        return {seed for seed, row in self.ended.items() if _has_nan(top1 for top1 in row if top1 is not None)}


def _has_nan(row: Iterable[float]) -> bool:
    return any(math.isnan(top1) for top1 in row)


def comparisons_of(claim: Claim, studies: Iterable[Study]) -> list[Comparison]:
    """Returns the comparisons of a claim that studies have, those included that have no finished replicate yet."""
    found: dict[str, list[_Found]] = {}
    for study in studies:
        for one in _networks_of(claim, study):
            found.setdefault(one.key, []).append(one)
    return [_pooled(claim, group) for group in found.values()]


def _networks_of(claim: Claim, study: Study) -> Iterator[_Found]:
    """Yields the networks of a study that a claim is about."""
    if claim.expects is Expectation.TOP1:
        parts = {model: part for part, model in enumerate(claim.top1)}
        for network in study.networks:
            if network.model["name"] in parts and OFFICIAL.items() <= network.attention.items():
                yield _Found(study, parts[network.model["name"]], (network,))
        return
    for part, pair in enumerate(claim.pairs):
        for treatment in study.networks:
            for control in study.networks:
                if matches(pair, treatment.settings, control.settings) and _is_narrow(treatment, claim.below):
                    yield _Found(study, part, (treatment, control))


def _pooled(claim: Claim, group: Sequence[_Found]) -> Comparison:
    """Pools studies; a seed is taken from the first of them that has finished it, which no result has a say in."""
    top1: dict[Seed, tuple[float, ...]] = {}
    counting: list[Study] = []
    repeats: list[Repeat] = []
    share = 1.0
    for one in group:
        finished = one.finished
        twice = [seed for seed in finished if seed in top1]
        if twice:
            same = sum(np.allclose(finished[seed], top1[seed], rtol=0, atol=_SAME) for seed in twice)
            repeats.append(Repeat(one.study, same, len(twice) - same))
        if len(finished) > len(twice):
            counting.append(one.study)
            interims = InterimAnalyses.stored(one.study.attributes.get("looks"))
            share *= spent(interims.sizes, len(finished)) if interims else 1.0
        top1 = finished | top1
    first = group[0]
    return Comparison(
        part=first.part,
        studies=tuple(counting) or (first.study,),
        repeats=tuple(repeats),
        treatment=first.networks[0],
        control=first.networks[1] if len(first.networks) > 1 else None,
        top1=dict(sorted(top1.items())),
        dropped=frozenset(seed for one in group for seed in one.dropped),
        share=share,
        at_scale=is_at_scale(claim.scale, first.study, first.networks[0]),
    )


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
        places = find_backbone(network.model["name"]).insertion_points()
    except OptionError:  # a model that this machine's timm does not have
        return False
    return min(place.channels for place in places) < below
