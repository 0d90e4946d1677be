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
    """A study with and without channel shuffle."""
    return study([(network(), on), (network(shuffle=False), off)], *overrides, **options)


def only(*studies: Study, name: str = "shuffle") -> Comparison:
    (comparison,) = comparisons_of(claim(name), studies)
    return comparison


# Replicates.


@settings(max_examples=60)
@given(treatment=TOP1, control=TOP1, is_swapped=st.booleans())
def test_differences_are_of_replicates_that_both_networks_have_finished_in_any_stored_order(
    treatment: dict[int, float], control: dict[int, float], is_swapped: bool
) -> None:
    networks = [(network(), treatment), (network(shuffle=False), control), (network(attention="se"), treatment)]
    comparison = only(study(networks[::-1] if is_swapped else networks))
    assert comparison.control is not None
    assert (comparison.treatment.name, comparison.control.name) == (("v2", "v1") if is_swapped else ("v0", "v1"))
    finished = [{key for key, top1 in results.items() if not math.isnan(top1)} for results in (treatment, control)]
    both = sorted(finished[0] & finished[1])
    assert list(comparison.values) == [treatment[key] - control[key] for key in both]
    assert [number for _, number in comparison.top1] == both
    assert {number for _, number in comparison.dropped} == (treatment.keys() - finished[0]) | (
        control.keys() - finished[1]
    )


@settings(max_examples=60)
@given(
    top1=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=8),
    parts=st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=4),
)
def test_the_same_cells_in_several_studies_are_counted_once(
    top1: list[tuple[float, float]], parts: list[set[int]]
) -> None:
    """Each study, in a separate store, has some replicates of the same runs."""
    held = [sorted(part & set(range(len(top1)))) for part in parts]
    studies = [
        pair_of({key: top1[key][0] for key in keys}, {key: top1[key][1] for key in keys}, store=f"sqlite:///{number}")
        for number, keys in enumerate(held)
    ]
    comparison, every = only(*studies), sorted(set().union(*held))
    assert list(comparison.values) == [top1[key][0] - top1[key][1] for key in every]
    assert sum(repeat.same for repeat in comparison.repeats) == sum(map(len, held)) - len(every)
    assert all(repeat.other == 0 for repeat in comparison.repeats)


def test_the_first_result_of_a_seed_that_was_trained_twice_counts() -> None:
    here, there = pair_of({0: 71.0, 1: 72.0}, level(2)), pair_of({1: 79.0, 2: 73.0}, level(3), name="there")
    comparison = only(here, there)
    assert list(comparison.values) == [1.0, 2.0, 3.0]
    assert [study.name for study in comparison.studies] == ["mine", "there"]
    ((repeat),) = comparison.repeats
    assert (repeat.study.name, repeat.same, repeat.other) == ("there", 0, 1)


def test_a_copy_does_not_count_as_a_study() -> None:
    comparison = only(pair_of(around(71), level()), pair_of(around(71), level(), store="sqlite:///copy"))
    assert [study.store for study in comparison.studies] == ["sqlite:///x"]
    assert [(repeat.study.store, repeat.same) for repeat in comparison.repeats] == [("sqlite:///copy", 8)]


def test_another_protocol_seed_adds_replicates_to_the_same_comparison() -> None:
    comparison = only(pair_of({0: 71.0}, level(1), REAL), pair_of({0: 72.0}, level(1), REAL, "seed=1", name="other"))
    assert list(comparison.values) == [1.0, 2.0]
    assert comparison.repeats == ()


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


def test_single_networks_are_pooled_like_pairs() -> None:
    halves = [imagenet({0: 77.0, 1: 77.5}), imagenet({1: 77.5, 2: 78.0})]
    comparison = only(*halves, name="released")
    assert (comparison.control, list(comparison.values)) == (None, [77.0, 77.5, 78.0])
    assert [(repeat.same, repeat.other) for repeat in comparison.repeats] == [(1, 0)]


def test_a_study_with_interim_analyses_spends_less_and_a_copy_does_not_reduce_it_further() -> None:
    looked_at = pair_of(around(71, 6), level(6), interims=[6, 12])
    assert only(looked_at).share == pytest.approx(1 / 4)
    assert only(looked_at, replace(looked_at, store="sqlite:///copy")).share == pytest.approx(1 / 4)
    assert only(pair_of(around(71), level()), looked_at).share == 1  # a copy, so it adds nothing
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
def test_synthetic_images_are_not_real_images(overrides: tuple[str, ...], is_real: bool) -> None:
    assert only(pair_of(around(71), level(), *overrides)).has_real_images is is_real


def test_images_of_an_unknown_data_set_do_not_count_as_real() -> None:
    study_ = pair_of(around(71), level())
    study_ = replace(study_, protocol={**study_.protocol, "data": {"name": "mine"}})
    assert not only(study_).has_real_images


# Networks.


@pytest.mark.parametrize(
    ("name", "treatment", "control", "expected"),
    [
        ("gain", {}, {"attention": "none"}, True),
        ("gain", {"groups": 2}, {"attention": "none"}, True),  # with any number of groups
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
def test_a_pair_differs_only_in_the_claimed_property(
    name: str, treatment: dict[str, Any], control: dict[str, Any], expected: bool
) -> None:
    one, other = network(**treatment), network(**control)
    assert any(matches(pair, one, other) for pair in claim(name).pairs) == expected


@pytest.mark.parametrize("name", [claim.id for claim in CLAIMS if claim.pairs])
def test_networks_with_different_backbones_are_not_a_pair(name: str) -> None:
    for pair in claim(name).pairs:
        first, second = ({"attention": {**OFFICIAL, "groups": 4, "groups_policy": "strict", **settings}}
                      for settings in (pair.treatment, pair.control))  # fmt: skip
        assert matches(pair, first | {"model": {"name": "resnet8"}}, second | {"model": {"name": "resnet8"}})
        assert not matches(pair, first | {"model": {"name": "resnet8"}}, second | {"model": {"name": "resnet20"}})


KNOBS = st.fixed_dictionaries(
    {
        "groups": st.sampled_from([1, 4]),
        "gate": st.sampled_from(["sigmoid", "tanh1"]),
        "pooling": st.sampled_from(["avg", "max"]),
        "transform": st.sampled_from(["affine", "conv1x1"]),
        "shuffle": st.booleans(),
    }
)


@given(first=KNOBS, second=KNOBS)
def test_only_networks_that_differ_in_the_shuffle_alone_are_pairs(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    expected = first["shuffle"] is True and second == first | {"shuffle": False}
    assert matches(claim("shuffle").pairs[0], network(**first), network(**second)) == expected


# Scale.


def test_the_gain_is_claimed_at_the_scale_of_imagenet() -> None:
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


def test_a_few_missing_images_do_not_change_the_scale() -> None:
    assert is_at_scale(claim("gain").scale, imagenet({}, known=WHOLE | {"train": 1_281_000}), imagenet({}).networks[0])


def test_another_backbone_or_module_is_not_evidence_for_the_released_network() -> None:
    networks = [(network("resnet18"), around(77.88)), (network("resnet50", shuffle=False), around(77.88))]
    assert comparisons_of(claim("released"), [study(networks, *IMAGENET)]) == []


def test_the_claim_about_fewer_than_128_channels_is_compared_in_narrow_backbones() -> None:
    narrow = study([(network(), around(72)), (network(attention="none"), level())])
    assert np.mean(only(narrow, name="small").values) == pytest.approx(2.0, abs=0.01)
    assert comparisons_of(claim("small"), [imagenet(around(78.0))]) == []
