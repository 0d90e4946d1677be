"""`plan` lists degenerate modules, `run` refuses them unless configured otherwise, and a search skips them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations import cli
from ablations.common.errors import UsageError
from ablations.plan import plan
from ablations.run import run
from ablations.storage.study import open_store
from tests.builders.markdown import unescaped
from tests.builders.searches import FormulaLauncher
from tests.builders.searches import Study as SearchStudy
from tests.conftest import TINY
from tests.wording import refusal, worded

STUDY = "groups-digits-resnet8"
GC16 = ("sweep.factors={attention: [sge, gc]}", "attention=gc", "attention.reduction=16", "sweep.baseline=none")
SMALL = (*TINY[1:], "train.epochs=1", "replicates=1", "device=cpu", "tracking.enabled=false")
WHERE = worded("degenerate.where", module="gc", places="layer1.0.sa", model="resnet8", stage=1, channels=16, side=20)


def call(verb: str, folder: Path, *overrides: str) -> int:
    acts = {"run": run, "plan": plan}
    return cli.main(verb, "", acts[verb], [*GC16, *SMALL, *overrides, f"results_dir={folder}"])


def test_run_refuses_degenerate_modules_and_trains_and_stores_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", tmp_path / "new") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: degenerate=refuse: " + worded("degenerate.refused", variants="1 variant has"))
    assert f"\n  {WHERE}" in error
    assert worded("degenerate.reduction", most=4) in error
    assert error.count("\n") == 2
    assert not (tmp_path / "new").exists()


def test_plan_lists_degenerate_modules_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", tmp_path) == 0
    text = unescaped(tmp_path / STUDY / "plan.md")
    assert f"- Degenerate: {WHERE}" in text
    assert f"- {worded('degenerate.refuses')}" in text
    assert worded("degenerate.plan", module="gc") in capsys.readouterr().out
    assert call("plan", tmp_path, "degenerate=warn") == 0
    assert f"- {worded('degenerate.trains')}" in unescaped(tmp_path / STUDY / "plan.md")
    assert call("plan", tmp_path, "attention.reduction=4") == 0
    assert "Degenerate" not in unescaped(tmp_path / STUDY / "plan.md")


def test_a_pilot_is_refused_like_a_run(tmp_path: Path) -> None:
    assert call("plan", tmp_path, "plan.pilot=1") == 2
    assert not (tmp_path / "optuna.db").exists()


def test_with_degenerate_warn_a_study_is_trained_and_later_read_without_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", tmp_path, "degenerate=warn") == 0
    assert capsys.readouterr().out.count(f"Degenerate: {WHERE}") == 1
    assert call("run", tmp_path) == 0  # everything is already trained
    assert "Degenerate" not in capsys.readouterr().out
    assert call("run", tmp_path, "replicates=2") == 2  # new cells are refused
    cells = open_store(f"sqlite:///{tmp_path / 'optuna.db'}", STUDY, create=False).cells()
    assert {cell.replicate for cell in cells} == {0}


SPACE = "sweep.factors={attention: {gate: [sigmoid, hard_sigmoid], gate_bias: [1, 20]}}"


def test_a_search_skips_degenerate_combinations(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, SPACE)
    study.drive(FormulaLauncher(study.config))
    assert sorted(study.picked()) == ["gate=hard_sigmoid, gate_bias=1", "gate=sigmoid, gate_bias=1"]
    assert study.last.ending == worded("search.exhausted")


def test_with_degenerate_warn_a_search_picks_degenerate_combinations(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, SPACE, "degenerate=warn")
    study.drive(FormulaLauncher(study.config))
    assert len(study.picked()) == 4


def test_a_search_with_only_degenerate_combinations_is_refused(tmp_path: Path) -> None:
    space = "sweep.factors={attention: {gate: [sigmoid, hard_sigmoid]}}"
    study = SearchStudy(tmp_path, space, "attention.gate_bias=20", prunes=True)
    with pytest.raises(UsageError, match=refusal("degenerate=refuse", "degenerate.searched")) as refused:
        study.schedule(study.store).check()
    assert str(refused.value).count("sa at layer1.0.sa of resnet8") == 1
