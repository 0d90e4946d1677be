from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.config.groups import group_choices
from ablations.config.multirun import compose_jobs
from tests.wording import refusal


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        (["model=resnet20,resnet56"], ["groups-digits-resnet20", "groups-digits-resnet56"]),
        (["sweep=norm,gate", "train=short"], ["norm-digits-resnet8-short", "gate-digits-resnet8-short"]),
        (["train=quick,short"], ["groups-digits-resnet8", "groups-digits-resnet8-short"]),
        (["study=a,b"], ["a", "b"]),
        (["study=a", "model=resnet20,resnet56"], ["a-model=resnet20", "a-model=resnet56"]),
        (["seed=range(1,3)"], ["groups-digits-resnet8-seed=1", "groups-digits-resnet8-seed=2"]),
        (["+sweep.factors.attention.groups=[1],[2,4]"], [f"groups-digits-resnet8-groups={n}" for n in ("1", "2_4")]),
        (["model=glob(resnet5*)"], ["groups-digits-resnet50", "groups-digits-resnet56"]),
        (["seed=1,2", "recipes=[quick,short]"], [f"groups-digits-resnet8-quick-vs-short-seed={n}" for n in (1, 2)]),
        (["figures=forest,edf"], ["groups-digits-resnet8-figures=forest", "groups-digits-resnet8-figures=edf"]),
        (["model=resnet20"], ["groups-digits-resnet20"]),
    ],
)
def test_each_study_has_a_distinct_name(typed: Sequence[str], names: Sequence[str]) -> None:
    jobs = compose_jobs(typed, None)
    assert [job.study for job in jobs] == names


def test_combinations_are_in_hydras_order_and_equal_separate_studies() -> None:
    jobs = compose_jobs(["model=resnet20,resnet56", "replicates=3", "train.epochs=1,2", "train=short"], None)
    assert [job.own for job in jobs] == [
        (f"model={model}", f"train.epochs={epochs}") for model in ("resnet20", "resnet56") for epochs in (1, 2)
    ]
    for job in jobs:
        config = compose_config(job.overrides)
        assert config.study == job.study
        assert (f"model={config.model.name}", f"train.epochs={config.train.epochs}") == job.own
        assert (config.replicates, config.train.batch_size) == (3, compose_config(["train=short"]).train.batch_size)


def test_a_command_without_lists_is_one_study() -> None:
    (job,) = compose_jobs(["sweep.baseline=groups=4", "seed=1", "seed=2"], None)
    assert (job.own, job.overrides) == ((), ("sweep.baseline=groups=4", "seed=2"))


def test_glob_matches_choices_in_the_users_folder(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    for name in ("mine1", "mine2"):
        (tmp_path / "sweep" / f"{name}.yaml").write_text("question: Mine?\nvariants: {none: {attention: none}}\n")
    assert [job.own for job in compose_jobs(["sweep=glob(mine*)"], str(tmp_path))] == [
        ("sweep=mine1",),
        ("sweep=mine2",),
    ]
    assert len(compose_jobs(["sweep=glob(*)"], None)) == len(group_choices()["sweep"])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["model=resnet8,resnetx"], refusal("model=resnetx", "options.no_such", what="model", near="resnet8")),
        (["train.epochs=1,many"], refusal("train.epochs=many", "options.no_whole_number")),
        (["seed=interval(1,2)"], refusal("seed=interval(1,2)", "options.not_listed")),
        (["model=glob(x*)"], refusal("model=glob(x*)", "options.no_match")),
        (["study=a,a"], refusal("study=a: study=a and study=a", "options.same_name")),
    ],
)
def test_an_error_in_one_study_is_raised_for_all(typed: Sequence[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        compose_jobs(typed, None)
    assert re.match(message, str(caught.value))
