from __future__ import annotations

from pathlib import Path

import pytest

from ablations.common.errors import UsageError
from ablations.config import DigitsConfig
from ablations.config.compose import compose_config
from ablations.config.groups import default_choices, group_choices, sweep_questions
from tests.wording import refusal, worded


def test_without_overrides_the_default_study_is_composed() -> None:
    config = compose_config([])
    assert (config.sweep.name, config.study, config.replicates) == ("groups", "groups-digits-resnet8", 8)
    assert isinstance(config.data, DigitsConfig)
    assert config.sweep.factors == {"attention": {"groups": [1, 2, 4, 8]}}


def test_overrides_select_groups_and_set_options() -> None:
    config = compose_config(["model=resnet20", "train.epochs=3", "data.clutter=1", "attention.norm=layer", "seed=7"])
    assert (config.model.name, config.train.epochs, config.data.clutter) == ("resnet20", 3, 1)  # type: ignore[attr-defined]
    assert (config.attention.norm, config.seed) == ("layer", 7)  # type: ignore[attr-defined]
    assert config.study == "groups-digits-resnet20"


def test_replicates_are_a_number_or_auto_with_a_maximum() -> None:
    assert compose_config(["replicates=7"]).replicates == 7
    assert compose_config([]).replicates_max == 32
    config = compose_config(["replicates=auto", "replicates.max=12"])
    assert (config.replicates, config.replicates_max) == ("auto", 12)


def test_the_margin_of_a_sweep_is_a_number_or_auto() -> None:
    assert compose_config([]).sweep.margin == "auto"
    assert compose_config(["sweep.margin=1"]).sweep.margin == 1
    assert compose_config(["sweep.margin=0.3"]).sweep.margin == 0.3


def test_the_default_metric_of_verdicts_is_top_1() -> None:
    assert compose_config([]).judge.metric == "top1"
    assert compose_config(["judge.metric=test_loss"]).judge.metric == "test_loss"


def test_factors_and_variants_can_be_set_on_the_command_line() -> None:
    config = compose_config(
        ["sweep.factors={}", "sweep.factors.attention.norm=[layer,batch]", "sweep.variants.off.attention=none",
         "~sweep.variants.none", "sweep.baseline=off"]
    )  # fmt: skip
    assert config.sweep.variants == {"off": {"attention": "none"}}
    assert config.sweep.factors["attention"]["norm"] == ["layer", "batch"]


@pytest.mark.parametrize(
    "storage", ["postgresql://me:pw@host:5432/db?sslmode=require", "sqlite:///my results/optuna.db", "'a, b'"]
)
def test_unambiguous_text_needs_no_quotes(storage: str) -> None:
    assert compose_config([f"storage={storage}"]).storage == storage.strip("'")
    assert compose_config(["sweep.baseline=groups=4"]).sweep.baseline == "groups=4"


@pytest.mark.parametrize(
    "value", ["export=csv,cards", "figures=forest,edf", "bench.precision=fp32,bf16", "against='groups=4','groups=2'"]
)
def test_list_options_accept_comma_separated_values_without_brackets(value: str) -> None:
    key, _, text = value.partition("=")
    assert compose_config([value]) == compose_config([f"{key}=[{text}]"])


@pytest.mark.parametrize("value", ["export=csv", "bench.precision=bf16", "sweep.objectives=top1"])
def test_list_options_accept_a_single_value_without_brackets(value: str) -> None:
    key, _, text = value.partition("=")
    assert compose_config([value]) == compose_config([f"{key}=[{text}]"])


def test_the_users_sweep_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        "question: Is it the shuffle?\nfactors: {attention: {shuffle: [true, false]}}\nbaseline: shuffle=on\n"
    )
    config = compose_config(["sweep=mine", "attention.groups=4"], str(tmp_path))
    assert (config.sweep.name, config.sweep.question) == ("mine", "Is it the shuffle?")
    assert "mine" in group_choices(str(tmp_path))["sweep"]


def test_defaults_are_valid_choices_and_sweeps_have_questions() -> None:
    choices = group_choices()
    assert all(choice in choices[group] for group, choice in default_choices().items())
    assert all(question.endswith("?") for question in sweep_questions().values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["sweep=group"],
            refusal("sweep=group", "options.no_such", what="sweep", near="groups") + ".*\n.*How many groups",
        ),
        (["data=digit"], refusal("data=digit", "options.no_such", what="data", near="digits")),
        (["model=resnet19"], refusal("model=resnet19", "options.no_such", what="model", near="resnet18")),
        (
            ["model=tim/resnet50"],
            refusal("model=tim/resnet50", "options.no_such", what="model", near="resnet50") + ".*timm/<name>",
        ),
        (
            ["train="],
            refusal("train=", "options.no_such", what="train", valid="cifar, cifar_cpu, imagenet, long, modern, quick"),
        ),
        (
            ["launcher.address=auto"],
            refusal(
                "launcher.address=auto",
                "launcher.of_another",
                owner="ray",
                then=("launcher=auto", ": launcher.workers"),
            ),
        ),
        (
            ["launcher=serial", "launcher.workers=2"],
            refusal("launcher.workers=2", "launcher.of_another", owner="auto", then=("launcher=ray", ": none")),
        ),
        (
            ["launcher=ray", "launcher.worker=2"],
            refusal("launcher.worker", "options.no_such", what="option", near="launcher.workers"),
        ),
        (["epochs=3"], refusal("epochs", "options.no_such", what="option", near="train.epochs")),
        (
            ["attention=se", "attention.groups=3"],
            refusal("attention.groups", "knobs.has_no_such", attention="se", then="reduction"),
        ),
        (["attention.groups=four"], refusal("attention.groups=four", "options.word_or_integer", word="auto")),
        (
            ["attention.branches=neither"],
            refusal("attention.branches=neither", "options.unknown", valid="both, channel, spatial"),
        ),
        (["attention.gate_bias=99"], refusal("attention.gate_bias=99.0", "options.over", most=20)),
        (
            ["attention.group=3"],
            refusal("attention.group", "knobs.has_no_such", attention="sa", near="attention.groups"),
        ),
        (["hydra.run.dir=x"], refusal("hydra.run.dir", "options.no_such", what="option")),
        (["train.epochs=x"], refusal("train.epochs=x", "options.no_whole_number")),
        (["train.epochs=1.5"], refusal("train.epochs=1.5", "options.no_whole_number")),
        (["train.epochs=0"], refusal("train.epochs=0", "options.below", least=1)),
        (["replicates=0"], refusal("replicates=0", "options.below", least=1)),
        (["replicates=99999999999999999999"], refusal("replicates=99999999999999999999", "options.over", most=10000)),
        (["train.learning_rate=nan"], refusal("train.learning_rate=nan", "options.below", least="")),
        (["replicates=many"], refusal("replicates=many", "options.word_or_integer", word="auto")),
        (["replicates=1.5"], refusal("replicates=1.5", "options.no_whole_number")),
        (["replicates=true"], refusal("replicates=true", "options.no_whole_number")),
        (["replicates=Auto"], refusal("replicates=Auto", "options.word_or_integer", word="auto")),
        (["replicates.max=1"], refusal("replicates.max=1", "options.below", least=2)),
        (["replicates.max=auto"], refusal("replicates.max=auto", "options.no_whole_number")),
        (["replicates.max=10001"], refusal("replicates.max=10001", "options.over", most=10000)),
        (["replicates_max=8"], refusal("replicates_max", "options.no_such", what="option", near="replicates.max")),
        (
            ["replicates.maximum=8"],
            refusal("replicates.maximum", "options.no_such", what="option", near="replicates.max"),
        ),
        (["sweep.margin=0"], refusal("sweep.margin=0", "options.not_above", above=0)),
        (["sweep.margin=much"], refusal("sweep.margin=much", "options.word_or_number", word="auto")),
        (["sweep.margin=true"], refusal("sweep.margin=true", "options.no_number")),
        (["sweep.margin=[1]"], refusal("sweep.margin=[1]", "options.no_number")),
        (["judge.metric=top-1"], refusal("judge.metric=top-1", "options.unknown", near="top1")),
        (
            ["judge.metric=train_time_ratio"],
            refusal("judge.metric=train_time_ratio", "options.unknown", valid="top1, top5, test_loss, ece"),
        ),
        (["sweep.margin=-0.1"], refusal("sweep.margin=-0.1", "options.not_above", above=0)),
        (["sweep.margin=nan"], refusal("sweep.margin=nan", "options.not_above", above=0)),
        (["plan.pilot=101"], refusal("plan.pilot=101", "options.over", most=100)),
        (["train.precision=fp16"], refusal("train.precision=fp16", "options.unknown", near="bf16")),
        (["device=gpu"], refusal("device=gpu", "options.unknown", valid="auto, cpu, cuda")),
        (["train.epochs=1,2"], refusal("train.epochs=1,2", "options.takes_one", like="[1,2]")),
        (["groups"], refusal("groups", "options.not_understood")),
        (["a b=3"], refusal("a b=3", "options.not_understood")),
        (["study='open"], refusal("study='open", "options.not_understood")),
        (["data.name=cifar"], refusal("data.name=cifar", "options.chosen", how="data=cifar")),
        (["~train.epochs"], refusal("~train.epochs", "options.removed")),
        (["+sweep=groups"], refusal("+sweep=groups", "options.group_chosen", how="sweep=choice", near="groups")),
        (["sweep.variants=3"], refusal("sweep.variants=3", "options.as_settings")),
        (["data.flip=maybe"], refusal("data.flip=maybe", "options.neither")),
    ],
)
def test_errors_name_the_invalid_override(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)^" + message):
        compose_config(arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question: [", worded("groups.no_yaml")),
        ("\tquestion: x", worded("groups.no_yaml")),
        ("question: a\nquestion: b", worded("groups.no_yaml") + ": .*duplicate"),
        ("\x00\x01", worded("groups.no_yaml")),
        ("", worded("groups.no_settings")),
        ("- 1", worded("groups.no_settings")),
        (
            "qestion: x",
            worded("groups.no_option", group="sweep", option="qestion")
            + "; "
            + worded("errors.valid", names="name, question"),
        ),
        ("factors: 7", refusal("factors=7", "options.as_settings")),
    ],
)
def test_errors_name_the_invalid_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sweep").mkdir()
    path = tmp_path / "sweep" / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"{path}: {message}"):
        compose_config(["sweep=mine"], str(tmp_path))
    assert compose_config([], str(tmp_path)).sweep.name == "groups"  # files that are not selected are ignored
    assert sweep_questions(str(tmp_path))["groups"].startswith("How many groups")


def test_a_file_with_the_name_of_a_built_in_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "groups.yaml").write_text("question: Mine?")
    with pytest.raises(UsageError, match=worded("groups.hidden", name="groups")):
        compose_config(["sweep=groups"], str(tmp_path))


def test_a_missing_config_dir_is_refused() -> None:
    with pytest.raises(UsageError, match=refusal("--config-dir=/nowhere", "options.no_folder")):
        compose_config([], "/nowhere")
