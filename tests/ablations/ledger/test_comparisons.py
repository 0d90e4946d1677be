from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.ledger.comparisons import Comparison, comparisons_of, is_at_scale, matches
from ablations.ledger.declared import CLAIMS, OFFICIAL
from ablations.ledger.stored import Study
from tests.builders.claims import IMAGENET, REAL, WHOLE, around, claim, imagenet, network, study

TOP1 = st.dictionaries(st.integers(0, 9), st.floats(0, 100) | st.just(math.nan), max_size=8)


def level(n: int = 8) -> dict[int, float]:
    return dict.fromkeys(range(n), 70.0)


def pair_of(on: Mapping[int, float], off: Mapping[int, float], *overrides: str, **options: Any) -> Study:
    """A study of the shuffle."""
    return study([(network(), on), (network(shuffle=False), off)], *overrides, **options)


def only(*studies: Study, name: str = "shuffle") -> Comparison:
    (one,) = comparisons_of(claim(name), studies)
    return one


# Which replicates.


@settings(max_examples=60)
@given(treatment=TOP1, control=TOP1, is_swapped=st.booleans())
def test_a_difference_is_that_of_the_replicates_that_both_have_finished_in_whatever_order_they_are_stored(
    treatment: dict[int, float], control: dict[int, float], is_swapped: bool
) -> None:
    networks = [(network(), treatment), (network(shuffle=False), control), (network(attention="se"), treatment)]
    one = only(study(networks[::-1] if is_swapped else networks))
    assert one.control is not None
    assert (one.treatment.name, one.control.name) == (("v2", "v1") if is_swapped else ("v0", "v1"))
    finished = [{key for key, top1 in known.items() if not math.isnan(top1)} for known in (treatment, control)]
    both = sorted(finished[0] & finished[1])
    assert list(one.values) == [treatment[key] - control[key] for key in both]
    assert [number for _, number in one.top1] == both
    assert {number for _, number in one.dropped} == (treatment.keys() - finished[0]) | (control.keys() - finished[1])


@settings(max_examples=60)
@given(
    top1=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=8),
    parts=st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=4),
)
def test_the_same_cells_in_several_studies_are_counted_once(
    top1: list[tuple[float, float]], parts: list[set[int]]
) -> None:
    """Each study, in a store of its own, holds some replicates of the same runs."""
    held = [sorted(part & set(range(len(top1)))) for part in parts]
    studies = [
        pair_of({key: top1[key][0] for key in keys}, {key: top1[key][1] for key in keys}, store=f"sqlite:///{number}")
        for number, keys in enumerate(held)
    ]
    one, every = only(*studies), sorted(set().union(*held))
    assert list(one.values) == [top1[key][0] - top1[key][1] for key in every]
    assert sum(repeat.same for repeat in one.repeats) == sum(map(len, held)) - len(every)
    assert all(repeat.other == 0 for repeat in one.repeats)


def test_a_seed_that_was_trained_again_elsewhere_counts_once_as_it_came_first() -> None:
    here, there = pair_of({0: 71.0, 1: 72.0}, level(2)), pair_of({1: 79.0, 2: 73.0}, level(3), name="there")
    one = only(here, there)
    assert list(one.values) == [1.0, 2.0, 3.0]
    assert [study.name for study in one.studies] == ["mine", "there"]
    ((repeat),) = one.repeats
    assert (repeat.study.name, repeat.same, repeat.other) == ("there", 0, 1)


def test_a_copy_is_no_study_that_counts() -> None:
    one = only(pair_of(around(71), level()), pair_of(around(71), level(), store="sqlite:///copy"))
    assert [study.store for study in one.studies] == ["sqlite:///x"]
    assert [(repeat.study.store, repeat.same) for repeat in one.repeats] == [("sqlite:///copy", 8)]


def test_another_seed_of_the_protocol_adds_replicates_of_the_same_comparison() -> None:
    one = only(pair_of({0: 71.0}, level(1), REAL), pair_of({0: 72.0}, level(1), REAL, "seed=1", name="other"))
    assert list(one.values) == [1.0, 2.0]
    assert one.repeats == ()


@pytest.mark.parametrize(
    "overrides", [("train.epochs=7",), ("train.decay=all",), ("data.flip=false",), ("data=cifar100",)]
)
def test_another_protocol_is_another_comparison(overrides: tuple[str, ...]) -> None:
    studies = [pair_of(around(71), level(), REAL), pair_of(around(71), level(), REAL, *overrides)]
    assert len(comparisons_of(claim("shuffle"), studies)) == 2


def test_other_images_under_the_same_protocol_are_another_comparison() -> None:
    few, many = ({"train": number, "classes": ["a"]} for number in (10, 20))
    studies = [pair_of(around(71), level(), known=few), pair_of(around(71), level(), known=many)]
    assert len(comparisons_of(claim("shuffle"), studies)) == 2


def test_a_network_by_itself_is_pooled_likewise() -> None:
    halves = [imagenet({0: 77.0, 1: 77.5}), imagenet({1: 77.5, 2: 78.0})]
    one = only(*halves, name="released")
    assert (one.control, list(one.values)) == (None, [77.0, 77.5, 78.0])
    assert [(repeat.same, repeat.other) for repeat in one.repeats] == [(1, 0)]


def test_a_study_with_interim_analyses_spends_less_and_a_copy_of_it_no_less_again() -> None:
    looked_at = pair_of(around(71, 6), level(6), interims=[6, 12])
    assert only(looked_at).share == pytest.approx(1 / 4)
    assert only(looked_at, replace(looked_at, store="sqlite:///copy")).share == pytest.approx(1 / 4)
    assert only(pair_of(around(71), level()), looked_at).share == 1  # which adds nothing
    assert only(pair_of(around(71), level(), interims=[6, 12])).share == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("overrides", "is_real"),
    [
        (("data=digits",), False),
        (("data=cifar10",), True),
        (("data=cifar100",), True),
        (("data=imagenet_subset", "data.root=x"), True),
        (("data=imagenette", "data.root=x"), True),
    ],
)
def test_scenes_that_the_suite_makes_are_not_real_images(overrides: tuple[str, ...], is_real: bool) -> None:
    assert only(pair_of(around(71), level(), *overrides)).has_real_images is is_real


def test_images_of_a_data_set_that_is_not_known_are_not_taken_for_real_ones() -> None:
    made = pair_of(around(71), level())
    made = replace(made, protocol={**made.protocol, "data": {"name": "mine"}})
    assert not only(made).has_real_images


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


def test_the_gain_is_claimed_at_a_scale() -> None:
    assert only(imagenet(around(77.4)), name="gain").at_scale


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
def test_anything_else_is_another_scale(overrides: list[str], known: Mapping[str, Any], groups: int) -> None:
    assert not only(imagenet(around(79.0), *overrides, known=known, groups=groups), name="gain").at_scale


def test_a_few_corrupt_images_are_the_same_scale() -> None:
    assert is_at_scale(claim("gain").scale, imagenet({}, known=WHOLE | {"train": 1_281_000}), imagenet({}).networks[0])


def test_the_accuracy_of_another_backbone_or_module_says_nothing_of_the_released_one() -> None:
    networks = [(network("resnet18"), around(77.88)), (network("resnet50", shuffle=False), around(77.88))]
    assert comparisons_of(claim("released"), [study(networks, *IMAGENET)]) == []


def test_whether_it_helps_below_128_channels_is_asked_of_narrow_backbones() -> None:
    made = study([(network(), around(72)), (network(attention="none"), level())])
    assert np.mean(only(made, name="small").values) == pytest.approx(2.0, abs=0.01)
    assert comparisons_of(claim("small"), [imagenet(around(78.0))]) == []
