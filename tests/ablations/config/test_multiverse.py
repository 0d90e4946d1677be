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


def test_a_protocol_is_named_by_a_recipe_a_backbone_a_data_set_or_several_of_them() -> None:
    made = multiverse("sweep=shuffle", "recipes=[cifar,resnet20,timm/resnet18,cifar10+cifar+resnet18]", "seed=3")
    chosen = {
        one.name: (one.config.train.epochs, one.config.model.name, one.config.data.name) for one in made.protocols
    }
    assert chosen == {
        "cifar": (30, "resnet8", "digits"),
        "resnet20": (4, "resnet20", "digits"),
        "timm/resnet18": (4, "timm/resnet18", "digits"),
        "cifar10+cifar+resnet18": (30, "resnet18", "cifar10"),
    }
    assert {(one.config.sweep.name, one.config.seed) for one in made.protocols} == {("shuffle", 3)}


def test_each_protocol_is_the_study_that_its_own_words_make_alone() -> None:
    for protocol in multiverse("recipes=[quick,cifar,cifar10+resnet20+cifar]", "train.batch_size=64").protocols:
        assert compose_config(protocol.command.split()) == protocol.config
    named = multiverse("recipes=[quick,timm/resnet18]", "study=mine")
    assert [one.config.study for one in named.protocols] == ["mine-quick", "mine-timm-resnet18"]
    for protocol in named.protocols:
        assert compose_config(protocol.command.split()) == protocol.config


def test_options_that_are_typed_hold_under_every_protocol() -> None:
    made = multiverse("recipes=[quick,cifar]", "train.batch_size=64", "train.epochs=2")
    assert {(one.config.train.batch_size, one.config.train.epochs) for one in made.protocols} == {(64, 2)}
    assert len({one.config.train.learning_rate for one in made.protocols}) == 2


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
def test_the_report_is_named_by_the_question_and_the_protocols(arguments: list[str], name: str) -> None:
    assert multiverse(*arguments).name == multiverse(*arguments).config.study == name


@pytest.mark.parametrize("arguments", [[], ["recipes=[]"], ["recipes=[quick,cifar]", "recipes=[]"]])
def test_without_protocols_there_is_one_study(arguments: list[str]) -> None:
    assert compose_multiverse(["sweep=groups", *arguments], None, " ".join) is None


def test_a_choice_is_of_one_group_alone() -> None:
    choices = [choice for group in GROUPS for choice in group_choices()[group]]
    assert len(choices) == len(set(choices))


def test_a_file_of_ones_own_is_a_protocol_unless_its_name_is_taken_in_another_group(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.yaml").write_text("epochs: 2\n")
    made = compose_multiverse(["recipes=[mine,quick]"], str(tmp_path), " ".join)
    assert made is not None
    assert [one.config.train.epochs for one in made.protocols] == [2, 4]
    (tmp_path / "train" / "digits.yaml").write_text("epochs: 2\n")
    with pytest.raises(UsageError, match=refusal("recipes=digits", "multiverse.ambiguous", word="digits")):
        compose_multiverse(["recipes=[digits,quick]"], str(tmp_path), " ".join)


NO_OPTION = worded("options.no_such", what="option")


def test_a_folder_that_is_not_there_is_named_before_protocols_are_looked_up_in_it() -> None:
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
def test_what_cannot_be_compared_is_one_message(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        multiverse(*arguments)
    assert re.match(message, str(caught.value)), caught.value


def test_one_configuration_is_not_made_of_several_protocols() -> None:
    with pytest.raises(UsageError, match=refusal("recipes=[quick,cifar]", "multiverse.several")):
        compose_config(["recipes=[quick,cifar]"])


def test_what_is_no_protocols_own_is_that_of_the_first() -> None:
    made = multiverse("recipes=[quick,cifar]", "sweep.margin=0.5", "results_dir=x")
    assert made.config == replace(made.protocols[0].config, study=made.name)
