from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.ledger.declared import CLAIMS, OFFICIAL, Expectation, Outcome
from ablations.ledger.evidence import Evidence, evidence_of, is_at_scale, matches, outcome_of, study_outcome
from ablations.ledger.stored import Study
from ablations.stats import Contrast, Estimate, Verdict
from tests.builders.claims import MARGIN, WHOLE, around, claim, imagenet, network, study

TOP1 = st.dictionaries(st.integers(0, 9), st.floats(0, 100), max_size=8)


def level(n: int = 8) -> dict[int, float]:
    return dict.fromkeys(range(n), 70.0)


@settings(max_examples=40)
@given(treatment=TOP1, control=TOP1, is_swapped=st.booleans())
def test_a_difference_is_that_of_the_replicates_that_both_have_in_whatever_order_they_are_stored(
    treatment: dict[int, float], control: dict[int, float], is_swapped: bool
) -> None:
    networks = [(network(), treatment), (network(shuffle=False), control), (network(attention="se"), treatment)]
    found = evidence_of(claim("shuffle"), study(networks[::-1] if is_swapped else networks), MARGIN)
    both = treatment.keys() & control.keys()
    if not both:
        assert found == []
        return
    (one,) = found
    assert (one.treatment.name, one.control.name) == (("v2", "v1") if is_swapped else ("v0", "v1"))
    assert one.seen.n == len(both)
    assert one.seen.mean == pytest.approx(np.mean([treatment[key] - control[key] for key in both]), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "difference", "outcome"),
    [
        ("shuffle", 1.0, Outcome.REPRODUCED),
        ("shuffle", -1.0, Outcome.CONTRADICTED),
        ("shuffle", 0.0, Outcome.CONTRADICTED),
        ("affine", 0.0, Outcome.REPRODUCED),
        ("affine", 1.0, Outcome.CONTRADICTED),
        ("affine", -1.0, Outcome.CONTRADICTED),
        ("conv1x1", 0.0, Outcome.REPRODUCED),
        ("conv1x1", 1.0, Outcome.CONTRADICTED),
    ],
)
def test_a_contrast_reproduces_or_contradicts_what_is_claimed_of_any_scale(
    name: str, difference: float, outcome: Outcome
) -> None:
    pair = {
        "shuffle": (network(), network(shuffle=False)),
        "affine": (network(transform="affine_channel"), network()),
        "conv1x1": (network(transform="conv1x1"), network()),
    }[name]
    made = study([(pair[0], around(70 + difference)), (pair[1], level())])
    assert study_outcome(claim(name), evidence_of(claim(name), made, MARGIN)) is outcome


@pytest.mark.parametrize("expects", [Expectation.HELPS, Expectation.EQUIVALENT])
@pytest.mark.parametrize("verdict", [Verdict.UNDECIDED, Verdict.NONE])
def test_what_is_not_decided_says_nothing(expects: Expectation, verdict: Verdict) -> None:
    contrast = Contrast("a", "b", Estimate(2, 1.0, -1.0, 3.0), None, None, None, verdict)
    assert outcome_of(replace(claim("shuffle"), expects=expects), contrast, at_scale=True) is Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("low", "high", "verdict", "outcome"),
    [
        (1.2, 1.6, Verdict.HELPS, Outcome.REPRODUCED),
        (1.4, 1.6, Verdict.HELPS, Outcome.REPRODUCED),
        (0.5, 1.34, Verdict.HELPS, Outcome.REPRODUCED),
        (0.5, 1.33, Verdict.HELPS, Outcome.CONTRADICTED),
        (-0.5, 1.33, Verdict.UNDECIDED, Outcome.CONTRADICTED),
        (-0.5, 1.5, Verdict.UNDECIDED, Outcome.UNDECIDED),
        (-0.1, 0.1, Verdict.EQUIVALENT, Outcome.CONTRADICTED),
        (-3.0, -1.0, Verdict.HURTS, Outcome.CONTRADICTED),
        (1.0, 1.0, Verdict.UNDECIDED, Outcome.UNDECIDED),  # no spread is no interval
        (float("nan"), float("nan"), Verdict.NONE, Outcome.UNDECIDED),
    ],
)
def test_the_gain_has_to_reach_what_is_claimed(low: float, high: float, verdict: Verdict, outcome: Outcome) -> None:
    contrast = Contrast("sa", "none", Estimate(6, 1.0, low, high), None, None, None, verdict)
    assert outcome_of(claim("gain"), contrast, at_scale=True) is outcome
    assert outcome_of(claim("gain"), contrast, at_scale=False) is Outcome.UNDECIDED


def test_the_contrasts_of_a_study_are_a_family() -> None:
    """Six pairs of one sign have p = 1/32 alone, which among two contrasts decides nothing."""
    one = [(network(), around(80, 6)), (network(shuffle=False), level(6))]
    two = [(network(gate="tanh1"), around(80, 6)), (network(gate="tanh1", shuffle=False), level(6))]
    assert [found.verdict for found in evidence_of(claim("shuffle"), study(one), MARGIN)] == ["helps"]
    assert [found.verdict for found in evidence_of(claim("shuffle"), study(one + two), MARGIN)] == ["undecided"] * 2
    # Contrasts that are still to be trained count to it.
    waiting: list[tuple[Mapping[str, Any], Mapping[int, float]]] = [(settings, {}) for settings, _ in two]
    assert [found.verdict for found in evidence_of(claim("shuffle"), study(one + waiting), MARGIN)] == ["undecided"]


def test_a_study_that_was_looked_at_on_the_way_has_spent_of_its_errors() -> None:
    networks = [(network(), around(80, 6)), (network(shuffle=False), level(6))]
    (once,) = evidence_of(claim("shuffle"), study(networks), MARGIN)
    (looked_at,) = evidence_of(claim("shuffle"), study(networks, looks=[6, 12]), MARGIN)
    assert (once.verdict, looked_at.verdict) == ("helps", "undecided")


@pytest.mark.parametrize("margin", [0.2, 0.01])
def test_the_margin_says_what_is_equivalent(margin: float) -> None:
    made = study([(network(transform="conv1x1"), around(70.05)), (network(), level())])
    (found,) = evidence_of(claim("conv1x1"), made, margin)
    assert (found.verdict == "equivalent") == (margin == 0.2)


@pytest.mark.parametrize(
    ("sge", "eca", "outcome"),
    [
        (0.0, 0.0, Outcome.REPRODUCED),
        (0.0, 1.0, Outcome.CONTRADICTED),
        (-1.0, 0.0, Outcome.CONTRADICTED),
        (0.0, None, Outcome.UNDECIDED),  # one rival is half of the claim
        (1.0, None, Outcome.CONTRADICTED),
        (None, None, Outcome.NOT_RUN),
    ],
)
def test_a_claim_about_several_pairs_needs_them_all(sge: float | None, eca: float | None, outcome: Outcome) -> None:
    rivals = [(network(attention=name), around(70 + by)) for name, by in (("sge", sge), ("eca", eca)) if by is not None]
    made = study([*rivals, (network(), level())])
    assert study_outcome(claim("rivals"), evidence_of(claim("rivals"), made, MARGIN)) is outcome


# Which networks.


@pytest.mark.parametrize(
    ("name", "treatment", "control", "expected"),
    [
        ("gain", {}, {"attention": "none"}, True),
        ("gain", {"groups": 2}, {"attention": "none"}, True),  # whatever its groups
        ("gain", {"groups": 64, "groups_policy": "clamp"}, {"attention": "none"}, True),
        ("gain", {"attention": "none"}, {}, False),
        ("gain", {}, {"attention": "identity"}, False),
        ("gain", {"shuffle": False}, {"attention": "none"}, False),
        ("gain", {"stages": "last"}, {"attention": "none"}, False),
        ("gain", {"position": "pre"}, {"attention": "none"}, False),
        ("gain", {"attention": "frozen"}, {"attention": "none"}, False),
        ("shuffle", {}, {"shuffle": False}, True),
        ("shuffle", {"shuffle": False}, {}, False),
        ("shuffle", {"gate": "tanh1"}, {"gate": "tanh1", "shuffle": False}, True),
        ("shuffle", {}, {"gate": "tanh1", "shuffle": False}, False),
        ("shuffle", {"groups": 2}, {"groups": 4, "shuffle": False}, False),
        ("shuffle", {"shuffle_groups": 4}, {"shuffle": False}, False),
        ("shuffle", {}, {"stages": "last", "shuffle": False}, False),
        ("shuffle", {"attention": "frozen"}, {"attention": "frozen", "shuffle": False}, False),
        ("conv1x1", {"transform": "conv1x1"}, {}, True),
        ("conv1x1", {}, {"transform": "conv1x1"}, False),
        ("conv1x1", {"transform": "none"}, {}, False),
        ("affine", {"transform": "affine_channel"}, {}, True),
        ("affine", {"transform": "conv1x1"}, {}, False),
        ("affine", {"transform": "affine_channel", "norm_affine": False}, {"norm_affine": False}, False),
        ("affine", {"transform": "affine_channel", "norm": "none"}, {"norm": "none"}, False),
        ("rivals", {"attention": "sge"}, {}, True),
        ("rivals", {"attention": "eca"}, {}, True),
        ("rivals", {"attention": "eca", "kernel_size": 5}, {}, False),
        ("rivals", {"attention": "sge", "stages": "last"}, {}, False),
        ("rivals", {"attention": "se"}, {}, False),
        ("rivals", {"attention": "sge"}, {"shuffle": False}, False),
    ],
)  # fmt: skip
def test_a_pair_is_equal_but_for_what_is_claimed_about(
    name: str, treatment: dict[str, Any], control: dict[str, Any], expected: bool
) -> None:
    one, other = network(**treatment), network(**control)
    assert any(matches(pair, one, other) for pair in claim(name).pairs) == expected


@pytest.mark.parametrize("name", [claim.id for claim in CLAIMS if claim.pairs])
def test_networks_of_different_backbones_are_no_pair(name: str) -> None:
    for pair in claim(name).pairs:
        one, other = ({"attention": {**OFFICIAL, "groups": 4, "groups_policy": "strict", **settings}}
                      for settings in (pair.treatment, pair.control))  # fmt: skip
        assert matches(pair, one | {"model": {"name": "resnet8"}}, other | {"model": {"name": "resnet8"}})
        assert not matches(pair, one | {"model": {"name": "resnet8"}}, other | {"model": {"name": "resnet20"}})


KNOBS = st.fixed_dictionaries(
    {
        "groups": st.sampled_from([1, 4]),
        "gate": st.sampled_from(["sigmoid", "tanh1"]),
        "pooling": st.sampled_from(["avg", "max"]),
        "transform": st.sampled_from(["affine", "conv1x1"]),
        "shuffle": st.booleans(),
    }
)


@given(one=KNOBS, other=KNOBS)
def test_of_all_networks_those_that_differ_in_the_shuffle_alone_are_pairs(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    expected = one["shuffle"] is True and other == one | {"shuffle": False}
    assert matches(claim("shuffle").pairs[0], network(**one), network(**other)) == expected


# At which scale.


def gain_of(made: Study) -> list[Evidence]:
    return evidence_of(claim("gain"), made, MARGIN)


@pytest.mark.parametrize(("mean", "outcome"), [(77.4, Outcome.REPRODUCED), (76.5, Outcome.CONTRADICTED)])
def test_the_gain_is_settled_where_it_was_claimed(mean: float, outcome: Outcome) -> None:
    made = imagenet(around(mean))
    assert [one.at_scale for one in gain_of(made)] == [True]
    assert study_outcome(claim("gain"), gain_of(made)) is outcome


@pytest.mark.parametrize(
    ("overrides", "known", "groups"),
    [
        (["data.resolution=128"], WHOLE, 64),
        (["data.train_per_class=100"], WHOLE | {"train": 100_000}, 64),
        (["data.val_per_class=10"], WHOLE, 64),
        (["data.classes=100"], WHOLE | {"classes": WHOLE["classes"][:100]}, 64),
        (["model.stem=cifar"], WHOLE, 64),
        (["model=resnet101"], WHOLE, 64),
        ([], WHOLE, 32),
        ([], WHOLE | {"train": 1_270_000}, 64),
        ([], {}, 64),
    ],
)  # fmt: skip
def test_at_any_other_scale_the_gain_is_undecided(overrides: list[str], known: Mapping[str, Any], groups: int) -> None:
    (one,) = gain_of(imagenet(around(79.0), *overrides, known=known, groups=groups))
    assert (one.verdict, one.at_scale, one.outcome) == ("helps", False, Outcome.UNDECIDED)
    assert one.sentence.endswith("; the claim is about another scale")
    assert "+3.00" in one.sentence


def test_a_few_corrupt_images_are_the_same_scale() -> None:
    assert is_at_scale(claim("gain").scale, imagenet({}, known=WHOLE | {"train": 1_281_000}), imagenet({}).networks[0])


def test_other_scales_take_nothing_from_the_claims_own() -> None:
    whole, half = imagenet(around(77.5)), imagenet(around(70.0), groups=32)
    both = replace(whole, networks=(*whole.networks, half.networks[0]))
    assert study_outcome(claim("gain"), [*gain_of(whole), *gain_of(half)]) is Outcome.REPRODUCED
    assert sorted(one.at_scale for one in gain_of(both)) == [False, True]


@pytest.mark.parametrize(
    ("top1", "overrides", "outcome"),
    [
        (around(77.88), (), Outcome.REPRODUCED),
        (around(77.5), (), Outcome.CONTRADICTED),
        (around(78.95), (), Outcome.CONTRADICTED),
        (around(78.95), ("model=resnet101",), Outcome.REPRODUCED),
        ({0: 77.88}, (), Outcome.UNDECIDED),
        ({0: 77.5, 1: 77.5}, (), Outcome.UNDECIDED),
        (around(77.88), ("data.resolution=128",), Outcome.UNDECIDED),
        ({}, (), Outcome.NOT_RUN),
    ],
)
def test_the_released_accuracy_is_in_the_interval_or_not(
    top1: dict[int, float], overrides: tuple[str, ...], outcome: Outcome
) -> None:
    found = evidence_of(claim("released"), imagenet(top1, *overrides), MARGIN)
    assert study_outcome(claim("released"), found) is outcome
    assert all(one.control is None and " % is published" in one.sentence for one in found)


def test_the_accuracy_of_another_backbone_or_module_says_nothing_of_the_released_one() -> None:
    made = study([(network("resnet18"), around(77.88)), (network("resnet50", shuffle=False), around(77.88))])
    assert evidence_of(claim("released"), made, MARGIN) == []


def test_whether_it_helps_below_128_channels_stands_beside_what_is_computed() -> None:
    made = study([(network(), around(72)), (network(attention="none"), level())])
    (one,) = evidence_of(claim("small"), made, MARGIN)
    assert (one.verdict, one.outcome) == ("helps", None)
    assert evidence_of(claim("small"), imagenet(around(78.0)), MARGIN) == []
