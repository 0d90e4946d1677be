from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.ledger.declared import CLAIMS, OFFICIAL
from ablations.ledger.matching import is_at_scale, matches
from tests.builders.claims import WHOLE, claim, imagenet, network


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


def test_a_few_corrupt_images_are_the_same_scale() -> None:
    assert is_at_scale(claim("gain").scale, imagenet({}, known=WHOLE | {"train": 1_281_000}), imagenet({}).networks[0])
