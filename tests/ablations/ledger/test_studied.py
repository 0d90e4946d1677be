from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.common.errors import UsageError
from ablations.config import AUTO, Config
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.design.variants import make_variant
from ablations.execution.schedules.sequential import planned_looks
from ablations.ledger.declared import CLAIMS, OFFICIAL, Claim, Expectation, Outcome, joined
from ablations.ledger.studied import (
    Evidence,
    Network,
    Study,
    evidence_of,
    is_at_scale,
    matches,
    outcome_of,
    stored_studies,
    study_outcome,
)
from ablations.stats import Contrast, Estimate, Verdict
from ablations.storage.study import open_store

MARGIN = 0.2
TRAINED = [claim for claim in CLAIMS if claim.expects is not None]
IMAGENET = ("data=imagenet_subset", "data.root=x", "data.resolution=224", "train=imagenet", "model=resnet50")
WHOLE: dict[str, Any] = {"train": 1_281_167, "test": 50_000, "classes": [f"n{number}" for number in range(1000)]}
NOISE = [0.03, -0.02, 0.01, -0.03, 0.02, -0.01, 0.0, 0.01]  # what replicates differ by

Top1 = Callable[[str, int], float | None]


def claim(name: str) -> Claim:
    return next(claim for claim in CLAIMS if claim.id == name)


@cache
def config_of(*overrides: str) -> Config:
    return compose_config(["device=cpu", *overrides])


@cache
def protocol_of(*overrides: str) -> dict[str, Any]:
    return make_design(config_of(*overrides)).protocol


def network(model: str = "resnet8", **knobs: Any) -> dict[str, Any]:
    """A network as a store has it; an attention by itself is given as `attention="sge"`."""
    path = {name: name if name == "attention" else f"attention.{name}" for name in knobs}
    made = make_variant(config_of(f"model={model}"), "v", {path[name]: value for name, value in knobs.items()}, {}, "v")
    return dict(json.loads(json.dumps(made.network)))


def store_study(folder: Path, top1: Top1, *overrides: str, known: Mapping[str, Any] | None = None) -> str:
    """Stores a study whose finished cells have the top-1 that `top1` gives to variant and replicate; its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{folder / 'optuna.db'}"
    design = make_design(compose_config(["device=cpu", *overrides]))
    store = open_store(url, design.study, create=True)
    store.begin(design)
    if known:
        store.remember("data", known)
    cells = list(design.cells())
    store.enqueue(cells)
    for cell in cells:
        value = top1(cell.variant.name, cell.replicate)
        if value is not None:
            store.claim(cell)
            store.finish(cell, {"result": {"top1": value, "epochs": []}, "environment": {"cpu": "one"}})
    return url


def by_name(differences: Mapping[str, float]) -> Top1:
    """Top-1 of 70 % plus what a variant differs by, and a little noise of its own."""
    return lambda name, replicate: 70 + differences.get(name, 0.0) + NOISE[(replicate + len(name)) % len(NOISE)]


def study(
    networks: Sequence[tuple[Mapping[str, Any], Mapping[int, float]]],
    *overrides: str,
    known: Mapping[str, Any] | None = None,
    looks: Sequence[int] | None = None,
) -> Study:
    attributes = {"data": known, "looks": looks}
    made = tuple(Network(settings, f"v{number}", top1) for number, (settings, top1) in enumerate(networks))
    return Study("mine", "sqlite:///x", protocol_of(*overrides), attributes, made)


def around(mean: float, n: int = 8, spread: float = 1.0) -> dict[int, float]:
    return {replicate: mean + spread * NOISE[replicate] for replicate in range(n)}


def level(n: int = 8) -> dict[int, float]:
    return dict.fromkeys(range(n), 70.0)


# What is a pair.


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


# What a study says.

TOP1 = st.dictionaries(st.integers(0, 9), st.floats(0, 100), max_size=8)


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
    assert (one.treatment, one.control) == (("v2", "v1") if is_swapped else ("v0", "v1"))
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


# At which scale.


def imagenet(sa: Mapping[int, float], *overrides: str, known: Mapping[str, Any] = WHOLE, groups: int = 64) -> Study:
    model = next((text.partition("=")[2] for text in overrides if text.startswith("model=")), "resnet50")
    config = config_of(*IMAGENET, *overrides)
    networks = []
    for own, top1 in (({"attention.groups": groups}, sa), ({"attention": "none"}, around(76.0, 8, 2.0))):
        made = make_variant(config, "v", {"model": model, **own}, {}, "v")
        networks.append((made.network, top1))
    return study(networks, *IMAGENET, *overrides, known=known)


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
    assert all(one.control == "" and " % is published" in one.sentence for one in found)


def test_the_accuracy_of_another_backbone_or_module_says_nothing_of_the_released_one() -> None:
    made = study([(network("resnet18"), around(77.88)), (network("resnet50", shuffle=False), around(77.88))])
    assert evidence_of(claim("released"), made, MARGIN) == []


def test_whether_it_helps_below_128_channels_stands_beside_what_is_computed() -> None:
    made = study([(network(), around(72)), (network(attention="none"), level())])
    (one,) = evidence_of(claim("small"), made, MARGIN)
    assert (one.verdict, one.outcome) == ("helps", None)
    assert evidence_of(claim("small"), imagenet(around(78.0)), MARGIN) == []


# Of several studies, and what would settle it.


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], Outcome.NOT_RUN),
        ([Outcome.NOT_RUN, Outcome.UNDECIDED], Outcome.UNDECIDED),
        ([Outcome.UNDECIDED, Outcome.REPRODUCED], Outcome.REPRODUCED),
        ([Outcome.CONTRADICTED, Outcome.UNDECIDED], Outcome.CONTRADICTED),
        ([Outcome.CONTRADICTED, Outcome.UNDECIDED, Outcome.REPRODUCED], Outcome.DEPENDS),
    ],
)
def test_studies_that_disagree_make_it_depend_on_the_scale(outcomes: list[Outcome], expected: Outcome) -> None:
    assert joined(outcomes) is expected
    assert joined(outcomes[::-1]) is expected


@pytest.mark.parametrize("claim", TRAINED, ids=lambda claim: claim.id)
def test_the_command_that_would_settle_a_claim_makes_a_study_that_contrasts_its_pairs(claim: Claim) -> None:
    python, flag, module, *overrides = shlex.split(claim.command.replace("<ImageNet>", "x"))
    assert (python, flag, module) == ("python", "-m", "ablations.run")
    config = compose_config([*overrides, "device=cpu"])
    design = make_design(config)
    if config.replicates == AUTO:
        planned_looks(design)
    networks = {variant.name: variant.network for variant in design.variants}
    for pair in claim.pairs:
        assert any(
            matches(pair, networks[one], networks[other])
            for names in design.baselines.items()
            for one, other in (names, names[::-1])
        )
    official = [Network(known, name, {}) for name, known in networks.items() if OFFICIAL.items()
                <= known["attention"].items()]  # fmt: skip
    made = Study(design.study, "", design.protocol, {"data": WHOLE}, tuple(official))
    assert all(is_at_scale(claim.scale, made, one) for one in official)
    assert claim.top1.keys() <= {one.model["name"] for one in official}


# Stores.


def test_studies_are_read_with_what_their_networks_came_to(tmp_path: Path) -> None:
    tiny = ("sweep=shuffle", "replicates=2", "sweep.variants={none: {attention: none}}")
    top1 = {("shuffle=on", 0): 60.0, ("shuffle=on", 1): 61.0, ("shuffle=off", 1): 59.0}
    url = store_study(tmp_path, lambda *cell: top1.get(cell), *tiny, known={"train": 24, "test": 9, "classes": ["a"]})
    store_study(tmp_path, by_name({}), *tiny, "study=another", "replicates=1")
    before = (tmp_path / "optuna.db").read_bytes()
    studies, skipped = stored_studies([url, url])
    assert skipped == []
    assert {one.name for one in studies} == {"shuffle-digits-resnet8", "another"}
    assert len(studies) == 2  # a store that is given twice is read once
    mine = next(one for one in studies if one.name != "another")
    known = {one.name: dict(one.top1) for one in mine.networks}
    assert known == {"none": {}, "shuffle=on": {0: 60.0, 1: 61.0}, "shuffle=off": {1: 59.0}}
    (found,) = evidence_of(claim("shuffle"), mine, MARGIN)
    assert found.sentence == (
        "shuffle-digits-resnet8 (digits (24 training images, 1 class); resnet8; 6 epochs): shuffle=on against "
        "shuffle=off, n = 1, +2.00: no verdict (one replicate says nothing about how sure that is)"
    )
    assert (tmp_path / "optuna.db").read_bytes() == before


def test_a_network_that_was_stored_under_two_names_is_one(tmp_path: Path) -> None:
    store_study(tmp_path, by_name({}), "sweep.factors.attention.groups=[4]", "replicates=1", "study=mine")
    renamed = ("sweep.factors.attention.groups=[4]", "sweep.variants={plain: {attention: none}}",
               "sweep.baseline=plain", "study=mine", "replicates=2")  # fmt: skip
    design = make_design(compose_config(["device=cpu", *renamed]))
    store = open_store(f"sqlite:///{tmp_path / 'optuna.db'}", "mine", create=False)
    further = [cell for cell in design.cells() if cell.replicate == 1]
    store.enqueue(further)
    for cell in further:
        store.claim(cell)
        store.finish(cell, {"result": {"top1": 50.0, "epochs": []}, "environment": {}})
    ((mine,), _) = stored_studies([f"sqlite:///{tmp_path / 'optuna.db'}"])
    assert [sorted(one.top1) for one in mine.networks] == [[0, 1], [0, 1]]
    assert [one.seen.n for one in evidence_of(claim("gain"), mine, MARGIN)] == [2]


def test_what_was_given_up_or_was_being_trained_when_its_driver_died_is_not_finished(tmp_path: Path) -> None:
    options = ("sweep.factors.attention.groups=[4]", "replicates=1")
    url = store_study(tmp_path, lambda *_: None, *options)
    store = open_store(url, "groups-digits-resnet8", create=False)
    given_up, claimed = make_design(config_of(*options)).cells()
    store.claim(given_up)
    store.finish(given_up, {"result": {"epochs": []}, "pruned": "below the median", "environment": {}})
    store.claim(claimed)
    ((mine,), _) = stored_studies([url])
    assert [one.top1 for one in mine.networks] == [{}, {}]


def test_what_cannot_be_read_is_named_with_the_reason_and_the_rest_is_read(tmp_path: Path) -> None:
    few = ("sweep.factors.attention.groups=[4]", "replicates=1")
    url = store_study(tmp_path, by_name({}), *few)
    old = open_store(url, "old", create=True)
    old.remember("identity", {"version": 3, "protocol": {}, "objectives": ["top1"]})
    optuna.load_study(storage=url, study_name="old").add_trial(
        optuna.trial.create_trial(value=1.0, user_attrs={"cell": "x"})  # without what cells have today
    )
    optuna.create_study(storage=url, study_name="foreign").add_trial(optuna.trial.create_trial(value=1.0))
    open_store(url, "not-begun", create=True)
    for name, options in (("searched", ["sweep=search", "sweep.objectives=[top1]"]), ("costs", ["sweep=search"])):
        search = make_design(compose_config(["device=cpu", *options, f"study={name}"]))
        store = open_store(url, name, create=True, directions=search.directions)
        store.begin(search)
    store.remember("sweep", "mine")  # a sweep of one's own may be a search, too
    studies, skipped = stored_studies([url])
    assert [one.name for one in studies] == ["groups-digits-resnet8"]
    assert {line.partition(" in ")[0]: line.partition(": ")[2] for line in skipped} == {
        "old": "is stored in format 3; this version of the suite reads format 4",
        "foreign": "is a study of another program",
        "searched": "is a search, whose variants were picked for being good",
        "costs": "is a search, whose variants were picked for being good",
    }


def test_attention_of_a_later_version_is_named(tmp_path: Path) -> None:
    url = store_study(tmp_path, by_name({}), "sweep.factors.attention.groups=[4]", "replicates=1")
    known = open_store(url, "groups-digits-resnet8", create=False).cells()[0]
    cell = {"cell": "new", "variant": "new", "network": {"model": {"name": "resnet8"}, "attention": {"name": "newer"}},
            "replicate": known.replicate}  # fmt: skip
    optuna.load_study(storage=url, study_name="groups-digits-resnet8").add_trial(
        optuna.trial.create_trial(value=1.0, user_attrs=cell)
    )
    studies, (line,) = stored_studies([url])
    assert studies == []
    assert line.endswith("has attention that this version of the suite does not know: newer")


def test_a_store_that_is_not_there_has_no_studies_and_is_not_made(tmp_path: Path) -> None:
    assert stored_studies([f"sqlite:///{tmp_path / 'optuna.db'}"]) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("my notes" * 200)
    with pytest.raises(UsageError, match="is damaged, or something else"):
        stored_studies([f"sqlite:///{tmp_path / 'notes.db'}"])
