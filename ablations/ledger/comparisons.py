"""Comparisons: the networks of stored studies that a claim is about, with each replicate counted once.

A claim is about pairs of networks that differ only in the claimed property, or about single networks. The same networks
under the same conditions form one comparison, even if several studies have them: their replicates are pooled, and each
seed counts once. So neither a copy of a store nor a study that contains cells of another study adds evidence.
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

_PLACED = {"stages", "position"}  # settings of every attention module
_CORRUPT = 1000  # one in so many training images may be missing because it cannot be decoded
_SAME = 1e-9  # points; copies of one run are stored with the same top-1

Seed = tuple[int, int]  # the protocol's seed and the replicate's number, which determine all random draws


@dataclass(frozen=True)
class Repeat:
    """Replicates of a study that an earlier study has, too; each counts once.

    `same` is the number of equal results: copies of the same runs. `other` is the number of different results: the
    seeds were trained again, for example on another machine.
    """

    study: Study
    same: int
    other: int


@dataclass(frozen=True)
class Comparison:
    """A pair of networks, or one network, under the same conditions, with its replicates from all studies.

    Args:
        part: index of the claim's pair, or of its published number.
        studies: those whose replicates count, in the order in which they were read.
        repeats: replicates that several studies have.
        treatment, control: the networks as stored in the first study; no control where a single network is judged.
        top1: in percent, of both networks or of the single one, by seed; only replicates that all have finished.
        dropped: seeds of replicates that ended without a result in some study.
        share: share of its error rate that the comparison may spend; 1 without interim analyses.
        at_scale: whether networks and data have the scale of the claim.
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
        """The difference of each replicate in points, treatment minus control; for a single network its top-1."""
        return np.array([row[0] - row[1] if len(row) > 1 else row[0] for row in self.top1.values()], dtype=np.float64)

    @property
    def spread(self) -> float:
        """The standard deviation of the values, of which there are two or more."""
        return float(np.std(self.values, ddof=1))


@dataclass(frozen=True)
class _Found:
    """The networks of a comparison in one study."""

    study: Study
    part: int
    networks: tuple[Network, ...]

    @property
    def key(self) -> str:
        """Identifies the comparison across studies."""
        return json.dumps([self.part, self.study.conditions, [one.settings for one in self.networks]], sort_keys=True)

    @property
    def ended(self) -> dict[Seed, list[float | None]]:
        """The top-1 of each network by seed: NaN if it ended without a result, None if it has not ended."""
        seed = int(self.study.protocol["seed"])
        replicates = sorted({replicate for network in self.networks for replicate in network.top1})
        return {(seed, number): [network.top1.get(number) for network in self.networks] for number in replicates}

    @property
    def finished(self) -> dict[Seed, tuple[float, ...]]:
        """The top-1 of all networks for each seed that all of them have finished."""
        complete = {seed: tuple(top1 for top1 in row if top1 is not None) for seed, row in self.ended.items()}
        return {seed: row for seed, row in complete.items() if len(row) == len(self.networks) and not _has_nan(row)}

    @property
    def dropped(self) -> set[Seed]:
        """The seeds for which some network ended without a result."""
        return {seed for seed, row in self.ended.items() if _has_nan(top1 for top1 in row if top1 is not None)}


def _has_nan(row: Iterable[float]) -> bool:
    return any(math.isnan(top1) for top1 in row)


def comparisons_of(claim: Claim, studies: Iterable[Study]) -> list[Comparison]:
    """Returns the comparisons of a claim in stored studies, including those without finished replicates."""
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
    """Pools studies; each seed is taken from the first study that has finished it, whatever the result."""
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
    """Returns whether two networks match a pair and are otherwise equal.

    Knobs that only one of the two modules has, or that have another meaning in the other, may differ.
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
    """Returns whether a network and the data of its study have the scale that a claim was made at."""
    if scale is None:
        return True
    data, images = study.protocol["data"], study.attributes.get("data") or {"train": 0, "classes": []}
    return (
        network.model["name"] in scale.models
        and network.model.get("stem") == "imagenet"
        and network.attention.get("groups") == scale.groups
        and data.get("resolution") == scale.pixels
        and data.get("val_per_class") == 0  # otherwise the validation images differ from those of the claim
        and len(images["classes"]) == scale.classes
        and images["train"] >= scale.images - scale.images // _CORRUPT
    )


def _is_narrow(network: Network, below: int) -> bool:
    """Returns whether a backbone has an insertion point with fewer channels than `below`; always if `below` is 0."""
    if not below:
        return True
    try:
        places = find_backbone(network.model["name"]).insertion_points()
    except OptionError:  # a model that the installed timm does not have
        return False
    return min(place.channels for place in places) < below
