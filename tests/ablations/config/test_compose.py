from __future__ import annotations

from pathlib import Path

import pytest

from ablations.common.errors import UsageError
from ablations.config import DigitsConfig
from ablations.config.compose import compose_config
from ablations.config.groups import default_choices, group_choices, sweep_questions


def test_without_overrides_the_main_study_is_composed() -> None:
    config = compose_config([])
    assert (config.sweep.name, config.study, config.replicates) == ("groups", "groups-digits-resnet8", 3)
    assert isinstance(config.data, DigitsConfig)
    assert config.sweep.factors == {"attention": {"groups": [1, 2, 4, 8]}}


def test_groups_and_options_are_taken_from_the_command_line() -> None:
    config = compose_config(["model=resnet20", "train.epochs=3", "data.clutter=1", "attention.norm=layer", "seed=7"])
    assert (config.model.name, config.train.epochs, config.data.clutter) == ("resnet20", 3, 1)  # type: ignore[attr-defined]
    assert (config.attention.norm, config.seed) == ("layer", 7)  # type: ignore[attr-defined]
    assert config.study == "groups-digits-resnet20"


def test_replicates_are_a_number_or_found_out_with_a_limit() -> None:
    assert compose_config(["replicates=7"]).replicates == 7
    assert compose_config([]).replicates_max == 32
    config = compose_config(["replicates=auto", "replicates.max=12"])
    assert (config.replicates, config.replicates_max) == ("auto", 12)


def test_a_sweep_says_which_difference_matters() -> None:
    assert compose_config([]).sweep.margin == 0.2
    assert compose_config(["sweep.margin=1"]).sweep.margin == 1.0


def test_factors_and_variants_of_ones_own_need_no_file() -> None:
    config = compose_config(
        ["sweep.factors={}", "sweep.factors.attention.norm=[layer,batch]", "sweep.variants.off.attention=none",
         "~sweep.variants.none", "sweep.baseline=off"]
    )  # fmt: skip
    assert config.sweep.variants == {"off": {"attention": "none"}}
    assert config.sweep.factors["attention"]["norm"] == ["layer", "batch"]


@pytest.mark.parametrize(
    "storage", ["postgresql://me:pw@host:5432/db?sslmode=require", "sqlite:///my results/optuna.db", "'a, b'"]
)
def test_text_that_can_mean_nothing_else_needs_no_quotes(storage: str) -> None:
    assert compose_config([f"storage={storage}"]).storage == storage.strip("'")
    assert compose_config(["sweep.baseline=groups=4"]).sweep.baseline == "groups=4"


def test_a_sweep_of_ones_own_is_a_file_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        "question: Is it the shuffle?\nfactors: {attention: {shuffle: [true, false]}}\nbaseline: shuffle=on\n"
    )
    config = compose_config(["sweep=mine", "attention.groups=4"], str(tmp_path))
    assert (config.sweep.name, config.sweep.question) == ("mine", "Is it the shuffle?")
    assert "mine" in group_choices(str(tmp_path))["sweep"]


def test_every_default_is_a_choice_and_every_sweep_says_its_question() -> None:
    choices = group_choices()
    assert all(choice in choices[group] for group, choice in default_choices().items())
    assert all(question.endswith("?") for question in sweep_questions().values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep=group"], r"sweep=group: there is no such sweep; did you mean groups\?.*\n.*How many groups"),
        (["data=digit"], r"data=digit: there is no such data; did you mean digits\?"),
        (["model=resnet19"], r"model=resnet19: there is no such model; did you mean resnet18"),
        (["model=tim/resnet50"], r"model=tim/resnet50: there is no such model; did you mean resnet50 .*timm/<name>"),
        (["train="], r"train=: there is no such train; valid: cifar, imagenet, quick"),
        (["epochs=3"], r"epochs: there is no such option; did you mean train.epochs\?"),
        (
            ["attention=se", "attention.groups=3"],
            r"attention.groups: attention se has no such knob; .*valid: .*reduction",
        ),
        (["attention.groups=four"], r"attention.groups=four: is no number; a number is, and so is auto"),
        (
            ["attention.branches=neither"],
            r"attention.branches=neither: is not known; valid: both, channel, spatial",
        ),
        (["attention.gate_bias=99"], r"attention.gate_bias=99.0: must be at most 20"),
        (["attention.group=3"], r"attention.group: attention sa has no such knob; did you mean attention.groups"),
        (["hydra.run.dir=x"], r"hydra.run.dir: there is no such option"),
        (["train.epochs=x"], r"train.epochs=x: is no whole number"),
        (["train.epochs=1.5"], r"train.epochs=1.5: is no whole number"),
        (["train.epochs=0"], r"train.epochs=0: must be at least 1"),
        (["replicates=0"], r"replicates=0: must be at least 1"),
        (["replicates=99999999999999999999"], r"replicates=9+: must be at most 10000"),
        (["train.learning_rate=nan"], r"train.learning_rate=nan: must be at least"),
        (["replicates=many"], r"replicates=many: is no number; a number is, and so is auto"),
        (["replicates=1.5"], r"replicates=1.5: is no whole number"),
        (["replicates=true"], r"replicates=true: is no whole number"),
        (["replicates=Auto"], r"replicates=Auto: is no number; a number is, and so is auto"),
        (["replicates.max=1"], r"replicates.max=1: must be at least 2"),
        (["replicates.max=auto"], r"replicates.max=auto: is no whole number"),
        (["replicates.max=10001"], r"replicates.max=10001: must be at most 10000"),
        (["replicates_max=8"], r"replicates_max: there is no such option; did you mean replicates.max"),
        (["replicates.maximum=8"], r"replicates.maximum: there is no such option; did you mean replicates.max"),
        (["sweep.margin=0"], r"sweep.margin=0.0: must be more than 0"),
        (["sweep.margin=-0.1"], r"sweep.margin=-0.1: must be more than 0"),
        (["sweep.margin=nan"], r"sweep.margin=nan: must be more than 0"),
        (["plan.pilot=101"], r"plan.pilot=101: must be at most 100"),
        (["train.precision=fp16"], r"train.precision=fp16: is not known; did you mean bf16"),
        (["device=gpu"], r"device=gpu: is not known; .*valid: auto, cpu, cuda"),
        (["train.epochs=1,2"], r"train.epochs=1,2: takes one value; a list is written \[1,2\]"),
        (["groups"], r"groups: is not understood; options are given as name=value"),
        (["a b=3"], r"a b=3: is not understood"),
        (["study='open"], r"study='open: is not understood"),
        (["data.name=cifar"], r"data.name=cifar: is chosen with data=cifar"),
        (["~train.epochs"], r"~train.epochs: only entries of sweep.factors and sweep.variants can be removed"),
        (["+sweep=groups"], r"\+sweep=groups: a group is chosen with sweep=choice; did you mean groups"),
        (["sweep.variants=3"], r"sweep.variants=3: is given as settings"),
        (["data.flip=maybe"], r"data.flip=maybe: is neither true nor false"),
    ],
)
def test_what_is_not_understood_is_said_of_the_override_that_has_it(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)^" + message):
        compose_config(arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question: [", "cannot be read as YAML"),
        ("\tquestion: x", "cannot be read as YAML"),
        ("question: a\nquestion: b", "cannot be read as YAML: .*duplicate"),
        ("\x00\x01", "cannot be read as YAML"),
        ("", "has no settings"),
        ("- 1", "has no settings"),
        ("qestion: x", r"sweep has no option qestion; valid: name, question"),
        ("factors: 7", "factors=7: is given as settings"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_of_the_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sweep").mkdir()
    path = tmp_path / "sweep" / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"{path}: {message}"):
        compose_config(["sweep=mine"], str(tmp_path))
    assert compose_config([], str(tmp_path)).sweep.name == "groups"  # a file that is not chosen is no matter
    assert sweep_questions(str(tmp_path))["groups"].startswith("How many groups")


def test_a_file_may_not_hide_a_sweep_of_the_suite(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "groups.yaml").write_text("question: Mine?")
    with pytest.raises(UsageError, match="groups is the name of a sweep of the suite; give the file another"):
        compose_config(["sweep=groups"], str(tmp_path))


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--config-dir=/nowhere: there is no such folder"):
        compose_config([], "/nowhere")
