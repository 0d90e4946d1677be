from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.config.groups import group_choices
from ablations.config.multiverse import GROUPS, compose_multiverse
from tests.builders.multiverses import multiverse
from tests.wording import refusal, worded


def test_a_protocol_is_a_recipe_backbone_data_set_or_combination() -> None:
    several = multiverse("sweep=shuffle", "recipes=[cifar,resnet20,timm/resnet18,cifar10+cifar+resnet18]", "seed=3")
    chosen = {
        protocol.name: (protocol.config.train.epochs, protocol.config.model.name, protocol.config.data.name)
        for protocol in several.protocols
    }
    assert chosen == {
        "cifar": (30, "resnet8", "digits"),
        "resnet20": (4, "resnet20", "digits"),
        "timm/resnet18": (4, "timm/resnet18", "digits"),
        "cifar10+cifar+resnet18": (30, "resnet18", "cifar10"),
    }
    assert {(protocol.config.sweep.name, protocol.config.seed) for protocol in several.protocols} == {("shuffle", 3)}


def test_each_protocol_equals_a_separate_study() -> None:
    for protocol in multiverse("recipes=[quick,cifar,cifar10+resnet20+cifar]", "train.batch_size=64").protocols:
        assert compose_config(protocol.command.split()) == protocol.config
    named = multiverse("recipes=[quick,timm/resnet18]", "study=mine")
    assert [protocol.config.study for protocol in named.protocols] == ["mine-quick", "mine-timm-resnet18"]
    for protocol in named.protocols:
        assert compose_config(protocol.command.split()) == protocol.config


def test_other_overrides_apply_to_every_protocol() -> None:
    several = multiverse("recipes=[quick,cifar]", "train.batch_size=64", "train.epochs=2")
    assert {(protocol.config.train.batch_size, protocol.config.train.epochs) for protocol in several.protocols} == {
        (64, 2)
    }
    assert len({protocol.config.train.learning_rate for protocol in several.protocols}) == 2


def test_studies_of_different_recipes_have_different_names() -> None:
    assert compose_config(["train=cifar"]).study == "groups-digits-resnet8-cifar"
    assert compose_config(["train=quick"]).study == compose_config([]).study == "groups-digits-resnet8"
    assert compose_config(["train=cifar", "sweep=backbones"]).study == "backbones-digits-cifar"
    assert compose_config(["train=cifar", "study=mine"]).study == "mine"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["recipes=[quick,cifar]"], "groups-digits-resnet8-quick-vs-cifar"),
        (["recipes=[cifar10,cifar100]", "train=cifar"], "groups-resnet8-cifar-cifar10-vs-cifar100"),
        (["recipes=[timm/resnet18,resnet8]"], "groups-digits-timm-resnet18-vs-resnet8"),
        (["recipes=[digits+quick,cifar10+cifar]"], "groups-resnet8-digits+quick-vs-cifar10+cifar"),
        (["recipes=[quick,cifar]", "sweep=backbones"], "backbones-digits-quick-vs-cifar"),
        (["recipes=[quick,cifar]", "study=mine"], "mine"),
        (["recipes=[quick,cifar]", "study=007"], "007"),
        (["recipes=[quick,cifar]", "study="], "groups-digits-resnet8-quick-vs-cifar"),
    ],
)
def test_the_name_of_the_report_contains_the_protocols(arguments: list[str], name: str) -> None:
    assert multiverse(*arguments).name == multiverse(*arguments).config.study == name


@pytest.mark.parametrize("arguments", [[], ["recipes=[]"], ["recipes=[quick,cifar]", "recipes=[]"]])
def test_without_recipes_there_is_one_study(arguments: list[str]) -> None:
    assert compose_multiverse(["sweep=groups", *arguments], None, " ".join) is None


def test_choices_of_different_groups_have_different_names() -> None:
    choices = [choice for group in GROUPS for choice in group_choices()[group]]
    assert len(choices) == len(set(choices))


def test_the_users_file_is_a_protocol_unless_its_name_is_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.yaml").write_text("epochs: 2\n")
    several = compose_multiverse(["recipes=[mine,quick]"], str(tmp_path), " ".join)
    assert several is not None
    assert [protocol.config.train.epochs for protocol in several.protocols] == [2, 4]
    (tmp_path / "train" / "digits.yaml").write_text("epochs: 2\n")
    with pytest.raises(UsageError, match=refusal("recipes=digits", "multiverse.ambiguous", word="digits")):
        compose_multiverse(["recipes=[digits,quick]"], str(tmp_path), " ".join)


NO_OPTION = worded("options.no_such", what="option")


def test_a_missing_config_dir_is_reported_before_protocols_are_resolved() -> None:
    for folder in ("nowhere", "x" * 300):
        with pytest.raises(UsageError, match=refusal(f"--config-dir={folder}", "options.no_folder")):
            compose_multiverse(["recipes=[mine,quick]"], folder, " ".join)


SAME = ("train.epochs=30", "train.batch_size=128", "train.learning_rate=0.4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes=quick"], refusal("recipes=quick", "multiverse.list")),
        (["recipes=[quick]"], refusal("recipes=[quick]", "multiverse.two")),
        (["recipes=[quick,quick]"], refusal("recipes=[quick,quick]", "multiverse.twice", name="quick")),
        (["recipes=[quik,cifar]"], refusal("recipes=quik", "multiverse.unknown", word="quik", near="quick")),
        (
            ["recipes=[cifar10+quik,cifar]"],
            refusal("recipes=cifar10+quik", "multiverse.unknown", word="quik", near="quick"),
        ),
        (["recipes=[cifar10+,cifar]"], refusal("recipes=cifar10+", "multiverse.unnamed")),
        (
            ["recipes=[cifar+quick,digits]"],
            refusal("recipes=cifar+quick", "multiverse.two_choices", kind="recipe", choices="cifar, quick"),
        ),
        (
            ["recipes=[quick,cifar]", "train=imagenet"],
            refusal("train=imagenet", "multiverse.conflict", protocol="quick", choice="train=quick"),
        ),
        (
            ["recipes=[quick,digits]"],
            refusal("recipes=[quick,digits]", "multiverse.same", one="quick", other="digits"),
        ),
        (
            ["recipes=[quick,cifar]", *SAME],
            refusal("recipes=[quick,cifar]", "multiverse.same", one="quick", other="cifar"),
        ),
        (
            ["recipes=[resnet8,resnet20]", "sweep=backbones"],
            refusal("recipes=resnet8", "multiverse.factor", model="resnet8", sweep="backbones"),
        ),
        (["recipes=[quick,cifar]", "sweep=search"], refusal("recipes=[quick,cifar]", "multiverse.no_search")),
        (["recipes=[quick,cifar]", "trian.epochs=3"], refusal("trian.epochs", "options.no_such", what="option")),
        (
            ["recipes=[digits,cifar10]", "data.clutter=3"],
            refusal("data.clutter", "multiverse.under", protocol="cifar10", reason=NO_OPTION),
        ),
        (["recipes=[quick,cifar]", "+recipes=[quick,cifar]"], r"\+recipes=\[quick,cifar\]: "),
        (
            ["recipes=[cifar10+resnet20+cifar,cifar100+resnet20+cifar,tiny_imagenet+resnet20+cifar,imagenette+resnet20]"],
            refusal("study", "multiverse.long", number=4),
        ),
    ],
)  # fmt: skip
def test_invalid_recipes_are_one_message(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        multiverse(*arguments)
    assert re.match(message, str(caught.value)), caught.value


def test_compose_config_refuses_recipes() -> None:
    with pytest.raises(UsageError, match=refusal("recipes=[quick,cifar]", "multiverse.several")):
        compose_config(["recipes=[quick,cifar]"])


def test_shared_options_are_those_of_the_first_protocol() -> None:
    several = multiverse("recipes=[quick,cifar]", "sweep.margin=0.5", "results_dir=x")
    assert several.config == replace(several.protocols[0].config, study=several.name)
